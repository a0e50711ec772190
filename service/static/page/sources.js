/** Where photos come from: a file, a drop, the clipboard, the webcam, the examples. */

import { at, h } from "./dom.js";
import { notify, notifyError, withdraw } from "./notices.js";
import { ask, askJson } from "./service.js";

/**
 * Listens to all sources.
 *
 * @param {(photo: Blob, name: string) => void} taken is handed every photo.
 * @param {() => boolean} wanted whether what is dropped or pasted now is a photo for us.
 */
export function listen(taken, wanted) {
  const file = at("file");
  file.addEventListener("change", () => {
    if (file.files.length) taken(file.files[0], file.files[0].name);
    file.value = ""; // the same file again is a new choice
  });
  at("webcam-button").addEventListener("click", () => openWebcam(taken));
  document.addEventListener("paste", (event) => {
    if (!wanted()) return;
    const photo = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (photo) taken(photo, photo.name || "pasted.png");
    else if (!event.target.closest?.("input, textarea")) {
      notify("photo", "There is no picture in the clipboard", "Copy an image, not its address, and paste again.");
    }
  });
  let inside = 0; // elements of the page that the pointer has entered and not left
  const files = (event) => wanted() && [...event.dataTransfer.types].includes("Files");
  const over = (now) => {
    inside = now;
    at("drop").hidden = inside <= 0;
  };
  document.addEventListener("dragenter", (event) => files(event) && over(inside + 1));
  document.addEventListener("dragleave", (event) => files(event) && over(inside - 1));
  document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    over(0);
    const [photo] = event.dataTransfer.files;
    if (photo) taken(photo, photo.name);
  });
}

/** Fills the strip of examples; gives the first one, or null where there are none. */
export async function showExamples(taken) {
  const { pictures } = await askJson("examples");
  const choose = async (name, button) => {
    try {
      const photo = await photoOf(name);
      for (const other of at("examples").querySelectorAll("button")) other.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      taken(photo, name);
    } catch (error) {
      notifyError("photo", error);
    }
  };
  const buttons = pictures.map(({ name, caption }) => {
    const button = h("button", { type: "button", "aria-label": `Example: ${caption}`, onclick: () => choose(name, button) });
    return button;
  });
  at("examples").replaceChildren(...buttons.map((button) => h("li", {}, button)));
  // One after the other, and behind everything else: they are for later.
  (async () => {
    for (const [i, { name }] of pictures.entries()) {
      try {
        const url = URL.createObjectURL(await photoOf(name));
        buttons[i].append(h("img", { src: url, alt: "", onload: () => URL.revokeObjectURL(url) }));
      } catch {
        buttons[i].parentElement.remove();
      }
    }
  })();
  return pictures.length ? () => choose(pictures[Math.min(pictures.length - 1, 9)].name, buttons[Math.min(pictures.length - 1, 9)]) : null;
}

const photoOf = async (name) => (await ask(`examples/${encodeURIComponent(name)}`)).blob();

async function openWebcam(taken) {
  const dialog = at("webcam");
  const video = at("webcam-video");
  withdraw("webcam");
  let stream;
  try {
    if (!navigator.mediaDevices) {
      throw new DOMException("A browser gives its camera to pages of localhost or with TLS (https) alone.", "SecurityError");
    }
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: { ideal: "environment" } } });
  } catch (error) {
    const why = {
      NotAllowedError: "The browser was not allowed to use the camera. Allow it beside the address, and try again.",
      NotFoundError: "This machine has no camera. Open a photo instead.",
      NotReadableError: "Another program uses the camera. Close that, and try again.",
    };
    notify("webcam", "There is no webcam to take a photo with", why[error.name] ?? error.message);
    return;
  }
  video.srcObject = stream;
  const take = () => {
    const sheet = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    sheet.getContext("2d").drawImage(video, 0, 0);
    sheet.toBlob((photo) => photo && taken(photo, "webcam.jpg"), "image/jpeg", 0.95);
    dialog.close();
  };
  const close = () => dialog.close();
  at("webcam-take").addEventListener("click", take);
  at("webcam-close").addEventListener("click", close);
  dialog.addEventListener(
    "close",
    () => {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      at("webcam-take").removeEventListener("click", take);
      at("webcam-close").removeEventListener("click", close);
    },
    { once: true },
  );
  at("webcam-take").disabled = true;
  dialog.showModal();
  await video.play();
  at("webcam-take").disabled = false;
}
