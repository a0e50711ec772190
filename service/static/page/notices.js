/** What went wrong and what to do, in a line under the bar; and what happened, for who listens. */

import { at, h } from "./dom.js";

const shown = new Map();

/**
 * Shows a message until it is closed or withdrawn; one of the same `about` takes its place.
 *
 * @param {string} about what it is about, such as `photo`.
 * @param {string} title in a few words.
 * @param {string} detail how to mend it.
 */
export function notify(about, title, detail) {
  if (shown.get(about)?.dataset.words === title + detail) return;
  withdraw(about);
  const notice = h(
    "div",
    { class: "notice", "data-about": about, "data-words": title + detail },
    h("strong", {}, title),
    h("span", {}, detail),
    h("button", { type: "button", class: "quiet", onclick: () => withdraw(about) }, "Close"),
  );
  shown.set(about, notice);
  at("notices").append(notice);
}

/** Takes a message away. */
export function withdraw(about) {
  shown.get(about)?.remove();
  shown.delete(about);
}

/** The same for an error of any kind. */
export function notifyError(about, error) {
  if (error.name === "AbortError") return;
  if (!error.title) console.error(error);
  notify(about, error.title ?? "Something failed in the page", error.detail ?? String(error));
}

/** Says something to people who listen to the page; it shows nowhere. */
export function say(words) {
  at("said").textContent = words;
}
