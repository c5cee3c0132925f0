// The page: panes, one clock and one camera for all of them, and the controls of one pane at a time.

const LIGHT = [1, 1, 1], DARK = [0.086, 0.098, 0.118]; // as zoo/export/html/splats.py

class Viewer {
  constructor(panes) {
    this.state = { fraction: 0, speed: 1, playing: true };
    this.active = 0;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.panes = Array.from({ length: panes }, (_, index) => new Pane(index, () => this.change()));
    document.getElementById("panes").append(...this.panes.map((pane) => pane.root));
  }

  async load() {
    await Promise.all(this.panes.map(async (pane) => {
      try {
        await pane.load();
      } catch (error) {
        pane.message.textContent = error.message;
        throw error;
      }
    }));
    this.orbit = new Orbit(this.panes[0].header.camera, () => this.change());
    for (const pane of this.panes) if (pane.header.kind !== "videos") this.orbit.attach(pane.canvas);
    this.panels = this.panes.map((pane) => new Panel(pane, this));
    this.addTransport();
    this.choosePane(0);
    this.dark.addEventListener("change", () => this.change());
    this.ready = true;
    this.change();
  }

  // The pane whose motion is longest sets the pace.
  get lead() { return this.panes.reduce((a, b) => (b.motion.seconds > a.motion.seconds ? b : a)); }

  get phase() {
    const { first, last } = this.lead.motion;
    return first + this.state.fraction * (last - first);
  }

  // Change some of {phase, fraction, speed, playing}.
  set({ phase, ...changes }) {
    Object.assign(this.state, changes);
    if (phase !== undefined) {
      const { first, last } = this.lead.motion;
      this.state.fraction = last > first ? Math.max(0, Math.min(1, (phase - first) / (last - first))) : 0;
    }
    this.change();
  }

  change() {
    if (this.ready) this.scheduled ||= requestAnimationFrame((time) => this.step(time));
  }

  // A loop shows each frame for as long, also the last.
  step(time) {
    this.scheduled = 0;
    const { state } = this;
    const { frames, seconds } = this.lead.motion;
    if (state.playing && frames > 1) {
      const elapsed = this.last === undefined ? 0 : Math.min((time - this.last) / 1000, 0.25);
      this.at = ((this.at ?? state.fraction * (frames - 1)) + (state.speed * elapsed * (frames - 1)) / seconds) % frames;
      state.fraction = Math.min(this.at, frames - 1) / (frames - 1);
      this.last = time;
      this.change();
    } else this.last = this.at = undefined;
    this.draw();
    this.showState();
  }

  draw() {
    const background = this.dark.matches ? DARK : LIGHT;
    for (const pane of this.panes) pane.draw(this.orbit, this.state.fraction, background);
  }

  addTransport() {
    const control = (id) => document.getElementById(id);
    const listen = (id, event, react) => control(id).addEventListener(event, react);
    listen("play", "click", () => this.set({ playing: !this.state.playing }));
    listen("phase", "input", (event) => this.set({ phase: Number(event.target.value), playing: false }));
    listen("speed", "change", (event) => this.set({ speed: Number(event.target.value) }));
    listen("reset", "click", () => this.orbit.reset());
    for (const pane of this.panes) {
      pane.canvas.addEventListener("keydown", (event) => {
        if (event.key !== " ") return;
        event.preventDefault();
        this.set({ playing: !this.state.playing });
      });
    }
    control("reset").hidden = this.panes.every((pane) => pane.header.kind === "videos");
  }

  choosePane(index) {
    this.active = index;
    const tabs = this.panes.map((pane, i) => {
      const button = element("button", { type: "button", title: pane.header.title }, `${i ? "Right" : "Left"}: ${pane.header.title}`);
      button.setAttribute("aria-pressed", i === index);
      button.addEventListener("click", () => this.choosePane(i));
      return button;
    });
    const parts = this.panes.length > 1 ? [element("div", { className: "tabs" }, ...tabs)] : [];
    document.getElementById("panel").replaceChildren(...parts, this.panels[index].root);
    this.change();
  }

  showState() {
    const { playing, speed } = this.state;
    const { first, last, frames } = this.lead.motion;
    const control = (id) => document.getElementById(id);
    control("play").classList.toggle("playing", playing);
    control("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    control("play").disabled = control("phase").disabled = frames < 2;
    Object.assign(control("phase"), { min: first, max: last });
    control("phase").value = this.phase;
    control("phase-text").value = this.phase.toFixed(2);
    control("speed").value = speed;
    for (const panel of this.panels) panel.update();
  }
}

(async () => {
  const viewer = new Viewer(Number(document.body.dataset.panes));
  window.viewer = viewer;
  try {
    await viewer.load();
  } catch (error) {
    console.error(error);
  }
})();
