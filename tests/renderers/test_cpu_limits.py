"""The CPU back end with damaged and huge models: right, or refused in a sentence, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import add_mesh, shot, unlit
from tiny_gltf import TinyGltf

from renderers import gltf
from renderers.meshes import render_clip

HERE = Path(__file__).parent
FILES = 1000
CHILD = """
import json, random, signal, sys, warnings
from pathlib import Path
import numpy as np
from scenes import shot
from test_gltf_fuzz import mutate, seeds
from renderers import gltf
from renderers.meshes import RenderSettings, render_clip

warnings.simplefilter("ignore")  # overflows of coordinates: such triangles are left out

def too_slow(*_):
    raise SystemExit("a file exceeded the time limit")

signal.signal(signal.SIGALRM, too_slow)
views = [shot([20, 200], 25, width=24, height=18), shot([20], 80, width=24, height=18, distance=0.4, half_height=0.2)]
settings = RenderSettings(samples=4, depth=True, normals=True, flow=True)
drawn = refused = 0
originals = seeds()
render_clip(gltf.load(originals[0]), views[0], settings, backend="cpu")  # compiles the kernels, if they are
for number in range(int(sys.argv[2])):
    path = Path(sys.argv[1]) / f"{number:04d}.glb"
    path.write_bytes(mutate(originals[number % len(originals)], random.Random(7000 + number)))
    print(path.name, file=sys.stderr, flush=True)
    signal.alarm(20)
    try:
        asset = gltf.load(path)
        for view in views:
            clip = render_clip(asset, view, settings, backend="cpu")
            assert not (clip.depth < 0).any() and np.isfinite(clip.depth).all(), path.name
        drawn += 1
    except gltf.GltfError:
        refused += 1
    signal.alarm(0)
print(json.dumps([drawn, refused]))
"""


def fuzz(folder: Path, count: int, **environment: str) -> tuple[int, int]:
    """Render mutated files in a child process; return how many were drawn and how many refused."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "support")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-P", "-c", CHILD, str(folder), str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"stopped with {done.returncode} after: {done.stderr.splitlines()[-12:]}"
    drawn, refused = json.loads(done.stdout)
    assert drawn + refused == count and min(drawn, refused) > count // 8
    return drawn, refused


def test_mutated_files_are_drawn_or_refused(tmp_path):
    fuzz(tmp_path, 40)


@pytest.mark.slow
def test_a_thousand_mutated_files_are_drawn_or_refused(tmp_path):
    fuzz(tmp_path, FILES)


@pytest.mark.slow
def test_no_index_is_out_of_bounds_in_kernels_that_check_them(tmp_path):
    fuzz(
        tmp_path, FILES,
        MENAGERIE_KERNELS="numba", NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip


def test_too_many_triangles_and_too_large_textures_are_refused_when_the_file_is_read():
    limits = gltf.Limits()
    assert limits.triangles < 10_000_000 and limits.texture_side < 30_000


def test_corners_of_clipped_triangles_may_be_too_far_away_for_integers():
    """A triangle that passes beside the camera, seen with a focal length of 3e15 pixels: its clipped corners are 1e19
    pixels away, beyond the range of 64 bits, and it covers the image."""
    tiny = TinyGltf()
    points = np.array([[4.8, 0, 5], [-3, 0.02, -1], [-3, -0.02, -1]])
    tiny.scene(add_mesh(tiny, points, [[0, 1, 2]], unlit(0.2, 0.4, 0.6, doubleSided=True)))
    clip = render_clip(gltf.load(tiny.glb()), shot(half_height=2e-14), backend="cpu")
    assert (clip.frames[..., 3] == 255).all()


@pytest.mark.slow
def test_the_most_triangles_that_a_file_may_have():
    """A wall of 3.9 million triangles, far smaller than pixels: it covers the image once, without holes."""
    side = 1400
    y, x = np.mgrid[0 : side + 1, 0 : side + 1] / side * 6 - 3
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    corner = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).ravel()
    a, b, c, d = corner, corner + 1, corner + side + 2, corner + side + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    tiny = TinyGltf()
    normals = np.broadcast_to(np.float32([0, 0, 1]), points.shape)  # shared vertices: fewer than the limit
    tiny.scene(add_mesh(tiny, points, faces, unlit(0.2, 0.4, 0.6, doubleSided=True), normals=normals))
    clip = render_clip(gltf.load(tiny.glb()), shot(10, 5, width=64, height=64), backend="cpu")
    assert (clip.frames[..., 3] == 255).all() and np.ptp(clip.frames[..., :3], axis=(0, 1, 2, 3)).max() == 0
