/** Sliders for a scene of one's own: the camera, and each object's class, place and turn. */

import { h, stepClass } from "./dom.js";
import { angle, millimetres } from "./format.js";
import { degrees, radians, yawOf } from "./pinhole.js";
import { object, randomScene, scene } from "./scenes.js";

export class Builder {
  /**
   * @param {HTMLElement} host to be filled.
   * @param model of `GET /model`.
   * @param {(scene) => void} changed is told of the scene whenever it changes.
   */
  constructor(host, model, changed) {
    Object.assign(this, { host, model, changed });
    this.set(randomScene(model, Math.min(2, model.count_max)));
  }

  /** Takes over a scene; tells nobody. */
  set({ camera, objects }) {
    this.azimuth = camera.azimuth.value;
    this.things = objects.map(({ class_id: name, pose }) => ({ name, x: pose.position.x, y: pose.position.y, yaw: yawOf(pose.orientation) }));
    this.build();
  }

  /** The scene as it is now. */
  get scene() {
    return scene(this.azimuth, this.things.map(({ name, x, y, yaw }) => object(name, x, y, yaw)));
  }

  build() {
    const { camera, count_max: most } = this.model;
    const full = this.things.length >= most;
    this.host.replaceChildren(
      h(
        "fieldset",
        { class: "controls", "aria-label": "Camera" },
        h("header", {}, h("h2", {}, "Camera"), h("button", { type: "button", class: "quiet", onclick: () => this.shuffle() }, "Another scene")),
        camera.azimuth.max > camera.azimuth.min
          ? this.slider("azimuth", { min: degrees(camera.azimuth.min), max: degrees(camera.azimuth.max), step: 0.5 }, degrees(this.azimuth), (value) => (this.azimuth = radians(value)), (value) => angle(radians(value)))
          : h("p", { class: "caption" }, "This model's camera does not move."),
      ),
      ...this.things.map((thing, i) => this.card(thing, i)),
      full
        ? null
        : h("div", { class: "controls more" }, h("p", { class: "caption" }, `${this.things.length} of up to ${most} objects`), h("button", { type: "button", class: "button small", id: "add-object", onclick: () => this.add() }, "Add an object")),
    );
  }

  card(thing, i) {
    const { extent } = this.model.placement;
    const name = `Object ${i + 1}`;
    const place = (axis) =>
      this.slider(axis, { min: -1000 * extent[axis], max: 1000 * extent[axis], step: 1 }, 1000 * thing[axis], (value) => (thing[axis] = value / 1000), (value) => `${millimetres(value / 1000)} mm`, name);
    const choose = h(
      "select",
      { "aria-label": `${name}: class`, onchange: (event) => this.act(() => (thing.name = event.target.value)) },
      ...this.model.classes.map(({ name: kind }) => h("option", { value: kind, selected: kind === thing.name }, kind)),
    );
    return h(
      "fieldset",
      { class: "controls", "aria-label": name },
      h("header", {}, choose, h("button", { type: "button", class: "quiet", "aria-label": `Remove object ${i + 1}`, onclick: () => this.remove(i) }, "Remove")),
      place("x"),
      place("y"),
      this.slider("yaw", { min: -180, max: 180, step: 1 }, degrees(thing.yaw), (value) => (thing.yaw = radians(value)), (value) => angle(radians(value), 0), name),
    );
  }

  slider(name, range, value, set, words, of = "Camera") {
    const output = h("output", {}, words(value));
    const input = h("input", {
      type: "range",
      ...range,
      value,
      "aria-label": `${of}: ${name}`,
      "aria-valuetext": words(value),
      "data-slider": name,
      oninput: (event) => {
        const now = event.target.valueAsNumber;
        output.textContent = words(now);
        event.target.setAttribute("aria-valuetext", words(now));
        this.act(() => set(now));
      },
    });
    return h("label", { class: "slider" }, h("span", { "aria-hidden": "true" }, name), input, output);
  }

  act(change) {
    change();
    this.changed(this.scene);
  }

  add() {
    const { camera, objects } = this.scene;
    const more = randomScene(this.model, objects.length + 1, objects).objects;
    this.set({ camera, objects: more });
    this.changed(this.scene);
    this.host.querySelectorAll("select")[this.things.length - 1]?.focus();
  }

  remove(i) {
    this.act(() => this.things.splice(i, 1));
    this.build();
    this.host.querySelector("#add-object")?.focus();
  }

  shuffle() {
    this.set(randomScene(this.model));
    this.changed(this.scene);
    this.host.querySelector("button")?.focus();
  }
}
