/** Making elements. Text is only ever text: nothing here turns a string into markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 *
 * @param {string} tag
 * @param {Object<string, any>} properties `class`, `data-…`, `aria-…`, `on…` and attributes; what
 *   is null or false is left out.
 * @param {...(Node|string|null)} children
 */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** An SVG element; as `h`. */
export function s(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element with an id. */
export const at = (id) => document.getElementById(id);

/** A horizontal bar of a share in [0, 1], which the text beside it tells. */
export function bar(share, width = 58, height = 5) {
  return s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    s("rect", { width: (width * share).toFixed(2), height }),
  );
}

/** Whether somebody asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * Makes a group of buttons a choice of one: radio buttons, moved through by the arrow keys.
 *
 * @param {HTMLElement} group with buttons `data-value`.
 * @param {(value: string) => void} chosen is told of every choice.
 * @returns {(value: string) => void} chooses without telling.
 */
export function choice(group, chosen) {
  const buttons = [...group.querySelectorAll("button")];
  const show = (value) => {
    for (const button of buttons) {
      const checked = button.dataset.value === value;
      button.setAttribute("aria-checked", String(checked));
      button.tabIndex = checked ? 0 : -1;
    }
  };
  const choose = (button) => {
    show(button.dataset.value);
    chosen(button.dataset.value);
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button));
  walkable(group, buttons, choose);
  return show;
}

/** Moves the focus through buttons by the arrow keys, Home and End, and does something to each. */
export function walkable(group, buttons, reached) {
  group.addEventListener("keydown", (event) => {
    const index = buttons.indexOf(document.activeElement);
    if (index < 0) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const jump = { Home: 0, End: buttons.length - 1 }[event.key];
    if (step === undefined && jump === undefined) return;
    event.preventDefault();
    const next = buttons[jump ?? (index + step + buttons.length) % buttons.length];
    reached(next);
    next.focus();
  });
}

/** How many colours steps have; then they begin anew. */
export const STEP_COLOURS = 6;

/** A class name for a step's colour. */
export const stepClass = (index) => `step-${(index % STEP_COLOURS) + 1}`;
