// Draws a glTF mesh that nodes of a deformation graph carry: linear blend skinning on the CPU, shading by MeshScene.
// A vertex x moves to Σ w_k [R_k (x − g_k) + p_k], its normal n to the direction of Σ w_k R_k n.

class Renderer extends MeshScene {
  // Decodes the textures, which takes until after the scene is read.
  static async prepare(scene) {
    scene.images = {};
    const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
    for (const [name, { values }] of Object.entries(scene.arrays)) {
      if (!name.startsWith("image_")) continue;
      scene.images[name] = await createImageBitmap(new Blob([Uint8Array.from(values)], { type: "image/png" }), options);
    }
  }

  constructor(canvas, scene) {
    const arrays = { ...scene.arrays };
    for (const name of Object.keys(arrays).filter((name) => name.startsWith("triangles_"))) {
      const { values } = arrays[name]; // pairs of 16 bits
      arrays[name] = { values: Uint32Array.from({ length: values.length / 2 }, (_, i) => 65536 * values[2 * i] + values[2 * i + 1]) };
    }
    super(canvas, { ...scene, vertices: scene.arrays.means.shape[0] }, arrays, scene.images);
    this.mirrored = scene.mirrored;
    this.maps = new Float32Array(12 * arrays.rest.shape[0]); // per node: columns of R, and p − R g
  }

  pose(frame, motion, other, share) {
    const [, frames, count] = this.arrays.motion.shape;
    const first = Math.floor(frame), second = Math.min(first + 1, frames - 1), later = frame - first;
    this.maps.fill(0);
    for (const [which, part] of [[motion, 1 - share], [other, share]]) {
      for (const [at, weight] of [[first, part * (1 - later)], [second, part * later]]) {
        if (weight) this.addMaps((which * frames + at) * count, count, weight);
      }
    }
    this.skin();
    this.dirty = true;
  }

  addMaps(from, count, weight) {
    const { maps, arrays: { motion: { values: m }, rest: { values: rest } } } = this;
    for (let k = 0; k < count; k++) {
      const at = 7 * (from + k), to = 12 * k;
      const length = Math.hypot(m[at + 3], m[at + 4], m[at + 5], m[at + 6]);
      const [w, x, y, z] = [m[at + 3] / length, m[at + 4] / length, m[at + 5] / length, m[at + 6] / length];
      const columns = [
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
      ];
      for (let c = 0; c < 3; c++) {
        let shift = m[at + c];
        for (let j = 0; j < 3; j++) {
          maps[to + 3 * j + c] += weight * columns[j][c];
          shift -= columns[j][c] * rest[3 * k + j];
        }
        maps[to + 9 + c] += weight * shift;
      }
    }
  }

  skin() {
    const { vertices, maps, arrays } = this;
    const { values: p } = arrays.means, { values: n } = arrays.normals;
    const { values: joints, shape: [count, influences] } = arrays.joints, { values: weights } = arrays.weights;
    const blend = new Float32Array(12);
    for (let v = 0; v < count; v++) {
      blend.fill(0);
      for (let j = v * influences; j < (v + 1) * influences; j++) {
        const weight = weights[j], from = 12 * joints[j];
        if (weight) for (let i = 0; i < 12; i++) blend[i] += weight * maps[from + i];
      }
      const at = 3 * v, to = 6 * v;
      let length = 0;
      for (let c = 0; c < 3; c++) {
        vertices[to + c] = blend[c] * p[at] + blend[3 + c] * p[at + 1] + blend[6 + c] * p[at + 2] + blend[9 + c];
        const normal = blend[c] * n[at] + blend[3 + c] * n[at + 1] + blend[6 + c] * n[at + 2];
        vertices[to + 3 + c] = normal;
        length += normal * normal;
      }
      const scale = 1 / Math.max(Math.sqrt(length), 1e-12);
      for (let c = 3; c < 6; c++) vertices[to + c] *= scale;
    }
  }
}
