"""A page of 3D Gaussians that key points deform, decoded in the browser.

The page stores the canonical Gaussians once, and per motion the trajectories of the key points: a further motion takes
a few kilobytes. `splats.js` computes the skinning and draws with the projection, the blur and the thresholds of
`renderers.gaussians.render`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renderers.arguments import array, instance
from renderers.gaussians.features import rotation_matrices
from renderers.values import by_value
from zoo.export.html.page import plain, write_page

FOV_DEG = 33.9  # of the page's camera along the shorter side, as that of DIMO's training videos
AZIMUTH_DEG, ELEVATION_DEG = 35.0, 12.0  # where it starts
LIGHT, DARK = (1.0, 1.0, 1.0), (0.086, 0.098, 0.118)  # backgrounds in the two colour schemes
_SMALLEST_SCALE = 1e-7  # zeros have no logarithm


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SkinnedSplats:
    """N Gaussians that K key points deform by linear blend skinning, in M motions of T frames.

    With key point k at p_k in the rest pose, at p_k(t) with the quaternion q_k(t) in frame t, and the rotation R_k(t)
    of the normalised q_k(t), a centre x moves to Σ_k w_k [R_k(t) (x − p_k) + p_k(t)], and a Gaussian is turned by the
    normalised Σ_k w_k q_k(t). With strains E_k(t), R_k (1 + E_k) takes the place of R_k, and the Gaussian is scaled
    along its axis e by ‖Σ_k w_k R_k (1 + E_k) e‖. With the gradients of the weights, Gaussians are discs, whose first
    two axes are carried along as tangents (`zoo.dimo.discs`).

    Attributes:
        means, scales, colors: [N, 3]: centres in metres, standard deviations, sRGB-encoded colours.
        quats: [N, 4], quaternions wxyz of any length but 0.
        opacities: [N] in 0..1.
        joints, weights: [N, J], integers below K, and weights in 0..1; rows of weights sum to 1.
        rest: [K, 3], p_k.
        positions, rotations: [M, T, K, 3] p_k(t) and [M, T, K, 4] q_k(t). Signs and lengths of quaternions matter to
            the sum over key points, and frames between those stored are linear interpolations.
        names: of the motions, M texts.
        phases: of the frames, [T] in 0..1, increasing and evenly spaced.
        seconds: duration of the phases 0..1.
        strains: None, or [M, T, K, 6], the entries xx, yy, zz, xy, yz and xz of the symmetric E_k(t).
        slopes: None, or [N, J, 3], the gradients of the weights at the Gaussians' centres.
        blur: with which images are drawn, pixels² (`renderers.gaussians.render`: eps2d).
    """

    means: np.ndarray
    scales: np.ndarray
    quats: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    rest: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray
    names: Sequence[str]
    phases: np.ndarray
    seconds: float
    strains: np.ndarray | None = None
    slopes: np.ndarray | None = None
    blur: float = 0.3

    def __post_init__(self) -> None:
        arrays = {
            k: v for k, v in vars(self).items() if k not in ("names", "seconds", "blur") and v is not None
        }
        for name, value in arrays.items():
            instance(value, np.ndarray, f"SkinnedSplats.{name}")
            array(value, f"SkinnedSplats.{name}")
        N, K, M, T = len(self.means), len(self.rest), len(self.names), len(self.phases)
        J = self.joints.shape[-1]
        expected = {
            "means": (N, 3), "scales": (N, 3), "quats": (N, 4), "opacities": (N,), "colors": (N, 3),
            "joints": (N, J), "weights": (N, J), "rest": (K, 3), "positions": (M, T, K, 3),
            "rotations": (M, T, K, 4), "phases": (T,), "strains": (M, T, K, 6), "slopes": (N, J, 3),
        }  # fmt: skip
        for name, shape in expected.items():
            if name in arrays and arrays[name].shape != shape:
                raise ValueError(
                    f"SkinnedSplats: expected {name} of shape {list(shape)} for {N} Gaussians, {K} key points, "
                    f"{M} motions and {T} frames, got {list(arrays[name].shape)}"
                )
        if not (N and M and T):
            raise ValueError(f"SkinnedSplats: expected Gaussians, motions and frames, got {N}, {M} and {T}")
        if not 0 <= self.joints.min() <= self.joints.max() < K:
            raise ValueError(f"SkinnedSplats.joints: expected indices of {K} key points")

    @property
    def motion(self) -> np.ndarray:
        """What the page stores per motion, frame and key point: position, rotation and strain, [M, T, K, 7 or 13]."""
        parts = (self.positions, self.rotations, self.strains)
        return np.concatenate([part for part in parts if part is not None], -1)

    def centres(self, motion: int, frames: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Centres of some Gaussians in some frames of a motion, float64 [frames, which, 3]."""
        positions, rotations = self.positions[motion, frames], self.rotations[motion, frames]
        matrices = _matrices(rotations)  # [frames, K, 3, 3]
        if self.strains is not None:
            xx, yy, zz, xy, yz, xz = np.moveaxis(self.strains[motion, frames], -1, 0)
            strain = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).reshape(matrices.shape)
            matrices = matrices + matrices @ strain
        constant = positions - np.einsum("fkij,kj->fki", matrices, self.rest)
        means, joints, weights = self.means[which], self.joints[which], self.weights[which]
        result = np.zeros((len(frames), *means.shape))
        for j in range(joints.shape[1]):
            joint = joints[:, j]
            moved = (matrices[:, joint] @ means[:, :, None])[..., 0] + constant[:, joint]
            result += weights[:, j, None] * moved
        return result


def write_splats(
    path: Path,
    splats: SkinnedSplats,
    *,
    title: str,
    facts: Mapping[str, object] | None = None,
    background: Sequence[float] | None = None,
) -> None:
    """Write a page that plays the motions and turns with mouse and touch.

    Args:
        path: file to write.
        splats: the scene.
        title: of the page.
        facts: shown below the title, label → value.
        background: sRGB-encoded, three floats in 0..1; None = white, or dark grey in the dark colour scheme.
    """
    instance(splats, SkinnedSplats, "write_splats: splats")
    target, radius = framing(splats)
    phases = float(splats.phases[0]), float(splats.phases[-1])
    scene = page_settings(splats.names, phases, splats.seconds, target.tolist(), radius, background)
    quats = splats.quats / np.linalg.norm(splats.quats, axis=-1, keepdims=True)
    arrays = {
        "means": splats.means,
        "log_scales": np.log(np.maximum(splats.scales, _SMALLEST_SCALE)),
        "quats": quats,
        "opacities": splats.opacities[:, None],
        "colors": splats.colors,
        "joints": splats.joints,
        "weights": splats.weights,
        "rest": splats.rest,
        "motion": splats.motion,
        "blur": np.array([splats.blur]),
    }
    if splats.slopes is not None:
        arrays["slopes"] = splats.slopes
    write_page(
        path, title=title, facts=facts or {}, renderer=("splats",), scene=scene, arrays=arrays,
        differences={"motion": 1},
    )  # fmt: skip


def page_settings(
    names: Sequence[str],
    phases: tuple[float, float],
    seconds: float,
    target: Sequence[float],
    radius: float,
    background: Sequence[float] | None,
) -> dict[str, Any]:
    """Settings of `player.js`: motions, clock, camera and background.

    Args:
        names: of the motions.
        phases: of the first and the last frame.
        seconds: duration of the phases 0..1.
        target, radius: sphere that the camera frames.
        background: sRGB-encoded, three floats in 0..1; None = white, or dark grey in the dark colour scheme.
    """
    colors = (LIGHT, DARK) if background is None else (tuple(background),) * 2
    return {
        "format": 1,
        "names": [plain(name) for name in names],
        "phases": list(phases),
        "seconds": float(seconds),
        "background": {"light": colors[0], "dark": colors[1]},
        "camera": {
            "target": [float(each) for each in target],
            "distance": float(1.1 * radius / np.sin(np.radians(FOV_DEG) / 2)),
            "fov_deg": FOV_DEG,
            "azimuth_deg": AZIMUTH_DEG,
            "elevation_deg": ELEVATION_DEG,
        },
    }


def framing(splats: SkinnedSplats) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of a sphere around the visible Gaussians in all motions.

    Percentiles instead of the extent, so that a few stray Gaussians do not affect the framing.
    """
    frames = np.unique(np.linspace(0, len(splats.phases) - 1, 6).round().astype(int))
    solid = splats.opacities > 0.1
    solid = solid if solid.any() else np.ones_like(solid)
    few = np.flatnonzero(solid)[:: max(1, solid.sum() // 1000)]
    points = np.concatenate([splats.centres(m, frames, few) for m in range(len(splats.names))])
    points = points.reshape(-1, 3)
    low, high = np.percentile(points, [0.1, 99.9], axis=0)
    centre = (low + high) / 2
    radius = float(np.percentile(np.linalg.norm(points - centre, axis=1), 99.9))
    return centre, max(radius, 1e-3)


def _matrices(quats: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4] of any length but 0."""
    return rotation_matrices(torch.from_numpy(np.asarray(quats, np.float64))).numpy()
