// Camera, playback and controls. The scene is drawn by a class Renderer with the methods
//   static async prepare(scene)            optional; called before the constructor
//   constructor(canvas, scene)             scene as returned by readScene
//   setUp()                                create its WebGL objects, again after a lost context
//   pose(frame, motion, other, share)      the moment to draw
//   draw(camera, background)               camera in the conventions of renderers/cameras.py
// and `scene.arrays.motion` has the shape [motions, frames, …].

const LIMIT = Math.PI / 2 - 1e-3; // of the elevation
const LARGEST_RATIO = 2; // device pixels per CSS pixel; more costs time without being visible

class Player {
  constructor(scene) {
    this.scene = scene;
    this.canvas = document.getElementById("stage");
    this.renderer = new Renderer(this.canvas, scene);
    this.motions = scene.arrays.motion.shape[0];
    this.frames = scene.arrays.motion.shape[1];
    this.state = { frame: 0, motion: 0, other: Math.min(1, this.motions - 1), share: 0, speed: 1, playing: this.frames > 1 };
    this.size = null; // [width, height] in pixels, instead of the window's
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.resetView();
    this.addControls();
    this.addPointer();
    this.dark.addEventListener("change", () => this.change());
    new ResizeObserver(() => this.change()).observe(this.canvas);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => { this.renderer.setUp(); this.set({}); });
    this.set({});
  }

  // Seconds from one frame to the next. A loop shows each frame for as long, also the last.
  get spacing() {
    const [first, last] = this.scene.phases;
    return ((last - first) / Math.max(1, this.frames - 1)) * this.scene.seconds;
  }

  get phase() {
    const [first, last] = this.scene.phases;
    return first + ((last - first) * Math.min(this.state.frame, this.frames - 1)) / Math.max(1, this.frames - 1);
  }

  // --- what is shown ---

  // Change some of {phase, frame, motion, other, share, speed, playing}.
  set(changes) {
    const { phase, ...rest } = changes;
    Object.assign(this.state, rest);
    if (phase !== undefined) {
      const [first, last] = this.scene.phases;
      this.state.frame = last > first ? ((phase - first) / (last - first)) * (this.frames - 1) : 0;
    }
    const { frame, motion, other, share } = this.state;
    this.renderer.pose(Math.min(frame, this.frames - 1), motion, other, share);
    this.showState();
    this.change();
  }

  // Change some of {azimuth, elevation (radians), distance, target}.
  look(changes) {
    Object.assign(this.view, changes);
    this.view.elevation = Math.max(-LIMIT, Math.min(LIMIT, this.view.elevation));
    this.change();
  }

  resetView() {
    const { azimuth_deg, elevation_deg, distance, target } = this.scene.camera;
    const radians = Math.PI / 180;
    this.view = { azimuth: azimuth_deg * radians, elevation: elevation_deg * radians, distance, target };
    this.change();
  }

  // Draw before the next repaint, and go on while playing.
  change() {
    this.dirty = true;
    if (!this.scheduled) this.scheduled = requestAnimationFrame((time) => this.step(time));
  }

  step(time) {
    this.scheduled = 0;
    const { state } = this;
    if (state.playing) {
      const seconds = this.last === undefined ? 0 : Math.min((time - this.last) / 1000, 0.25);
      this.last = time;
      this.set({ frame: (state.frame + (state.speed * seconds) / this.spacing) % this.frames });
    } else this.last = undefined;
    if (this.dirty) this.draw();
  }

  // The camera as renderers.cameras.orbit_cameras makes it, around the target.
  camera() {
    const { azimuth, elevation, distance, target } = this.view;
    const [width, height] = [this.canvas.width, this.canvas.height];
    const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
    const rows = [[ca, 0, -sa], [se * sa, -ce, se * ca], [-ce * sa, -se, -ce * ca]];
    const worldToCamera = rows.map((row, i) => {
      const shift = row[0] * target[0] + row[1] * target[1] + row[2] * target[2];
      return [...row, (i === 2 ? distance : 0) - shift];
    });
    worldToCamera.push([0, 0, 0, 1]);
    const focal = (0.5 * Math.min(width, height)) / Math.tan((this.scene.camera.fov_deg * Math.PI) / 360);
    return { worldToCamera, K: [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], width, height };
  }

  draw() {
    const { canvas } = this;
    const ratio = Math.min(devicePixelRatio || 1, LARGEST_RATIO);
    const [width, height] = this.size || [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.dirty = false;
    if (width && height) this.renderer.draw(this.camera(), this.scene.background[this.dark.matches ? "dark" : "light"]);
  }

  // --- controls ---

  addControls() {
    const control = (id) => document.getElementById(id);
    const listen = (id, event, react) => control(id).addEventListener(event, react);
    for (const id of ["motion", "other"]) {
      this.scene.names.forEach((name, i) => control(id).add(new Option(name, i)));
      listen(id, "change", (event) => this.set({ [id]: Number(event.target.value) }));
    }
    control("motions").hidden = this.motions < 2;
    Object.assign(control("phase"), { min: this.scene.phases[0], max: this.scene.phases[1] });
    control("phase").disabled = control("play").disabled = this.frames < 2;
    listen("share", "input", (event) => this.set({ share: Number(event.target.value) }));
    listen("phase", "input", (event) => this.set({ phase: Number(event.target.value), playing: false }));
    listen("speed", "change", (event) => this.set({ speed: Number(event.target.value) }));
    listen("play", "click", () => this.set({ playing: !this.state.playing }));
    listen("reset", "click", () => this.resetView());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    document.querySelector("footer").hidden = false;
  }

  key(event) {
    const step = 0.1;
    const turns = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === " ") this.set({ playing: !this.state.playing });
    else if (turns[event.key]) {
      const [across, up] = turns[event.key];
      this.look({ azimuth: this.view.azimuth + across, elevation: this.view.elevation + up });
    } else return;
    event.preventDefault();
  }

  showState() {
    const { playing, motion, other, share, speed } = this.state;
    const play = document.getElementById("play");
    play.classList.toggle("playing", playing);
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    const show = { phase: this.phase, motion, other, share, speed };
    for (const [id, value] of Object.entries(show)) document.getElementById(id).value = value;
    document.getElementById("phase-text").value = this.phase.toFixed(2);
    document.getElementById("share-text").value = `${Math.round(100 * share)} %`;
  }

  // One pointer turns, two zoom. As in other viewers, the object follows the pointer.
  addPointer() {
    const { canvas } = this;
    const pointers = new Map();
    const apart = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const wide = pointers.size === 2 && apart();
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 2) return this.zoom(wide / Math.max(apart(), 1));
      const turn = Math.PI / Math.max(200, Math.min(canvas.clientWidth, canvas.clientHeight));
      const { azimuth, elevation } = this.view;
      if (pointers.size === 1) {
        this.look({
          azimuth: azimuth - turn * (event.clientX - before[0]),
          elevation: elevation + turn * (event.clientY - before[1]),
        });
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.resetView());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) / 500));
    }, { passive: false });
  }

  zoom(factor) {
    const usual = this.scene.camera.distance;
    this.look({ distance: Math.max(usual / 8, Math.min(usual * 8, this.view.distance * factor)) });
  }
}

(async () => {
  const message = document.getElementById("message");
  try {
    const scene = await readScene();
    await Renderer.prepare?.(scene);
    window.player = new Player(scene);
    window.player.draw();
    message.hidden = true;
    performance.mark("first picture");
  } catch (error) {
    message.textContent = `${error.message || error}`;
    throw error;
  }
})();
