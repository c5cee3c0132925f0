"""All back ends render the same image of the same shot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_assets import model, with_bundled
from scenes import add_square, add_texture, ball, lit, render, shot, square, textured_square, unlit
from tiny_gltf import TinyGltf

from factory.clips.plan import ClipRecipe, plan_asset
from renderers import gltf
from renderers.cameras import Cameras
from renderers.meshes import GREY, RenderedClip, RenderError, RenderSettings, Shot, blender, render_clip

NAMES = with_bundled("Fox.glb", "phoenix_bird.glb", "KayKit_Knight.glb")
VIEWS, FRAMES = [0, 5, 10], [4, 26]
# Poses in the open, of assets with many animations: Cycles darkens a body behind crossed limbs, a rasteriser does not.
ANIMATIONS = {"knight.glb": 2, "KayKit_Knight.glb": 11}
requires_blender = pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`")


def asset_and_shot(
    name: str, views: list[int] = VIEWS, frames: list[int] = FRAMES
) -> tuple[gltf.Asset, Shot]:
    """Return an asset, and a few views and frames of its first planned clip at 256 px."""
    recipe = ClipRecipe(max_animations=1)
    asset = gltf.load(model(name))
    whole = plan_asset(asset, name, recipe)[0][0].shot(recipe)
    animation = ANIMATIONS.get(name, whole.animation)
    return asset, Shot(animation, whole.timestamps[frames], whole.asset_to_world, whole.cameras[views])


def coverage(clip: RenderedClip, size: int = 256) -> np.ndarray:
    """Return the alpha of a clip, averaged down to `size`: [V, T, size, size], 0-1."""
    alpha = clip.frames[..., 3] / 255.0
    n = alpha.shape[-1] // size
    return alpha.reshape(*alpha.shape[:2], size, n, size, n).mean(axis=(3, 5))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of pixels with coverage >= 0.5, of the worst view."""
    pairs = zip(a >= 0.5, b >= 0.5, strict=True)
    return min(float((p & q).sum() / (p | q).sum()) for p, q in pairs)


def enlarged(view: Shot, times: int) -> Shot:
    """Return the same shot with `times` as many pixels per side."""
    cameras = view.cameras
    K = cameras.K.copy()
    K[:, :2] *= times
    return replace(
        view, cameras=Cameras(cameras.world_to_camera, K, cameras.width * times, cameras.height * times)
    )


def colour_distance(a: RenderedClip, b: RenderedClip) -> float:
    """Return the mean colour difference, 0-255, where both clips are opaque."""
    both = (a.frames[..., 3] == 255) & (b.frames[..., 3] == 255)
    return float(np.abs(a.frames[..., :3][both].astype(int) - b.frames[..., :3][both]).mean())


def write_sheet(path: Path, *clips: RenderedClip) -> None:
    """Write a PNG with one row per clip: views and frames side by side over grey."""
    rows = [
        np.concatenate(list(clip.over(GREY).reshape(-1, *clip.frames.shape[2:4], 3)), axis=1)
        for clip in clips
    ]
    Image.fromarray(np.concatenate(rows)).save(path)


@pytest.mark.parametrize("name", NAMES)
def test_pyrender_renders_the_same_image(name, tmp_path):
    """Silhouettes are compared at high sample counts, which show the geometry rather than the sampling."""
    asset, view = asset_and_shot(name)
    ours, theirs = render_clip(asset, view), render_clip(asset, view, backend="pyrender")
    write_sheet(tmp_path / "sheet.png", ours, theirs)
    assert colour_distance(ours, theirs) < 20
    assert overlap(coverage(ours), coverage(theirs)) >= 0.9

    truth = coverage(render_clip(asset, enlarged(view, 4), backend="pyrender"))
    assert overlap(coverage(render_clip(asset, view, RenderSettings(samples=16))), truth) >= 0.98
    late = replace(view, timestamps=view.timestamps + 0.125)
    assert overlap(coverage(render_clip(asset, late, RenderSettings(samples=16))), truth) < 0.98


@requires_blender
@pytest.mark.blender
@pytest.mark.parametrize("name", NAMES)
def test_cycles_renders_the_same_image(name, tmp_path):
    asset, view = asset_and_shot(name, VIEWS[:2], FRAMES[:1])
    ours = render_clip(asset, view, RenderSettings(samples=16))
    theirs = blender.render_clip(model(name), view, samples_per_pixel=16)
    write_sheet(tmp_path / "sheet.png", ours, theirs)
    assert overlap(coverage(ours), coverage(theirs)) >= 0.98
    assert colour_distance(ours, theirs) < 12
    late = replace(view, timestamps=view.timestamps + 0.125)
    assert overlap(coverage(render_clip(asset, late, RenderSettings(samples=16))), coverage(theirs)) < 0.98


# --- pyrender on scenes with known results -----------------------------------------------------------


QUARTERS = np.array([[(250, 10, 10), (10, 250, 10)], [(10, 10, 250), (200, 200, 200)]], np.uint8)


def test_pyrender_images_are_upright_with_straight_alpha():
    image = render(textured_square(QUARTERS), shot(half_height=1.51, width=60, height=60), "pyrender").frames[
        0, 0
    ]
    image = image.astype(int)
    for (y, x), channel in (((15, 15), 0), ((15, 45), 1), ((45, 15), 2)):
        assert image[y, x, :3].argmax() == channel
        assert image[y, x, 3] == 255
    assert np.ptp(image[45, 45, :3]) < 40
    assert not image[2, 2].any()


def test_pyrender_edges_are_not_darkened_by_coverage():
    image = render(
        square(lit((0.5, 0.1, 0.1))), shot(half_height=1.51, width=60, height=60), "pyrender"
    ).frames[0, 0]
    image = image.astype(int)
    edge = (image[..., 3] > 0) & (image[..., 3] < 255)
    assert edge.any()
    assert np.abs(image[edge][:, 0] - image[30, 30, 0]).max() < 30


def test_pyrender_shows_objects_behind_transparent_ones():
    """pyrender does not sort: a square with a transparent left half is drawn before the red one behind it."""
    tiny = TinyGltf()
    texels = np.full((8, 8, 4), 255, np.uint8)
    texels[:, :4, 3] = 0
    front = lit((0, 0, 1), alphaMode="BLEND")
    front["pbrMetallicRoughness"]["baseColorTexture"] = {"index": add_texture(tiny, texels)}
    tiny.scene(
        add_square(tiny, front, translation=[0, 0, 0.5]), add_square(tiny, lit((1, 0, 0)), scale=[2, 2, 1])
    )
    image = render(tiny, shot(half_height=0.8), "pyrender").frames[0, 0]
    assert (image[..., 3] == 255).all()
    assert image[16, 4, :3].argmax() == 0
    assert image[16, 28, :3].argmax() == 2


@pytest.mark.parametrize(("alpha", "cutoff", "drawn"), [(0.7, 0.6, True), (0.5, 0.6, False)])
def test_pyrender_applies_the_alpha_cutoff(alpha, cutoff, drawn):
    tiny = textured_square(np.full((4, 4, 4), (255, 255, 255, round(255 * alpha))))
    tiny.json["materials"][0] |= {"alphaMode": "MASK", "alphaCutoff": cutoff}
    assert (render(tiny, shot(), "pyrender").frames[..., 3] == (255 if drawn else 0)).all()


def test_pyrender_reads_roughness_and_metallic_from_gltfs_channels():
    """A texture of a rough dielectric looks like the same values given as factors; that of a metal does not."""

    def sphere_with(packed: tuple[int, int, int] | None) -> np.ndarray:
        tiny = ball(lit((0.6, 0.5, 0.4), 0.0 if packed is None else 1.0, 0.8 if packed is None else 1.0), 48)
        if packed is not None:
            texture = add_texture(tiny, np.full((4, 4, 3), packed))
            pbr = tiny.json["materials"][0]["pbrMetallicRoughness"]
            pbr["metallicRoughnessTexture"] = {"index": texture}
            attributes = tiny.json["meshes"][0]["primitives"][0]["attributes"]
            attributes["TEXCOORD_0"] = tiny.accessor(np.zeros((tiny.json["accessors"][0]["count"], 2)))
        return render(tiny, shot(half_height=1.2), "pyrender").frames[0, 0].astype(int)

    plain = sphere_with(None)
    assert np.abs(sphere_with((0, 204, 0)) - plain).mean() < 1
    assert np.abs(sphere_with((0, 204, 255)) - plain).mean() > 5


def test_pyrender_adds_emission_once():
    glow = [0.5, 0.25, 0.0]
    plain, glowing = (
        render(square(lit((0, 0, 0), emissiveFactor=e)), shot(), "pyrender").frames[0, 0, 9, 20, :3] / 255
        for e in ([0, 0, 0], glow)
    )
    np.testing.assert_allclose(glowing**2.2 - plain**2.2, glow, atol=0.02)


@pytest.mark.parametrize("backend", ["opengl", "pyrender"])
@pytest.mark.parametrize("scale", [[1, 1, 1], [-1, 1, 1]])
def test_mirrored_parts_keep_their_front_faces(backend, scale):
    clip = render(square(lit((1, 0, 0)), scale=scale), shot([0, 180]), backend)
    assert (clip.frames[0, ..., 3] == 255).all()
    assert (clip.frames[1, ..., 3] == 0).all()


def test_pyrender_depth_is_along_the_optical_axis():
    view = shot(width=24, height=24, half_height=0.8)
    clip = render(square(unlit()), view, "pyrender", depth=True)
    np.testing.assert_allclose(clip.depth, 4.0, rtol=1e-3)
    with pytest.raises(RenderError, match="normals, flow and tracks are not supported"):
        render(square(unlit()), view, "pyrender", normals=True)


def test_two_back_ends_in_one_process():
    """Each has its own OpenGL context and leaves that of the other unchanged."""
    tiny, view = ball(lit((0.5, 0.3, 0.2))), shot(width=48, height=48, half_height=1.2)
    first = {name: render(tiny, view, name).frames for name in ("opengl", "pyrender")}
    for name in ("pyrender", "opengl", "opengl", "pyrender"):
        np.testing.assert_array_equal(render(tiny, view, name).frames, first[name])
