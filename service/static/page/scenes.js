/** Scenes of one's own: described as `POST /render` takes them, drawn at random or built by hand. */

import { turnAboutZ } from "./pinhole.js";

/** An object of a scene; `yaw` is there for those who compare, the server reads the orientation. */
export const object = (name, x, y, yaw) => ({
  class_id: name,
  pose: { position: { x, y, z: 0 }, orientation: turnAboutZ(yaw) },
  yaw,
});

/** A scene. */
export const scene = (azimuth, objects) => ({ camera: { azimuth: { value: azimuth } }, objects });

const between = ({ min, max }, share = Math.random()) => min + share * (max - min);

/**
 * A scene in which nothing stands in another, drawn at random.
 *
 * @param model of `GET /model`.
 * @param {number} count of objects; any from 1 when not given.
 * @param {object[]} standing objects that are there already, and count.
 */
export function randomScene(model, count = 1 + Math.floor(Math.random() * model.count_max), standing = []) {
  const objects = [...standing];
  for (let tries = 0; objects.length < count && tries < 500; tries += 1) {
    const kind = model.classes[Math.floor(Math.random() * model.classes.length)];
    const [x, y] = ["x", "y"].map((axis) => between({ min: -model.placement.extent[axis], max: model.placement.extent[axis] }));
    const radius = reach(kind);
    const apart = objects.every(
      (other) => Math.hypot(other.pose.position.x - x, other.pose.position.y - y) > radius + reach(model.classes.find(({ name }) => name === other.class_id)),
    );
    if (apart) objects.push(object(kind.name, x, y, between({ min: -Math.PI, max: Math.PI })));
  }
  return scene(between(model.camera.azimuth), objects);
}

/** A circle about the origin of a class that its box fits into, wherever in it the origin is: m. */
const reach = ({ size }) => 0.8 * Math.max(size.x, size.y);
