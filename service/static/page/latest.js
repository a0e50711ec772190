/** Work on the newest input only: what came while it was busy is skipped, not queued. */

export class Latest {
  /**
   * @param {(input: any) => Promise<void>} work must not fail; a second call never begins before
   *   the first has ended.
   */
  constructor(work) {
    this.work = work;
    this.waiting = null;
    this.busy = false;
  }

  /** Works on `input` now, or as soon as what runs has ended, unless a newer one comes. */
  push(input) {
    this.waiting = { input };
    if (!this.busy) this.run();
  }

  /** Forgets what waits. */
  clear() {
    this.waiting = null;
  }

  async run() {
    this.busy = true;
    while (this.waiting) {
      const { input } = this.waiting;
      this.waiting = null;
      await this.work(input);
    }
    this.busy = false;
  }
}

/** Frames a second over the last few seconds. */
export class Pace {
  constructor() {
    this.moments = [];
  }

  /** Counts a frame and tells the pace, or null while there are too few. */
  tick(now = performance.now()) {
    this.moments = [...this.moments.filter((moment) => now - moment < 2000), now];
    const seconds = (now - this.moments[0]) / 1000;
    return this.moments.length > 2 ? (this.moments.length - 1) / seconds : null;
  }
}
