"""`StillSplats`: the Gaussians of a still model, which the motion field moves (Animate3D §3.1, methods of meshes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import avg_pool2d

from renderers.gaussians import Gaussians, TensorCameras, render
from zoo.animate3d.hexplane import Moved
from zoo.animate3d.solver import Problem
from zoo.animate3d.surface import Surface
from zoo.animate3d.views import Views, reduce_frames

GREY = 0.5  # behind pictures that are compared
PIXEL = 0.1  # variance of the pixel filter, px²: near a box's 1/12, as 3DGS's 0.3 makes limbs too wide
UNIT = 2.0  # the model's extent in the field's space, [-1, 1]³
_FLAT = 0.15  # thickness of a disc, as a share of its radius
_RADIUS = 0.7  # of a disc, in distances to the nearest neighbours
_SOLID = 0.95  # opacity
_STEPS, _RATE = 80, 0.03  # of the calibration
_AROUND = 8  # neighbours that give the local spacing


@dataclass(frozen=True)
class StillSplats:
    """N Gaussians in the field's space: unit space times `UNIT`.

    Attributes:
        points: int64 [N], the points at which they are: of a mesh's surface, or of a file's Gaussians.
        means: float32 [N, 3]. quats: [N, 4], wxyz. log_scales: [N, 3].
        opacities: [N]. colors: [N, 3].
    """

    points: np.ndarray
    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacities: Tensor
    colors: Tensor

    def at(self, moved: Moved) -> Gaussians:
        """The Gaussians at F times."""
        count = len(moved.means)
        return Gaussians(
            moved.means,
            moved.quats,
            (self.log_scales + moved.growth).exp(),
            self.opacities.expand(count, -1),
            colors=self.colors.expand(count, -1, -1),
        )

    def still(self) -> Moved:
        """Where they are in the still model, as one frame."""
        return Moved(self.means[None], self.quats[None], torch.zeros_like(self.means)[None])


def targets(views: Views, side: int) -> tuple[Tensor, TensorCameras]:
    """The videos [T, V, H, W, 4], premultiplied, at most `side` pixels, and their cameras in the field's space."""
    pixel = max(1, -(-max(views.frames.shape[2:4]) // side))
    frames = torch.from_numpy(np.ascontiguousarray(reduce_frames(views.frames, pixel)))
    viewmats = np.tile(np.eye(4), (len(views.extrinsics), 1, 1))
    viewmats[:, :3] = views.extrinsics
    viewmats[:, :3, 3] *= UNIT
    intrinsics = np.diag([1 / pixel, 1 / pixel, 1.0]) @ views.intrinsics
    return frames, TensorCameras(
        torch.from_numpy(viewmats).float()[None],
        torch.from_numpy(intrinsics).float()[None],
        frames.shape[3],
        frames.shape[2],
    )


def oversampled(frames: Tensor, cameras: TensorCameras, side: int) -> TensorCameras:
    """Cameras with the largest whole multiple of the pixels of frames, so that there are at most `side`.

    Pixels of small videos are larger than discs, which then count by whether they cover the centre of a pixel. So they
    are drawn finely, and means of pixels compared.
    """
    factor = max(1, side // max(frames.shape[2:4]))
    Ks = torch.diag(torch.tensor([factor, factor, 1.0])).to(cameras.Ks) @ cameras.Ks
    return TensorCameras(cameras.viewmats, Ks, factor * cameras.width, factor * cameras.height)


def _difference(gaussians: Gaussians, cameras: TensorCameras, frames: Tensor) -> Tensor:
    """Colours on grey and coverage, less those of frames of which cameras may have a multiple: [F · V, 4, H, W]."""
    drawn = render(gaussians, cameras, background=GREY, eps2d=PIXEL)
    wanted = torch.cat([frames[..., :3] + GREY * (1 - frames[..., 3:]), frames[..., 3:]], -1)
    pictures, targets = (
        each.flatten(0, 1).movedim(-1, 1)
        for each in (torch.cat([drawn.output("rgb"), drawn.output("alpha")], -1), wanted)
    )
    factor = pictures.shape[-1] // targets.shape[-1]
    return (avg_pool2d(pictures, factor) if factor > 1 else pictures) - targets


def picture_loss(gaussians: Gaussians, cameras: TensorCameras, frames: Tensor) -> Tensor:
    """Mean squared differences of colours on grey and of coverage, summed: L_rec (released code).

    Args:
        frames: [F, V, H, W, 4], premultiplied.
    """
    apart = _difference(gaussians, cameras, frames)
    return apart[:, :3].square().mean() + apart[:, 3:].square().mean()


def matching_loss(
    gaussians: Gaussians, cameras: TensorCameras, frames: Tensor, colors: float, levels: int, robust: float
) -> Tensor:
    """What a motion is fitted with: `picture_loss` that sees further and tells more of turns (not in the paper).

    Differences are compared at several resolutions, as fine pictures attract a limb only from a few pixels away. Large
    ones cost linearly: 2 δ² (√(1 + (d / δ)²) - 1). Discs leave ten times the squared difference in coverage than in
    colours where they follow the true motion, since they gape and overlap at bends; colours count more for that.

    Args:
        frames: [F, V, H, W, 4], premultiplied.
        colors: weight of colours, that of coverage being 1.
        levels: resolutions, each half of the one before.
        robust: δ; infinite for squares.
    """
    apart = _difference(gaussians, cameras, frames)
    loss = apart.new_zeros(())
    for level in range(levels):
        if level:
            apart = avg_pool2d(apart, 2)
        square = apart.square()
        cost = 2 * square / ((1 + square / robust**2).sqrt() + 1)  # the same, without cancellation
        loss = loss + colors * cost[:, :3].mean() + cost[:, 3:].mean()
    return loss


def make_splats(
    problem: Problem, count: int, frames: Tensor, cameras: TensorCameras, seed: int
) -> StillSplats:
    """Put discs on the surface, and calibrate them on frame 0 of the videos.

    One Gaussian per vertex, as large as its edges, has a silhouette 1.3 times that of the mesh, and fitting the videos'
    silhouettes would then shrink the body. Radii, depth below the surface and colours are therefore optimised until the
    still discs look like frame 0; they stay as they are afterwards, as in the paper.

    Args:
        count: most Gaussians.
        frames, cameras: of `targets`.
        seed: chooses the points where the surface has more than `count`.
    """
    surface = problem.surface
    chosen = spread(surface.points, count, seed)
    points = surface.points[chosen] * UNIT
    normals = _normals(surface)[chosen]
    colors = _colors(problem)
    spacing = cKDTree(points).query(points, min(_AROUND, len(points)))[0][:, 1:].mean(1)
    radius = np.log(np.maximum(_RADIUS * spacing, 1e-4))
    base = torch.from_numpy(np.stack([radius, radius, radius + np.log(_FLAT)], -1)).float()
    places, inward = torch.from_numpy(points).float(), -torch.from_numpy(normals).float()
    inset = torch.from_numpy(0.3 * spacing).float()
    quats, opacities = _facing(-inward), torch.full((len(chosen),), _SOLID)

    def splats(size: Tensor, depth: Tensor, colors: Tensor) -> StillSplats:
        means = places + inward * (inset * depth.exp().squeeze(-1))[:, None]
        return StillSplats(chosen, means, quats, base + size, opacities, colors)

    first = {"size": torch.zeros(len(chosen), 1), "depth": torch.zeros(len(chosen), 1)}
    first["colors"] = torch.from_numpy(colors[chosen]).float()
    return calibrated(splats, first, frames, cameras)


# Rate, lowest and highest value of what is calibrated: logarithms of factors of radii and of depths below the surface;
# colours.
_CALIBRATED = {"size": (_RATE, -1.5, 0.7), "depth": (_RATE, -3.0, 1.5), "colors": (_RATE / 3, 0.0, 1.0)}


def calibrated(
    splats: Callable[..., StillSplats], first: dict[str, Tensor], frames: Tensor, cameras: TensorCameras
) -> StillSplats:
    """The splats that look most like frame 0 of the videos.

    Args:
        splats: makes them from values with the names of `first`.
        first: size, colors and depth, or some of them, to begin with.
        frames, cameras: of `targets`.
    """
    values = {name: value.clone().requires_grad_() for name, value in first.items()}
    optimizer = torch.optim.Adam(
        [{"params": [value], "lr": _CALIBRATED[name][0]} for name, value in values.items()]
    )
    for _ in range(_STEPS):
        optimizer.zero_grad()
        current = splats(**values)
        picture_loss(current.at(current.still()), cameras, frames[:1]).backward()
        optimizer.step()
        with torch.no_grad():
            for name, value in values.items():
                value.clamp_(*_CALIBRATED[name][1:])
    return splats(**{name: value.detach() for name, value in values.items()})


def spread(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` evenly spread points [n, 3]: farthest-point sampling from a random one."""
    if len(points) <= count:
        return np.arange(len(points))
    chosen = [int(np.random.default_rng(seed).integers(len(points)))]
    apart = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        chosen.append(int(apart.argmax()))
        np.minimum(apart, ((points - points[chosen[-1]]) ** 2).sum(1), out=apart)
    return np.array(chosen)


def _colors(problem: Problem) -> np.ndarray:
    """Colours of the surface points in frame 0, the mean of those of their shading vertices: [n, 3] in 0-1."""
    owner, count = problem.surface.point_of, len(problem.surface.points)
    sums = np.zeros((count, 3))
    np.add.at(sums, owner, problem.appearance.colors(problem.surface))
    return (sums / np.maximum(np.bincount(owner, minlength=count), 1)[:, None]).clip(0.0, 1.0)


def _normals(surface: Surface) -> np.ndarray:
    """Unit normals of the surface points, [n, 3]."""
    sums = np.zeros_like(surface.points)
    np.add.at(sums, surface.point_of, surface.normals)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)


def _facing(normals: Tensor) -> Tensor:
    """Quaternions wxyz [N, 4] that turn the z axis to unit normals [N, 3]."""
    half = torch.stack(
        [1 + normals[:, 2], -normals[:, 1], normals[:, 0], torch.zeros_like(normals[:, 0])], -1
    )
    opposite = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return torch.nn.functional.normalize(torch.where(half[:, :1] < 1e-6, opposite, half), dim=-1)
