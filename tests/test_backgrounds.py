"""Every function that takes a background: floats in 0..1 and integers in 0..255 give the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dataset import grow
from tiny_dimo import tiny_pipeline

import factory
from factory.dataset.buffers import value_table
from factory.dataset.codecs.video import decode_on
from factory.dataset.schema import alpha_column, view_column
from renderers.background import background_bytes, background_color
from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from renderers.meshes import RenderedClip, composite, composite_in_place
from zoo.dimo.data import over
from zoo.metrics import foreground_mask

SIZE = 16
CAMERAS = orbit_cameras([0.0], 0.1, 2.0, fov_y=0.6, width=SIZE, height=SIZE)
Call = Callable[[object], np.ndarray]


def half_covered() -> np.ndarray:
    """Frames uint8 [1, 1, 16, 16, 4]: transparent, half transparent and opaque parts; the corner is transparent."""
    frames = np.zeros((1, 1, SIZE, SIZE, 4), np.uint8)
    frames[..., 4:8, :, :] = (200, 100, 50, 128)
    frames[..., 8:, :, :] = (10, 20, 30, 255)
    return frames


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, Call]:
    """Name → a call with a background that returns RGB uint8 [..., 3], whose first pixel is all background."""
    root = Path(tmp_path_factory.mktemp("discs"))
    grow(root, 0, 2)
    clips = factory.load_clips(root, split="train")
    motion = tiny_pipeline().motion(0).at(0.0)
    splats = motion.gaussians()
    row = clips.read_row(0, [view_column(0), alpha_column(0)])
    side = clips[0].metadata["height"]

    def in_place(background: object) -> np.ndarray:
        frames = half_covered()
        composite_in_place(frames, background)
        return frames[..., :3]

    def training(background: object) -> np.ndarray:
        batches = factory.TrainingClips(
            clips, views=2, frames=2, background=background, dtype=torch.uint8, shuffle=False
        )
        return next(iter(batches))["frames"].movedim(2, -1).numpy()

    def decoded(background: object) -> np.ndarray:
        out = np.empty((1, 3, side, side), np.uint8)
        cells = row[view_column(0)]["bytes"], row[alpha_column(0)]
        decode_on(background, *cells, [0], value_table(torch.uint8), out)
        return np.moveaxis(out, 1, -1)

    def as_bytes(colors: torch.Tensor) -> np.ndarray:
        return colors.detach().clamp(0, 1).mul(255).round().byte().numpy()

    def splatted(dtype: torch.dtype) -> Call:
        cameras = TensorCameras.from_cameras(CAMERAS, dtype=dtype)
        scene = Gaussians(*(t.to(dtype) for t in (splats.means, splats.quats, splats.scales)),
                          splats.opacities.to(dtype), splats.colors.to(dtype))  # fmt: skip
        return lambda background: as_bytes(render(scene, cameras, background=background).rgb)

    def masked(background: object) -> np.ndarray:
        """A frame of the very background is not foreground; neighbours of it are, by more than the threshold."""
        color = torch.tensor(background_bytes(background)) / 255
        frames = color.view(1, 1, 3, 1, 1).expand(1, 2, 3, 4, 4).clone()
        frames[:, 1] = (frames[:, 1] - 0.5).abs()
        mask = foreground_mask(frames, background)
        assert not mask[:, 0].any()
        return as_bytes(torch.where(mask[:, :, None], 0.0, frames).movedim(2, -1))

    clip = RenderedClip(half_covered(), CAMERAS, np.zeros(1), "test")
    frames = torch.from_numpy(half_covered())
    return {
        "background_bytes": lambda b: np.array(background_bytes(b), np.uint8),
        "background_color": lambda b: np.rint(255 * np.array(background_color(b))).astype(np.uint8),
        "RenderedClip.over": clip.over,
        "composite": lambda b: composite(half_covered(), b),
        "composite_in_place": in_place,
        "render float32": splatted(torch.float32),
        "render float64": splatted(torch.float64),
        "Motion.render": lambda b: motion.render(CAMERAS, background=b),
        "Clip.read": lambda b: clips[0].read(0, 0, background=b).frames,
        "TrainingClips": training,
        "decode_on": decoded,
        "dimo.data.over": lambda b: as_bytes(over(frames, b)[0]),
        "foreground_mask": masked,
    }  # fmt: skip


NAMES = [
    "background_bytes", "background_color", "RenderedClip.over", "composite", "composite_in_place", "render float32",
    "render float64", "Motion.render", "Clip.read", "TrainingClips", "decode_on", "dimo.data.over", "foreground_mask",
]  # fmt: skip
FLOATS = ("render float32", "render float64", "Motion.render", "dimo.data.over")
# bytes → other ways to write them
SAME: dict[tuple[int, int, int], list[object]] = {
    (127, 127, 127): [
        (127 / 255,) * 3, 127 / 255, 127, np.int64(127), np.float64(127 / 255), np.full(3, 127, np.uint8),
        torch.full((3,), 127, dtype=torch.uint8), [127, 127, 127], np.full(3, 127 / 255, np.float32),
    ],
    (128, 128, 128): [(0.5, 0.5, 0.5), 0.5, torch.tensor([0.5, 0.5, 0.5])],
    (255, 255, 255): [(1.0, 1.0, 1.0), 1.0, 255, torch.ones(3), np.ones(3), (np.float32(1),) * 3],
    (0, 0, 0): [(0.0, 0.0, 0.0), 0.0, 0, np.zeros(3), np.zeros(3, np.uint8)],
    (255, 51, 0): [(1.0, 0.2, 0.0), np.array([255, 51, 0]), torch.tensor([255, 51, 0]), (255, np.uint8(51), 0)],
}  # fmt: skip
BAD: list[tuple[object, str]] = [
    ((1, 1, 1), "ambiguous.*write 1.0"), ((0, 1, 0), "ambiguous"), (1, "ambiguous"), (np.array([1, 0, 0]), "ambiguous"),
    (torch.tensor([1, 1, 1]), "ambiguous"), ((0.5, 0, 1), r"mix.*write \(0\.5, 0\.0, 1\.0\)"), ((255, 0.5, 0), "mix"),
    ((float("nan"), 0.0, 0.0), "0\\.\\.1"), (float("nan"), "0\\.\\.1"), ((float("inf"), 0.0, 0.0), "0\\.\\.1"),
    ((255.0, 255.0, 255.0), "0\\.\\.1"), ((-0.1, 0.0, 0.0), "0\\.\\.1"), ((256, 0, 0), "0\\.\\.255"),
    ((-1, 0, 0), "0\\.\\.255"), (300, "0\\.\\.255"), ((0.5, 0.5), "grey or RGB|broadcasts"),
    ((255, 255, 255, 255), "grey or RGB"), ((), "grey or RGB"), ("white", "grey or RGB"), (b"abc", "grey or RGB"),
    (True, "grey or RGB"), ((True, False, True), "grey or RGB"), (("a", "b", "c"), "grey or RGB"), ({}, "grey or RGB"),
    (1 + 2j, "grey or RGB"), (torch.ones(3, device="meta"), "grey or RGB|meta"),
    (np.array(["1", "1", "1"]), "grey or RGB"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_both_conventions_give_the_same_picture(calls, name):
    assert set(calls) == set(NAMES)
    call = calls[name]
    for color, others in SAME.items():
        expected = call(np.array(color, np.uint8))
        assert tuple(expected.reshape(-1, 3)[0]) == color
        for other in [color, *others]:
            if name.startswith("render") and isinstance(other, torch.Tensor) and other.is_floating_point():
                other = other.to(torch.float64 if name.endswith("64") else torch.float32)
            # Half is 127.5, which frames of 8 bits round to 128, and a renderer of floats keeps until the end.
            off = np.abs(call(other).astype(int) - expected)
            assert off.max() <= (color == (128, 128, 128) and name in FLOATS), (name, other)
    assert tuple(call(np.ones(3, np.uint8)).reshape(-1, 3)[0]) == (1, 1, 1)  # uint8 is never ambiguous


@pytest.mark.parametrize("name", NAMES)
def test_what_is_neither_is_refused(calls, name):
    for background, words in BAD:
        with pytest.raises((TypeError, ValueError), match=f"background.*({words})"):
            calls[name](background)


def test_a_trained_background_and_features_may_leave_the_range():
    scene = tiny_pipeline().motion(0).at(0.0).gaussians()
    cameras = TensorCameras.from_cameras(CAMERAS)
    trained = torch.tensor([1.2, -0.1, 0.5], requires_grad=True)
    render(scene, cameras, background=trained).rgb.sum().backward()
    assert trained.grad is not None and (trained.grad > 0).all()
    with pytest.raises(ValueError, match=r"background: .*0\.\.1"):
        render(scene, cameras, background=trained.detach())
    features = Gaussians(scene.means, scene.quats, scene.scales, scene.opacities, torch.randn(1, 600, 5))
    assert float(render(features, cameras, background=torch.full((5,), -3.0)).rgb[0, 0, 0, 0, 0]) == -3.0
    with pytest.raises((TypeError, ValueError), match="background"):
        render(features, cameras, background=(255, 255, 255))
