/** Poses and the camera: metres, radians, quaternions x y z w; the table frame has z up. */

/** A turn about z as a quaternion. */
export const turnAboutZ = (yaw) => ({ x: 0, y: 0, z: Math.sin(yaw / 2), w: Math.cos(yaw / 2) });

/** The angle of a turn about z, rad. */
export const yawOf = ({ z, w }) => 2 * Math.atan2(z, w);

/** An angle between -π and π. */
export const wrap = (angle) => Math.atan2(Math.sin(angle), Math.cos(angle));

export const degrees = (radians) => (radians * 180) / Math.PI;
export const radians = (angle) => (angle * Math.PI) / 180;

/** The rotation matrix of a quaternion, rows of three. */
export function matrixOf({ x, y, z, w }) {
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
  ];
}

/**
 * Where a camera on its circle stands: the position and the axes (columns right, down, forward, as
 * of a pose in an answer).
 *
 * @param camera of `GET /model`.
 * @param {number} azimuth rad; 0 stands at -y looking to +y.
 */
export function cameraAt(camera, azimuth) {
  const [ca, sa] = [Math.cos(azimuth), Math.sin(azimuth)];
  const [ce, se] = [Math.cos(camera.elevation), Math.sin(camera.elevation)];
  const forward = [-sa * ce, ca * ce, -se];
  const level = { right: [ca, sa, 0], down: [sa * se, -ca * se, -ce] };
  const [cr, sr] = [Math.cos(camera.roll ?? 0), Math.sin(camera.roll ?? 0)];
  const right = level.right.map((value, i) => cr * value - sr * level.down[i]);
  const down = level.right.map((value, i) => sr * value + cr * level.down[i]);
  const { target, distance } = camera;
  const position = ["x", "y", "z"].map((axis, i) => target[axis] - distance * forward[i]);
  return { position, right, down, forward };
}

/**
 * The part of a picture that the network looks at: the largest centred rectangle of the camera's
 * shape.
 *
 * @returns {{x: number, y: number, width: number, height: number}} px
 */
export function regionOf(camera, width, height) {
  const kept = {
    width: Math.min(width, height * camera.aspect),
    height: Math.min(height, width / camera.aspect),
  };
  return { x: (width - kept.width) / 2, y: (height - kept.height) / 2, ...kept };
}

/**
 * A function from points of the table frame to px of the picture, or null behind the camera.
 *
 * @param camera of `GET /model`.
 * @param {number} azimuth rad.
 * @param region of the picture, as `regionOf` gives it.
 */
export function projection(camera, azimuth, region) {
  const { position, right, down, forward } = cameraAt(camera, azimuth);
  const focal = region.height / 2 / Math.tan(camera.fovy / 2);
  const axis = camera.principal ?? { x: 0, y: 0 };
  const cx = region.x + region.width / 2 + axis.x * region.height;
  const cy = region.y + region.height / 2 + axis.y * region.height;
  return (x, y, z) => {
    const [dx, dy, dz] = [x - position[0], y - position[1], z - position[2]];
    const away = dx * forward[0] + dy * forward[1] + dz * forward[2];
    if (away < 1e-3) return null;
    return [
      cx + (focal * (dx * right[0] + dy * right[1] + dz * right[2])) / away,
      cy + (focal * (dx * down[0] + dy * down[1] + dz * down[2])) / away,
    ];
  };
}
