// The views of a clip on one canvas: dragging turns from view to view while one clock goes on.
//
// Each view is a video element. The canvas is drawn from the video of the wanted view once that has a frame of the
// wanted time, so it never shows an empty picture; until then it keeps the former one.

const PIXELS_PER_TURN = 640; // of dragging
const LATE_S = 0.12; // a video further away from the clock is moved to it

class Turntable {
  // clip: as factory/browser/clip.py; address(view): of a video.
  constructor(clip, address) {
    Object.assign(this, { clip, address, place: 0, playing: true, time: 0, speed: 1, turned: 0 });
    this.seconds = clip.frames / clip.fps;
    this.videos = new Map();
    this.shown = null; // {place, time} of the picture
    this.canvas = element("canvas", { width: clip.width, height: clip.height, tabIndex: 0,
      ariaLabel: "The clip. Drag, or press the left and right arrow keys, to turn; the space bar pauses." });
    this.context = this.canvas.getContext("2d");
    this.play = element("button", { type: "button", className: "play" });
    this.slider = element("input", { type: "range", min: 0, max: clip.frames - 1, step: 1, value: 0, ariaLabel: "Frame" });
    this.about = element("output");
    this.rate = element("select", { ariaLabel: "Speed" }, ...[[0.25, "¼×"], [0.5, "½×"], [1, "1×"], [2, "2×"]]
      .map(([value, text]) => element("option", { value }, text)));
    this.rate.value = 1;
    this.root = element("div", { className: "turntable" }, this.canvas,
      element("div", { className: "transport" }, this.play, this.slider, this.about, this.rate));
    this.listen();
    this.scheduled = requestAnimationFrame((time) => this.step(time));
  }

  listen() {
    this.play.addEventListener("click", () => this.set({ playing: !this.playing }));
    this.slider.addEventListener("input", () => this.set({ frame: Number(this.slider.value), playing: false }));
    this.rate.addEventListener("change", () => this.set({ speed: Number(this.rate.value) }));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.clientX, id: event.pointerId };
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.drag?.id !== event.pointerId) return;
      this.turn((event.clientX - this.drag.x) / PIXELS_PER_TURN);
      this.drag.x = event.clientX;
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { this.drag = null; });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
      if (step) this.set({ place: this.place + step });
      else if (event.key === " ") this.set({ playing: !this.playing });
      else return;
      event.preventDefault();
    });
  }

  get frame() { return Math.min(this.clip.frames - 1, Math.floor(this.time * this.clip.fps + 1e-6)); }

  // The object follows the pointer: dragging to the right shows its left side, from cameras at lower azimuths.
  turn(turns) {
    const count = this.clip.views.length;
    this.turned += turns * count;
    const steps = Math.trunc(this.turned);
    this.turned -= steps;
    if (steps) this.set({ place: this.place - steps });
  }

  // Change some of {place (index of a view by azimuth), frame, playing, speed}.
  set({ place, frame, ...changes }) {
    Object.assign(this, changes);
    const count = this.clip.views.length;
    if (place !== undefined) this.place = ((place % count) + count) % count;
    if (frame !== undefined) this.time = (frame + 0.5) / this.clip.fps;
    if (this.playing === false) this.time = (this.frame + 0.5) / this.clip.fps; // the middle of a frame
  }

  video(place) {
    if (!this.videos.has(place)) {
      const video = element("video", { muted: true, playsInline: true, preload: "auto", src: this.address(this.clip.views[place]) });
      this.videos.set(place, video);
    }
    return this.videos.get(place);
  }

  // The wanted view first, then its neighbours, one at a time.
  preload() {
    const count = this.clip.views.length;
    const loading = [...this.videos.values()].filter((video) => video.readyState < 4 && !video.error);
    if (loading.length > 1) return;
    for (let away = 0; away <= count / 2; away++) {
      for (const place of [this.place + away, this.place - away]) {
        const at = ((place % count) + count) % count;
        if (!this.videos.has(at)) return void this.video(at);
      }
    }
  }

  step(now) {
    if (this.closed) return;
    this.scheduled = requestAnimationFrame((time) => this.step(time));
    if (this.playing && this.shown) {
      const elapsed = this.last === undefined ? 0 : Math.min((now - this.last) / 1000, 0.25);
      this.time = (this.time + this.speed * elapsed) % this.seconds;
    }
    this.last = now;
    this.preload();
    const video = this.video(this.place);
    for (const [place, other] of this.videos) if (place !== this.place && !other.paused) other.pause();
    if (video.error) this.fail(video);
    if (video.readyState >= 2 && !video.seeking) this.follow(video);
    this.showState();
  }

  // Keep a video at the clock and draw it.
  follow(video) {
    const away = Math.abs(video.currentTime - this.time);
    const near = this.playing ? Math.min(away, this.seconds - away) < LATE_S * Math.max(1, this.speed) : away < 0.1 / this.clip.fps;
    if (!near) {
      video.currentTime = this.time;
      return;
    }
    if (this.playing && video.paused) {
      video.playbackRate = this.speed;
      video.play().catch(() => {}); // paused again before it began
    } else if (!this.playing && !video.paused) video.pause();
    if (this.playing) video.playbackRate = this.speed;
    this.context.drawImage(video, 0, 0, this.canvas.width, this.canvas.height);
    this.shown = { place: this.place, view: this.clip.views[this.place], time: video.currentTime, frame: this.frame };
  }

  fail(video) {
    this.about.textContent = `This browser cannot play the video${video.error.message ? `: ${video.error.message}` : ""}`;
    this.about.className = "error";
    this.failed = true;
  }

  showState() {
    this.play.classList.toggle("playing", this.playing);
    this.play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    if (Number(this.slider.value) !== this.frame) this.slider.value = this.frame;
    const azimuth = ((this.clip.azimuths[this.place] % 360) + 360) % 360;
    if (!this.failed) this.about.textContent = `view ${this.clip.views[this.place]}, ${azimuth.toFixed(0)}°`;
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.scheduled);
    for (const video of this.videos.values()) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    this.videos.clear();
  }
}
