// One scene with its canvases. The picture of a motion that was requested replaces the former one at once.

const LARGEST_RATIO = 2; // device pixels per CSS pixel; more costs time without being visible
const WAITING_MS = 500; // after which a request is reported to be in progress
const SCENES = {
  splats: (...args) => new SkinnedScene(...args),
  frames: (...args) => new FramesScene(...args),
  videos: (...args) => new VideoScene(...args),
  mesh: (...args) => MeshScene.create(...args),
};

class Pane {
  constructor(index, changed) {
    this.index = index;
    this.changed = changed;
    this.canvas = element("canvas", { className: "picture", tabIndex: 0,
      ariaLabel: "Three-dimensional view. Drag to turn, pinch or scroll to zoom, double-click to reset." });
    this.overlay = element("canvas", { className: "overlay" });
    this.caption = element("p", { className: "caption" });
    this.message = element("p", { className: "message", role: "status" }, "Loading …");
    this.root = element("div", { className: "pane" }, this.canvas, this.overlay, this.caption, this.message);
    this.show = { points: false, weights: false };
    this.size = null; // [width, height] in pixels, instead of the page's
    this.recent = []; // samples that can be ends of a blend: {title, choice}
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.scene.setUp();
      if (this.show.weights) this.scene.showWeights(true);
      this.posed = undefined;
      this.changed();
    });
    new ResizeObserver(() => this.changed()).observe(this.canvas);
  }

  async load() {
    const { header, arrays } = await requestArrays("scene", { pane: this.index });
    this.header = header;
    this.scene = await SCENES[header.kind](this.canvas, header, arrays);
    if (header.kind === "videos") this.canvas.style.cursor = "default";
    await this.request(header.start);
    if (!this.motion) throw new Error(this.error);
    this.message.hidden = true;
  }

  // Show a motion. While one is on its way, only the latest further request is kept.
  request(choice) {
    this.wanted = choice;
    this.busy ??= this.requestAll().finally(() => { this.busy = null; });
    return this.busy;
  }

  async requestAll() {
    while (this.wanted) {
      const choice = this.wanted;
      this.wanted = null;
      const slow = setTimeout(() => { this.waiting = true; this.changed(); }, WAITING_MS);
      try {
        const { header, arrays } = await requestArrays("motion", { pane: this.index, choice: JSON.stringify(choice) });
        this.scene.setMotion(header, arrays);
        Object.assign(this, { choice, motion: header, posed: undefined, error: "" });
        if (["seed", "text", "point", "given"].includes(choice.kind)) this.remember(header.title, choice);
      } catch (error) {
        this.error = error.message;
      }
      clearTimeout(slow);
      this.waiting = false;
      this.changed();
    }
  }

  remember(title, choice) {
    const text = JSON.stringify(choice);
    this.recent = [{ title, choice }, ...this.recent.filter((each) => JSON.stringify(each.choice) !== text)].slice(0, 8);
  }

  setShow(changes) {
    Object.assign(this.show, changes);
    if ("weights" in changes) this.scene.showWeights(changes.weights);
    this.changed();
  }

  // Frame of a fraction 0..1 of the motion.
  frame(fraction) { return fraction * (this.motion.frames - 1); }

  draw(orbit, fraction, background) {
    const ratio = Math.min(devicePixelRatio || 1, LARGEST_RATIO);
    const { canvas, overlay } = this;
    const [width, height] = this.size || [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (!width || !height) return;
    for (const each of [canvas, overlay]) {
      if (each.width !== width || each.height !== height) Object.assign(each, { width, height });
    }
    const frame = this.frame(fraction);
    if (this.posed !== frame) this.scene.pose(frame);
    this.posed = frame;
    this.camera = orbit.camera(this.header.camera, width, height);
    this.scene.draw(this.camera, background);
    this.drawPoints(frame);
    this.showCaption();
  }

  drawPoints(frame) {
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    if (!this.show.points) return;
    const { positions, colors } = this.scene.points(frame);
    const { worldToCamera: E, K, height } = this.camera;
    const radius = Math.max(2.5, height / 130);
    context.lineWidth = Math.max(1, radius / 3);
    context.strokeStyle = "#000a";
    for (let k = 0; k < positions.length; k += 3) {
      const [x, y, z] = [0, 1, 2].map((i) => E[i][0] * positions[k] + E[i][1] * positions[k + 1] + E[i][2] * positions[k + 2] + E[i][3]);
      if (z <= 0) continue;
      context.beginPath();
      context.arc((K[0][0] * x) / z + K[0][2], (K[1][1] * y) / z + K[1][2], radius, 0, 2 * Math.PI);
      context.fillStyle = `rgb(${[0, 1, 2].map((c) => Math.round(255 * colors[k + c])).join(",")})`;
      context.fill();
      context.stroke();
    }
  }

  showCaption() {
    const texts = [this.header.title, this.motion.title === this.header.title ? "" : this.motion.title];
    if (this.captionTexts === texts.join("\n")) return;
    this.captionTexts = texts.join("\n");
    this.caption.replaceChildren(element("b", {}, texts[0]), element("span", {}, texts[1]));
  }
}
