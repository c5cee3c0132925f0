"""The CPU back end beyond its images: the same bits everywhere, clipping, and triangles that are hardly any.

`test_rasterisers.py` has the images.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sample_assets import model
from scenes import SQUARE, SQUARE_FACES, add_mesh, add_square, add_texture, ball, lit, render, shot, unlit
from tiny_gltf import TinyGltf

from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.meshes import RenderError, RenderSettings, Shot, backends, render_clip
from renderers.meshes.cpu import CPURenderer
from renderers.meshes.cpu.renderer import _Desk, _grid, _work


def compare(tiny: TinyGltf, view: Shot, samples: int = 4) -> np.ndarray:
    """Return the difference between the back ends, int [H, W, 4]."""
    ours, theirs = (
        render(tiny, view, backend, samples=samples).frames[0, 0] for backend in ("cpu", "opengl")
    )
    return np.abs(ours.astype(int) - theirs)


def corridor() -> TinyGltf:
    """Return four textured walls around the z axis, which extend beyond the camera and behind it."""
    tiny = TinyGltf()
    material = unlit(doubleSided=True)
    pixels = np.indices((8, 8)).sum(0)[..., None] % 2 * 200 + np.array([20, 40, 55])
    material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": add_texture(tiny, pixels)}
    index = tiny.add("materials", **material)
    near, far = 30.0, -30.0
    nodes = []
    for angle in range(4):
        c, s = np.cos(angle * np.pi / 2), np.sin(angle * np.pi / 2)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        points = np.array([[-1, -1, near], [1, -1, near], [1, -1, far], [-1, -1, far]]) @ turn.T
        uv = np.array([[0, 0], [2, 0], [2, 60], [0, 60]])
        nodes.append(add_mesh(tiny, points, SQUARE_FACES, index, uv=uv))
    tiny.scene(*nodes)
    return tiny


def test_triangles_through_the_camera_plane_are_clipped():
    """Inside a corridor every wall crosses the plane of the camera; the image is that of the other back end."""
    view = shot(3, 2, width=96, height=96, distance=4.0, half_height=2.5)
    difference = compare(corridor(), view, samples=16)
    assert difference[..., 3].max() == 0
    assert np.percentile(difference[..., :3], 95) <= 16  # the far end is smaller than a pixel
    assert difference[:20].mean() < 4  # texels are averaged as square roots of light, not as encoded values


def test_triangles_much_larger_than_the_image():
    tiny = TinyGltf()
    tiny.scene(
        add_square(tiny, unlit(1, 0, 0), scale=[5e3, 5e3, 1], translation=[0, 0, -0.5]),
        add_square(tiny, unlit(0, 1, 0), scale=[0.5, 0.5, 1]),
    )
    view = shot(20, 10, width=64, height=48)
    difference = compare(tiny, view)
    assert (difference.max(-1) > 4).mean() < 0.01
    frame = render(tiny, view, "cpu", samples=4).frames[0, 0]
    assert frame[24, 32, 1] == 255
    assert (frame[..., 3] == 255).all()  # no gap along the diagonal of the large square


def test_there_is_room_for_more_triangles_and_tiles_than_expected():
    """A floor under the camera, of one part or of strips: clipped to twice the triangles, each in many tiles."""
    view = shot([10, 100], 20, width=320, height=320, distance=4.0, half_height=4.0)
    frames = []
    for strips in (1, 250):
        x = np.linspace(-90, 90, strips + 1)
        points = np.stack(np.broadcast_arrays(x[:, None], -1.0, np.array([90.0, -90.0])), -1).reshape(-1, 3)
        first = 2 * np.arange(strips)[:, None]
        faces = np.concatenate([first + [0, 2, 3], first + [0, 3, 1]])
        tiny = TinyGltf()
        normals = np.broadcast_to([0.0, 1.0, 0.0], points.shape)
        tiny.scene(add_mesh(tiny, points, faces, unlit(1, 0, 0, doubleSided=True), normals=normals))
        clip = render(tiny, view, "cpu", samples=4, depth=True)
        frames.append(clip.frames)
        assert clip.depth[:, 0, 300].min() > 0
    assert np.array_equal(*frames) and 0.5 < (frames[0][..., 3] == 255).mean() < 0.95


@pytest.mark.parametrize("samples", [1, 4, 16])
def test_shared_edges_are_watertight_and_covered_once(samples):
    """A half transparent fan of thin triangles has the same alpha everywhere: no sample is missed or drawn twice."""
    angles = np.linspace(0, 2 * np.pi, 200)
    rim = np.stack([5 * np.cos(angles), 5 * np.sin(angles), 0 * angles], 1)
    points = np.concatenate([[[0.013, -0.021, 0]], rim])
    faces = np.stack([np.zeros(199, int), np.arange(1, 200), np.arange(2, 201)], 1)
    tiny = TinyGltf()
    material = unlit(0.5, 0.5, 0.5, 0.5, alphaMode="BLEND", doubleSided=True)
    tiny.scene(add_mesh(tiny, points, faces, material))
    for azimuth, elevation in ((0, 0), (33, 21)):
        alpha = render(tiny, shot(azimuth, elevation, width=61, height=47), "cpu", samples=samples).frames[
            ..., 3
        ]
        assert alpha.min() == alpha.max() == 128


@pytest.mark.parametrize("samples", [1, 4, 16])
def test_of_surfaces_at_the_same_depth_the_first_is_visible(samples):
    """Small triangles, which are drawn 16 at a time, a square, and small triangles at the places of the first."""
    centres = np.array([[0.25 * x, 0.25 * y, 0] for x in (-2, 0, 2) for y in (-2, 0, 2)])
    corners = 0.1 * np.array([[0, 1, 0], [-1, -1, 0], [1, -1, 0]])
    faces = np.arange(3 * len(centres)).reshape(-1, 3)
    layers = [
        ((centres[:, None] + corners).reshape(-1, 3), faces, (0, 1, 0)),
        (SQUARE, SQUARE_FACES, (1, 0, 0)),
        ((centres[:, None] + 1.5 * corners).reshape(-1, 3), faces, (0, 0, 1)),
    ]
    view = shot(width=32, height=32)

    def draw(*chosen):
        tiny = TinyGltf()
        tiny.scene(
            *(add_mesh(tiny, points, triangles, unlit(*colour)) for points, triangles, colour in chosen)
        )
        return render(tiny, view, "cpu", samples=samples).frames[0, 0]

    picture = draw(*layers)
    coverage = draw(layers[0])[..., 3] / 255
    assert 0.03 < coverage.mean() < 0.3
    assert (picture[..., 2] == 0).all() and (picture[..., 3] == 255).all()
    np.testing.assert_allclose(picture[..., 1], 255 * coverage, atol=1)
    np.testing.assert_allclose(picture[..., 0], 255 * (1 - coverage), atol=1)


def test_vectors_in_scratch_memory_do_not_cross_cache_lines():
    for samples in (1, 4, 16):
        for array in _work(_grid(samples), 3):
            assert array.ctypes.data % 64 == 0


def test_degenerate_triangles_draw_nothing():
    """Points, lines and needles of a millionth of a pixel, beside a square that stays as it is."""
    needles = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [-1, 0, 1], [1, 0, 1], [0, 1e-9, 1]], np.float32)
    points = np.concatenate([SQUARE, needles])
    faces = np.concatenate([SQUARE_FACES, [[4, 5, 6], [4, 5, 7], [7, 8, 9]]])
    tiny, plain = TinyGltf(), TinyGltf()
    tiny.scene(add_mesh(tiny, points, faces, lit((0.5, 0.2, 0.1))))
    plain.scene(add_mesh(plain, SQUARE, SQUARE_FACES, lit((0.5, 0.2, 0.1))))
    view = shot(10, 5, width=64, height=64, half_height=1.5)
    changed = render(tiny, view, "cpu", samples=4).frames != render(plain, view, "cpu", samples=4).frames
    assert changed.mean() < 0.01


@pytest.mark.filterwarnings("ignore:overflow")
def test_vertices_that_are_not_finite_in_the_view_are_left_out():
    """float32 overflows when positions are scaled to the world."""
    points = np.concatenate([SQUARE, SQUARE * np.float32(1e30)])
    tiny = TinyGltf()
    tiny.scene(add_mesh(tiny, points, np.concatenate([SQUARE_FACES, SQUARE_FACES + 4]), unlit(0, 1, 0)))
    matrix = np.diag([1e-15, 1e-15, 1e-15, 1.0])
    matrix[:3, :3] *= 1e25
    frame = render(tiny, shot(width=16, height=16, asset_to_world=matrix), "cpu").frames
    assert frame.shape == (1, 1, 16, 16, 4)


def test_images_that_are_not_multiples_of_a_tile():
    tiny = ball(lit((0.6, 0.5, 0.2)))
    for width, height in ((1, 1), (65, 33), (130, 7)):
        difference = compare(tiny, shot(30, 20, width=width, height=height, half_height=1.2), samples=16)
        assert np.median(difference) <= 1


def test_without_numba_an_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("renderers.meshes.cpu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setenv("MENAGERIE_KERNELS", "numba")
    monkeypatch.setattr(backends, "_renderers", {})
    with pytest.raises(RenderError, match=r"cpu: numba cannot be imported .*menagerie4d\[render\]"):
        backends.renderer("cpu")


# --- the same bits ------------------------------------------------------------------------------------

_DRAW = """
import sys, hashlib
import numpy as np
from test_cpu_renderer import digest
print(digest())
"""


def digest() -> str:
    """Digest of images with textures, masks, blending, metals and geometry."""
    result = hashlib.sha256()
    for name in ("greenman.glb", "knight.glb"):
        asset = gltf.load(model(name))
        cameras = orbit_cameras(np.array([0.4, 2.6]), 0.3, 4.0, fov_y=0.7, width=72, height=56)
        size = np.ptp(asset.positions(0, 0.3)[asset.visible], axis=0).max()
        matrix = np.diag([2 / size, 2 / size, 2 / size, 1.0])
        view = Shot(0, np.array([0.3, 0.7]), matrix, cameras)
        settings = RenderSettings(samples=4, depth=True, normals=True, flow=True)
        clip = render_clip(asset, view, settings, backend="cpu")
        for part in (clip.frames, clip.depth, clip.normals, clip.flow):
            result.update(np.ascontiguousarray(part).tobytes())
    material = lit((0.9, 0.6, 0.3), 1.0, 0.4, alphaMode="BLEND", doubleSided=True)
    material["pbrMetallicRoughness"]["baseColorFactor"][3] = 0.6
    result.update(
        render(ball(material, 24), shot(30, 20, width=40, height=40), "cpu", samples=4).frames.tobytes()
    )
    pixels = np.indices((16, 16, 4)).sum(0) * 41 % 256  # a colour and an alpha of its own for every texel
    for mode in ("BLEND", "MASK"):
        tiny, glass = TinyGltf(), lit((0.9, 0.8, 0.7), alphaMode=mode, doubleSided=True)
        glass["pbrMetallicRoughness"]["baseColorTexture"] = {"index": add_texture(tiny, pixels)}
        tiny.scene(add_square(tiny, glass), add_square(tiny, glass, translation=[0.1, 0.2, -0.4]))
        result.update(render(tiny, shot(30, 20, width=40, height=40), "cpu", samples=4).frames.tobytes())
    return result.hexdigest()


@pytest.mark.slow
def test_processors_draw_the_same_bits(tmp_path):
    """Code that numba compiles for this processor, for AVX2 and for the first x86-64 processors."""
    found = {}
    for name, features in ((None, None), ("x86-64-v3", ""), ("x86-64", "")):
        folder = tmp_path / str(name)
        environment = {**os.environ, "MENAGERIE_KERNELS": "numba", "NUMBA_CACHE_DIR": str(folder)}
        if name is not None:
            environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        here = Path(__file__).parent
        paths = [str(here), str(here.parent / "support")]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        output = subprocess.run(
            [sys.executable, "-P", "-c", _DRAW], env=environment, check=True, capture_output=True, text=True
        ).stdout
        found[name] = output.split()[-1]
        assert list(folder.rglob("kernels.draw*.nbc")), name
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("geometry", [False, True])
def test_any_number_of_threads_draws_the_same_bits(geometry):
    """Threads share the scene; without geometry, they draw a frame while the next one is posed."""
    asset = gltf.load(model("knight.glb"))
    size = np.ptp(asset.positions(0, 0.3)[asset.visible], axis=0).max()
    cameras = orbit_cameras(np.linspace(0.0, 5.0, 5), 0.3, 4.0, fov_y=0.7, width=72, height=56)
    view = Shot(0, np.linspace(0.1, 0.7, 4), np.diag([2 / size, 2 / size, 2 / size, 1.0]), cameras)
    settings = RenderSettings(samples=4, depth=geometry, normals=geometry, flow=geometry)
    clips = [CPURenderer(threads).render_clip(asset, view, settings) for threads in (1, 2, 5)]
    frames = clips[0].frames
    assert not any(np.array_equal(frames[:, t], frames[:, t + 1]) for t in range(3))  # it moves
    for clip in clips[1:]:
        for name in ("frames", "depth", "normals", "flow") if geometry else ("frames",):
            np.testing.assert_array_equal(getattr(clip, name), getattr(clips[0], name), err_msg=name)


def test_a_frame_is_not_posed_in_a_scene_that_is_still_drawn(monkeypatch):
    """Threads begin to draw long after the next frames could have been posed."""
    asset = gltf.load(model("knight.glb"))
    size = np.ptp(asset.positions(0, 0.3)[asset.visible], axis=0).max()
    cameras = orbit_cameras(np.linspace(0.0, 5.0, 2), 0.3, 4.0, fov_y=0.7, width=48, height=32)
    view = Shot(0, np.linspace(0.1, 0.7, 4), np.diag([2 / size, 2 / size, 2 / size, 1.0]), cameras)
    expected = CPURenderer(1).render_clip(asset, view, RenderSettings(samples=1)).frames
    draw = _Desk.draw

    def late(*args) -> None:
        time.sleep(0.2)
        draw(*args)

    monkeypatch.setattr(_Desk, "draw", late)
    np.testing.assert_array_equal(
        CPURenderer(2).render_clip(asset, view, RenderSettings(samples=1)).frames, expected
    )


def test_the_number_of_threads_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert CPURenderer()._threads == 3
    assert CPURenderer(2)._threads == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert CPURenderer()._threads >= 1
