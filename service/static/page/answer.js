/** The answer as text: JSON to copy, the command that asks for it, and files to download. */

import { h } from "./dom.js";
import { pretty } from "./format.js";
import { notifyError, say } from "./notices.js";
import { ask, key } from "./service.js";

// What can be downloaded: the name on the button, `?format=`, and the file's name.
const FORMS = [
  ["JSON", null, "scene.json"],
  ["MJCF", "mjcf", "scene.xml"],
  ["Detection3D", "detection3d", "detections.json"],
  ["BOP", "bop", "results.csv"],
];

export class AnswerText {
  /**
   * @param {HTMLElement} host of the text.
   * @param {HTMLElement} downloads of the buttons.
   */
  constructor(host, downloads) {
    this.host = host;
    this.buttons = FORMS.map(([name, form, file]) =>
      h("button", { type: "button", class: "button small", disabled: true, onclick: () => this.download(form, file) }, name),
    );
    downloads.append(...this.buttons);
    this.command = h("pre", { class: "line", tabindex: "0", role: "region", "aria-label": "Command" }, commandFor("photo.jpg"));
    this.json = h("pre", { tabindex: "0", role: "region", "aria-label": "Answer as JSON" }, "The answer appears here.");
    host.append(withCopy(this.command, "the command"), withCopy(this.json, "the JSON"));
  }

  /**
   * Shows an answer.
   *
   * @param answer of `POST /infer`.
   * @param {Blob} photo that was sent.
   * @param {string} name of the photo's file.
   * @param {number} refine steps of refinement that led to it.
   */
  show(answer, photo, name, refine = 0) {
    Object.assign(this, { answer, photo, refine });
    this.command.textContent = commandFor(name, refine);
    this.json.textContent = pretty(answer);
    for (const button of this.buttons) button.disabled = false;
  }

  async download(form, file) {
    try {
      const content = form
        ? await (await ask(`infer?format=${form}&refine=${this.refine}`, { body: this.photo, type: this.photo.type })).blob()
        : new Blob([JSON.stringify(this.answer, null, 1)], { type: "application/json" });
      const url = URL.createObjectURL(content);
      h("a", { href: url, download: file }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      say(`${file} was downloaded`);
    } catch (error) {
      notifyError("download", error);
    }
  }
}

function commandFor(name, refine = 0) {
  const plain = new URL("v1/infer", document.baseURI).href;
  const address = refine ? `'${plain}?refine=${refine}'` : plain;
  const secret = key.get() ? ' -H "X-API-Key: $AIRSCENE_KEY"' : "";
  const file = /^[\w./-]+$/.test(name) ? `@${name}` : `'@${name.replaceAll("'", "'\\''")}'`;
  return `curl${secret} -F image=${file} ${address}`;
}

function withCopy(pre, what) {
  const button = h("button", { type: "button", class: "button small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(pre);
    button.textContent = done ? "Copied" : "Selected";
    say(done ? `Copied ${what}` : `Selected ${what}; copy it by Ctrl+C`);
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  return h("div", { class: "code" }, pre, button);
}

/** Copies a text, or selects it where a page may not copy (without TLS, other than localhost). */
async function copy(pre) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(pre);
    return false;
  }
}
