/**
 * Where an object lies in a picture: the outline of its projected mesh.
 *
 * The triangles are filled into a small mask, whose contour at half coverage is exact to a fraction
 * of a mask's pixel. It needs no WebGL, and what hides a part of the object does not hide its outline.
 */

import { yawOf } from "./pinhole.js";

const LARGEST = 144; // px of the mask, along its longer side
const MARGIN = 2;

let canvas = null;

/**
 * The outline of an object.
 *
 * @param {Float32Array} triangles in the object's frame, m.
 * @param pose of the object, upright.
 * @param project of `projection`.
 * @returns {{path: string, box: {x: number, y: number, width: number, height: number}}|null} an
 *   SVG path and its box, px of the picture; null when it is not before the camera.
 */
export function silhouette(triangles, pose, project) {
  const points = projected(triangles, pose, project);
  if (!points) return null;
  const box = boxOf(points);
  if (!(box.width > 0 && box.height > 0)) return null;
  const scale = (LARGEST - 2 * MARGIN) / Math.max(box.width, box.height);
  const width = Math.ceil(box.width * scale) + 2 * MARGIN;
  const height = Math.ceil(box.height * scale) + 2 * MARGIN;
  const mask = fill(points, box, scale, width, height);
  const path = contours(mask, width, height)
    .map((loop) => {
      const steps = loop.map(([x, y]) => {
        const [u, v] = [box.x + (x - MARGIN) / scale, box.y + (y - MARGIN) / scale];
        return `${u.toFixed(1)} ${v.toFixed(1)}`;
      });
      return `M${steps.join("L")}Z`;
    })
    .join("");
  return { path, box };
}

function projected(triangles, pose, project) {
  const yaw = yawOf(pose.orientation);
  const [cos, sin] = [Math.cos(yaw), Math.sin(yaw)];
  const points = new Float32Array((triangles.length / 3) * 2);
  for (let i = 0, j = 0; i < triangles.length; i += 3, j += 2) {
    const [x, y, z] = [triangles[i], triangles[i + 1], triangles[i + 2]];
    const pixel = project(
      pose.position.x + cos * x - sin * y,
      pose.position.y + sin * x + cos * y,
      pose.position.z + z,
    );
    if (!pixel) return null;
    points[j] = pixel[0];
    points[j + 1] = pixel[1];
  }
  return points;
}

function boxOf(points) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let j = 0; j < points.length; j += 2) {
    left = Math.min(left, points[j]);
    right = Math.max(right, points[j]);
    top = Math.min(top, points[j + 1]);
    bottom = Math.max(bottom, points[j + 1]);
  }
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/** The coverage of a mask's pixels, 0 to 255. */
function fill(points, box, scale, width, height) {
  if (!canvas) {
    canvas = document.createElement("canvas");
    canvas.width = canvas.height = LARGEST + 1; // what is rounded up may be one more
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, width, height);
  context.beginPath();
  for (let j = 0; j < points.length; j += 6) {
    const at = (k) => [
      (points[j + k] - box.x) * scale + MARGIN,
      (points[j + k + 1] - box.y) * scale + MARGIN,
    ];
    const [a, b, c] = [at(0), at(2), at(4)];
    const area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    if (Math.abs(area) < 1e-3) continue;
    // All the same way round, so that front and back add up instead of cancelling.
    const [second, third] = area > 0 ? [b, c] : [c, b];
    context.moveTo(a[0], a[1]);
    context.lineTo(second[0], second[1]);
    context.lineTo(third[0], third[1]);
    context.closePath();
  }
  context.fill("nonzero");
  const { data } = context.getImageData(0, 0, width, height);
  const mask = new Uint8ClampedArray(width * height);
  for (let i = 0; i < mask.length; i += 1) mask[i] = data[4 * i + 3];
  return mask;
}

// Of marching squares: for each set of corners inside (top left 1, top right 2, bottom right 4,
// bottom left 8), the edges (top 0, right 1, bottom 2, left 3) that the contour enters and leaves by,
// with the inside to its left.
const EDGES = [
  [], [[0, 3]], [[1, 0]], [[1, 3]], [[2, 1]], [[0, 3], [2, 1]], [[2, 0]], [[2, 3]],
  [[3, 2]], [[0, 2]], [[1, 0], [3, 2]], [[1, 2]], [[3, 1]], [[0, 1]], [[3, 0]], [],
];
const HALF = 127.5;

/** The closed lines at half coverage, px of the mask; pixels count at their centres. */
export function contours(mask, width, height) {
  const next = new Map();
  const corner = (x, y) => mask[y * width + x];
  // An edge's number: the pixel at its top or left end, and whether it runs to the right or down.
  const edge = (x, y, side) =>
    [2 * (y * width + x), 2 * (y * width + x + 1) + 1, 2 * ((y + 1) * width + x), 2 * (y * width + x) + 1][side];
  for (let y = 0; y + 1 < height; y += 1) {
    for (let x = 0; x + 1 < width; x += 1) {
      const inside =
        (corner(x, y) > HALF ? 1 : 0) | (corner(x + 1, y) > HALF ? 2 : 0) |
        (corner(x + 1, y + 1) > HALF ? 4 : 0) | (corner(x, y + 1) > HALF ? 8 : 0);
      for (const [enter, leave] of EDGES[inside]) next.set(edge(x, y, enter), edge(x, y, leave));
    }
  }
  const point = (number) => {
    const pixel = number >> 1;
    const [x, y] = [pixel % width, Math.floor(pixel / width)];
    const down = number & 1;
    const [from, to] = [corner(x, y), down ? corner(x, y + 1) : corner(x + 1, y)];
    const share = (HALF - from) / (to - from);
    return down ? [x + 0.5, y + 0.5 + share] : [x + 0.5 + share, y + 0.5];
  };
  const loops = [];
  while (next.size) {
    const first = next.keys().next().value;
    const loop = [];
    for (let number = first; next.has(number); ) {
      loop.push(point(number));
      const following = next.get(number);
      next.delete(number);
      number = following;
    }
    if (loop.length > 2) loops.push(loop);
  }
  return loops;
}
