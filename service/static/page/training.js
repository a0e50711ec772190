/** The third view: how the network looks at a picture, what was measured, and the figures. */

import { at, calm, h, s, stepClass } from "./dom.js";
import { angle, millimetres, number, percent } from "./format.js";
import { notifyError } from "./notices.js";
import { regionOf } from "./pinhole.js";
import { ask, askJson } from "./service.js";

const PAUSE = 900; // ms, of each step while it plays
const SIZE = 420; // px, of a step's picture
const ABSENT = 0.5; // below this presence a step found nothing left
// The attention's colour over the picture, and how dark the picture is where nobody looks.
const GLOW = [255, 214, 92];
const SHADE = 0.62;

export class Training {
  /** @param model of `GET /model`. */
  constructor(model) {
    this.model = model;
    this.wanted = null;
    at("scan-play").addEventListener("click", () => this.play());
    addEventListener("view", ({ detail }) => detail === "training" && this.open());
    at("scan-panel").hidden = model.kind === "2d"; // its own view shows the steps
    this.measured();
    if (model.card) {
      at("card").textContent = model.card;
      at("card-panel").hidden = false;
    }
    if (!at("training").hidden) this.open();
  }

  /** Another picture is shown in the first view. */
  look(shown) {
    this.wanted = shown;
    if (!at("training").hidden) this.scan();
  }

  open() {
    this.gallery();
    this.scan();
  }

  /** Asks for the steps of the picture, unless they are shown already. */
  async scan() {
    const shown = this.wanted;
    if (!shown || shown === this.scanned || this.model.kind === "2d") return;
    this.scanned = shown;
    try {
      const answer = await askJson("infer?steps=true", { body: shown.photo, type: "application/octet-stream" });
      if (shown !== this.scanned) return;
      at("scan").replaceChildren(...answer.steps.map((step, k) => this.step(shown, answer, step, k)));
      const found = answer.objects.length;
      at("scan-caption").textContent =
        `${found} found in ${answer.steps.length} steps. The brighter a place, the more the step attends to it; what earlier steps have explained is passed over.`;
    } catch (error) {
      this.scanned = null;
      if (error.kind === "invalid-request") {
        at("scan-caption").textContent = "The network of this model attends to no place: there is no map to show.";
      } else notifyError("scan", error);
    }
  }

  step({ bitmap }, answer, { presence, attention }, k) {
    const item = answer.objects[k];
    const sheet = h("canvas", {
      width: SIZE,
      height: Math.round(SIZE / this.model.camera.aspect),
      role: "img",
      "aria-label": `Step ${k + 1} attends to ${item ? `the ${item.class_id}` : "nothing that is left"}`,
    });
    paint(sheet, bitmap, regionOf(this.model.camera, bitmap.width, bitmap.height), attention);
    const words = item ? `${item.class_id} at ${millimetres(item.pose.position.x)}, ${millimetres(item.pose.position.y)} mm` : "nothing is left";
    return h(
      "li",
      { class: stepClass(k) },
      h("p", { class: "head" }, h("span", { class: "chip", "aria-hidden": "true" }, String(k + 1)), item?.class_id ?? "stop"),
      sheet,
      s("svg", { class: "meter", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, s("rect", { width: 100 * presence, height: 4 })),
      h("p", { class: "caption" }, `something is left: ${percent(presence)}${presence < ABSENT ? ", so it stops" : ""}`),
      h("p", { class: "caption" }, words),
    );
  }

  /** Shows the steps one after the other. */
  async play() {
    const steps = [...at("scan").children];
    if (!steps.length || calm()) return;
    at("scan-play").disabled = true;
    for (let k = 0; k <= steps.length; k += 1) {
      steps.forEach((step, i) => (step.dataset.dim = String(i > k - 1)));
      await new Promise((done) => setTimeout(done, k ? PAUSE : PAUSE / 3));
    }
    for (const step of steps) delete step.dataset.dim;
    at("scan-play").disabled = false;
  }

  /** What `evaluate` found, as numbers, and whether the spreads are honest, as a chart. */
  measured() {
    const figures = this.model.evaluation;
    if (!figures) {
      at("measured").replaceChildren(h("p", { class: "caption" }, "Nothing was measured on this model yet: ", h("code", {}, "python -m training evaluate"), " does it."));
      return;
    }
    const median = (figure, words) => (figure?.median === undefined ? null : words(figure.median));
    const rows = [
      ["number of objects right", figures.count_accuracy, percent],
      ["found", figures.recall, percent],
      ["of those, class right", figures.identity_accuracy, percent],
      ["found and there", figures.precision, percent],
      ["position off by", median(figures.position_error_m, (value) => `${millimetres(value, 1)} mm`)],
      ["yaw off by", median(figures.yaw_error_rad, (value) => angle(value))],
      ["camera off by", median(figures.azimuth_error_rad, (value) => angle(value, 2))],
      ["a picture takes", figures.milliseconds_per_image, (value) => `${number(value)} ms`],
    ].filter(([, value]) => value !== undefined && value !== null);
    const list = h(
      "dl",
      { class: "measures" },
      ...rows.map(([name, value, words]) => h("div", {}, h("dt", {}, name), h("dd", {}, words ? words(value) : value))),
    );
    const told = figures.scenes ? h("p", { class: "caption" }, `${figures.scenes} scenes that training never drew, seed ${figures.seed}; errors are medians.`) : null;
    at("measured").replaceChildren(h("div", { class: "measured" }, h("div", {}, list, told), figures.coverage ? chart(figures.coverage) : null));
  }

  async gallery() {
    if (this.listed) return;
    this.listed = true;
    try {
      at("figure-close").addEventListener("click", () => at("figure").close());
      const { pictures } = await askJson("figures");
      at("gallery-empty").hidden = pictures.length > 0;
      const items = pictures.map((picture) => ({ picture, item: h("li", {}, h("p", {}, picture.caption)) }));
      at("gallery").replaceChildren(...items.map(({ item }) => item));
      for (const { picture, item } of items) item.prepend(await thumbnail(picture));
    } catch (error) {
      this.listed = false;
      notifyError("gallery", error);
    }
  }
}

async function thumbnail({ name, caption }) {
  const url = URL.createObjectURL(await (await ask(`figures/${encodeURIComponent(name)}`)).blob());
  const open = () => {
    Object.assign(at("figure-image"), { src: url, alt: caption });
    at("figure-caption").textContent = caption;
    at("figure").showModal();
  };
  return h("button", { type: "button", "aria-label": `Enlarge: ${caption}`, onclick: open }, h("img", { src: url, alt: "" }));
}

/** The picture, dark where the step does not look. */
function paint(sheet, bitmap, region, { rows, columns, weights }) {
  const context = sheet.getContext("2d");
  const { width, height } = sheet;
  context.drawImage(bitmap, region.x, region.y, region.width, region.height, 0, 0, width, height);
  const most = Math.max(...weights);
  const map = h("canvas", { width: columns, height: rows });
  const small = map.getContext("2d");
  const light = small.createImageData(columns, rows);
  const shade = small.createImageData(columns, rows);
  weights.forEach((weight, i) => {
    const share = Math.sqrt(weight / most); // what is looked at a little is to be seen as well
    light.data.set([...GLOW, 150 * share], 4 * i);
    shade.data.set([0, 0, 0, 255 * SHADE * (1 - share)], 4 * i);
  });
  for (const layer of [shade, light]) {
    small.putImageData(layer, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(map, 0, 0, width, height);
  }
}

/** Of how many truths each interval holds, against how many it should. */
function chart(coverage) {
  const [size, margin] = [300, 40];
  const at = (share) => share * size;
  const kinds = Object.entries(coverage).filter(([, values]) => values && Object.keys(values).length);
  const series = kinds.map(([kind, values]) => {
    const points = Object.entries(values).map(([wanted, share]) => [Number(wanted), share]).sort((a, b) => a[0] - b[0]);
    return { kind, points };
  });
  const ticks = [0, 0.5, 0.8, 0.95];
  const words = series.map(({ kind, points }) => `${kind}: ${points.map(([wanted, share]) => `${percent(share, 0)} in ${percent(wanted, 0)}`).join(", ")}`).join("; ");
  return h(
    "figure",
    {},
    s(
      "svg",
      { class: "chart", viewBox: `0 0 ${size + margin + 62} ${size + margin + 6}`, role: "img", "aria-label": `Share of truths within intervals. ${words}` },
      s(
        "g",
        { transform: `translate(${margin - 4} 6)` },
        s("line", { class: "ideal", x1: 0, y1: size, x2: size, y2: 0 }),
        ...ticks.flatMap((tick) => [
          s("line", { class: "axis", x1: at(tick), x2: at(tick), y1: 0, y2: size }),
          s("line", { class: "axis", x1: 0, x2: size, y1: size - at(tick), y2: size - at(tick) }),
          s("text", { x: at(tick), y: size + 15, "text-anchor": "middle" }, String(100 * tick)),
          s("text", { x: -7, y: size - at(tick) + 4, "text-anchor": "end" }, String(100 * tick)),
        ]),
        ...series.flatMap(({ kind, points }, i) => [
          s("polyline", { class: kind, points: points.map(([wanted, share]) => `${at(wanted)},${size - at(share)}`).join(" ") }),
          ...points.map(([wanted, share]) => s("circle", { class: kind, cx: at(wanted), cy: size - at(share), r: 3 })),
          s("text", { class: kind, x: size + 8, y: 40 + 18 * i }, kind),
        ]),
      ),
      s("text", { x: margin, y: size + margin + 2 }, "interval, %"),
    ),
    h("figcaption", { class: "caption" }, "How often the truth lies in an interval, against how often it should: on the dashed line the spreads are honest."),
  );
}
