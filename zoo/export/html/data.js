"use strict";

// Arrays of the page; the counterpart of zoo/export/html/arrays.py.

async function readScene() {
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const text = atob(document.getElementById("block").textContent.trim());
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (const [name, layout] of Object.entries(scene.arrays)) scene.arrays[name] = unpackArray(bytes, layout);
  return scene;
}

function unpackArray(bytes, { shape, offset, low, step, axis }) {
  const size = shape.reduce((a, b) => a * b, 1);
  const integers = new Uint16Array(size);
  for (let i = 0; i < size; i++) integers[i] = (bytes[offset + i] << 8) | bytes[offset + size + i];
  if (axis >= 0) {
    // Values are differences along one axis; assignment to a Uint16Array is modulo 2^16.
    const stride = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const period = stride * shape[axis];
    for (let i = 0; i < size; i++) if (i % period >= stride) integers[i] += integers[i - stride];
  }
  const values = new Float32Array(size);
  const channels = shape[shape.length - 1];
  for (let i = 0, c = 0; i < size; i++) {
    values[i] = low[c] + step[c] * integers[i];
    if (++c === channels) c = 0;
  }
  return { values, shape };
}
