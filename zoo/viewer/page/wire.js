"use strict";

// Requests, and responses with arrays; the counterpart of zoo/viewer/wire.py.

const ARRAY_TYPES = { float32: Float32Array, uint32: Uint32Array, uint16: Uint16Array, uint8: Uint8Array, int8: Int8Array };

async function request(path, query) {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(query)}`);
  } catch {
    throw new Error("The viewer has ended: start it again and reload this page.");
  }
  if (!response.ok) throw new Error(await response.text());
  return response;
}

// {header, arrays: name → {values, shape}}; values are views of the response.
async function requestArrays(path, query) {
  const data = await (await request(path, query)).arrayBuffer();
  const length = new DataView(data).getUint32(0, true);
  const { arrays: layouts, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const arrays = {};
  for (const [name, { type, shape, offset }] of Object.entries(layouts)) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = { values: new ARRAY_TYPES[type](data, 4 + length + offset, count), shape };
  }
  return { header, arrays };
}

// An element with properties and children; texts are never read as HTML.
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
