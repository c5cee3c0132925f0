"""Initial positions of key points and Gaussians: farthest-point sampling and the visual hull of one frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.dimo.data import MotionVideos, over

LONE = 0.1  # spacing of a point that has no neighbours, world units


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """Farthest-point sampling of points [N, 3], starting with index 0.

    Returns:
        int64 [min(count, N)]: each index is the point farthest from all previous ones; 0..N−1 in order if count ≥ N.
    """
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    chosen = torch.zeros(count, dtype=torch.int64, device=points.device)
    nearest = (points - points[0]).square().sum(-1)
    for i in range(1, count):
        chosen[i] = nearest.argmax()
        torch.minimum(nearest, (points - points[chosen[i]]).square().sum(-1), out=nearest)
    return chosen


@torch.no_grad()
def spacing(points: Tensor, neighbours: int = 3) -> Tensor:
    """Root mean square distance of each point [N, 3] to its `neighbours` nearest ones, at least 1e−4: [N].

    With fewer other points, the distance to all of them; `LONE` for a single point.
    """
    neighbours = min(neighbours, len(points) - 1)
    if neighbours < 1:
        return points.new_full((len(points),), LONE)
    squares = [
        torch.cdist(part, points).topk(neighbours + 1, largest=False).values[:, 1:].square().mean(-1)
        for part in points.split(2048)
    ]
    return torch.cat(squares).sqrt().clamp(min=1e-4)


def calmest_frame(videos: MotionVideos, views: list[int], resolution: int = 32) -> tuple[int, int]:
    """Motion and frame of the most typical first frame: least mean L1 distance of its silhouettes to the others'."""
    masks = videos.read(range(len(videos)), views, [0], resolution)[..., 3].float().flatten(1)
    return int(torch.cdist(masks, masks, p=1).mean(1).argmin()), 0


def visual_hull(
    videos: MotionVideos, motion: int, frame: int, views: list[int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample points near the surface of one frame's visual hull, with colours from the cameras that face them.

    The hull is the set of cells of a 96³ grid whose projections are inside every silhouette (alpha > 0.5).

    Returns:
        Points float32 [count, 3], world coordinates, and colours float32 [count, 3] in [0, 1].

    Raises:
        ValueError: the silhouettes have no common hull.
    """
    frames = videos.read([motion], views, [frame])[0, :, 0]
    colour, alpha = (t.numpy() for t in over(frames))
    masks = alpha[..., 0] > 0.5
    cameras = videos.cameras([motion], views, 1)
    world_to_camera, K = cameras.viewmats[0].numpy(), cameras.Ks[0].numpy()

    low, high = _bounds(masks, world_to_camera, K)
    cells = 96
    axes = [np.linspace(a, b, cells, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = np.ones(len(grid), bool)
    for view in range(len(views)):
        inside[inside] = _sample(masks[view], grid[inside], world_to_camera[view], K[view], False)
    solid = inside.reshape(cells, cells, cells)
    if not solid.any():
        raise ValueError(
            f"{videos.object}: the silhouettes of motion {videos.names[motion]!r}, frame {frame} have no common hull; "
            "check that the cameras belong to these frames"
        )
    core = solid.copy()
    for axis in range(3):
        for step in (1, -1):
            core &= np.roll(solid, step, axis)
    shell, normals = grid[(solid & ~core).ravel()], _outward(solid)[(solid & ~core).ravel()]
    chosen = rng.choice(len(shell), count, replace=len(shell) < count)
    cell = (high - low) / (cells - 1)
    points = shell[chosen] + rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32) * cell
    return points.astype(np.float32), _seen_colours(
        points, normals[chosen], colour, masks, world_to_camera, K
    )


def _bounds(masks: np.ndarray, world_to_camera: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box (low, high), [3] each, of the visual hull: a cube around the cameras' focus, shrunk to the hull."""
    centres = -np.einsum("vji,vj->vi", world_to_camera[:, :3, :3], world_to_camera[:, :3, 3])
    forward = world_to_camera[:, 2, :3]
    # Least-squares intersection of the optical axes: Σ_v (I − f fᵀ) x = Σ_v (I − f fᵀ) c for axes f and centres c.
    # `reach` is half the image width at that distance.
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    middle = np.linalg.lstsq(across.sum(0), (across @ centres[..., None]).sum(0)[:, 0], rcond=None)[0]
    reach = max(
        float(np.linalg.norm(c - middle)) * 0.5 * mask.shape[1] / k[0, 0]
        for c, mask, k in zip(centres, masks, K, strict=True)
    )
    low, high = middle - reach, middle + reach
    for _ in range(2):  # the second pass has a smaller box, hence smaller cells
        axes = [np.linspace(a, b, 48, dtype=np.float32) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        inside = np.ones(len(grid), bool)
        for view in range(len(masks)):
            inside[inside] = _sample(masks[view], grid[inside], world_to_camera[view], K[view], False)
        if not inside.any():
            break
        cell = (high - low) / 47
        low, high = grid[inside].min(0) - 1.5 * cell, grid[inside].max(0) + 1.5 * cell
    return low.astype(np.float32), high.astype(np.float32)


def _sample(
    image: np.ndarray, points: np.ndarray, world_to_camera: np.ndarray, K: np.ndarray, outside: object
) -> np.ndarray:
    """Nearest-pixel lookup of the points' projections; `outside` for projections outside the image."""
    seen = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    x = np.floor(seen[:, 0] / seen[:, 2] * K[0, 0] + K[0, 2]).astype(int)
    y = np.floor(seen[:, 1] / seen[:, 2] * K[1, 1] + K[1, 2]).astype(int)
    height, width = image.shape[:2]
    within = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    values = np.full((len(points), *image.shape[2:]), outside, image.dtype)
    values[within] = image[y[within], x[within]]
    return values


def _outward(solid: np.ndarray) -> np.ndarray:
    """Outward unit normals of a solid at every cell, [cells³, 3]: the negative gradient of its blurred occupancy."""
    soft: np.ndarray = np.pad(solid, 2).astype(np.float32)
    for axis in range(3):
        soft = soft + np.roll(soft, 1, axis) + np.roll(soft, -1, axis)
    slopes = np.stack(list(np.gradient(soft)), -1)[2:-2, 2:-2, 2:-2].reshape(-1, 3)
    return -slopes / np.maximum(np.linalg.norm(slopes, axis=-1, keepdims=True), 1e-9)


def _seen_colours(
    points: np.ndarray,
    normals: np.ndarray,
    colour: np.ndarray,
    masks: np.ndarray,
    world_to_camera: np.ndarray,
    K: np.ndarray,
) -> np.ndarray:
    """Average colour of each point over the cameras, [N, 3], weighted with cos⁴ of the angle between normal and view.

    Occlusion is not tested. Points that no camera faces become grey (0.5).
    """
    total, weight = np.full((len(points), 3), 0.5e-4, np.float32), np.full((len(points), 1), 1e-4, np.float32)
    for view in range(len(masks)):
        facing = np.clip(-normals @ world_to_camera[view, 2, :3], 0, 1)[:, None] ** 4
        facing = facing * _sample(masks[view], points, world_to_camera[view], K[view], False)[:, None]
        total += facing * _sample(colour[view], points, world_to_camera[view], K[view], 0.5)
        weight += facing
    return (total / weight).astype(np.float32)
