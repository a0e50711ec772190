/** What was looked at in this visit; nothing of it outlives the page. */

import { at, h } from "./dom.js";

const MOST = 12;
const SIZE = 160; // px, of a small picture

export class History {
  /**
   * @param {HTMLOListElement} list to be filled.
   * @param {(entry) => void} chosen is told which entry shall be shown again.
   */
  constructor(list, chosen) {
    Object.assign(this, { list, chosen });
  }

  /** Adds what is shown now: `{photo, bitmap, region, answer, name}`, and perhaps `truth`. */
  add(entry) {
    const { bitmap, region, answer } = entry;
    const small = h("canvas", { width: SIZE, height: SIZE, "aria-hidden": "true" });
    small.getContext("2d").drawImage(bitmap, region.x, region.y, region.width, region.height, 0, 0, SIZE, SIZE);
    const words = wordsFor(answer);
    const button = h("button", { type: "button", "aria-label": `Show again: ${words}`, onclick: () => this.show(entry, button) }, small, h("span", {}, words));
    this.list.prepend(h("li", {}, button));
    while (this.list.children.length > MOST) this.list.lastChild.remove();
    at("history-empty").hidden = true;
    this.mark(button);
  }

  show(entry, button) {
    this.mark(button);
    this.chosen(entry);
  }

  mark(button) {
    for (const other of this.list.querySelectorAll("button")) {
      if (other === button) other.setAttribute("aria-current", "true");
      else other.removeAttribute("aria-current");
    }
  }
}

/** An answer in a few words. */
export const wordsFor = ({ objects }) => objects.map((item) => item.class_id).join(", ") || "an empty table";
