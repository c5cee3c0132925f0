// Meshes with the shaders of renderers/meshes/opengl: the server sends their sources and all vertices of a motion.

const DEPTHS = [0.02, 50]; // near and far plane, in distances from the target

class MeshScene {
  // Decodes the textures first.
  static async create(canvas, header, arrays) {
    const images = {};
    for (const [name, { values }] of Object.entries(arrays)) {
      if (!name.startsWith("image_")) continue;
      const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
      images[name] = await createImageBitmap(new Blob([values], { type: "image/png" }), options);
    }
    return new MeshScene(canvas, header, arrays, images);
  }

  constructor(canvas, header, arrays, images) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: true });
    if (!gl) throw new Error("This browser does not support WebGL 2, which draws the scene.");
    Object.assign(this, { gl, header, arrays, images });
    this.vertices = new Float32Array(6 * header.vertices); // position and normal
    this.setUp();
  }

  setUp() {
    const { gl, arrays } = this;
    this.programs = new Map();
    this.textures = new Map();
    this.buffers = {};
    this.dynamic = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.dynamic);
    gl.bufferData(gl.ARRAY_BUFFER, this.vertices.byteLength, gl.DYNAMIC_DRAW);
    for (const name of Object.keys(arrays).filter((name) => name === "colour" || name.startsWith("uv_"))) {
      this.buffers[name] = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, arrays[name].values, gl.STATIC_DRAW);
    }
    this.view = gl.createBuffer();
    this.draws = this.header.draws.map((draw) => this.makeDraw(draw));
    this.dirty = true;
  }

  makeDraw(draw) {
    const { gl } = this;
    const program = this.program(draw.vertex, draw.fragment);
    const surface = gl.createBuffer();
    gl.bindBuffer(gl.UNIFORM_BUFFER, surface);
    gl.bufferData(gl.UNIFORM_BUFFER, new Float32Array(draw.surface), gl.STATIC_DRAW);
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const attribute = (name, buffer, size, stride, offset) => {
      const location = gl.getAttribLocation(program, name);
      if (location < 0) return;
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, gl.FLOAT, false, stride, offset);
    };
    attribute("position", this.dynamic, 3, 24, 0);
    attribute("normal", this.dynamic, 3, 24, 12);
    for (const [name, buffer] of Object.entries(this.buffers)) attribute(name, buffer, name === "colour" ? 4 : 2, 0, 0);
    const triangles = this.arrays[draw.triangles].values;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, draw.blend ? gl.DYNAMIC_DRAW : gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    gl.useProgram(program);
    const textures = Object.entries(draw.textures).map(([slot, sampler], unit) => {
      gl.uniform1i(gl.getUniformLocation(program, slot), unit);
      return this.texture(sampler);
    });
    return { ...draw, program, surface, array, textures, triangles };
  }

  program(vertex, fragment) {
    const { gl } = this;
    const key = vertex + fragment;
    if (this.programs.has(key)) return this.programs.get(key);
    const program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`The browser cannot compile a shader: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
    }
    for (const [binding, name] of ["View", "Surface"].entries()) {
      const block = gl.getUniformBlockIndex(program, name);
      if (block !== gl.INVALID_INDEX) gl.uniformBlockBinding(program, block, binding);
    }
    this.programs.set(key, program);
    return program;
  }

  texture({ image, srgb, repeat, nearest }) {
    const { gl } = this;
    const key = `${image} ${srgb} ${repeat} ${nearest}`;
    if (this.textures.has(key)) return this.textures.get(key);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, srgb ? gl.SRGB8_ALPHA8 : gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, this.images[image]);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, repeat[0] ? gl.REPEAT : gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, repeat[1] ? gl.REPEAT : gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, nearest ? gl.NEAREST_MIPMAP_NEAREST : gl.LINEAR_MIPMAP_NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, nearest ? gl.NEAREST : gl.LINEAR);
    this.textures.set(key, texture);
    return texture;
  }

  setMotion(header, arrays) {
    this.motion = arrays;
    this.mirrored = header.mirrored;
    this.frames = header.frames;
  }

  pose(frame) {
    const { vertices, frames } = this;
    const { positions: { values: p }, normals: { values: n }, low: { values: low }, step: { values: step } } = this.motion;
    const first = Math.min(Math.floor(frame), frames - 1), second = Math.min(first + 1, frames - 1), later = frame - first;
    const count = vertices.length / 2, [a, b] = [first * count, second * count];
    for (let i = 0, to = 0; i < count; i += 3, to += 6) {
      for (let c = 0; c < 3; c++) {
        vertices[to + c] = low[c] + step[c] * (p[a + i + c] + later * (p[b + i + c] - p[a + i + c]));
        vertices[to + 3 + c] = (n[a + i + c] + later * (n[b + i + c] - n[a + i + c])) / 127;
      }
    }
    this.dirty = true;
  }

  draw(camera, background) {
    const { gl } = this;
    const { width, height } = camera;
    if (this.dirty) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.dynamic);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, this.vertices);
      this.dirty = false;
    }
    const { matrix, eye } = this.project(camera);
    gl.bindBuffer(gl.UNIFORM_BUFFER, this.view);
    const identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    gl.bufferData(gl.UNIFORM_BUFFER, new Float32Array([...matrix, ...identity, ...eye, 1]), gl.DYNAMIC_DRAW);
    gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, this.view);
    gl.viewport(0, 0, width, height);
    gl.depthMask(true);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    for (const draw of this.draws) this.drawCall(draw, eye);
    gl.bindVertexArray(null);
  }

  drawCall(draw, eye) {
    const { gl } = this;
    gl.useProgram(draw.program);
    gl.bindBufferBase(gl.UNIFORM_BUFFER, 1, draw.surface);
    draw.textures.forEach((texture, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
    });
    gl[draw.cull ? "enable" : "disable"](gl.CULL_FACE);
    gl.frontFace(this.mirrored[draw.primitive] ? gl.CW : gl.CCW);
    gl[draw.blend ? "enable" : "disable"](gl.BLEND);
    gl.depthMask(!draw.blend);
    gl.bindVertexArray(draw.array);
    if (draw.blend) gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, 0, this.fromFarToNear(draw.triangles, eye));
    gl.drawElements(gl.TRIANGLES, draw.triangles.length, gl.UNSIGNED_INT, 0);
  }

  fromFarToNear(triangles, eye) {
    const { vertices } = this;
    const count = triangles.length / 3, distances = new Float32Array(count);
    for (let f = 0; f < count; f++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let corner = 0; corner < 3; corner++) sum += vertices[6 * triangles[3 * f + corner] + c];
        distances[f] += (sum / 3 - eye[c]) ** 2;
      }
    }
    const order = Array.from({ length: count }, (_, f) => f).sort((a, b) => distances[b] - distances[a]);
    const sorted = new Uint32Array(triangles.length);
    order.forEach((f, at) => sorted.set(triangles.subarray(3 * f, 3 * f + 3), 3 * at));
    return sorted;
  }

  // World to clip space, column by column, and the position of the camera.
  project({ worldToCamera: E, K, width, height }) {
    const eye = [0, 1, 2].map((c) => -(E[0][c] * E[0][3] + E[1][c] * E[1][3] + E[2][c] * E[2][3]));
    const { target, distance } = this.header.camera;
    const away = Math.max(Math.hypot(...eye.map((value, c) => value - target[c])), distance);
    const [near, far] = [DEPTHS[0] * away * 0.25, DEPTHS[1] * away];
    const rows = [
      [(2 * K[0][0]) / width, 0, (2 * K[0][2]) / width - 1, 0],
      [0, (-2 * K[1][1]) / height, 1 - (2 * K[1][2]) / height, 0],
      [0, 0, (far + near) / (far - near), (-2 * far * near) / (far - near)],
      [0, 0, 1, 0],
    ];
    const matrix = [];
    for (let column = 0; column < 4; column++) {
      for (const row of rows) matrix.push(row.reduce((sum, value, i) => sum + value * E[i][column], 0));
    }
    return { matrix, eye };
  }
}
