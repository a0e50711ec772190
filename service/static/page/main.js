/** The page: its views, its theme, its key, and how the server fares. */

import { at, h, walkable } from "./dom.js";
import { readModel } from "./flat.js";
import { notify, notifyError, withdraw } from "./notices.js";
import { askJson, key, link, ServiceError, whenReady } from "./service.js";

const VIEWS = ["tabletop", "digits", "training"];
const THEMES = ["system", "light", "dark"];
const THEME = "airscene-theme";
const LOOK_AGAIN = 2000; // ms, while the server is not there or not ready

tabs();
theme();
keys();
health();
start();

/** Shows the view that the address names, and moves between views. */
function tabs() {
  const buttons = VIEWS.map((name) => at(`tab-${name}`));
  const show = () => {
    const named = location.hash.slice(1);
    const view = VIEWS.includes(named) ? named : VIEWS[0];
    VIEWS.forEach((name, i) => {
      at(name).hidden = name !== view;
      buttons[i].setAttribute("aria-selected", String(name === view));
      buttons[i].tabIndex = name === view ? 0 : -1;
    });
    document.title = `${at(`tab-${view}`).textContent} · airscene`;
    dispatchEvent(new CustomEvent("view", { detail: view }));
  };
  const choose = (button) => {
    const view = button.getAttribute("aria-controls");
    history.replaceState(null, "", `#${view}`);
    show();
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button));
  walkable(buttons[0].parentElement, buttons, choose);
  addEventListener("hashchange", show);
  show();
}

function theme() {
  const root = document.documentElement;
  const button = at("theme-button");
  const apply = (name) => {
    if (name === "system") delete root.dataset.theme;
    else root.dataset.theme = name;
    at("theme-name").textContent = name;
  };
  let current = localStorage.getItem(THEME) ?? "system";
  if (!THEMES.includes(current)) current = "system";
  apply(current);
  button.addEventListener("click", () => {
    current = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
    localStorage.setItem(THEME, current);
    apply(current);
  });
}

/** The dialog for the key; tells `key` on `link` when one was given. */
function keys() {
  const dialog = at("key");
  at("key-button").hidden = !key.get();
  at("key-button").addEventListener("click", () => openKeys());
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "use") return;
    key.set(at("key-input").value.trim());
    at("key-input").value = "";
    link.dispatchEvent(new Event("key"));
  });
}

function openKeys(refused = false) {
  at("key-button").hidden = false;
  if (refused) at("key-caption").textContent = "The key was not taken. Whoever runs the server gives you the right one.";
  if (!at("key").open) at("key").showModal();
}

/** Says how the server fares, and looks again while it is not well. */
function health() {
  const words = { gone: "not there", busy: "busy", key: "needs a key" };
  let timer = null;
  link.addEventListener("state", ({ detail: { state, words: said } }) => {
    at("lamp").dataset.state = state;
    at("lamp-words").textContent = state === "ok" ? name() : (said ?? words[state]);
    clearTimeout(timer);
    if (state === "ok") withdraw("link");
    if (state === "gone" || state === "busy") timer = setTimeout(() => askJson("readyz", { patient: false }).catch(() => {}), LOOK_AGAIN);
    if (state === "gone") {
      notify("link", "The server does not answer", "Is it still running, and are you on its network? The page goes on by itself when it is back.");
    } else if (state === "busy") {
      notify("link", said === "starting" ? "The server is starting" : "The server is busy", "The page asks again by itself; nothing is lost.");
    } else if (state === "key") {
      openKeys(Boolean(key.get()));
    }
  });
}

let model = null;
const name = () => (model ? `${model.name} ${model.version}` : "connected");

/** Asks which model answers, and brings up the views that fit it. */
async function start() {
  for (;;) {
    try {
      model = readModel(await whenReady("model"));
      await whenReady("readyz");
      break;
    } catch (error) {
      if (error instanceof ServiceError && error.kind === "key-needed") {
        await new Promise((given) => link.addEventListener("key", given, { once: true }));
      } else {
        notifyError("model", error);
        await new Promise((done) => setTimeout(done, LOOK_AGAIN));
      }
    }
  }
  withdraw("model");
  at("lamp-words").textContent = name();
  const flat = model.kind === "2d";
  unfit("tabletop", flat, "checkpoints/tabletop", "infers objects on a table");
  unfit("digits", !flat, "checkpoints/multi-mnist", "reads digits and sprites");
  if (flat && !location.hash) at("tab-digits").click();
  try {
    let trained = null;
    if (flat) {
      const { Digits } = await import("./digits.js");
      new Digits(model, (shown) => trained?.look(shown));
    } else {
      const { Tabletop } = await import("./tabletop.js");
      new Tabletop(model, (shown) => trained?.look(shown));
    }
    const { Training } = await import("./training.js");
    trained = new Training(model);
  } catch (error) {
    notifyError("page", error);
  }
}

/** Explains a view that the server's model is not for. */
function unfit(view, foreign, checkpoint, what) {
  const section = at(view);
  section.querySelector("[data-fit]").hidden = foreign;
  const words = section.querySelector("[data-unfit]");
  words.hidden = !foreign;
  if (!foreign) return;
  words.replaceChildren(
    h("h2", {}, `This server runs ${model.name}`),
    h("p", {}, `A server answers with one model. For this view it has to be one that ${what}: start another server beside this one, on a port of its own.`),
    h("pre", { tabindex: "0", role: "region", "aria-label": "Command" }, `make serve CHECKPOINT=${checkpoint} PORT=8001`),
    h("p", {}, `Then open its address. `, h("a", { href: "docs" }, "All settings and addresses"), "."),
  );
}
