/** Numbers as people read them. */

import { degrees } from "./pinhole.js";

const MINUS = "−";

/** A number with some digits behind the point and a proper minus. */
export const number = (value, digits = 1) => value.toFixed(digits).replace(/^-(?=[^]*[1-9])/, MINUS).replace("-", "");

/** Metres as millimetres. */
export const millimetres = (metres, digits = 0) => number(1000 * metres, digits);

/** Radians as degrees. */
export const angle = (value, digits = 1) => `${number(degrees(value), digits)}°`;

/** A probability; never rounded up to certainty. */
export function percent(share, digits = 1) {
  const rounded = (100 * share).toFixed(digits);
  if (share < 1 && Number(rounded) === 100) return `> ${(100 - 10 ** -digits).toFixed(digits)} %`;
  return `${rounded} %`;
}

/** JSON, indented, with short lists of numbers and short objects on one line. */
export function pretty(value, indent = "") {
  const flat = JSON.stringify(value);
  if (value === null || typeof value !== "object" || flat.length <= 72) {
    return typeof value === "object" && value !== null ? flat.replace(/([,:])(?=\S)/g, "$1 ") : flat;
  }
  const deeper = `${indent} `;
  if (Array.isArray(value)) {
    if (value.every((item) => typeof item === "number")) return numbers(value, deeper, indent);
    return `[\n${value.map((item) => deeper + pretty(item, deeper)).join(",\n")}\n${indent}]`;
  }
  const entries = Object.entries(value).map(([name, item]) => `${deeper}${JSON.stringify(name)}: ${pretty(item, deeper)}`);
  return `{\n${entries.join(",\n")}\n${indent}}`;
}

/** A long list of numbers, six a row: a covariance is six by six. */
function numbers(values, deeper, indent) {
  const rows = [];
  for (let i = 0; i < values.length; i += 6) rows.push(deeper + values.slice(i, i + 6).join(", "));
  return `[\n${rows.join(",\n")}\n${indent}]`;
}
