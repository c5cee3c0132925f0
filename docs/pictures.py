"""Render the moving pictures of README.md and of the gallery. Run it again after models or creatures changed.

    python docs/pictures.py                 all of them, about two minutes of CPU time
    python docs/pictures.py readme models   some of them: readme, models, creatures, figures

docs/menagerie.webp and docs/gallery/*.webp are animated; those of creatures are transparent, so that they fit light and
dark pages. docs/figures/*.webp are the figures of the pages on methods.
"""

from __future__ import annotations

import argparse
import copy
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import zoo.dimo
from factory.sources.creatures import build, motions
from renderers import gltf
from renderers.cameras import Cameras, orbit_cameras, orbit_rotations
from renderers.gaussians import OUTPUTS, Gaussians, TensorCameras, render
from renderers.meshes import Shot, render_clip

HERE = Path(__file__).parent
# Model → motion shown. All begin and end at rest, so they loop.
README = {
    "dimo/kangaroo": "hops forward twice",
    "dimo/bird": "spreads its wings",
    "dimo/fox": "leaps once",
    "dimo/robot": "dances",
}
MODELS = {
    **README,
    "dimo/cat": "leaps once",
    "dimo/fish": "puffs up",
    "dimo/snake": "rears up high, then strikes",
    "dimo/crab": "snaps its claws",
    "dimo/flower": "twirls",
    "dimo/jellyfish": "pulses and rises",
    "dimo/drop": "bounces",
    "dimo/human": "dances",
}
# Species → sentence of a motion.
CREATURES = {
    "kangaroo": "hops forward twice",
    "bird": "flaps its wings",
    "robot": "jumps twice",
    "human": "does a star jump",
    "fox": "pounces",
    "cat": "does a backflip",
    "fish": "wiggles",
    "snake": "rears up high",
    "crab": "raises both claws",
    "flower": "sways twice and flaps its leaves",
    "jellyfish": "pulses and rises",
    "drop": "grows a crown",
}
FPS, SECONDS = 15, 2.0
MARGIN = 1.06
LARGEST_README, LARGEST_GALLERY = 600_000, 100_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURES", help="readme, models, creatures; default all"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder, default docs/")
    arguments = parser.parse_args()
    drawers = {"readme": readme, "models": models, "creatures": creatures, "figures": figures}
    if unknown := set(arguments.pictures) - set(drawers):
        parser.error(f"expected some of {', '.join(drawers)}, got {', '.join(sorted(unknown))}")
    for folder in ("gallery", "figures"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    for name in arguments.pictures or drawers:
        drawers[name](arguments.out)


def readme(out: Path) -> None:
    """Four bundled models beside each other."""
    strips = [model_frames(name, sentence, 260) for name, sentence in README.items()]
    save(np.concatenate(strips, axis=2), out / "menagerie.webp", LARGEST_README)


def models(out: Path) -> None:
    """One trained motion of every bundled motion space, and a sample of MV-VDM."""
    for name, sentence in MODELS.items():
        save(
            model_frames(name, sentence, 240), out / f"gallery/{name.replace('/', '-')}.webp", LARGEST_GALLERY
        )
    videos = zoo.load("bundled:mvvdm/tiny").sample(7).frames  # four views of the model's example object
    save(np.concatenate(list(videos), axis=2), out / "gallery/mvvdm-tiny.webp", LARGEST_GALLERY, fps=8)


def creatures(out: Path) -> None:
    """One motion of every species of creatures."""
    for species, sentence in CREATURES.items():
        save(creature_frames(species, sentence, 200), out / f"gallery/{species}.webp", LARGEST_GALLERY)


def figures(out: Path) -> None:
    """DIMO: a motion, its key points and skinning weights. Splats: the outputs. MV-VDM: four sampled videos."""
    motion = zoo.load("bundled:dimo/kangaroo").motion("hops forward twice").resampled(6)
    cameras = framing(motion, 170)
    model = motion.model
    hues = torch.rand(len(model.key_points), 3, generator=torch.Generator().manual_seed(3))
    skinned = copy.deepcopy(model)
    with torch.no_grad():
        skinned.colors.copy_(model.skinning_weights() @ hues)
    K = motion.trajectories.positions.shape[1]
    points = Gaussians(
        motion.trajectories.positions, torch.tensor([1.0, 0, 0, 0]).expand(1, K, 4), torch.full((1, K, 3), 0.012),
        torch.ones(1, K), colors=hues[None],
    )  # fmt: skip
    with torch.no_grad():
        dots = render(points, TensorCameras.from_cameras(cameras), background=1.0).rgb[:, 0]
    rows = [
        motion.render(cameras)[0],
        (255 * dots.clamp(0, 1)).round().byte().numpy(),
        replace(motion, model=skinned).render(cameras)[0],
    ]
    still(rows, out / "figures/dimo.webp")

    single = motion.at(0.3)
    view = TensorCameras.from_cameras(framing(single, 240))
    with torch.no_grad():
        drawn = render(single.gaussians(), view, background=1.0, want=OUTPUTS)
    alpha, depth = drawn.alpha[0, 0], drawn.depth[0, 0]
    inside = alpha > 0.5
    near, far = depth[inside].min(), depth[inside].max()
    shaded = torch.where(inside, 0.1 + 0.9 * (far - depth) / (far - near), torch.ones(()))
    panels = [drawn.rgb[0, 0], alpha.expand(-1, -1, 3), shaded.expand(-1, -1, 3)]
    panels.append(0.5 + 0.5 * drawn.normal[0, 0])
    still(
        [[(255 * panel.clamp(0, 1)).round().byte().numpy() for panel in panels]], out / "figures/splats.webp"
    )

    videos = zoo.load("bundled:mvvdm/tiny").sample(7).frames
    still([list(view) for view in videos.repeat(2, axis=2).repeat(2, axis=3)], out / "figures/mvvdm.webp")


def still(rows: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Write pictures in rows as one picture."""
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(picture).save(path, "WEBP", quality=88, method=6)
    print(f"{path}: {path.stat().st_size} bytes")


def model_frames(name: str, sentence: str, side: int) -> np.ndarray:
    """Render a trained motion on white, on which the models were trained, uint8 [T, side, side, 3]."""
    motion = zoo.load(f"bundled:{name}").motion(sentence).resampled(round(SECONDS * FPS))
    return motion.render(framing(motion, side))[0]


def framing(motion: zoo.dimo.Motion, side: int) -> Cameras:
    """The default camera, zoomed and shifted so that the moving object just fits into a square picture."""
    view = motion.default_camera(side)
    wide = view.K.copy()
    wide[:, :2, :2] *= 0.6
    coverage = motion.render(Cameras(view.world_to_camera, wide, side, side), background=None)[0, ..., 3]
    y, x = np.nonzero((coverage > 40).any(0))
    size = MARGIN * max(np.ptp(x), np.ptp(y)) + 1
    K = wide.copy()
    K[:, :2] *= side / size
    K[:, 0, 2] = side / 2 + (wide[:, 0, 2] - (x.min() + x.max() + 1) / 2) * side / size
    K[:, 1, 2] = side / 2 + (wide[:, 1, 2] - (y.min() + y.max() + 1) / 2) * side / size
    return Cameras(view.world_to_camera, K, side, side)


def creature_frames(species: str, sentence: str, side: int) -> np.ndarray:
    """Render a motion of a creature, cropped to what moves, uint8 [T, side, side, 4]."""
    (motion,) = (motion for motion in motions(species) if motion.sentence == sentence)
    asset = gltf.load(build(species, 0, [motion.name]), name=species)
    times = np.arange(round(SECONDS * FPS)) / FPS
    points = np.concatenate([asset.pose(0, time).positions for time in times])
    to_world = np.eye(4)
    to_world[:3, 3] = -(points.min(0) + points.max(0)) / 2
    azimuth, elevation, fov_y = np.radians([35.0]), np.radians(12.0), np.radians(30.0)
    seen = (points + to_world[:3, 3]) @ orbit_rotations(azimuth, elevation)[0].T
    distance = float((np.abs(seen[:, :2]).max(-1) / (0.95 * np.tan(fov_y / 2)) - seen[:, 2]).max())
    cameras = orbit_cameras(azimuth, elevation, distance, fov_y=fov_y, width=side, height=side)
    return render_clip(asset, Shot(0, times, to_world, cameras), backend="cpu").frames[0]


def save(frames: np.ndarray, path: Path, largest: int, fps: float = FPS) -> None:
    """Write an animated WebP that repeats for ever, at the best quality that fits into `largest` bytes."""
    images = [Image.fromarray(frame) for frame in frames]
    for quality in (92, 85, 75, 65, 50, 35):
        file = io.BytesIO()
        images[0].save(
            file, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0,
            quality=quality, alpha_quality=90, method=4,
        )  # fmt: skip
        if file.tell() <= largest:
            path.write_bytes(file.getvalue())
            print(f"{path}: {file.tell()} bytes, quality {quality}")
            return
    raise SystemExit(f"{path}: {file.tell()} bytes at the lowest quality, more than {largest}")


if __name__ == "__main__":
    main()
