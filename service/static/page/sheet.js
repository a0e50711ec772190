/** A sheet to draw on: white on black, with a pointer or with the keyboard. */

import { h, s, stepClass } from "./dom.js";

const INK = "#fff";
const PAPER = "#000";
const STEP = 0.02; // of the sheet's side an arrow key moves the pen; five times with Shift
const RESOLUTION = 8; // px of the sheet to one that the network sees
const STAMP = 0.13; // of the sheet's side: half the size of a sprite

export const TOOLS = ["pen", "square", "disc", "triangle"];

export class Sheet {
  /**
   * @param {HTMLElement} host to be filled.
   * @param {{width: number, height: number}} input size of the network's pictures, px.
   * @param {() => void} changed is told of every stroke while it is drawn.
   */
  constructor(host, input, changed) {
    Object.assign(this, { input, changed, tool: "pen", width: 0.06, last: null });
    const size = { width: input.width * RESOLUTION, height: input.height * RESOLUTION };
    this.canvas = h("canvas", {
      ...size,
      tabindex: "0",
      role: "application",
      "aria-roledescription": "drawing sheet",
      "aria-label": "Sheet to draw on. Arrow keys move the pen, Space puts it down or lifts it, Delete clears.",
    });
    this.context = this.canvas.getContext("2d");
    this.small = h("canvas", { width: input.width, height: input.height });
    this.svg = s("svg", { viewBox: `0 0 ${input.width} ${input.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.pen = s("circle", { class: "pen", r: 1.5, visibility: "hidden" });
    this.place = [0.5, 0.5]; // of the keyboard's pen
    this.down = false;
    this.svg.append(this.pen);
    host.style.aspectRatio = `${input.width} / ${input.height}`;
    host.replaceChildren(this.canvas, this.svg);
    this.wipe();
    this.listen();
  }

  listen() {
    const { canvas } = this;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.begin(at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.line(at(one));
      this.changed();
    });
    canvas.addEventListener("pointerup", () => (this.last = null));
    canvas.addEventListener("pointercancel", () => (this.last = null));
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("focus", () => this.showPen(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.showPen(false));
  }

  onKey(event) {
    const step = STEP * (event.shiftKey ? 5 : 1);
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) {
      this.place = this.place.map((value, i) => Math.min(1, Math.max(0, value + move[i])));
      if (this.down) {
        this.line(this.place);
        this.changed();
      }
    } else if (event.key === " " || event.key === "Enter") {
      this.down = !this.down && this.tool === "pen";
      this.last = null;
      if (this.down || this.tool !== "pen") this.begin(this.place);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else return;
    event.preventDefault();
    this.showPen(true);
  }

  showPen(visible) {
    this.pen.setAttribute("visibility", visible ? "visible" : "hidden");
    this.pen.setAttribute("cx", this.place[0] * this.input.width);
    this.pen.setAttribute("cy", this.place[1] * this.input.height);
    this.pen.setAttribute("r", this.down ? 2.2 : 1.2);
  }

  begin(point) {
    if (this.tool === "pen") {
      this.last = point;
      this.line(point);
    } else this.stamp(point);
    this.changed();
  }

  line(point) {
    if (!this.last) {
      if (this.tool !== "pen") return;
      this.last = point;
    }
    const { context } = this;
    const { width, height } = this.canvas;
    Object.assign(context, { lineWidth: this.width * width, lineCap: "round", lineJoin: "round", strokeStyle: INK });
    context.beginPath();
    context.moveTo(this.last[0] * width, this.last[1] * height);
    context.lineTo(point[0] * width, point[1] * height);
    context.stroke();
    this.last = point;
  }

  stamp([x, y]) {
    const { context } = this;
    const { width, height } = this.canvas;
    const half = STAMP * width;
    context.fillStyle = INK;
    context.beginPath();
    if (this.tool === "disc") context.arc(x * width, y * height, half, 0, 2 * Math.PI);
    else if (this.tool === "square") context.rect(x * width - half, y * height - half, 2 * half, 2 * half);
    else {
      context.moveTo(x * width, y * height - half);
      context.lineTo(x * width + half, y * height + half);
      context.lineTo(x * width - half, y * height + half);
    }
    context.fill();
  }

  wipe() {
    this.context.fillStyle = PAPER;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.last = null;
  }

  /** An empty sheet. */
  clear() {
    this.wipe();
    this.changed();
  }

  /** Takes over a picture. */
  async show(photo) {
    const bitmap = await createImageBitmap(photo);
    this.wipe();
    this.context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  /** The sheet as the network sees it, a PNG file. */
  async picture() {
    const context = this.small.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.canvas, 0, 0, this.small.width, this.small.height);
    return new Promise((done) => this.small.toBlob(done, "image/png"));
  }

  /** Shows where each step looked, in the order of the steps. */
  mark(windows) {
    this.svg.replaceChildren(
      ...windows.map(({ x, y, width, height }, i) => s("rect", { class: `window ${stepClass(i)}`, x, y, width, height })),
      this.pen,
    );
  }
}
