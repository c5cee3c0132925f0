"""DIMO models: Gaussians that key points deform, with a map of the latent space."""

from __future__ import annotations

import colorsys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from renderers.cameras import Cameras
from zoo.dimo.motion import Motion
from zoo.dimo.page import page_facts, skinned_splats
from zoo.dimo.pipeline import DIMOPipeline
from zoo.export.html.splats import SkinnedSplats, framing
from zoo.viewer.latent_map import LatentMap
from zoo.viewer.motions import Chosen, parse_request
from zoo.viewer.scene import FPS, Description, MotionFacts, distance_of
from zoo.viewer.wire import Part

_FRAMED = 8  # motions that the camera's distance is chosen from
_MOST_FRAMES = 480
FORMATS = (".mp4", ".glb", ".ply", ".html", ".npz")


class SkinnedScene:
    """The scene of a DIMO model. Motions are decoded on request."""

    def __init__(self, pipeline: DIMOPipeline, motion: Motion | None = None) -> None:
        """Args: the model, and a motion of it to begin with instead of the first trained one."""
        self.pipeline, self.first = pipeline, motion
        self.title = f"dimo/{pipeline.object}"
        self.has_key_points = bool(pipeline.model.config.factorised)
        self.formats = FORMATS if self.has_key_points else tuple(f for f in FORMATS if f != ".glb")
        self.plane = LatentMap.of(pipeline.model.mu.double().cpu().numpy())
        length = float(pipeline.phases[-1] - pipeline.phases[0]) * pipeline.seconds
        self.frames = int(np.clip(round(length * FPS) + 1, 2 if length > 0 else 1, _MOST_FRAMES))
        self._lock = threading.Lock()  # requests come in several threads

    def describe(self) -> Part:
        """The Gaussians, the palette of the key points, and the map."""
        pipeline = self.pipeline
        splats = self._splats()
        target, radius = framing(splats)
        facts = page_facts(
            pipeline.model, pipeline.object, len(pipeline.motions), len(pipeline.phases), pipeline.seconds
        )
        facts.pop("model", None)  # it is the title
        facts |= {
            key: pipeline.provenance[key] for key in ("author", "licence") if key in pipeline.provenance
        }
        start = {"kind": "trained", "index": 0} if self.first is None else {"kind": "given"}
        header = Description(
            kind="splats", title=self.title, facts=facts, names=pipeline.sentences, formats=self.formats,
            target=tuple(target), distance=distance_of(radius), samples=True, text=pipeline.text is not None,
            points=self.plane.points, explained=self.plane.explained, key_points=self.has_key_points,
            start=start,
        )  # fmt: skip
        palette = key_point_colors(len(splats.rest))
        shares = (splats.weights[:, :, None] * palette[splats.joints]).sum(1)
        arrays = {
            "means": splats.means,
            "log_scales": np.log(np.maximum(splats.scales, 1e-7)),
            "quats": splats.quats / np.linalg.norm(splats.quats, axis=-1, keepdims=True),
            "opacities": splats.opacities[:, None],
            "colors": splats.colors,
            "joints": splats.joints.astype(np.uint32),
            "weights": splats.weights,
            "rest": splats.rest,
            "palette": palette,
            "blur": np.array([splats.blur]),
            "weight_colors": shares / splats.weights.sum(1, keepdims=True),
        }
        if splats.slopes is not None:
            arrays["slopes"] = splats.slopes
        return header.to_json(), arrays

    def motion(self, choice: str) -> Part:
        """Trajectories of the key points: "motion" [T, K, 7], positions and quaternions, or [T, K, 13] with strains."""
        with self._lock:
            chosen, motion = self._decode(choice, self.frames)
        splats = skinned_splats(
            motion.model, [(chosen.name, motion.trajectories)], motion.phases, motion.seconds
        )
        names = self.pipeline.sentences
        header = MotionFacts(
            chosen.name, len(motion.phases), float(motion.phases[-1] - motion.phases[0]) * motion.seconds,
            float(motion.phases[0]), float(motion.phases[-1]),
            point=tuple(self.plane.project(chosen.z.double().cpu().numpy())),
            nearest=tuple((names[index], share) for index, share in chosen.nearest), confident=chosen.is_confident,
        )  # fmt: skip
        return header.to_json(), {"motion": splats.motion[0]}

    def save(self, choice: str, path: Path, camera: Cameras | None) -> Path:
        """Write the motion; see `zoo.dimo.Motion.save`."""
        options: dict[str, Any] = {}
        if path.suffix == ".mp4" and camera is not None:
            options["cameras"] = camera
        with self._lock:
            _, motion = self._decode(choice, None)
            return motion.save(path, **options)

    def _decode(self, choice: str, frames: int | None) -> tuple[Chosen, Motion]:
        chosen = parse_request(choice).choose(self.pipeline, self.plane, self.first)
        motion = self.pipeline.sample(chosen.z, frames)
        return chosen, replace(motion, name=chosen.name)

    def _splats(self) -> SkinnedSplats:
        """The Gaussians, with a few of the motions for the framing."""
        few = np.unique(np.linspace(0, len(self.pipeline.motions) - 1, _FRAMED).round().astype(int)).tolist()
        motions = [(self.pipeline.sentences[i], self.pipeline.motion(i).trajectories) for i in few]
        return skinned_splats(self.pipeline.model, motions, self.pipeline.phases, self.pipeline.seconds)


def key_point_colors(count: int) -> np.ndarray:
    """Colours [K, 3] of key points, sRGB-encoded: hues at multiples of the golden ratio, which differ most."""
    hues = (np.arange(count) * 0.6180339887) % 1.0
    return np.array(
        [colorsys.hsv_to_rgb(h, 0.55 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3 == 2)) for i, h in enumerate(hues)]
    )
