"""An animated .glb in a stock viewer, three.js in headless Chromium: vertices and pictures at three times."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from graph_motions import animated
from PIL import Image
from scipy.spatial import cKDTree

from renderers.cameras import Cameras
from zoo.animate3d.animation import Animation

pytestmark = pytest.mark.slow
SIDE = 256
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body style="margin:0">
<script type="importmap">
{"imports": {"three": "./three/build/three.module.js", "three/addons/": "./three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
renderer.setSize(SIDE, SIDE);
document.body.append(renderer.domElement);
const gltf = await new GLTFLoader().loadAsync("./model.glb");
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(FOV, 1, NEAR, FAR);
scene.add(gltf.scene);
camera.matrixAutoUpdate = false;
camera.matrix.set(MATRIX);
camera.updateMatrixWorld(true);
scene.background = new THREE.Color(0xffffff);
scene.traverse((part) => {  // silhouettes, with the sides that the file's materials show
  if (part.isPoints) part.visible = false;
  if (part.isMesh) part.material = new THREE.MeshBasicMaterial({ color: 0, side: part.material.side });
});
const mixer = new THREE.AnimationMixer(scene), action = mixer.clipAction(gltf.animations.at(-1));
action.setLoop(THREE.LoopOnce).clampWhenFinished = true;
action.play();
window.show = (time) => {
  action.reset();
  mixer.setTime(time);
  scene.updateMatrixWorld(true);
  renderer.render(scene, camera);
};
window.vertices = (time) => {
  show(time);
  const all = [], point = new THREE.Vector3();
  scene.traverse((mesh) => {
    if (!mesh.isMesh) return;
    const index = mesh.geometry.index, count = index ? index.count : mesh.geometry.attributes.position.count;
    for (let i = 0; i < count; i++) {
      mesh.getVertexPosition(index ? index.getX(i) : i, point).applyMatrix4(mesh.matrixWorld);
      all.push(point.x, point.y, point.z);
    }
  });
  return all;
};
window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def three() -> Path:
    """The folder of the npm package three; skips without it."""
    named = os.environ.get("MENAGERIE_THREE")
    folders = [parent / "node_modules/three" for parent in Path(__file__).resolve().parents]
    for folder in [Path(named)] if named else folders:
        if (folder / "build/three.module.js").exists():
            return folder
    pytest.skip(
        "needs the npm package three (`npm install three` in the checkout, or MENAGERIE_THREE=its folder)"
    )


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def site(tmp_path, three) -> Iterator[tuple[Path, str]]:
    """A folder with three.js, and its address on this machine."""
    for name in ("build", "examples/jsm"):
        shutil.copytree(three / name, tmp_path / "three" / name)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def page(camera: Cameras, diagonal: float) -> str:
    """The viewer with our camera, whose y points down and z forward."""
    matrix = np.linalg.inv(camera.world_to_camera[0]) @ np.diag([1.0, -1.0, -1.0, 1.0])
    fov = np.degrees(2 * np.arctan(camera.height / 2 / camera.K[0, 1, 1]))
    text = PAGE.replace("SIDE", str(SIDE)).replace("FOV", f"{fov}")
    text = text.replace("NEAR", f"{0.01 * diagonal}").replace("FAR", f"{100 * diagonal}")
    return text.replace("MATRIX", ", ".join(map(str, matrix.reshape(-1))))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("name", "form"), [("crowded", "skin"), ("rigged", "morph"), ("greenman", "skin")])
def test_three_js_plays_the_animation(site, name, form):
    folder, url = site
    animation: Animation = animated(name)
    animation.save(folder / "model.glb", as_=form, tolerance=0.0)
    camera, diagonal = animation.default_camera(SIDE), animation.model.diagonal()
    (folder / "index.html").write_text(page(camera, diagonal))
    times = animation.motion.times[[0, 4, 10]]
    actions = []
    for place, time in enumerate(times):
        actions += [["evaluate", f"show({time})"], ["screenshot", str(folder / f"{place}.png")]]
    actions += [["evaluate", f"vertices({time})"] for time in times]
    out = browser()(url, actions, ready="window.ready", viewport={"width": SIDE, "height": SIDE})
    assert [line for line in out["logs"] if "error" in line.lower()] == []
    assert all(request.startswith((url, "blob:")) for request in out["requests"])

    asset = animation.model.asset
    corners = np.concatenate([part.triangles for part in asset.primitives]).reshape(-1)
    ours = (animation.vertices(times) + asset.origin(None))[:, corners]
    theirs = np.array(out["results"][-len(times) :]).reshape(len(times), -1, 3)
    near = cKDTree(theirs[0]).query(ours[0])[1]
    exact = animation.error(form, tolerance=0.0)  # four influences per vertex
    assert np.linalg.norm(ours - theirs[:, near], axis=-1).max() <= (exact + 1e-5) * diagonal

    shapes = [
        np.asarray(Image.open(folder / f"{place}.png").convert("L")) < 128 for place in range(len(times))
    ]
    drawn = animation.render(camera, times, background=None, backend="cpu")[0, ..., 3] > 127
    for place in range(len(times)):
        fits = [overlap(shapes[place], other) for other in drawn]
        assert fits[place] >= 0.95, fits
        assert max(fits[:place] + fits[place + 1 :]) < fits[place] - 0.02, "the pictures should differ"
