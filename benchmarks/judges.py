"""The judges of generated videos against truth: known motions of the creatures, clean and with known faults.

    python -m benchmarks.judges [--species fox …] [--motions 20] [--side 64] [--seed 100] [--cache DIR] [--sheet PNG]
    python -m benchmarks.judges --views 4 [--motions 10] [--seed 4000] …     the four views of a motion together

12 species × 20 motions, 16 frames in 2 s as MV-VDM's, rendered by the CPU renderer at 128 pixels from one of many
directions, reduced to --side, before grey, with Gaussian noise of σ = 1; masks are those of `foreground_masks`. Every
clip is judged clean and with each fault of `factory.generation.judging.faults`. The thresholds were chosen with seeds
100 and 4000 to 4003; another --seed (individuals, motions, directions) is held out.

Bar, by fault and without a language model: at least 95 % of the faulty and at most 5 % of the clean videos thrown out.
Rows in brackets are no part of it: smaller faults, camera motions that a plain background hides, textured backgrounds.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import describe_machine
from factory.generation.judging import (
    Thresholds,
    Verdict,
    decide,
    faults,
    foreground_masks,
    measure_video,
    measure_views,
)
from factory.generation.judging.flow import opencv
from factory.generation.still import find_still
from factory.generation.video_sources import RenderedVideos, animation_sentences, evenly_spaced
from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gltf import Asset, load
from renderers.meshes import RenderSettings, Shot, renderer

FRAMES, FPS, SIDE = 16, 8, 128
GREY = 127
ELEVATIONS = (5.0, 20.0)  # degrees
MARGIN = 0.14  # of half of the frame, free around the whole motion
BAR = (*faults.FAULTS,)  # text and bands are beyond the ten that the bar names
KINDS = (
    "clean", *BAR, "camera: zoom", "camera: pan", "camera: roll", "(camera: orbit)", "(jumping: 15-30 %)",
    "(cut: same distance)", "(clean, texture)", "(camera, texture)",
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """A known motion.

    Attributes:
        species, motion: its names.
        frames: uint8 [3, T, H, W, 4]: a still camera, another camera, and a camera that orbits from the first one.
        other: uint8 [T, H, W, 4], a motion of another species.
    """

    species: str
    motion: str
    frames: np.ndarray
    other: np.ndarray


def truths(species: list[str], motions: int, seed: int, cache: Path | None) -> Iterator[Truth]:
    """The motions of each species, five at a time, so that a run that is stopped has measured all species."""
    names = creatures.species()
    order = np.random.default_rng(seed).permutation(motions)
    for start in range(0, motions, 5):
        for name in species:
            clips, titles = rendered(name, motions, seed, cache)
            others, _ = rendered(names[(names.index(name) + 1) % len(names)], motions, seed, cache)
            for k in order[start : start + 5]:
                yield Truth(name, titles[k], clips[k], others[k, 0])


def rendered(species: str, motions: int, seed: int, cache: Path | None) -> tuple[np.ndarray, list[str]]:
    """Clips uint8 [motions, 3, T, H, W, 4] of an individual, and the names of the motions."""
    file = cache / f"{species}-{motions}-{seed}.npz" if cache else None
    if file and file.is_file():
        with np.load(file) as stored:
            return stored["frames"], stored["names"].tolist()
    rng = np.random.default_rng([seed, creatures.species().index(species)])
    known = creatures.motions(species)
    names = [known[k].name for k in sorted(rng.choice(len(known), motions, replace=False))]
    asset = load(creatures.build(species, seed, names), name=species)
    frames = np.stack([_render(asset, index, rng) for index in range(motions)])
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, frames=frames, names=names)
    return frames, names


def _render(asset: Asset, index: int, rng: np.random.Generator) -> np.ndarray:
    azimuth = np.radians(rng.uniform(20, 70)) * rng.choice([-1, 1])
    elevation = np.radians(rng.uniform(*ELEVATIONS))
    other = azimuth + np.radians(rng.uniform(80, 180))
    # An orbit of 70-150 degrees during the video: the object turns before a still camera.
    period = rng.choice([-1, 1]) * 2 * 360 / rng.uniform(70, 150)
    still = _shot(asset, index, [azimuth, other], elevation, 0.0)
    orbit = _shot(asset, index, [azimuth], elevation, period)
    settings = RenderSettings(samples=4)
    return np.concatenate(
        [renderer("cpu").render_clip(asset, shot, settings).frames for shot in (still, orbit)]
    )


def _shot(asset: Asset, index: int, azimuths: list[float], elevation: float, turntable: float) -> Shot:
    """Centred on the first frame, and so near that all frames just fit."""
    times = np.arange(FRAMES) / FPS
    cameras = orbit_cameras(azimuths, elevation, 3.0, fov_y=np.radians(40), width=SIDE, height=SIDE)
    shot = Shot(index, times, np.eye(4), cameras, turntable=turntable)
    points = np.stack([shot.pose(asset, t).positions[asset.visible] for t in times]).astype(np.float64)
    low, high = points[0].min(0), points[0].max(0)
    to_world = np.eye(4) / np.linalg.norm(high - low)
    to_world[:3, 3] = -(low + high) / 2 * to_world[0, 0]
    to_world[3, 3] = 1
    pixels, _ = cameras.project(points @ to_world[:3, :3].T + to_world[:3, 3])
    K = cameras.K.copy()
    K[:, [0, 1], [0, 1]] *= (1 - MARGIN) * SIDE / 2 / np.abs(pixels - SIDE / 2).max()
    cameras = Cameras(cameras.world_to_camera, K, SIDE, SIDE)
    return Shot(index, times, to_world, cameras, turntable=turntable)


def faulty(truth: Truth, kind: str, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A video of this kind: frames uint8 [T, side, side, 3], masks, and the picture that it should begin with."""
    rng = np.random.default_rng(zlib.crc32(f"{truth.species}/{truth.motion}/{kind}".encode()))
    clean, name = truth.frames[0], kind.strip("()").split(":")[0].split(",")[0]
    matrices = None
    if kind == "(camera: orbit)":
        frames = truth.frames[2]
    elif kind == "(jumping: 15-30 %)":
        frames = faults.jumping(clean, rng, 0.15, 0.3)
    elif kind == "(cut: same distance)":
        frames = np.concatenate([clean[: FRAMES // 2], truth.frames[1, FRAMES // 2 :]])
    elif name == "clean":
        frames = clean
    elif name == "camera":
        matrices = faults.camera_motion(clean.shape, rng, kind.partition(": ")[2])
        frames = faults.warped(clean, matrices)
    elif name in ("cut", "other object"):
        frames = faults.FAULTS[name](clean, rng, truth.frames[1] if name == "cut" else truth.other)
    else:
        frames = faults.FAULTS[name](clean, rng)
    background = np.full((*frames.shape[:3], 3), GREY, np.uint8)
    if "texture" in kind:
        background = _textured(rng, matrices)
    video = _composite(frames, background, side, rng)
    still = _composite(clean[:1], background[:1], side, rng)[0]
    if "texture" in kind:  # masks as of a segmentation model
        masks = np.stack([_reduced(alpha, side) for alpha in frames[..., 3]]) > 127
    else:
        masks = foreground_masks(video, GREY)
    return video, masks, still


def _textured(rng: np.random.Generator, matrices: np.ndarray | None) -> np.ndarray:
    """A background uint8 [T, SIDE, SIDE, 3] of smooth noise, moved as the object is."""
    cv2 = opencv()
    noise = np.zeros((SIDE, SIDE, 3))
    for n in (8, 16, 32):
        noise += cv2.resize(rng.normal(0, 1, (n, n, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / n**0.5
    image = np.clip(127 + 60 * noise / np.std(noise), 0, 255).astype(np.uint8)
    frames = np.repeat(image[None], FRAMES, 0)
    if matrices is None:
        return frames
    return np.stack(
        [
            cv2.warpAffine(frame, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
            for frame, matrix in zip(frames, matrices, strict=True)
        ]
    )


def _composite(frames: np.ndarray, background: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    alpha = frames[..., 3:].astype(np.float32) / 255
    images = _reduced_all(frames[..., :3] * alpha + background * (1 - alpha), side)
    return np.clip(images + rng.normal(0, 1, images.shape), 0, 255).round().astype(np.uint8)


def _reduced_all(images: np.ndarray, side: int) -> np.ndarray:
    return np.stack([_reduced(image, side) for image in images])


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    cv2 = opencv()
    return image if side == image.shape[0] else cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Row:
    """The scores of one video."""

    species: str
    motion: str
    kind: str
    scores: dict[str, float | None]

    @property
    def odd(self) -> bool:
        """Whether the index of the species is odd."""
        return bool(creatures.species().index(self.species) % 2)


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Measure all videos that the file of scores does not have, and add them to it."""
    rows: list[Row] = []
    if arguments.scores and arguments.scores.is_file():
        rows = [Row(**json.loads(line)) for line in arguments.scores.read_text().splitlines()]
    done = {(row.species, row.motion, row.kind) for row in rows}
    species = arguments.species or list(creatures.species())
    for truth in truths(species, arguments.motions, arguments.seed, arguments.cache):
        for kind in arguments.kinds or KINDS:
            if (truth.species, truth.motion, kind) in done:
                continue
            row = Row(truth.species, truth.motion, kind, measure_video(*faulty(truth, kind, arguments.side)))
            rows.append(row)
            if arguments.scores:
                with arguments.scores.open("a") as file:
                    file.write(json.dumps(vars(row)) + "\n")
        print(f"\r{len(rows)} videos", end="", flush=True)
    print()
    return rows


def view_rows(arguments: argparse.Namespace) -> list[Row]:
    """Measure motions in V views as `--video-model rendered` films them, clean and with each fault in all views."""
    rows, views = [], arguments.views
    for name in arguments.species or creatures.species():
        still = find_still(f"creatures://{name}?seed={arguments.seed}")
        source = RenderedVideos(views=views, frames=FRAMES, side=arguments.side)
        known = animation_sentences(load(creatures.build(name, arguments.seed), name=name))
        rng = np.random.default_rng([arguments.seed, creatures.species().index(name)])
        for index in sorted(rng.choice(len(known), arguments.motions, replace=False)):
            frames = source.generate(still, known[index], 0).frames
            alpha = np.stack([foreground_masks(view, GREY) for view in frames]).astype(np.uint8) * 255
            clean = np.concatenate([frames, alpha[..., None]], -1)
            for kind in arguments.kinds or ("clean", *(each for each in BAR if each != "other object")):
                rows.append(Row(name, known[index], kind, _measure_views(clean, kind, rng)))
        print(f"\r{len(rows)} sets", end="", flush=True)
    print()
    return rows


def _measure_views(clean: np.ndarray, kind: str, rng: np.random.Generator) -> dict[str, float | None]:
    """Scores of clips [V, T, H, W, 4], with the same fault in all views."""
    seed, views = int(rng.integers(2**31)), clean
    if kind != "clean":
        others = [[np.roll(clean, -1, axis=0)[view]] if kind == "cut" else [] for view in range(len(clean))]
        views = np.stack(
            [
                faults.FAULTS[kind](clean[v], np.random.default_rng(seed), *others[v])
                for v in range(len(clean))
            ]
        )
    side = clean.shape[3]
    behind = np.full((*clean.shape[1:4], 3), GREY, np.uint8)
    videos = np.stack([_composite(view, behind, side, rng) for view in views])
    stills = np.stack([_composite(view[:1], behind[:1], side, rng)[0] for view in clean])
    masks = np.stack([foreground_masks(video, GREY) for video in videos])
    return measure_views(videos, masks, stills, evenly_spaced(len(clean)).cameras(side, side))


def draw_sheet(rows: list[Row], thresholds: Thresholds, arguments: argparse.Namespace) -> None:
    """Draw what slips through and what is thrown out by mistake: a row of frames each, at most six of a kind."""
    from PIL import Image, ImageDraw

    wrong: dict[tuple[str, str, str], Verdict] = {}
    seen: Counter[str] = Counter()
    for row in rows:
        verdict = decide(row.scores, thresholds)
        if (row.kind == "clean") != verdict.kept and seen[row.kind] < 6:
            seen[row.kind] += 1
            wrong[row.species, row.motion, row.kind] = verdict
    strips = []
    for truth in truths(list(creatures.species()), arguments.motions, arguments.seed, arguments.cache):
        for kind in KINDS:
            if (verdict := wrong.get((truth.species, truth.motion, kind))) is None:
                continue
            video = faulty(truth, kind, arguments.side)[0][:: FRAMES // 8]
            strip = Image.new("RGB", (arguments.side * 8, arguments.side + 12), "white")
            strip.paste(Image.fromarray(np.concatenate(list(video), 1)), (0, 12))
            text = f"{kind}: {truth.species}, {truth.motion} {' '.join(verdict.failed)}"
            ImageDraw.Draw(strip).text((2, 0), text, "black")
            strips.append((KINDS.index(kind), np.asarray(strip)))
    if strips:
        strips.sort(key=lambda each: each[0])
        Image.fromarray(np.concatenate([strip for _, strip in strips])).save(arguments.sheet)


def summarise(rows: list[Row], thresholds: Thresholds) -> None:
    """Print the share thrown out by kind, by half of the species, and why; then what slips through."""
    verdicts = [(row, decide(row.scores, thresholds)) for row in rows]
    print(f"{'thrown out':22}{'even':>10}{'odd':>10}{'all':>8}   by")
    for kind in dict.fromkeys(row.kind for row in rows):
        each = [(row, verdict) for row, verdict in verdicts if row.kind == kind]
        shares = [_share([verdict for row, verdict in each if row.odd == odd]) for odd in (False, True)]
        reasons = Counter(name for _, verdict in each for name in verdict.failed).most_common(4)
        text = ", ".join(f"{name} {count / len(each):.0%}" for name, count in reasons)
        print(f"{kind:22}{shares[0]:>10}{shares[1]:>10}{_share([v for _, v in each]):>8}   {text}")
    print()
    for row, verdict in verdicts:
        if row.kind.startswith("clean") != verdict.kept and not row.kind.startswith("("):
            result = "kept" if verdict.kept else "thrown out"
            print(f"{result}: {row.kind}, {row.species} {row.motion} {', '.join(verdict.failed)}")


def _share(verdicts: list[Verdict]) -> str:
    return f"{np.mean([not verdict.kept for verdict in verdicts]):.1%}" if verdicts else "-"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judges", description=__doc__.split("\n")[0])
    parser.add_argument("--species", nargs="*", help="default: all")
    parser.add_argument("--motions", type=int, default=20, help="per species")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="faults; default: all")
    parser.add_argument(
        "--side", type=int, default=64, help="of the videos, at most 128 pixels; MV-VDM's: 64"
    )
    parser.add_argument("--seed", type=int, default=100, help="of individuals, motions and directions")
    parser.add_argument("--thresholds", type=Path, help="JSON file; default: the package's")
    parser.add_argument("--cache", type=Path, help="folder of rendered clips")
    parser.add_argument(
        "--scores", type=Path, help="file of scores, one line each: read if it exists, and continued"
    )
    parser.add_argument("--views", type=int, default=1, help="of a motion, judged together")
    parser.add_argument("--sheet", type=Path, help="picture of the videos that were judged wrongly")
    arguments = parser.parse_args()
    print(describe_machine())
    rows = measure(arguments) if arguments.views == 1 else view_rows(arguments)
    thresholds = Thresholds.load(arguments.thresholds) if arguments.thresholds else Thresholds()
    summarise(rows, thresholds)
    if arguments.sheet and arguments.views == 1:
        draw_sheet(rows, thresholds, arguments)


if __name__ == "__main__":
    main()
