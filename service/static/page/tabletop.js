/** The first view: a photo, or a scene of one's own, and what the network makes of it. */

import { AnswerText } from "./answer.js";
import { Builder } from "./builder.js";
import { at, choice } from "./dom.js";
import { angle, number, percent } from "./format.js";
import { History, wordsFor } from "./history.js";
import { Latest, Pace } from "./latest.js";
import { notify, notifyError, say, withdraw } from "./notices.js";
import { BRIGHTER, Picture } from "./picture.js";
import { projection, regionOf } from "./pinhole.js";
import { Readout } from "./readout.js";
import { randomScene } from "./scenes.js";
import { ask, askJson } from "./service.js";
import { shapeOf } from "./shapes.js";
import { silhouette } from "./silhouette.js";
import { listen, showExamples } from "./sources.js";
import { Space } from "./space.js";

const REFINEMENTS = 5; // steps; more bring nothing
const SPREADS = [1, 2, 5, 10, 20, 50];
const LARGEST = 2048; // px; a larger photo is shown smaller than it was sent
const DOUBTFUL = 0.95; // below this score a label tells it
const SETTLED = 350; // ms after the last move of a slider
const FILE = "application/octet-stream"; // the server looks itself what kind of picture it is
const JSON_TYPE = "application/json";

/** Fills the view. */
export class Tabletop {
  /**
   * @param model of `GET /model`.
   * @param {(shown: {photo: Blob, bitmap: ImageBitmap}) => void} shown is told of every photo.
   */
  constructor(model, shown) {
    Object.assign(this, { model, shown, turn: 0, mode: "photo", current: null });
    const select = (id) => this.select(id);
    this.picture = new Picture(at("picture"), { selected: select, wiped: (share) => this.wipe(share) });
    try {
      this.space = new Space(at("space"), model);
    } catch (error) {
      // No WebGL: picture and numbers say the same.
      console.info(error);
      at("space").replaceChildren(Object.assign(document.createElement("p"), {
        className: "placeholder",
        textContent: "This browser draws nothing in three dimensions (no WebGL). The picture and the numbers beside it say the same.",
      }));
    }
    this.readout = new Readout(at("readout"), select);
    this.text = new AnswerText(at("answer"), at("downloads"));
    this.history = new History(at("history"), (entry) => this.again(entry));
    this.pace = new Pace();
    this.drawing = new Latest((scene) => this.live(scene));
    this.inferring = new Latest((frame) => this.inferLive(frame));
    this.builder = new Builder(at("builder"), model, (scene) => this.drawing.push(scene));
    this.layer = "outlines";
    choice(at("layer"), (layer) => this.show(layer));
    this.showMode = choice(at("mode"), (mode) => this.enter(mode));
    at("wipe").addEventListener("input", (event) => this.wipe(event.target.valueAsNumber / 100));
    at("spread").addEventListener("input", (event) => this.spread(SPREADS[event.target.valueAsNumber]));
    for (const button of at("look").children) button.addEventListener("click", () => this.space?.look(button.dataset.value));
    at("refine").addEventListener("change", () => this.current && this.again(this.current));
    at("random-button").addEventListener("click", () => this.drawRandom());
    listen((photo, name) => this.open(photo, name), () => !at("tabletop").hidden);
    this.start();
  }

  /** Shows the first example, so that nobody has to look at an empty page. */
  async start() {
    try {
      const first = await showExamples((photo, name) => this.open(photo, name));
      if (this.current || this.turn) return;
      if (first) await first();
      else await this.drawRandom();
    } catch (error) {
      notifyError("photo", error);
    }
  }

  /** A photo from outside: back from building, if need be. */
  open(photo, name) {
    if (this.mode === "build") {
      this.showMode("photo");
      this.enter("photo");
    }
    return this.infer(photo, name);
  }

  /** Infers a photo and shows everything about it. */
  async infer(photo, name, truth = null, { keep = true } = {}) {
    const turn = (this.turn += 1);
    this.picture.wait(keep);
    try {
      const decoding = decode(photo).catch(() => null);
      const answer = await askJson("infer", { body: photo, type: FILE });
      const bitmap = await decoding;
      if (turn !== this.turn) return;
      withdraw("photo");
      if (!bitmap) {
        notify("photo", "This browser cannot show the photo", "The server read it; its answer is below. Send it as PNG or JPEG to see it.");
        this.readout.show(answer, truth);
        this.text.show(answer, photo, name);
        return;
      }
      const entry = { photo, bitmap, answer, name, truth, region: regionOf(this.model.camera, bitmap.width, bitmap.height) };
      if (keep) this.history.add(entry);
      await this.present(entry);
      say(`${answer.objects.length} objects: ${wordsFor(answer)}`);
      await this.compare(await this.refine(entry, turn), turn);
    } catch (error) {
      if (turn === this.turn) notifyError("photo", error);
    } finally {
      if (turn === this.turn) this.picture.wait(false);
    }
  }

  /** When the switch is on, has the scene refined, one step more at a time, and shows each. */
  async refine(entry, turn) {
    const errors = [entry.answer.quality.reconstruction_error];
    let refined = entry;
    for (let steps = 1; at("refine").checked && steps <= REFINEMENTS && turn === this.turn; steps += 1) {
      const answer = await askJson(`infer?refine=${steps}`, { body: entry.photo, type: FILE });
      if (turn !== this.turn) break;
      errors.push(answer.quality.reconstruction_error);
      refined = { ...entry, answer, errors: [...errors], plain: entry };
      await this.present(refined);
    }
    return refined;
  }

  /** Shows an entry of the history. */
  async again(entry) {
    if (this.mode === "build") {
      this.showMode("photo");
      this.enter("photo");
    }
    const turn = (this.turn += 1);
    const plain = entry.plain ?? entry;
    try {
      await this.present(plain);
      await this.compare(await this.refine(plain, turn), turn);
    } catch (error) {
      notifyError("photo", error);
    }
  }

  /** Shows what is known of a photo, but for its drawing. */
  async present(entry) {
    const { photo, bitmap, region, answer, name, truth, errors } = entry;
    this.current = entry;
    this.checkModel(answer);
    const words = `The picture: ${wordsFor(answer)}`;
    this.picture.show(bitmap, region, words);
    this.readout.show(answer, truth, errors);
    if (this.mode === "photo" || !this.drawing.busy) this.text.show(answer, photo, name, errors ? errors.length - 1 : 0);
    this.caption();
    await this.trace(entry);
    await this.space?.show(answer, bitmap, region, this.mode === "build");
    this.shown(entry);
  }

  /** Outlines what was found, and what is there in truth, when that is known. */
  async trace({ answer, truth, region }) {
    const outlines = async (camera, objects) => {
      const project = projection(this.model.camera, camera.azimuth.value, region);
      const shapes = await Promise.all(objects.map((item) => shapeOf(item.class_id)));
      return objects.map((item, i) => ({ item, ...silhouette(shapes[i].triangles, item.pose, project) }));
    };
    const found = await outlines(answer.camera, answer.objects);
    const truths = truth ? await outlines(truth.camera, truth.objects) : [];
    this.picture.mark(
      found.filter(({ path }) => path).map(({ item, path, box }) => ({ id: item.id, label: labelOf(item), path, box })),
      truths.map(({ path }) => path).filter(Boolean),
    );
  }

  /** Has the inferred scene drawn again, and its difference from the photo. */
  async compare({ photo, answer }, turn) {
    const scene = JSON.stringify({ camera: answer.camera, objects: answer.objects });
    const form = new FormData();
    form.append("scene", new Blob([scene], { type: JSON_TYPE }));
    form.append("image", photo);
    const files = await Promise.all([ask("render", { body: scene, type: JSON_TYPE }), ask("render", { body: form })]);
    const [drawn, difference] = await Promise.all(files.map(async (file) => createImageBitmap(await file.blob())));
    if (turn === this.turn) this.picture.compare(drawn, difference);
  }

  /** Has the server draw a scene at random, and infers it as if it were a photo. */
  async drawRandom() {
    try {
      const scene = randomScene(this.model);
      const photo = await (await ask("render", { body: JSON.stringify(scene), type: JSON_TYPE })).blob();
      await this.infer(photo, "random-scene.png", scene);
    } catch (error) {
      notifyError("photo", error);
    }
  }

  /** `photo`, or `build`: a scene of one's own. */
  enter(mode) {
    this.mode = mode;
    at("photo-source").hidden = mode === "build";
    at("builder").hidden = mode === "photo";
    at("pace").textContent = "";
    withdraw("live");
    if (mode === "build") {
      this.turn += 1; // what was under way is no longer wanted
      this.picture.wait(false);
      this.drawing.push(this.builder.scene);
    } else {
      this.drawing.clear();
      this.inferring.clear();
    }
  }

  /** Draws a scene of one's own; while it is inferred, the next may be drawn. */
  async live(scene) {
    await this.unless(scene, async () => {
      const file = await ask("render?preview=true", { body: JSON.stringify(scene), type: JSON_TYPE, patient: false });
      this.inferring.push({ scene, photo: await file.blob() });
    });
  }

  async inferLive({ scene, photo }) {
    await this.unless(scene, async () => {
      const [answer, bitmap] = await Promise.all([askJson("infer", { body: photo, type: FILE, patient: false }), createImageBitmap(photo)]);
      if (this.mode !== "build") return;
      const turn = (this.turn += 1);
      const entry = { photo, bitmap, answer, name: "scene.png", truth: scene, region: regionOf(this.model.camera, bitmap.width, bitmap.height) };
      await this.present(entry);
      performance.mark("own scene inferred"); // for whoever measures
      const pace = this.pace.tick();
      at("pace").textContent = pace === null ? "" : `${number(pace, 0)} frames/s`;
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.settle(scene, turn), SETTLED);
    });
  }

  /** Does a part of a live frame; what fails for now is tried again with the newest scene. */
  async unless(scene, work) {
    try {
      await work();
    } catch (error) {
      if (this.mode !== "build") return;
      if (error.wait === null || error.wait === undefined) {
        notifyError("live", error);
        return;
      }
      await new Promise((done) => setTimeout(done, error.wait));
      if (this.mode === "build") this.drawing.waiting ?? this.drawing.push(this.builder.scene);
      return;
    }
    withdraw("live");
  }

  /** When the sliders rest: the same again at full size, and how it differs. */
  async settle(scene, turn) {
    const still = () => turn === this.turn && this.mode === "build" && !this.drawing.busy && !this.inferring.busy;
    if (!still()) return;
    try {
      const photo = await (await ask("render", { body: JSON.stringify(scene), type: JSON_TYPE })).blob();
      if (!still()) return;
      await this.infer(photo, "scene.png", scene, { keep: false });
    } catch (error) {
      notifyError("live", error);
    }
  }

  select(id) {
    this.picture.select(id);
    this.readout.select(id);
    this.space?.select(id);
  }

  show(layer) {
    this.layer = layer;
    this.picture.choose(layer);
    at("wipe-slider").hidden = layer !== "wipe";
    this.caption();
  }

  caption() {
    const { answer, truth } = this.current ?? {};
    const words = {
      outlines: answer
        ? `Camera at ${angle(answer.camera.azimuth.value)}. ${truth ? "Coloured: inferred. Dashed: the truth." : "Colours in the order in which the objects were found."}`
        : "The network has not seen a picture yet.",
      wipe: "The scene that was inferred, drawn again by the renderer.",
      difference: `What the scene does not explain, ${BRIGHTER} times as bright. Black: nothing is left.`,
    };
    at("picture-caption").textContent = words[this.layer];
  }

  wipe(share) {
    this.picture.wipe(share);
    at("wipe").value = String(Math.round(100 * share));
  }

  spread(times) {
    at("spread-value").textContent = `2 σ × ${times}`;
    at("spread").setAttribute("aria-valuetext", `two standard deviations, drawn ${times} times as large`);
    this.space?.exaggerate(times);
  }

  checkModel({ model }) {
    if (model.sha256 === this.model.sha256) return;
    notify("model", "The server answers with another model now", "Load the page again to see what that one knows.");
  }
}

/** The class, and how sure that is where it is not. */
const labelOf = ({ class_id: name, score }) => (score < DOUBTFUL ? `${name} ${percent(score, 0)}` : name);

/** A picture to show, upright. */
async function decode(photo) {
  const bitmap = await createImageBitmap(photo);
  const larger = Math.max(bitmap.width, bitmap.height) / LARGEST;
  if (larger <= 1) return bitmap;
  const [resizeWidth, resizeHeight] = [bitmap.width, bitmap.height].map((side) => Math.round(side / larger));
  return createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
}
