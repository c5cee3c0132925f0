// Scenes of Gaussians, drawn by zoo/export/html/splats.js. A scene has the methods
//   setMotion(header, arrays)     another motion, complete at once
//   pose(frame)                   a moment of it; may be fractional
//   draw(camera, background)      in the conventions of renderers/cameras.py
//   setUp()                       WebGL objects, again after a lost context
//   points(frame)                 optional: key points to mark, {positions, colors}

class SplatRenderer extends Renderer {
  // Upload the Gaussians again after a change of `arrays`.
  upload() {
    const { gl } = this;
    const values = this.splatTexels();
    gl.activeTexture(gl.TEXTURE0);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, values.length / (4 * WIDTH), gl.RGBA, gl.FLOAT, values);
  }
}

// DIMO: key points deform the Gaussians.
class SkinnedScene {
  constructor(canvas, header, arrays) {
    this.arrays = arrays;
    this.colors = arrays.colors;
    const keys = arrays.rest.shape[0];
    arrays.motion = { values: new Float32Array(7 * keys), shape: [1, 1, keys, 7] };
    this.renderer = new SplatRenderer(canvas, { arrays });
  }

  setMotion(header, arrays) {
    const { values, shape } = arrays.motion;
    this.arrays.motion = { values, shape: [1, ...shape] };
  }

  // Colour by skinning weights, each key point with a colour of its own, instead of the object's colours.
  showWeights(on) {
    this.arrays.colors = on ? this.arrays.weight_colors : this.colors;
    this.renderer.upload();
  }

  pose(frame) { this.renderer.pose(frame, 0, 0, 0); }

  draw(camera, background) { this.renderer.draw(camera, background); }

  setUp() { this.renderer.setUp(); }

  points(frame) {
    const { values, shape: [, frames, keys, width] } = this.arrays.motion;
    const first = Math.min(Math.floor(frame), frames - 1), second = Math.min(first + 1, frames - 1), later = frame - first;
    const positions = new Float32Array(3 * keys);
    for (let k = 0; k < keys; k++) {
      for (let i = 0; i < 3; i++) {
        positions[3 * k + i] = (1 - later) * values[width * (first * keys + k) + i] + later * values[width * (second * keys + k) + i];
      }
    }
    return { positions, colors: this.arrays.palette.values };
  }
}

// Frames of Gaussians that are independent of each other: the nearest frame is shown.
class FramesScene {
  constructor(canvas) { this.canvas = canvas; }

  setMotion(header, arrays) {
    this.fields = arrays;
    this.frames = header.frames;
    const count = arrays.means.shape[1];
    const one = { values: new Float32Array(7).fill(1, 3, 4), shape: [1, 1, 1, 7] }; // position 0, quaternion 1
    this.arrays = {
      joints: { values: new Uint32Array(count), shape: [count, 1] },
      weights: { values: new Float32Array(count).fill(1), shape: [count, 1] },
      rest: { values: new Float32Array(3), shape: [1, 3] }, motion: one,
    };
    this.frame = -1;
    this.choose(0);
    this.renderer = new SplatRenderer(this.canvas, { arrays: this.arrays });
    this.renderer.pose(0, 0, 0, 0);
  }

  choose(frame) {
    const which = Math.min(Math.round(frame), this.frames - 1);
    if (which === this.frame) return false;
    this.frame = which;
    for (const name of ["means", "log_scales", "quats", "opacities", "colors"]) {
      const { values, shape: [stored, count, width] } = this.fields[name];
      const start = Math.min(which, stored - 1) * count * width;
      this.arrays[name] = { values: values.subarray(start, start + count * width), shape: [count, width] };
    }
    return true;
  }

  pose(frame) { if (this.choose(frame)) this.renderer.upload(); }

  draw(camera, background) { this.renderer.draw(camera, background); }

  setUp() {
    this.renderer.setUp();
    this.renderer.pose(0, 0, 0, 0);
  }
}
