/**
 * Where an object lies in a picture: the outline of its projected mesh.
 *
 * The triangles are filled into a small mask, whose contour at half coverage is good to a fraction of
 * a mask's pixel. That takes a millisecond and no WebGL, and what hides a part of the object does not hide its outline.
 */

import { yawOf } from "./pinhole.js";

const LARGEST = 144; // px of the mask, along its longer side
const MARGIN = 2;
const FINE = 2; // samples of a mask's pixel along each axis

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

/** The coverage of a mask's pixels, 0 to 255, from FINE x FINE samples each. */
function fill(points, box, scale, width, height) {
  const across = width * FINE;
  const samples = new Uint8Array(across * height * FINE);
  const corner = (k) => [
    ((points[k] - box.x) * scale + MARGIN) * FINE,
    ((points[k + 1] - box.y) * scale + MARGIN) * FINE,
  ];
  for (let j = 0; j < points.length; j += 6) {
    fillTriangle(samples, across, corner(j), corner(j + 2), corner(j + 4));
  }
  const mask = new Uint8Array(width * height);
  const share = 255 / FINE ** 2;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let inside = 0;
      for (let v = 0; v < FINE; v += 1) {
        for (let u = 0; u < FINE; u += 1) inside += samples[(y * FINE + v) * across + x * FINE + u];
      }
      mask[y * width + x] = share * inside;
    }
  }
  return mask;
}

/** Sets the samples whose centres lie in a triangle, row by row. */
function fillTriangle(samples, across, a, b, c) {
  const top = Math.ceil(Math.min(a[1], b[1], c[1]) - 0.5);
  const bottom = Math.floor(Math.max(a[1], b[1], c[1]) - 0.5);
  for (let row = top; row <= bottom; row += 1) {
    const y = row + 0.5;
    let [left, right] = [Infinity, -Infinity];
    for (const [from, to] of [[a, b], [b, c], [c, a]]) {
      if (from[1] > y === to[1] > y) continue;
      const x = from[0] + ((y - from[1]) / (to[1] - from[1])) * (to[0] - from[0]);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    if (left <= right) {
      samples.fill(1, row * across + Math.ceil(left - 0.5), row * across + Math.floor(right - 0.5) + 1);
    }
  }
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
