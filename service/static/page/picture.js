/** The picture: the photo, the scene drawn again over it, and where each object lies. */

import { h, s, stepClass } from "./dom.js";

// Differences are dark; this much brighter they show what is small too.
export const BRIGHTER = 4;

export class Picture {
  /**
   * @param {HTMLElement} stage to be filled.
   * @param {{selected: (id: number|null) => void, wiped: (share: number) => void}} told of what is
   *   done to the picture.
   */
  constructor(stage, told) {
    this.told = told;
    this.stage = stage;
    this.placeholder = h("p", { class: "placeholder" }, "Open a photo of the table, or choose an example.");
    this.canvas = h("canvas", { role: "img", "aria-label": "The picture" });
    this.context = this.canvas.getContext("2d");
    this.svg = s("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
    this.tags = h("div", { role: "group", "aria-label": "Objects in the picture" });
    this.line = h("div", { class: "wipe-line", hidden: true });
    this.frame = h("div", { class: "frame", hidden: true }, this.canvas, this.svg, this.tags, this.line);
    stage.replaceChildren(this.placeholder, this.frame);
    this.layer = "outlines";
    this.share = 0.5;
    this.photo = this.drawn = this.difference = null;
    this.objects = [];
    this.line.addEventListener("pointerdown", (event) => this.line.setPointerCapture(event.pointerId));
    this.line.addEventListener("pointermove", (event) => {
      if (!this.line.hasPointerCapture(event.pointerId)) return;
      const { left, width } = this.frame.getBoundingClientRect();
      this.told.wiped(Math.min(1, Math.max(0, (event.clientX - left) / width)));
    });
    new ResizeObserver(() => this.paint()).observe(stage);
  }

  /**
   * Shows a photo and what goes with it.
   *
   * @param {ImageBitmap} photo
   * @param region of it that the network looks at, px.
   * @param {string} words that say what it shows.
   */
  show(photo, region, words) {
    Object.assign(this, { photo, region, drawn: null, difference: null });
    this.placeholder.hidden = true;
    this.frame.hidden = false;
    const { width, height } = photo;
    this.frame.style.aspectRatio = `${width} / ${height}`;
    this.frame.style.width = width >= height ? "100%" : "auto";
    this.frame.style.height = width >= height ? "auto" : "100%";
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.describe(words);
    this.paint();
  }

  /** Says what the picture shows. */
  describe(words) {
    this.canvas.setAttribute("aria-label", words);
  }

  /** The scene drawn again, and its difference from the photo; either may be null. */
  compare(drawn, difference) {
    Object.assign(this, { drawn, difference });
    this.paint();
  }

  /** Whether something is being waited for. */
  wait(waiting) {
    this.stage.dataset.waiting = String(waiting);
  }

  /** Shows `outlines`, `wipe` or `difference`. */
  choose(layer) {
    this.layer = layer;
    this.paint();
  }

  /** How much of the photo shows, from the left, in [0, 1]. */
  wipe(share) {
    this.share = share;
    this.paint();
  }

  /**
   * Marks objects.
   *
   * @param {{id: number, label: string, path: string, box: any}[]} objects in the order of the steps.
   * @param {string[]} truths paths of what is there in truth, when that is known.
   */
  mark(objects, truths = []) {
    this.objects = objects;
    this.svg.replaceChildren(
      ...objects.map(({ id, path }, i) =>
        s("g", { class: stepClass(i), "data-id": id }, s("path", { class: "halo", d: path }), s("path", { class: "outline", d: path })),
      ),
      ...truths.map((path) => s("path", { class: "truth", d: path })),
    );
    this.retag();
    this.select(this.selected ?? null);
  }

  /** Makes one object stand out, or none. */
  select(id) {
    this.selected = id;
    for (const group of this.svg.querySelectorAll("g")) {
      group.dataset.selected = String(id !== null && Number(group.dataset.id) === id);
    }
    for (const tag of this.tags.children) {
      tag.setAttribute("aria-pressed", String(id !== null && Number(tag.dataset.id) === id));
    }
  }

  /** The labels; kept while the objects stay, so that the focus does. */
  retag() {
    const { width = 1, height = 1 } = this.photo ?? {};
    while (this.tags.children.length > this.objects.length) this.tags.lastChild.remove();
    while (this.tags.children.length < this.objects.length) {
      this.tags.append(
        h("button", {
          type: "button",
          onclick: (event) => {
            const id = Number(event.currentTarget.dataset.id);
            this.told.selected(this.selected === id ? null : id);
          },
        }),
      );
    }
    this.objects.forEach(({ id, label, box }, i) => {
      const tag = this.tags.children[i];
      const above = box.y > 0.07 * height;
      const x = Math.min(0.93, Math.max(0.07, (box.x + box.width / 2) / width));
      const y = Math.min(0.99, Math.max(0.01, (above ? box.y : box.y + box.height) / height));
      tag.className = `tag ${stepClass(i)}${above ? "" : " below-it"}`;
      tag.dataset.id = String(id);
      tag.style.left = `${100 * x}%`;
      tag.style.top = `calc(${100 * y}% ${above ? "-" : "+"} 4px)`;
      if (tag.textContent !== label) tag.textContent = label;
    });
  }

  paint() {
    if (!this.photo) return;
    const { width, height } = this.frame.getBoundingClientRect();
    const scale = Math.min(devicePixelRatio || 1, 2);
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (!w || !h) return;
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
    const { context, photo, region } = this;
    const [sx, sy] = [w / photo.width, h / photo.height];
    const within = [region.x * sx, region.y * sy, region.width * sx, region.height * sy];
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, w, h);
    context.drawImage(photo, 0, 0, w, h);
    // What the network does not look at.
    context.fillStyle = "rgb(0 0 0 / 0.55)";
    context.beginPath();
    context.rect(0, 0, w, h);
    context.rect(...within);
    context.fill("evenodd");
    const wiping = this.layer === "wipe" && this.drawn;
    if (wiping) {
      context.save();
      context.beginPath();
      context.rect(this.share * w, 0, w, h);
      context.clip();
      context.drawImage(this.drawn, ...within);
      context.restore();
    } else if (this.layer === "difference" && this.difference) {
      // Drawn over itself, light adds up.
      context.fillStyle = "#000";
      context.fillRect(...within);
      context.globalCompositeOperation = "lighter";
      for (let i = 0; i < BRIGHTER; i += 1) context.drawImage(this.difference, ...within);
      context.globalCompositeOperation = "source-over";
    }
    this.line.hidden = !wiping;
    this.line.style.left = `${100 * this.share}%`;
    this.svg.style.visibility = this.layer === "outlines" ? "visible" : "hidden";
    this.tags.style.visibility = this.svg.style.visibility;
  }
}
