// Videos beside each other, as large as the pane allows.

class VideoScene {
  constructor(canvas, header) {
    this.canvas = canvas;
    this.names = header.views;
    this.context = canvas.getContext("2d", { alpha: false });
  }

  setMotion(header, arrays) {
    this.videos = arrays.videos;
    this.frames = header.frames;
    const [, , height, width] = this.videos.shape;
    this.pictures = this.names.map(() => {
      const canvas = element("canvas", { width, height });
      const context = canvas.getContext("2d");
      return { canvas, context, pixels: context.createImageData(width, height) };
    });
  }

  pose(frame) {
    const { values, shape: [, frames, height, width] } = this.videos;
    const size = height * width;
    this.pictures.forEach(({ context, pixels }, view) => {
      const start = 3 * size * (view * frames + Math.min(Math.round(frame), frames - 1));
      for (let i = 0; i < size; i++) {
        for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = values[start + 3 * i + c];
        pixels.data[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
    });
  }

  // Columns that make the videos largest.
  layout(width, height) {
    const [views, , h, w] = this.videos.shape;
    let best = { scale: 0, columns: 1 };
    for (let columns = 1; columns <= views; columns++) {
      const scale = Math.min(width / (columns * w), height / (Math.ceil(views / columns) * h));
      if (scale >= best.scale) best = { scale, columns };
    }
    return best;
  }

  draw({ width, height }, background) {
    const { context } = this;
    const [views, , h, w] = this.videos.shape;
    const { scale, columns } = this.layout(width, height);
    context.fillStyle = `rgb(${background.map((value) => Math.round(255 * value)).join(",")})`;
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    const rows = Math.ceil(views / columns);
    const [left, top] = [(width - columns * w * scale) / 2, (height - rows * h * scale) / 2];
    this.pictures.forEach(({ canvas }, view) => {
      const x = left + (view % columns) * w * scale, y = top + Math.floor(view / columns) * h * scale;
      context.drawImage(canvas, x, y, w * scale, h * scale);
    });
  }

  setUp() {}
}
