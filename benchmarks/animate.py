"""The truth test of `zoo.animate3d`: known animations, rendered to four videos, are recovered from the still model.

    python -m benchmarks.animate --assets FOLDER [CLIP …] [--json FILE] [--strips FOLDER]
    python -m benchmarks.animate --bad human cat
    python -m benchmarks.animate --ablation kangaroo [--first-stage]

--bad fits worse videos of each clip instead (`bad_videos`), and the two controls. --ablation fits each clip by method
`paper` with 4D-SDS, and without each of its parts (`ablations`).

20 clips: the 12 species of creatures, one motion each, chosen by seed, and 8 animations of real models (`REAL`), which
are read from --assets. One play or 2 s, held at its last pose if it is shorter and no cycle; 16 frames, 128 pixels;
azimuth 0, 90, 180, 270, elevation 15, field of view 40 degrees. The still model is frame 0, and it alone gives centre
and scale.

Error: mean over frames 1-15 and vertices of the distance to the truth, as a share of the mean distance of the still
model to the truth. IoU: of silhouettes on four held-out views, mean over frames and views. Process CPU time of the fit.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import spearmanr

from benchmarks.common import describe_machine
from factory.clips.cycles import ends_in_first_pose, lacks_closing_key
from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gltf import Asset, Pose, load
from renderers.meshes import RenderSettings, Shot, render_clip
from zoo.animate3d.fitting import NODES, Fit, fit
from zoo.animate3d.limits import METHODS
from zoo.animate3d.paper import PaperSettings
from zoo.animate3d.refine import RefineSettings
from zoo.evaluation.animate import Posed, in_asset, still_to_world
from zoo.mvvdm import MVVDMPipeline

FRAMES, SIDE, SECONDS = 16, 128, 2.0
ELEVATION, FOV, DISTANCE = np.radians(15), np.radians(40), 3.0
WARP = 2.0  # pixels, of the warped videos
SEED = 18  # chooses the motion of each species, and is that of the individual
REAL = (
    ("Fox", "Survey"),
    ("Fox", "Run"),
    ("CesiumMan", "animation 0"),
    ("Quaternius_robot", "Robot_Dance"),
    ("greenman", "3_attack"),
    ("mannequiny", "air_land_root.001"),
    ("KayKit_Knight", "1H_Melee_Attack_Chop"),
    ("KayKit_Knight", "Running_A"),
)


@dataclass(frozen=True)
class Clip:
    """One test: an animation at 16 times."""

    name: str
    asset: Asset
    animation: int
    times: np.ndarray
    closed: bool

    @property
    def still(self) -> Pose:
        return self.asset.pose(self.animation, self.times[0], closed=self.closed)

    @property
    def truth(self) -> np.ndarray:
        """Positions of all vertices, float64 [T, N, 3]."""
        return np.array(
            [self.asset.positions(self.animation, t, closed=self.closed) for t in self.times], np.float64
        )

    @property
    def asset_to_world(self) -> np.ndarray:
        """Centre and scale of the still model: its largest extent is 1."""
        return still_to_world(self)

    def in_asset(self, cameras: Cameras) -> Cameras:
        """The cameras in the coordinates of `Asset.positions`."""
        return in_asset(cameras, self)

    def render(self, cameras: Cameras) -> np.ndarray:
        """The true videos, uint8 [V, T, H, W, 4]."""
        shot = Shot(self.animation, self.times, self.asset_to_world, cameras, self.closed)
        return render_clip(self.asset, shot, RenderSettings(samples=4)).frames

    def render_positions(self, positions: np.ndarray, cameras: Cameras) -> np.ndarray:
        """Videos of the model with its vertices at [T, N, 3]."""
        shot = Shot(None, np.arange(len(positions)) * 1.0, self.asset_to_world, cameras)
        return render_clip(Posed.of(self.asset, positions), shot, RenderSettings(samples=4)).frames


@dataclass(frozen=True)
class Score:
    """The row of a clip."""

    clip: str
    vertices: int
    error: float
    error_px: float
    iou: float
    still_iou: float
    cpu_s: float
    residual: float


def cameras(offset_deg: float = 0.0, side: int = SIDE) -> Cameras:
    """The four views; an offset of 45 degrees gives the held-out ones."""
    azimuths = np.radians(np.arange(0, 360, 90) + offset_deg)
    return orbit_cameras(azimuths, ELEVATION, DISTANCE, fov_y=FOV, width=side, height=side)


def clips(folder: Path | None, names: list[str]) -> list[Clip]:
    """The clips with these names, all if none is given."""
    result = []
    for index, species in enumerate(creatures.species()):
        motions = creatures.motions(species)
        motion = motions[np.random.default_rng([SEED, index]).integers(len(motions))].name
        if _chosen(f"{species}/{motion}", names):
            result.append(creature_clip(species, motion))
    for model, animation in REAL:
        if folder is not None and _chosen(f"{model}/{animation}", names):
            result.append(animation_clip(folder, model, animation))
    return result


def animation_clip(folder: Path, model: str, animation: str) -> Clip:
    """An animation of a real model, by their names."""
    asset = load(folder / f"{model}.glb")
    index = [each.name for each in asset.animations].index(animation)
    return _clip(f"{model}/{animation}", asset, index)


def creature_clip(species: str, motion: str, seed: int = SEED) -> Clip:
    """The motion of a creature; the seed is of the individual."""
    asset = load(creatures.build(species, seed, [motion]), name=species)
    return _clip(f"{species}/{motion}", asset, 0)


def _chosen(clip: str, names: list[str]) -> bool:
    return not names or any(clip.startswith(name) for name in names)


def _clip(name: str, asset: Asset, index: int) -> Clip:
    animation = asset.animations[index]
    closed = lacks_closing_key(asset, index)
    length = animation.duration + (animation.key_interval if closed else 0.0)
    cyclic = closed or ends_in_first_pose(asset, index)
    if cyclic and length < SECONDS:
        seconds = length  # one play
    else:
        seconds = SECONDS  # the pose is constant after the last key
    return Clip(name, asset, index, animation.start + np.arange(FRAMES) / FRAMES * seconds, closed)


def evaluate(clip: Clip, result: np.ndarray) -> tuple[float, float, float, float]:
    """Error as a share and in pixels, IoU, and IoU of the still model, of positions [T, N, 3]."""
    truth = clip.truth
    seen = clip.asset.visible
    error = np.linalg.norm(result - truth, axis=-1)[1:, seen].mean()
    moved = np.linalg.norm(truth[:1] - truth, axis=-1)[1:, seen].mean()
    pixels = error * clip.asset_to_world[0, 0] * cameras().K[0, 0, 0] / DISTANCE
    held_out = cameras(45.0)
    masks = clip.render(held_out)[..., 3] >= 128
    ious = []
    for positions in (result, np.broadcast_to(truth[:1], truth.shape)):
        other = clip.render_positions(positions, held_out)[..., 3] >= 128
        both, either = (masks & other).sum((2, 3)), (masks | other).sum((2, 3))
        ious.append(float((both / np.maximum(either, 1))[:, 1:].mean()))
    return float(error / moved), float(pixels), ious[0], ious[1]


def run(
    clip: Clip, videos: np.ndarray | None = None, views: Cameras | None = None, **options
) -> tuple[Fit, float]:
    """Fit a clip, by default to its true videos: the result and the CPU seconds."""
    views = views or cameras()
    videos = clip.render(views) if videos is None else videos
    start = time.process_time()
    result = fit(
        clip.asset, videos, clip.in_asset(views), clip.times - clip.times[0], still=clip.still, **options
    )  # fmt: skip
    return result, time.process_time() - start


def bad_videos(clip: Clip) -> dict[str, tuple[np.ndarray, Cameras, str]]:
    """Worse videos of a clip by name: frames, cameras and stiffness. Frame 0 of warped videos is right."""
    views = cameras()
    right = clip.render(views)
    rgb, (noise, fields) = right[..., :3].astype(float), disturbances(right.shape)

    def with_rgb(values: np.ndarray) -> np.ndarray:
        return np.concatenate([np.clip(values, 0, 255).astype(np.uint8), right[..., 3:]], -1)

    small = cameras(side=SIDE // 2)
    return {
        "right": (right, views, "rendered"),
        "noise of 0.05": (with_rgb(rgb + noise), views, "rendered"),
        "colours x 1.12, 1, 0.88": (with_rgb(rgb * (1.12, 1.0, 0.88)), views, "rendered"),
        "no third view": (right[[0, 1, 3]], views[[0, 1, 3]], "rendered"),
        "64 pixels": (clip.render(small), small, "rendered"),
        "warp of 2 pixels": (warped(right, fields), views, "generated"),
        "cameras 1, 0, 3, 2": (right, views[[1, 0, 3, 2]], "rendered"),
    }


def ablations(
    paper: PaperSettings, sds: RefineSettings | None
) -> dict[str, tuple[PaperSettings, RefineSettings | None]]:
    """Variant → settings of both stages of method `paper`, as many steps each (Animate3D, Table 3b and section 3.3).

    Without settings of 4D-SDS, all variants are of the first stage.
    """
    steps = paper.steps_per_frame * (FRAMES - 1) + paper.last_steps
    at_once = replace(paper, steps_per_frame=0, last_steps=steps)
    variants = {
        "as configured": (paper, sds),
        "without ARAP": (replace(paper, arap=0.0), sds and replace(sds, arap=0.0)),
        "without progressive frames": (at_once, sds),
        "without control points": (replace(paper, controlled=False), sds),
        "without polishing": (replace(paper, polish=False), sds),
    }
    return variants if sds is None else {**variants, "without SDS": (paper, None)}


def run_ablations(
    clip: Clip,
    model: MVVDMPipeline | None,
    paper: PaperSettings,
    sds: RefineSettings | None,
    kinds: list[str] | None = None,
) -> dict[str, Score]:
    """Print a row for each variant, and for the still model; returns the scores. The model refines for 4D-SDS."""
    sentence = clip.name.partition("/")[2].replace("-", " ")
    scores = {}
    print(f"| {clip.name} | error | IoU | residual | CPU time |\n|---|---|---|---|---|", flush=True)
    for variant, (first, second) in ablations(paper, sds).items():
        if kinds and not variant.startswith(tuple(kinds)):
            continue
        guide = None if model is None or second is None else (model, sentence, second)
        result, seconds = run(clip, method="paper", settings=first, guide=guide)
        scores[variant] = score = scored(clip, result, seconds)
        print(
            f"| {variant} | {score.error:.1%} | {score.iou:.3f} | {score.residual:.3f} | {seconds:.0f} s |",
            flush=True,
        )
    print(f"| still model | 100.0% | {score.still_iou:.3f} | | |", flush=True)
    return scores


def scored(clip: Clip, result: Fit, seconds: float) -> Score:
    """The row of a clip."""
    positions = result.motion.move(clip.still.positions.astype(np.float64))
    residual = float(result.residual[1:].mean())
    return Score(clip.name, clip.asset.num_vertices, *evaluate(clip, positions), seconds, residual)


def disturbances(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What bad videos [V, T, H, W, 4] are made with: noise of their colours [V, T, H, W, 3], and a warp.

    The warp is a smooth field per view [V, 2, H, W], of a mean length of `WARP` pixels, downwards and to the right.
    """
    rng = np.random.default_rng(SEED)
    noise = rng.normal(scale=0.05 * 255, size=(*shape[:-1], 3))
    V, _, H, W, _ = shape
    fields = np.empty((V, 2, H, W))
    for field in fields:
        field[:] = [gaussian_filter(rng.normal(size=(H, W)), 16) for _ in range(2)]
        field *= WARP / np.linalg.norm(field, axis=0).mean()
    return noise, fields


def warped(videos: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Videos in whose pixels is what a field [V, 2, H, W] points at; the first frames stay."""
    result = videos.copy()
    for view, field in enumerate(fields):
        places = np.indices(field.shape[1:]) + field
        for frame in range(1, len(videos[view])):
            alpha = videos[view, frame, ..., 3:] / 255
            image = np.concatenate([videos[view, frame, ..., :3] * alpha, 255 * alpha], -1)
            moved = np.stack([map_coordinates(image[..., c], places, order=1) for c in range(4)], -1)
            moved[..., :3] /= np.maximum(moved[..., 3:] / 255, 1e-3)
            result[view, frame] = np.clip(moved, 0, 255)
    return result


def run_bad(clip: Clip, kinds: list[str] | None = None, method: str = "graph") -> None:
    """Print the error for each kind of bad videos: as a share, in pixels, and as a multiple of that of right ones."""
    still, truth = clip.still.positions.astype(np.float64), clip.truth
    moved = np.linalg.norm(truth[:1] - truth, axis=-1)[1:, clip.asset.visible].mean()
    to_pixels = clip.asset_to_world[0, 0] * cameras().K[0, 0, 0] / DISTANCE
    base = None
    print(f"{clip.name:40} still  error  100.0% {moved * to_pixels:5.2f} px", flush=True)
    for name, (videos, views, stiffness) in bad_videos(clip).items():
        if kinds and not name.startswith(tuple(kinds)):
            continue
        result, _ = run(clip, videos, views, stiffness=stiffness, method=method)
        error = np.linalg.norm(result.motion.move(still) - truth, axis=-1)[1:, clip.asset.visible].mean()
        base = error if name == "right" else base
        multiple = f"x {error / base:.2f}" if base else "x -   "
        print(
            f"{clip.name:40} {name:24} error {error / moved:7.1%} {error * to_pixels:5.2f} px  {multiple}  "
            f"residual {result.residual[1:].mean():.3f}  doubtful {result.doubtful.sum()} of {FRAMES - 1}",
            flush=True,
        )
    print(
        "bars: noise, colours, missing view and 64 pixels x 2; warp 1.5 px; wrong cameras above 80 %, all flagged"
    )


def strip(clip: Clip, result: np.ndarray, path: Path) -> None:
    """Write a contact strip: columns are frames 0, 3, …; rows are truth, result, and both silhouettes, in two views."""
    views = cameras()[[0, 1]]
    truth, moved = clip.render(views), clip.render_positions(result, views)
    rows = []
    for view in range(2):
        pictures = [truth[view, ::3], moved[view, ::3]]
        masks = np.stack([pictures[0][..., 3], pictures[1][..., 3], pictures[0][..., 3]], -1)
        for frames in pictures:
            alpha = frames[..., 3:] / 255
            rows.append(np.concatenate(frames[..., :3] * alpha + 127 * (1 - alpha), 1))
        rows.append(np.concatenate(masks, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.animate", description=__doc__.split("\n")[0])
    parser.add_argument("clips", nargs="*", help="beginnings of clip names; default: all")
    parser.add_argument("--assets", type=Path, help="folder with the real models; default: creatures only")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--strips", type=Path, help="write a contact strip of each clip to this folder")
    parser.add_argument("--bad", action="store_true", help="fit worse videos of the clips, and the controls")
    parser.add_argument("--kinds", nargs="+", help="beginnings of the kinds of bad videos or of ablations")
    parser.add_argument(
        "--ablation", action="store_true", help="fit by method paper, and without each of its parts"
    )
    parser.add_argument(
        "--first-stage", action="store_true", help="ablations without 4D-SDS, in half the time"
    )
    parser.add_argument("--method", default="graph", choices=METHODS, help="of zoo.animate3d.fit")
    parser.add_argument("--nodes", type=int, help="number of nodes of the graph")
    arguments = parser.parse_args()
    print(describe_machine())
    options = {"method": arguments.method, "nodes": arguments.nodes or NODES}
    if arguments.bad:
        for clip in clips(arguments.assets, arguments.clips):
            run_bad(clip, arguments.kinds, arguments.method)
        return
    if arguments.ablation:
        import zoo

        model, sds = (None, None) if arguments.first_stage else (zoo.load("mvvdm/tiny"), RefineSettings())
        for clip in clips(arguments.assets, arguments.clips):
            run_ablations(clip, model, PaperSettings(), sds, arguments.kinds)
        return
    scores = []
    for clip in clips(arguments.assets, arguments.clips):
        result, seconds = run(clip, **options)
        score = scored(clip, result, seconds)
        scores.append(score)
        print(
            f"{score.clip:40} {score.vertices:6} vertices  error {score.error:7.1%} {score.error_px:5.2f} px  "
            f"IoU {score.iou:.3f} (still {score.still_iou:.3f})  {score.cpu_s:5.1f} CPU-s  "
            f"residual {score.residual:.3f}",
            flush=True,
        )
        if arguments.strips:
            positions = result.motion.move(clip.still.positions.astype(np.float64))
            strip(clip, positions, arguments.strips / f"{clip.name.replace('/', '-')}.png")
    summarise(scores)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")


def summarise(scores: list[Score]) -> None:
    """Print the figures beside their bars."""
    error = np.array([score.error for score in scores])
    iou = np.array([score.iou for score in scores])
    n = len(scores)
    print(f"error <= 20 %: {(error <= 0.2).sum()} of {n} (bar 17 of 20)")
    print(f"error <= 40 %: {(error <= 0.4).sum()} of {n} (bar 19 of 20)")
    print(f"median error: {np.median(error):.1%} (bar 6 %)")
    print(f"IoU >= 0.9: {(iou >= 0.9).sum()} of {n} (bar 18 of 20)")
    print(f"median IoU: {np.median(iou):.3f} (bar 0.97)")
    print(f"IoU above the still model's: {sum(s.iou > s.still_iou for s in scores)} of {n} (bar all)")
    print(f"median CPU seconds: {np.median([score.cpu_s for score in scores]):.0f} (bar 60)")
    if n > 2:
        print(
            f"rank correlation of residual and error: {spearmanr([s.residual for s in scores], error)[0]:.2f} (bar 0.7)"
        )


if __name__ == "__main__":
    main()
