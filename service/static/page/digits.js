/** The second view: draw digits or sprites, and see how the network takes them apart. */

import { at, bar, choice, h, stepClass } from "./dom.js";
import { readFlat } from "./flat.js";
import { number, percent } from "./format.js";
import { Latest } from "./latest.js";
import { notifyError, say, withdraw } from "./notices.js";
import { ask, askJson } from "./service.js";
import { Sheet, TOOLS } from "./sheet.js";

const FILE = "application/octet-stream";
const SETTLED = 600; // ms after the last stroke, when the result is said aloud

export class Digits {
  /**
   * @param model of `GET /model`.
   * @param {(shown) => void} shown is told of every picture.
   */
  constructor(model, shown) {
    Object.assign(this, { model, shown });
    this.moments = [];
    this.inferring = new Latest((since) => this.infer(since));
    this.build();
    this.examples();
    this.inferring.push(performance.now());
  }

  build() {
    const paper = h("div", { class: "sheet" });
    const tools = h(
      "div",
      { class: "segments small", role: "radiogroup", "aria-label": "Draw with" },
      ...TOOLS.map((tool, i) => h("button", { type: "button", role: "radio", "data-value": tool, "aria-checked": String(!i), tabindex: i ? "-1" : "0" }, tool)),
    );
    const width = h("input", { type: "range", min: 2, max: 14, step: 1, value: 6, "aria-label": "Width of the pen", oninput: (event) => (this.sheet.width = event.target.valueAsNumber / 100) });
    this.pace = h("p", { class: "pace", id: "digits-pace" });
    this.readout = h("div", { id: "digits-readout" });
    this.tiles = h("ol", { class: "tiles", "aria-label": "Steps" });
    this.strip = h("ul", { class: "strip", "aria-label": "Example pictures" });
    at("digits-view").replaceChildren(
      h(
        "div",
        { class: "digits-desk" },
        h(
          "section",
          { class: "panel", "aria-labelledby": "sheet-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "sheet-title" }, "Draw"), h("button", { type: "button", class: "button small", onclick: () => this.sheet.clear() }, "Clear")),
          paper,
          h("div", { class: "tools" }, tools, h("label", { class: "slider" }, h("span", {}, "width"), width)),
          h("p", { class: "caption" }, "Draw up to three, anywhere. The windows show where each step looked: first red, then green, then blue."),
          this.strip,
        ),
        h(
          "section",
          { class: "panel readout", "aria-labelledby": "seen-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "seen-title" }, "Inference"), this.pace),
          h("div", {}, this.readout, this.tiles),
        ),
      ),
    );
    this.sheet = new Sheet(paper, this.model.input, () => this.inferring.push(performance.now()));
    choice(tools, (tool) => (this.sheet.tool = tool));
  }

  /** Pictures that lie beside the model, to begin with. */
  async examples() {
    try {
      const { pictures } = await askJson("examples");
      for (const { name, caption } of pictures) {
        const photo = await (await ask(`examples/${encodeURIComponent(name)}`)).blob();
        const url = URL.createObjectURL(photo);
        this.strip.append(
          h("li", {}, h("button", { type: "button", "aria-label": `Example: ${caption}`, onclick: () => this.sheet.show(photo) }, h("img", { src: url, alt: "", onload: () => URL.revokeObjectURL(url) }))),
        );
      }
    } catch (error) {
      notifyError("examples", error);
    }
  }

  /** Infers the sheet as it is now. */
  async infer(since) {
    try {
      const photo = await this.sheet.picture();
      const answer = readFlat(await askJson("infer?drawn=true", { body: photo, type: FILE, patient: false }));
      withdraw("digits");
      this.show(answer, since);
      this.shown({ photo, answer });
    } catch (error) {
      if (error.wait === null || error.wait === undefined) notifyError("digits", error);
      else {
        await new Promise((done) => setTimeout(done, error.wait));
        this.inferring.waiting ?? this.inferring.push(performance.now());
      }
    }
  }

  show(answer, since) {
    this.sheet.mark(answer.steps.map((step) => step.window));
    this.readout.replaceChildren(summary(answer));
    this.tiles.replaceChildren(...answer.steps.map(tile), ...[whole(answer)].filter(Boolean));
    const took = performance.now() - since;
    this.pace.textContent = `${number(took, 0)} ms from stroke to answer`;
    // For whoever measures.
    performance.measure("stroke to inference", { start: since, end: performance.now() });
    clearTimeout(this.saying);
    this.saying = setTimeout(() => say(`${answer.count} found`), SETTLED);
  }
}

function summary({ count, probabilities }) {
  return h(
    "div",
    { class: "figures" },
    h("p", { class: "big" }, String(count), h("small", {}, count === 1 ? "thing" : "things")),
    h(
      "ul",
      { class: "counts", "aria-label": "Probability of each count" },
      ...probabilities.map((share, n) => h("li", {}, h("span", {}, String(n)), bar(share, 90), h("span", {}, percent(share)))),
    ),
  );
}

function tile({ score, picture }, i) {
  return h(
    "li",
    { class: stepClass(i) },
    h("div", { class: "tile" }, picture ? h("img", { src: picture, alt: `What step ${i + 1} explains` }) : null),
    h("p", {}, h("strong", {}, `Step ${i + 1}`), ` · ${percent(score)}`),
  );
}

function whole({ picture }) {
  if (!picture) return null;
  return h("li", {}, h("div", { class: "tile" }, h("img", { src: picture, alt: "The whole picture, drawn again" })), h("p", {}, h("strong", {}, "All steps"), " drawn again"));
}
