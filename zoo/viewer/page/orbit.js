// Camera that turns around the scene. All panes share its angles and its zoom; each has its own target and distance.

const ELEVATION_LIMIT = Math.PI / 2 - 1e-3;
const LARGEST_ZOOM = 8;

class Orbit {
  constructor(start, changed) {
    this.start = start;
    this.changed = changed;
    this.reset();
  }

  reset() {
    const radians = Math.PI / 180;
    this.look({ azimuth: this.start.azimuth_deg * radians, elevation: this.start.elevation_deg * radians, zoom: 1 });
  }

  // Change some of {azimuth, elevation (radians), zoom (1 = the distance that shows the whole scene)}.
  look(changes) {
    Object.assign(this, changes);
    this.elevation = Math.max(-ELEVATION_LIMIT, Math.min(ELEVATION_LIMIT, this.elevation));
    this.zoom = Math.max(1 / LARGEST_ZOOM, Math.min(LARGEST_ZOOM, this.zoom));
    this.changed();
  }

  // The camera in the conventions of renderers/cameras.py, as its orbit_cameras makes it, around a target.
  camera({ target, distance, fov_deg }, width, height) {
    const { azimuth, elevation, zoom } = this;
    const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
    const rows = [[ca, 0, -sa], [se * sa, -ce, se * ca], [-ce * sa, -se, -ce * ca]];
    const worldToCamera = rows.map((row, i) => {
      const shift = row[0] * target[0] + row[1] * target[1] + row[2] * target[2];
      return [...row, (i === 2 ? distance / zoom : 0) - shift];
    });
    worldToCamera.push([0, 0, 0, 1]);
    const focal = (0.5 * Math.min(width, height)) / Math.tan((fov_deg * Math.PI) / 360);
    return { worldToCamera, K: [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], width, height };
  }

  // One pointer turns, two zoom; the object follows the pointer. Arrow keys turn, too.
  attach(canvas) {
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
      if (pointers.size === 2) this.look({ zoom: (this.zoom * Math.max(apart(), 1)) / Math.max(wide, 1) });
      else if (pointers.size === 1) {
        const turn = Math.PI / Math.max(200, Math.min(canvas.clientWidth, canvas.clientHeight));
        this.look({
          azimuth: this.azimuth - turn * (event.clientX - before[0]),
          elevation: this.elevation + turn * (event.clientY - before[1]),
        });
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.look({ zoom: this.zoom * Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 500) });
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 0.1;
      const turns = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      const turn = turns[event.key];
      if (!turn) return;
      event.preventDefault();
      this.look({ azimuth: this.azimuth + turn[0], elevation: this.elevation + turn[1] });
    });
  }
}
