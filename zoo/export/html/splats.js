// Draws 3D Gaussians deformed by key points with WebGL 2: linear blend skinning and EWA projection once per Gaussian
// (transform feedback), then one quad per Gaussian from back to front. Conventions and thresholds are those of
// renderers/gaussians: OpenCV cameras, pixel centres at (0.5, 0.5), blur in pixels², α = min(0.999, o·exp(−σ)),
// nothing below α = 1/255.

const WIDTH = 1024; // texels per row of the data textures
const SMALLEST = 0.4, LARGEST = 2.5; // factors of a disc's radii, as in zoo/dimo/discs.py
const BLUR = 0.3; // pixels², where a scene has none of its own
const STRAIN = 7; // first number of the strain of a key point

const PROJECT = `
precision highp float;
precision highp sampler2D;
layout(location = 0) in uint index;
uniform sampler2D splats, keys;
uniform mat3 W;
uniform vec3 t;
uniform vec4 pinhole; // fx, fy, cx, cy
uniform vec2 size;
uniform float blur; // ε, pixels²
uniform bool stretch; // whether Gaussians are scaled with the surface
out vec4 place; // centre in pixels, opacity, radius in standard deviations (0 = not drawn)
out vec4 axes; // columns of L with Σ' = L·Lᵀ, pixels
out vec4 colour;

vec4 texel(sampler2D source, int i) { return texelFetch(source, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0); }

void main() {
  int first = int(index) * TEXELS;
  vec4 centre = texel(splats, first);
  vec4 m0 = texel(splats, first + 1), m1 = texel(splats, first + 2), m2 = texel(splats, first + 3);
  // Blended affine map x ↦ A x + b, and blended quaternion (w, x, y, z).
  mat3 A = mat3(0.0);
  vec3 b = vec3(0.0);
  vec4 q = vec4(0.0);
  mat3 slope = mat3(0.0); // of the blend of what key points do, where only the weights change
  for (int j = 0; j < JOINTS; j++) {
    vec4 pair = texel(splats, first + 4 + j / 2);
    vec2 joint = j % 2 == 0 ? pair.xy : pair.zw;
    int k = 4 * int(joint.x);
    vec4 r0 = texel(keys, k), r1 = texel(keys, k + 1), r2 = texel(keys, k + 2), r3 = texel(keys, k + 3);
    A += joint.y * mat3(r0.xyz, r1.xyz, r2.xyz);
    b += joint.y * r3.xyz;
    q += joint.y * vec4(r0.w, r1.w, r2.w, r3.w);
#ifdef DISCS
    vec3 moved = mat3(r0.xyz, r1.xyz, r2.xyz) * centre.xyz + r3.xyz;
    slope += outerProduct(moved, texel(splats, first + 4 + (JOINTS + 1) / 2 + j).xyz);
#endif
  }
  q /= length(q);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  mat3 R = mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
  vec3 c = W * (A * centre.xyz + b) + t;
  place = vec4(0.0);
  axes = vec4(0.0);
  colour = vec4(m0.w, m1.w, m2.w, 1.0);
  gl_Position = vec4(0.0);
  float opacity = centre.w;
  if (c.z < 0.01 || opacity < 1.0 / 255.0) return;
  // The linearisation point is clamped to 15 % of the image size outside the image.
  vec2 low = -pinhole.zw / pinhole.xy - 0.15 * size / pinhole.xy;
  vec2 high = (size - pinhole.zw) / pinhole.xy + 0.15 * size / pinhole.xy;
  vec2 tangent = clamp(c.xy / c.z, low, high);
  mat3 M = mat3(m0.xyz, m1.xyz, m2.xyz);
#ifdef DISCS
  // The two first axes are tangents, made orthogonal; the third remains the thickness.
  mat3 J = A + slope;
  vec3 d = J * M[0], e = J * M[1];
  float turn = 0.5 * atan(2.0 * dot(d, e), dot(d, d) - dot(e, e));
  vec3 major = cos(turn) * d + sin(turn) * e, minor = cos(turn) * e - sin(turn) * d;
  vec3 u = major / max(length(major), 1e-12);
  minor -= dot(minor, u) * u;
  vec3 v = minor / max(length(minor), 1e-12);
  float least = ${SMALLEST} * min(length(M[0]), length(M[1])), most = ${LARGEST} * max(length(M[0]), length(M[1]));
  M = W * mat3(clamp(length(major), least, most) * u, clamp(length(minor), least, most) * v,
    length(M[2]) * cross(u, v));
#else
  if (stretch) for (int i = 0; i < 3; i++) M[i] *= length(A * M[i]) / max(length(M[i]), 1e-12);
  M = W * R * M;
#endif
  vec3 depth = vec3(M[0].z, M[1].z, M[2].z);
  vec3 p = pinhole.x / c.z * (vec3(M[0].x, M[1].x, M[2].x) - tangent.x * depth);
  vec3 s = pinhole.y / c.z * (vec3(M[0].y, M[1].y, M[2].y) - tangent.y * depth);
  // Σ' = [p·p + ε, p·s; p·s, s·s + ε] = L·Lᵀ (Cholesky); det Σ' = |p × s|² + ε (|p|² + |s|²) + ε² without cancellation.
  float xx = dot(p, p) + blur, yy = dot(s, s) + blur, xy = dot(p, s);
  vec3 normal = cross(p, s);
  float det = dot(normal, normal) + blur * (xx + yy - blur);
  float l0 = sqrt(xx);
  axes = vec4(l0, xy / l0, 0.0, sqrt(det) / l0);
  float radius = min(sqrt(2.0 * log(255.0 * opacity)), 3.33);
  vec2 centre2d = pinhole.xy * c.xy / c.z + pinhole.zw;
  vec2 extent = radius * sqrt(vec2(xx, yy));
  if (any(lessThan(centre2d + extent, vec2(0.0))) || any(greaterThan(centre2d - extent, size))) return;
  place = vec4(centre2d, opacity, radius);
}`;

const QUAD = `
precision highp float;
layout(location = 0) in vec4 place;
layout(location = 1) in vec4 axes;
layout(location = 2) in vec4 colour;
uniform vec2 size;
out vec2 offset; // from the centre, in standard deviations
flat out vec4 paint;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = corner * place.w;
  vec2 pixel = place.xy + axes.xy * offset.x + axes.zw * offset.y;
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
  paint = vec4(colour.rgb, place.z);
}`;

const PAINT = `
precision highp float;
in vec2 offset;
flat in vec4 paint;
out vec4 result;
void main() {
  float alpha = min(0.999, paint.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(paint.rgb * alpha, alpha);
}`;

// Copies the finished picture to the canvas; clamps to 0..1.
const SCREEN = `
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

const COPY = `
precision highp float;
precision highp sampler2D;
uniform sampler2D picture;
out vec4 result;
void main() { result = vec4(texelFetch(picture, ivec2(gl_FragCoord.xy), 0).rgb, 1.0); }`;

const NOTHING = "precision highp float; out vec4 result; void main() { result = vec4(0.0); }";

class Renderer {
  constructor(canvas, scene) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
    if (!gl) throw new Error("This browser does not support WebGL 2, which draws the scene.");
    this.gl = gl;
    this.arrays = scene.arrays;
    this.count = this.arrays.means.shape[0];
    this.keyCount = this.arrays.rest.shape[0];
    this.joints = this.arrays.joints.shape[1];
    this.table = new Float32Array(16 * WIDTH * Math.ceil((4 * this.keyCount) / WIDTH) / 4);
    this.depths = new Float32Array(this.count);
    this.order = new Uint32Array(this.count);
    this.counts = new Uint32Array(65536);
    this.setUp();
  }

  // --- WebGL objects; again after the browser lost its graphics context ---

  setUp() {
    const { gl } = this;
    const discs = "slopes" in this.arrays ? "#define DISCS\n" : "";
    const defines = `#define TEXELS ${this.texels}\n#define JOINTS ${this.joints}\n${discs}`;
    this.project = this.program(defines + PROJECT, NOTHING, ["place", "axes", "colour"]);
    this.paint = this.program(QUAD, PAINT);
    gl.activeTexture(gl.TEXTURE0);
    this.texture(this.splatTexels());
    gl.activeTexture(gl.TEXTURE1);
    this.texture(this.table);
    this.indices = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.indices);
    gl.bufferData(gl.ARRAY_BUFFER, this.order.byteLength, gl.DYNAMIC_DRAW);
    this.projected = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.projected);
    gl.bufferData(gl.ARRAY_BUFFER, 48 * this.count, gl.DYNAMIC_COPY);
    this.inputs = gl.createVertexArray();
    gl.bindVertexArray(this.inputs);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.indices);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    this.quads = gl.createVertexArray();
    gl.bindVertexArray(this.quads);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.projected);
    for (let i = 0; i < 3; i++) {
      gl.enableVertexAttribArray(i);
      gl.vertexAttribPointer(i, 4, gl.FLOAT, false, 48, 16 * i);
      gl.vertexAttribDivisor(i, 1);
    }
    gl.bindVertexArray(null);
    gl.bindBuffer(gl.ARRAY_BUFFER, null);
    this.feedback = gl.createTransformFeedback();
    // Colours of trained Gaussians are not limited to 0..1, so they are blended in half precision where that is
    // supported (nearly everywhere). An 8-bit canvas would clamp each of them and draw dark details too bright.
    const float = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    this.picture = float && { framebuffer: gl.createFramebuffer(), texture: gl.createTexture(), width: 0, height: 0 };
    this.copy = this.program(SCREEN, COPY);
  }

  // Bind the half-precision picture, with the size of the canvas.
  target(width, height) {
    const { gl, picture } = this;
    if (!picture) return;
    gl.bindFramebuffer(gl.FRAMEBUFFER, picture.framebuffer);
    if (picture.width === width && picture.height === height) return;
    Object.assign(picture, { width, height });
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, picture.texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, picture.texture, 0);
    if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      this.picture = null;
    }
  }

  program(vertex, fragment, outputs) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, `#version 300 es\n${source}`);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    if (outputs) gl.transformFeedbackVaryings(program, outputs, gl.INTERLEAVED_ATTRIBS);
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`The browser cannot compile a shader: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
    }
    const uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name } = gl.getActiveUniform(program, i);
      uniforms[name] = gl.getUniformLocation(program, name);
    }
    return { program, uniforms };
  }

  texture(values) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    }
    const height = values.length / (4 * WIDTH);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, height, 0, gl.RGBA, gl.FLOAT, values);
  }

  // Texels per Gaussian, see `splatTexels`.
  get texels() {
    return 4 + Math.ceil(this.joints / 2) + ("slopes" in this.arrays ? this.joints : 0);
  }

  // Per Gaussian: (centre, opacity), three columns of M = R·diag(s) with a colour channel each, (joint, weight) pairs,
  // and of discs the gradient of each weight.
  splatTexels() {
    const { texels } = this;
    const { means, quats, log_scales, opacities, colors, joints, weights, slopes } = this.arrays;
    const values = new Float32Array(4 * WIDTH * Math.ceil((this.count * texels) / WIDTH));
    const R = new Float32Array(9);
    for (let i = 0; i < this.count; i++) {
      let at = 4 * texels * i;
      values.set(means.values.subarray(3 * i, 3 * i + 3), at);
      values[at + 3] = opacities.values[i];
      rotationColumns(quats.values, 4 * i, R);
      for (let column = 0; column < 3; column++) {
        const scale = Math.exp(log_scales.values[3 * i + column]);
        at += 4;
        for (let row = 0; row < 3; row++) values[at + row] = R[3 * column + row] * scale;
        values[at + 3] = colors.values[3 * i + column];
      }
      at += 4;
      let sum = 0;
      for (let j = 0; j < this.joints; j++) sum += weights.values[i * this.joints + j];
      for (let j = 0; j < this.joints; j++) {
        values[at + 2 * j] = joints.values[i * this.joints + j];
        values[at + 2 * j + 1] = weights.values[i * this.joints + j] / sum; // 1 again after quantisation
      }
      if (slopes) {
        at += 4 * Math.ceil(this.joints / 2);
        for (let j = 0; j < this.joints; j++) {
          const from = 3 * (i * this.joints + j);
          values.set(slopes.values.subarray(from, from + 3), at + 4 * j);
        }
      }
    }
    return values;
  }

  // --- the scene at one moment ---

  // Key points at `frame` (may be fractional): a mixture of motions `motion` and `other` with the share of `other`.
  // Per key point: columns of F = R, or R·(1 + E) with the strain E, then p(t) − F·p, each with one component of q.
  pose(frame, motion, other, share) {
    const { values, shape } = this.arrays.motion;
    const rest = this.arrays.rest.values;
    const [, frames, keys, width] = shape; // of position, quaternion wxyz, and perhaps E: xx, yy, zz, xy, yz, xz
    const first = Math.min(Math.floor(frame), frames - 1);
    const second = Math.min(first + 1, frames - 1);
    const later = frame - first;
    const sources = [[motion, first, (1 - share) * (1 - later)], [motion, second, (1 - share) * later],
      [other, first, share * (1 - later)], [other, second, share * later]].filter((source) => source[2] > 0);
    const key = new Float32Array(width), R = new Float32Array(9), { table } = this;
    for (let k = 0; k < keys; k++) {
      key.fill(0);
      for (const [which, at, weight] of sources) {
        const from = width * ((which * frames + at) * keys + k);
        for (let i = 0; i < width; i++) key[i] += weight * values[from + i];
      }
      rotationColumns(key, 3, R);
      if (width > STRAIN) stretchColumns(R, key);
      const to = 16 * k;
      for (let i = 0; i < 3; i++) {
        table[to + i] = R[i];
        table[to + 4 + i] = R[3 + i];
        table[to + 8 + i] = R[6 + i];
        table[to + 12 + i] = key[i] - R[i] * rest[3 * k] - R[3 + i] * rest[3 * k + 1] - R[6 + i] * rest[3 * k + 2];
      }
      for (let i = 0; i < 4; i++) table[to + 4 * i + 3] = key[3 + i];
    }
    this.posed = true;
  }

  // Sort from back to front. Depth along the view axis v is affine in a centre: v·(A x + b), blended like A and b.
  sort(v) {
    const { table, depths, counts, order, count, joints: J } = this;
    const means = this.arrays.means.values, joints = this.arrays.joints.values, weights = this.arrays.weights.values;
    const lines = new Float32Array(4 * this.keyCount);
    for (let k = 0; k < this.keyCount; k++) {
      for (let i = 0; i < 4; i++) {
        const at = 16 * k + 4 * i;
        lines[4 * k + i] = v[0] * table[at] + v[1] * table[at + 1] + v[2] * table[at + 2];
      }
    }
    let low = Infinity, high = -Infinity;
    for (let n = 0; n < count; n++) {
      const x = means[3 * n], y = means[3 * n + 1], z = means[3 * n + 2];
      let depth = 0;
      for (let j = n * J; j < n * J + J; j++) {
        const k = 4 * joints[j];
        depth += weights[j] * (lines[k] * x + lines[k + 1] * y + lines[k + 2] * z + lines[k + 3]);
      }
      depths[n] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    // Counting sort with 65 536 steps of depth.
    const scale = high > low ? 65535 / (high - low) : 0;
    counts.fill(0);
    for (let n = 0; n < count; n++) counts[((high - depths[n]) * scale) | 0]++;
    for (let i = 0, sum = 0; i < 65536; i++) {
      const here = counts[i];
      counts[i] = sum;
      sum += here;
    }
    for (let n = 0; n < count; n++) order[counts[((high - depths[n]) * scale) | 0]++] = n;
  }

  // camera: {worldToCamera (4 rows of 4), K (3 rows of 3), width, height}, as renderers.cameras.Cameras.
  draw({ worldToCamera: E, K, width, height }, background) {
    const { gl } = this;
    this.sort(E[2]);
    this.target(width, height);
    gl.viewport(0, 0, width, height);
    gl.clearColor(background[0], background[1], background[2], 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.activeTexture(gl.TEXTURE1);
    if (this.posed) {
      const rows = this.table.length / (4 * WIDTH);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, rows, gl.RGBA, gl.FLOAT, this.table);
    }
    this.posed = false;

    gl.useProgram(this.project.program);
    let { uniforms } = this.project;
    gl.uniform1i(uniforms.splats, 0);
    gl.uniform1i(uniforms.keys, 1);
    gl.uniformMatrix3fv(uniforms.W, true, [...E[0].slice(0, 3), ...E[1].slice(0, 3), ...E[2].slice(0, 3)]);
    gl.uniform3f(uniforms.t, E[0][3], E[1][3], E[2][3]);
    gl.uniform4f(uniforms.pinhole, K[0][0], K[1][1], K[0][2], K[1][2]);
    gl.uniform2f(uniforms.size, width, height);
    gl.uniform1f(uniforms.blur, this.arrays.blur ? this.arrays.blur.values[0] : BLUR);
    gl.uniform1i(uniforms.stretch, this.arrays.motion.shape[3] > STRAIN ? 1 : 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.indices);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, this.order);
    gl.bindBuffer(gl.ARRAY_BUFFER, null); // a buffer bound twice cannot receive transform feedback
    gl.bindVertexArray(this.inputs);
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, this.feedback);
    gl.bindBufferBase(gl.TRANSFORM_FEEDBACK_BUFFER, 0, this.projected);
    gl.enable(gl.RASTERIZER_DISCARD);
    gl.beginTransformFeedback(gl.POINTS);
    gl.drawArrays(gl.POINTS, 0, this.count);
    gl.endTransformFeedback();
    gl.disable(gl.RASTERIZER_DISCARD);
    gl.bindBufferBase(gl.TRANSFORM_FEEDBACK_BUFFER, 0, null);
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, null);

    gl.useProgram(this.paint.program);
    ({ uniforms } = this.paint);
    gl.uniform2f(uniforms.size, width, height);
    gl.bindVertexArray(this.quads);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
    gl.bindVertexArray(null);
    if (!this.picture) return;
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(this.copy.program);
    gl.uniform1i(this.copy.uniforms.picture, 2);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

// Multiply R, given by its columns, by 1 + E.
function stretchColumns(R, key) {
  const [xx, yy, zz, xy, yz, xz] = key.subarray(STRAIN);
  for (let i = 0; i < 3; i++) {
    const a = R[i], b = R[3 + i], c = R[6 + i];
    R[i] += a * xx + b * xy + c * xz;
    R[3 + i] += a * xy + b * yy + c * yz;
    R[6 + i] += a * xz + b * yz + c * zz;
  }
}

// Columns of the rotation matrix of the quaternion wxyz at values[at…], of any length but 0.
function rotationColumns(values, at, R) {
  let w = values[at], x = values[at + 1], y = values[at + 2], z = values[at + 3];
  const inverse = 1 / Math.hypot(w, x, y, z);
  w *= inverse; x *= inverse; y *= inverse; z *= inverse;
  R[0] = 1 - 2 * (y * y + z * z); R[1] = 2 * (x * y + w * z); R[2] = 2 * (x * z - w * y);
  R[3] = 2 * (x * y - w * z); R[4] = 1 - 2 * (x * x + z * z); R[5] = 2 * (y * z + w * x);
  R[6] = 2 * (x * z + w * y); R[7] = 2 * (y * z - w * x); R[8] = 1 - 2 * (x * x + y * y);
}
