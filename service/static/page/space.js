/** The scene in three dimensions: table, objects, the camera and what it saw, and how sure all is. */

import {
  AmbientLight,
  BufferGeometry,
  BoxGeometry,
  CanvasTexture,
  CircleGeometry,
  Color,
  DirectionalLight,
  DoubleSide,
  Float32BufferAttribute,
  GridHelper,
  Group,
  HemisphereLight,
  LineBasicMaterial,
  LineLoop,
  LineSegments,
  Mesh,
  MeshBasicMaterial,
  MeshStandardMaterial,
  OrbitControls,
  PCFShadowMap,
  PerspectiveCamera,
  PlaneGeometry,
  Scene,
  SRGBColorSpace,
  Vector3,
  WebGLRenderer,
} from "../three.min.js";

import { h, STEP_COLOURS, stepClass } from "./dom.js";
import { cameraAt } from "./pinhole.js";
import { shapeOf } from "./shapes.js";

const SIGMAS = 2;
const FRUSTUM = 0.42; // m, from the camera to the picture that hangs before it
const THICK = 0.02; // m, of the table as it is drawn
const LIFT = 0.002; // m, by which marks lie above the table
const CIRCLE = 64;
const SHEET = 256; // px, of the photo in the frustum
const SLOW = 20; // ms, a frame that no graphics card drew
const NEAREST = 0.35; // m
const ASIDE = 0.95; // rad from the camera, of the first view
const KEY_TURN = 0.09; // rad an arrow key turns

const TINTS = { light: { ground: 0xecece7, grid: 0x000000 }, dark: { ground: 0x0b0e11, grid: 0xffffff } };

export class Space {
  /**
   * @param {HTMLElement} stage to be filled.
   * @param model of `GET /model`.
   * @throws {Error} the browser has no WebGL.
   */
  constructor(stage, model) {
    this.stage = stage;
    this.model = model;
    this.spread = 10;
    this.selected = null;
    this.canvas = h("canvas", { class: "space", tabindex: "0", role: "img", "aria-label": "The scene in three dimensions" });
    this.renderer = new WebGLRenderer({ canvas: this.canvas, antialias: true, powerPreference: "low-power" });
    this.renderer.debug.checkShaderErrors = false; // to ask for them is to wait for the compiler
    this.renderer.outputColorSpace = SRGBColorSpace;
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = PCFShadowMap;
    this.renderer.shadowMap.autoUpdate = false;
    stage.replaceChildren(this.canvas);

    this.scene = new Scene();
    this.eye = new PerspectiveCamera(36, 1, 0.02, 40);
    this.eye.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.eye, this.canvas);
    Object.assign(this.controls, { enableDamping: false, minDistance: NEAREST, maxDistance: 6, maxPolarAngle: Math.PI * 0.495 });
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("start", () => this.leave());
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.furnish();
    this.objects = new Group();
    this.marks = new Group();
    this.station = new Group(); // the camera
    this.scene.add(this.objects, this.marks, this.station);
    this.observeTheme();
    this.look("orbit");
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  /** Table and light, which stay. */
  furnish() {
    const { size, colour } = this.model.table;
    const top = new MeshStandardMaterial({ color: new Color().setRGB(...colour, SRGBColorSpace), roughness: 0.95 });
    const table = new Mesh(new BoxGeometry(size.x, size.y, THICK), top);
    table.position.z = -THICK / 2;
    table.receiveShadow = true;
    this.grid = new GridHelper(1, 10);
    this.grid.rotation.x = Math.PI / 2;
    this.grid.scale.set(size.x, 1, size.y);
    this.grid.position.z = LIFT / 2;
    Object.assign(this.grid.material, { transparent: true, opacity: 0.12, depthWrite: false });
    this.grid.material.vertexColors = false;
    const reach = Math.max(size.x, size.y);
    const sun = new DirectionalLight(0xffffff, 2.1);
    sun.position.set(-0.5 * reach, -0.7 * reach, 1.6 * reach);
    sun.castShadow = true;
    sun.shadow.mapSize.set(1024, 1024);
    sun.shadow.bias = -0.0006;
    sun.shadow.normalBias = 0.004;
    sun.shadow.radius = 5;
    Object.assign(sun.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 0.1, far: 4 * reach });
    this.scene.add(table, this.grid, sun, new HemisphereLight(0xffffff, 0x8a8378, 1.5), new AmbientLight(0xffffff, 0.35));
  }

  observeTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const tint = () => {
      const theme = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
      const { ground, grid } = TINTS[theme];
      this.scene.background = new Color(ground);
      this.grid.material.color.set(grid);
      this.ink = new Color(grid);
      const style = getComputedStyle(document.documentElement);
      this.colours = Array.from({ length: STEP_COLOURS }, (_, i) => new Color(style.getPropertyValue(`--${stepClass(i)}`).trim()));
      if (this.answer) this.placeCamera();
      this.draw();
    };
    dark.addEventListener("change", tint);
    new MutationObserver(tint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    tint();
  }

  /**
   * Shows a scene.
   *
   * @param answer of `POST /infer`.
   * @param {ImageBitmap} photo that was inferred.
   * @param region of it that was looked at, px.
   * @param {boolean} moving whether more will follow at once: the view then stays where it is.
   */
  async show(answer, photo, region, moving = false) {
    const shapes = await Promise.all(answer.objects.map((item) => shapeOf(item.class_id)));
    Object.assign(this, { answer, shapes, photo, region });
    this.objects.clear();
    answer.objects.forEach((item, i) => {
      const standing = new Group();
      const mesh = shapes[i].scene.clone();
      mesh.rotation.x = Math.PI / 2;
      mesh.traverse((node) => {
        node.castShadow = node.receiveShadow = Boolean(node.isMesh);
      });
      standing.add(mesh);
      const { position, orientation } = item.pose;
      standing.position.set(position.x, position.y, position.z);
      standing.quaternion.set(orientation.x, orientation.y, orientation.z, orientation.w);
      this.objects.add(standing);
    });
    this.renderer.shadowMap.needsUpdate = true;
    this.placeMarks();
    this.placeCamera();
    if (this.view === "camera" || (this.view === "orbit" && !moving)) this.look(this.view);
    this.canvas.setAttribute(
      "aria-label",
      `The scene in three dimensions: ${answer.objects.map((item) => item.class_id).join(", ") || "an empty table"}`,
    );
    this.draw();
  }

  /** How many times larger than it is uncertainty is drawn. */
  exaggerate(times) {
    this.spread = times;
    this.placeMarks();
    this.draw();
  }

  /** Makes one object stand out, or none. */
  select(id) {
    this.selected = id;
    this.placeMarks();
    this.draw();
  }

  /** The ellipse and the wedge of each object. */
  placeMarks() {
    empty(this.marks);
    if (!this.answer) return;
    this.answer.objects.forEach((item, i) => {
      const colour = this.colours[i % STEP_COLOURS];
      const { x, y } = item.pose.position;
      const mark = new Group();
      mark.position.set(x, y, LIFT);
      const radius = 1.18 * this.shapes[i].radius;
      const strong = item.id === this.selected;
      mark.add(ring(radius, colour, strong ? 1 : 0.4));
      if (strong) mark.add(ring(1.03 * radius, colour, 1));
      if (item.yaw.std !== null) {
        const half = Math.min(Math.PI, Math.max(0.004, SIGMAS * this.spread * item.yaw.std));
        mark.add(wedge(radius, item.yaw.value, half, colour));
      }
      const { angle, long, short } = ellipse(item.covariance);
      mark.add(disc(angle, SIGMAS * this.spread * long, SIGMAS * this.spread * short, colour));
      this.marks.add(mark);
    });
  }

  /** The camera's frustum, and the photo that hangs in it. */
  placeCamera() {
    empty(this.station);
    const { camera } = this.model;
    const { position, right, down, forward } = cameraAt(camera, this.answer.camera.azimuth.value);
    const high = FRUSTUM * Math.tan(camera.fovy / 2);
    const wide = high * camera.aspect;
    const axis = camera.principal ?? { x: 0, y: 0 };
    const corner = (across, along) => {
      const [aside, below] = [across * wide - 2 * axis.x * high, (along - 2 * axis.y) * high];
      return position.map((value, k) => value + FRUSTUM * forward[k] + aside * right[k] + below * down[k]);
    };
    const corners = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
    const lines = corners.flatMap((point, i) => [position, point, point, corners[(i + 1) % 4]]);
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new Float32BufferAttribute(lines.flat(), 3));
    const sheet = new Mesh(new PlaneGeometry(2 * wide, 2 * high), this.photoMaterial());
    sheet.position.set(...corner(0, 0));
    sheet.up.set(...down.map((value) => -value));
    sheet.lookAt(...corner(0, 0).map((value, k) => value - forward[k]));
    this.station.add(new LineSegments(geometry, thin(this.ink, 0.55)), sheet);
  }

  /** The photo that hangs in the frustum. */
  photoMaterial() {
    if (!this.sheet) {
      this.sheet = h("canvas", { width: SHEET, height: SHEET });
      this.map = new CanvasTexture(this.sheet);
      this.map.colorSpace = SRGBColorSpace;
      this.hung = new MeshBasicMaterial({ map: this.map, side: DoubleSide });
    }
    const { x, y, width, height } = this.region;
    this.sheet.getContext("2d").drawImage(this.photo, x, y, width, height, 0, 0, SHEET, SHEET);
    this.map.needsUpdate = true;
    return this.hung;
  }

  /** Looks at the scene from `orbit`, `camera` or `above`. */
  look(view) {
    this.view = view;
    const reach = Math.max(this.model.table.size.x, this.model.table.size.y);
    const target = new Vector3(0, 0, 0);
    this.eye.fov = 36;
    this.eye.up.set(0, 0, 1);
    if (view === "camera" && this.answer) {
      const { camera } = this.model;
      const { position, down } = cameraAt(camera, this.answer.camera.azimuth.value);
      this.eye.position.set(...position);
      this.eye.up.set(...down.map((value) => -value));
      target.set(camera.target.x, camera.target.y, camera.target.z);
      this.eye.fov = (camera.fovy * 180) / Math.PI;
    } else if (view === "above") {
      this.eye.position.set(0, -0.001, 1.75 * reach);
    } else {
      // From the side and a little behind the camera, so that it and its photo are in sight as well.
      const { camera } = this.model;
      const turn = (this.answer?.camera.azimuth.value ?? 0) + ASIDE;
      const { position } = cameraAt(camera, this.answer?.camera.azimuth.value ?? 0);
      target.set(...position.map((value) => 0.4 * value));
      const far = 1.3 * (reach + camera.distance);
      this.eye.position.set(Math.sin(turn) * far * 0.86, -Math.cos(turn) * far * 0.86, 0.52 * far);
    }
    // Its own photo would hang before the camera's eye.
    this.station.visible = view !== "camera";
    this.shiftLens();
    this.controls.target.copy(target);
    this.controls.update();
    this.draw();
  }

  /** Takes the eye, upright, out of where it was put, to go its own way. */
  leave() {
    this.view = "own";
    this.station.visible = true;
    this.eye.up.set(0, 0, 1);
    this.shiftLens();
  }

  /** Its axis meets the picture beside the middle where the camera's does and one looks through it. */
  shiftLens() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const axis = (this.view === "camera" && this.model.camera.principal) || { x: 0, y: 0 };
    this.eye.setViewOffset(width, height, -axis.x * height, -axis.y * height, width, height);
  }

  onKey(event) {
    const turn = { ArrowLeft: [-KEY_TURN, 0], ArrowRight: [KEY_TURN, 0], ArrowUp: [0, KEY_TURN], ArrowDown: [0, -KEY_TURN] }[event.key];
    const zoom = { "+": 0.9, "=": 0.9, "-": 1.11 }[event.key];
    if (!turn && !zoom) return;
    event.preventDefault();
    this.leave();
    const away = this.eye.position.clone().sub(this.controls.target);
    const flat = Math.hypot(away.x, away.y);
    const azimuth = Math.atan2(away.y, away.x) + (turn?.[0] ?? 0);
    const height = Math.min(1.55, Math.max(0.02, Math.atan2(away.z, flat) + (turn?.[1] ?? 0)));
    const distance = Math.min(6, Math.max(NEAREST, away.length() * (zoom ?? 1)));
    away.set(Math.cos(azimuth) * Math.cos(height), Math.sin(azimuth) * Math.cos(height), Math.sin(height));
    this.eye.position.copy(this.controls.target).addScaledVector(away, distance);
    this.controls.update();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio || 1, 2));
    this.renderer.setSize(width, height, false);
    this.shiftLens();
    this.renderer.shadowMap.needsUpdate = true;
    this.draw();
  }

  /** Draws at the next frame, only when something has changed, and half of the time at most. */
  draw() {
    if (this.pending) {
      this.again = true;
      return;
    }
    this.pending = requestAnimationFrame(async () => {
      if (this.stage.clientWidth) {
        const began = performance.now();
        this.renderer.render(this.scene, this.eye);
        await this.drawn();
        const took = performance.now() - began;
        // Without a graphics card the processor draws, and whoever infers may need it as well.
        if (took > SLOW) await new Promise((done) => setTimeout(done, took));
      }
      this.pending = null;
      if (this.again) {
        this.again = false;
        this.draw();
      }
    });
  }

  /** Waits until what was asked of the graphics card is done. */
  async drawn() {
    const gl = this.renderer.getContext();
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (gl.clientWaitSync(fence, 0, 0) === gl.TIMEOUT_EXPIRED) await new Promise((done) => setTimeout(done, 4));
    gl.deleteSync(fence);
  }
}

/** Empties a group and frees its shapes. */
function empty(group) {
  group.traverse((node) => node.geometry?.dispose());
  group.clear();
}

/** Angle and standard deviations along the axes of a position's spread, of the 36 numbers. */
export function ellipse(covariance) {
  const [xx, xy, yy] = [covariance[0], covariance[1], covariance[7]];
  const middle = (xx + yy) / 2;
  const offset = Math.hypot((xx - yy) / 2, xy);
  return {
    angle: Math.atan2(2 * xy, xx - yy) / 2,
    long: Math.sqrt(middle + offset),
    short: Math.sqrt(Math.max(0, middle - offset)),
  };
}

// One of each kind and colour for ever: to free a material is to compile its shader anew for the next.
const materials = new Map();

function material(Kind, colour, opacity, more = {}) {
  const name = [Kind.name, colour.getHex(), opacity, ...Object.keys(more)].join();
  if (!materials.has(name)) {
    materials.set(name, new Kind({ color: colour, transparent: true, opacity, ...more }));
  }
  return materials.get(name);
}

const flat = (colour, opacity, more = {}) =>
  material(MeshBasicMaterial, colour, opacity, { depthWrite: false, side: DoubleSide, ...more });
const thin = (colour, opacity, more = {}) => material(LineBasicMaterial, colour, opacity, more);

function ring(radius, colour, opacity, more) {
  const geometry = new BufferGeometry().setFromPoints(
    Array.from({ length: CIRCLE }, (_, i) => {
      const angle = (2 * Math.PI * i) / CIRCLE;
      return new Vector3(radius * Math.cos(angle), radius * Math.sin(angle), 0);
    }),
  );
  return new LineLoop(geometry, thin(colour, opacity, more));
}

function wedge(radius, yaw, half, colour) {
  const mesh = new Mesh(new CircleGeometry(radius, CIRCLE, yaw - half, 2 * half), flat(colour, 0.45));
  mesh.position.z = LIFT / 4;
  return mesh;
}

function disc(angle, long, short, colour) {
  const group = new Group();
  // It is about where the object stands: it shows through the object.
  const through = { depthTest: false };
  const fill = new Mesh(new CircleGeometry(1, CIRCLE), flat(colour, 0.5, through));
  const edge = ring(1, colour, 1, through);
  fill.renderOrder = edge.renderOrder = 5;
  group.add(fill, edge);
  group.scale.set(Math.max(long, 1e-4), Math.max(short, 1e-4), 1);
  group.rotation.z = angle;
  group.position.z = LIFT / 2;
  return group;
}
