/** What was inferred, in numbers: how many, from where, which, where, and how sure. */

import { bar, h, s, stepClass } from "./dom.js";
import { angle, millimetres, number, percent } from "./format.js";
import { wrap } from "./pinhole.js";

const FAR = 0.05; // m; a match further apart than this is a miss

export class Readout {
  /**
   * @param {HTMLElement} host to be filled.
   * @param {(id: number|null) => void} selected is told which object was chosen.
   */
  constructor(host, selected) {
    this.host = host;
    this.selected = selected;
    this.chosen = null;
    host.append(h("p", { class: "nothing" }, "Nothing yet."));
  }

  /**
   * Shows an answer.
   *
   * @param answer of `POST /infer`.
   * @param truth the scene as it is, when that is known.
   * @param {number[]} errors of reconstruction after 0 and more steps of refinement, when refined.
   */
  show(answer, truth = null, errors = []) {
    const focused = document.activeElement?.closest?.("tr")?.dataset.id;
    this.host.replaceChildren(
      count(answer),
      facts(answer),
      this.table(answer, truth),
      ...(errors.length > 1 ? [convergence(errors)] : []),
      ...(answer.warnings.length ? [warnings(answer.warnings)] : []),
    );
    if (focused && !this.host.contains(document.activeElement)) {
      this.host.querySelector(`tr[data-id="${focused}"] button`)?.focus();
    }
    this.select(this.chosen);
  }

  /** Makes one object stand out, or none. */
  select(id) {
    this.chosen = id;
    for (const row of this.host.querySelectorAll("tr.thing")) {
      const selected = id !== null && Number(row.dataset.id) === id;
      row.dataset.selected = String(selected);
      row.querySelector("button").setAttribute("aria-pressed", String(selected));
    }
  }

  table(answer, truth) {
    if (!answer.objects.length) return h("p", { class: "nothing" }, "An empty table.");
    const pairs = truth ? match(answer.objects, truth.objects) : new Map();
    const rows = answer.objects.map((item, i) => this.row(item, i, truth && (pairs.get(item.id) ?? false)));
    const missed = truth ? truth.objects.length - [...pairs.values()].length : 0;
    return h(
      "div",
      { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Objects" },
      h(
        "table",
        {},
        h("caption", { class: "unseen" }, "Objects on the table, in the order in which they were found"),
        h(
          "thead",
          {},
          h("tr", {}, ...["object", "x mm", "y mm", "yaw"].map((name) => h("th", { scope: "col" }, name)), truth ? h("th", { scope: "col" }, "off mm") : null),
        ),
        h("tbody", {}, ...rows),
      ),
      missed > 0 ? h("p", { class: "caption" }, `${missed} of ${truth.objects.length} not found.`) : null,
    );
  }

  row(item, i, pair) {
    const { x, y } = item.pose.position;
    const [sx, sy] = [Math.sqrt(item.covariance[0]), Math.sqrt(item.covariance[7])];
    const toggle = () => this.selected(this.chosen === item.id ? null : item.id);
    return h(
      "tr",
      { class: `thing ${stepClass(i)}`, "data-id": item.id, onclick: toggle },
      h(
        "td",
        {},
        h("button", { type: "button", class: "thing-name", "aria-pressed": "false" }, h("span", { class: "chip", "aria-hidden": "true" }, String(i + 1)), item.class_id),
        h("span", { class: "score", title: "Probability that it is there and of this class" }, percent(item.score)),
        hypotheses(item),
      ),
      h("td", {}, millimetres(x), h("small", {}, `± ${millimetres(sx, 1)}`)),
      h("td", {}, millimetres(y), h("small", {}, `± ${millimetres(sy, 1)}`)),
      item.yaw.std === null
        ? h("td", {}, "any", h("small", {}, "unseen"))
        : h("td", {}, angle(item.yaw.value), h("small", {}, `± ${angle(item.yaw.std)}`)),
      pair === null ? null : offBy(item, pair),
    );
  }
}

function count({ count: { value, probabilities } }) {
  const high = 34;
  return h(
    "div",
    { class: "figures" },
    h("p", { class: "big" }, String(value), h("small", {}, value === 1 ? "object" : "objects")),
    h(
      "ul",
      { class: "bars", "aria-label": "Probability of each count" },
      ...probabilities.map((share, n) =>
        h(
          "li",
          { title: `${n}: ${percent(share)}` },
          s(
            "svg",
            { width: 20, height: high, viewBox: `0 0 20 ${high}`, "aria-hidden": "true" },
            s("rect", { y: (high * (1 - share)).toFixed(2), width: 20, height: (high * share).toFixed(2) }),
          ),
          h("span", {}, String(n), h("span", { class: "unseen" }, ` objects: ${percent(share)}`)),
        ),
      ),
    ),
  );
}

function facts({ camera: { azimuth }, quality, timing_ms: timing }) {
  const spent = timing.decode + timing.infer + timing.refine + timing.render;
  const fact = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", h("small", {}, more)));
  return h(
    "dl",
    { class: "facts" },
    fact("camera", angle(azimuth.value), azimuth.std === null ? "" : `± ${angle(azimuth.std, 2)}`),
    fact("explained", percent(quality.explained, 0), quality.in_distribution ? "" : "foreign"),
    fact("took", number(spent, 0), "ms"),
  );
}

function hypotheses(item) {
  const others = item.hypotheses.filter(({ score }, n) => n === 0 || score >= 0.0005);
  return h(
    "div",
    { class: "hypotheses" },
    ...others.flatMap(({ class_id: name, score }) => [
      h("span", {}, name),
      bar(score, 28),
      h("span", {}, percent(score)),
    ]),
  );
}

function offBy(item, pair) {
  if (!pair) return h("td", { "data-far": "true" }, "—", h("small", {}, "is not there"));
  const turned = pair.yaw === null ? null : h("small", {}, angle(pair.yaw));
  return h("td", { "data-far": String(pair.distance > FAR) }, millimetres(pair.distance, 1), turned);
}

/** How the drawn scene came nearer to the photo, step by step. */
function convergence(errors) {
  const [width, height] = [112, 44];
  const most = Math.max(...errors) || 1;
  const points = errors.map((error, i) => [(width * i) / (errors.length - 1), height * (1 - error / most)]);
  const [first, last] = [errors[0], errors.at(-1)];
  return h(
    "div",
    { class: "refined" },
    s(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      s("line", { class: "base", x1: 0, x2: width, y1: height, y2: height }),
      s("polyline", { points: points.map((point) => point.join()).join(" ") }),
      ...points.map(([cx, cy]) => s("circle", { cx, cy, r: 2.4 })),
    ),
    h(
      "p",
      { class: "caption" },
      `Difference from the photo ${small(first)} → ${small(last)} in ${errors.length - 1} ${errors.length === 2 ? "step" : "steps"} of drawing and comparing.`,
    ),
  );
}

/** A mean squared error: two digits and a power of ten. */
const small = (value) => {
  const [digits, power] = value.toExponential(1).split("e");
  return `${digits}·10${[...String(Number(power))].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("")}`;
};

const warnings = (lines) => h("ul", { class: "warnings", "aria-label": "Warnings" }, ...lines.map((line) => h("li", {}, line)));

/**
 * Which inferred object stands for which one that is there: the nearest of its class.
 *
 * @returns {Map<number, {distance: number, yaw: number|null}>} by id, how far each is off: m and rad.
 */
export function match(objects, truths) {
  const free = new Set(truths);
  const pairs = new Map();
  const distance = (a, b) => Math.hypot(a.pose.position.x - b.pose.position.x, a.pose.position.y - b.pose.position.y);
  const all = objects
    .flatMap((item) => truths.filter((truth) => truth.class_id === item.class_id).map((truth) => ({ item, truth, apart: distance(item, truth) })))
    .sort((a, b) => a.apart - b.apart);
  for (const { item, truth, apart } of all) {
    if (pairs.has(item.id) || !free.has(truth)) continue;
    free.delete(truth);
    const { order } = item.symmetry;
    const turn = order ? Math.abs(wrap(order * (item.yaw.value - truth.yaw)) / order) : null;
    pairs.set(item.id, { distance: apart, yaw: turn });
  }
  return pairs;
}
