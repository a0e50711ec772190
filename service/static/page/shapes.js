/** The objects' meshes, from the server, once each. */

import { GLTFLoader, Matrix4 } from "../three.min.js";

import { ask } from "./service.js";

// glTF has y up, the table frame z.
const UPRIGHT = new Matrix4().makeRotationX(Math.PI / 2);

const shapes = new Map();

/**
 * The shape of a class.
 *
 * @param {string} name of the class.
 * @returns {Promise<{scene: Object, triangles: Float32Array, radius: number}>}
 *   `scene`: a Group of three.js, to be cloned; turned by +90° about x it has the object's frame. `triangles`: nine
 *   numbers each, m, in the object's frame. `radius`: of the footprint, m.
 */
export function shapeOf(name) {
  if (!shapes.has(name)) {
    const loading = load(name);
    loading.catch(() => shapes.delete(name));
    shapes.set(name, loading);
  }
  return shapes.get(name);
}

/** Forgets all shapes: another model answers. */
export const forgetShapes = () => shapes.clear();

async function load(name) {
  const file = await (await ask(`meshes/${encodeURIComponent(name)}`)).arrayBuffer();
  const { scene } = await new GLTFLoader().parseAsync(file, "");
  scene.updateMatrixWorld(true);
  const parts = [];
  scene.traverse((node) => {
    if (node.isMesh) parts.push(soup(node));
  });
  const triangles = new Float32Array(parts.reduce((total, part) => total + part.length, 0));
  let end = 0;
  for (const part of parts) {
    triangles.set(part, end);
    end += part.length;
  }
  let radius = 0;
  for (let i = 0; i < triangles.length; i += 3) {
    radius = Math.max(radius, Math.hypot(triangles[i], triangles[i + 1]));
  }
  return { scene, triangles, radius };
}

/** A mesh's triangles in the object's frame. */
function soup(mesh) {
  const flat = mesh.geometry.index ? mesh.geometry.toNonIndexed() : mesh.geometry.clone();
  flat.applyMatrix4(new Matrix4().multiplyMatrices(UPRIGHT, mesh.matrixWorld));
  return flat.getAttribute("position").array;
}
