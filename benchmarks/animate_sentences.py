"""From a sentence to a moving model: tears, the sense of the motion, and time, for a creature of an unseen seed.

    python -m benchmarks.animate_sentences [--species kangaroo] [--seed 1000] [--out FOLDER] [SENTENCE …]

The sentences name motions of the creature, so that its own animation is the truth. It is sampled at the times of the
result's frames. Stretch: the length, as a multiple of that at rest, that 99.5 % of the mesh's edges never exceed.

Flow: displacements of the visible vertices since the first frame in pixels of the front view. The correlation of the
result's with the truth's is taken over all vertices, frames and both axes, about no motion: Σ u·v / sqrt(Σ u·u Σ v·v).
Beside it, that with the truths of the other sentences, which should be lower.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import describe_machine
from factory.sources import creatures
from renderers.cameras import Cameras
from renderers.gltf import Asset, load
from renderers.meshes import Shot, composite, render_clip
from zoo.animate3d import Animation, animate, cameras_around, load_model

SENTENCES = ("hops once", "nods", "leans forward")
SIDE, CELL = 256, 128
PAPER = (246, 246, 244)


def flow(vertices: np.ndarray, camera: Cameras) -> np.ndarray:
    """Displacements [T, V, 2] in pixels since the first frame of vertices [T, V, 3] in the world of the file."""
    pixels = np.stack([camera.project(frame)[0][0] for frame in vertices])
    return pixels - pixels[0]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two flows about no motion."""
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def truth(asset: Asset, sentence: str, times: np.ndarray) -> np.ndarray:
    """Vertices [T, V, 3] of the animation that a sentence names."""
    names = [animation.name.replace("-", " ") for animation in asset.animations]
    index = names.index(sentence)
    return np.stack([asset.positions(index, float(t)) for t in times]).astype(np.float64) + asset.origin(
        index
    )


def strip(result: Animation, asset: Asset, sentence: str, camera: Cameras) -> np.ndarray:
    """The generated front video, the result and the truth below each other, uint8 [3·CELL, T·CELL, 3]."""
    times = result.motion.times
    ours = result.render(camera, background=PAPER, backend="cpu")[0]
    index = [animation.name.replace("-", " ") for animation in asset.animations].index(sentence)
    theirs = composite(
        render_clip(asset, Shot(index, times, np.eye(4), camera), backend="cpu").frames[0], PAPER
    )
    video = composite(np.ascontiguousarray(result.report.videos.frames[0]), PAPER)
    rows = []
    for frames in (video, ours, theirs):
        cells = [
            np.asarray(Image.fromarray(f).resize((CELL, CELL), Image.Resampling.LANCZOS)) for f in frames
        ]
        rows.append(np.concatenate(cells, 1))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", nargs="*", default=SENTENCES)
    parser.add_argument("--species", default="kangaroo")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of the creature; those from 1000 are in no dataset"
    )
    parser.add_argument("--model", default="mvvdm/tiny")
    parser.add_argument("--out", type=Path, help="folder for pictures and the numbers")
    args = parser.parse_args()
    data = creatures.build(args.species, args.seed)
    asset, still = load(data), load_model(data, name=f"{args.species}-{args.seed}")
    camera = cameras_around(asset, [0.0], size=SIDE)
    rows = []
    for sentence in args.sentences:
        started, wall = time.process_time(), time.monotonic()
        result = animate(still, sentence, model=args.model)
        cost, wall = time.process_time() - started, time.monotonic() - wall
        motion = flow(result.vertices() + asset.origin(None), camera)[:, asset.visible]
        scores = {
            other: correlation(
                motion, flow(truth(asset, other, result.motion.times), camera)[:, asset.visible]
            )
            for other in args.sentences
        }
        row = {
            "sentence": sentence,
            "stretch": result.edge_stretch(),
            "flow": scores[sentence],
            "others": {other: score for other, score in scores.items() if other != sentence},
            "cpu_s": cost,
            "wall_s": wall,
            "doubtful": len(result.report.doubtful_frames),
            "disagreement_px": result.report.agreement.sentence(),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            picture = strip(result, asset, sentence, camera)
            Image.fromarray(picture).save(args.out / f"{sentence.replace(' ', '-')}.png")
    if args.out:
        (args.out / "sentences.json").write_text(json.dumps({"machine": describe_machine(), "rows": rows}))


if __name__ == "__main__":
    main()
