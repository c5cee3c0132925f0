// Map of the latent space: trained motions as labelled points, and the motion that is shown as a ring.

const HIT_RADIUS = 7; // pixels around a point in which a click chooses its motion

class LatentMap {
  constructor(canvas, { points, names }, pick) {
    Object.assign(this, { canvas, points, names, pick, here: null, hover: -1 });
    const extent = Math.max(1e-6, ...points.flat().map(Math.abs));
    this.extent = 1.25 * extent; // room around the points, to sample outside
    canvas.addEventListener("click", (event) => this.click(event));
    canvas.addEventListener("pointermove", (event) => this.setHover(this.nearest(event)));
    canvas.addEventListener("pointerleave", () => this.setHover(-1));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // One scale for both axes, in CSS pixels.
  get scale() { return Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / (2 * this.extent); }

  place([x, y]) { return [this.canvas.clientWidth / 2 + x * this.scale, this.canvas.clientHeight / 2 - y * this.scale]; }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left - this.canvas.clientLeft, event.clientY - box.top - this.canvas.clientTop];
  }

  nearest(event) {
    const [x, y] = this.at(event);
    let best = -1, least = HIT_RADIUS;
    this.points.forEach((point, i) => {
      const [px, py] = this.place(point);
      const distance = Math.hypot(px - x, py - y);
      if (distance <= least) [best, least] = [i, distance];
    });
    return best;
  }

  click(event) {
    const index = this.nearest(event);
    if (index >= 0) return this.pick({ kind: "trained", index });
    const [x, y] = this.at(event);
    const [left, top] = this.place([0, 0]);
    this.pick({ kind: "point", x: (x - left) / this.scale, y: (top - y) / this.scale });
  }

  setHover(index) {
    if (this.hover === index) return;
    this.hover = index;
    this.canvas.title = index < 0 ? "" : this.names[index];
    this.draw();
  }

  show(here) {
    this.here = here;
    this.draw();
  }

  draw() {
    const { canvas, points, hover } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    context.scale(ratio, ratio);
    context.font = "10px system-ui, sans-serif";
    points.forEach((point, i) => {
      context.beginPath();
      context.arc(...this.place(point), i === hover ? 5 : 3, 0, 2 * Math.PI);
      context.fillStyle = color(i === hover ? "--accent" : "--quiet");
      context.fill();
    });
    this.drawLabels(context, color);
    if (this.here) {
      context.beginPath();
      context.arc(...this.place(this.here), 7, 0, 2 * Math.PI);
      context.lineWidth = 2.5;
      context.strokeStyle = color("--accent");
      context.stroke();
    }
  }

  // Labels that do not cover each other; the one under the pointer always. The pointer shows the others.
  drawLabels(context, color) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const order = [...this.points.keys()];
    if (this.hover >= 0) order.sort((a, b) => (b === this.hover) - (a === this.hover));
    const taken = this.points.map((point) => {
      const [x, y] = this.place(point);
      return [x - 2, y - 2, x + 2, y + 2];
    });
    for (const i of order) {
      const [x, y] = this.place(this.points[i]);
      const text = this.names[i].length > 26 ? `${this.names[i].slice(0, 25)}…` : this.names[i];
      const wide = context.measureText(text).width;
      // Right of the point, left, above or below.
      const places = [[x + 6, y], [x - 6 - wide, y], [x - wide / 2, y - 10], [x - wide / 2, y + 10]];
      const boxes = places.map(([left, middle]) => [left, middle - 6, left + wide, middle + 6])
        .filter((box) => box[0] >= 0 && box[1] >= 0 && box[2] <= width && box[3] <= height);
      const apart = (a, b) => a[2] < b[0] || a[0] > b[2] || a[3] < b[1] || a[1] > b[3];
      const box = boxes.find((each) => taken.every((other) => apart(each, other))) || (i === this.hover && boxes[0]);
      if (!box) continue;
      taken.push(box);
      if (i === this.hover) {
        context.fillStyle = color("--page");
        context.fillRect(box[0] - 2, box[1] - 1, wide + 4, 14);
      }
      context.fillStyle = color("--text");
      context.fillText(text, box[0], box[1] + 9.5);
    }
  }
}
