"""Point tracks: points on a moving surface, followed through a clip, with their visibility in every image.

A point is stored as a triangle and barycentric coordinates, so its motion is exact. Its visibility is determined from
the depth images, which sample the surface at pixel centres: the surface is extrapolated from the pixel centre to the
point along its slope, and the point is visible unless it is behind that by more than a tolerance. Compared with exact
ray casting, 2.0, 1.3 and 1.0 % of the points on a kangaroo differ at 64, 128 and 256 px, near silhouettes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers import fixed
from renderers.cameras import Cameras
from renderers.gltf import Asset, Material, Pose
from renderers.meshes.clip import RenderSettings, Shot, Tracks
from renderers.meshes.opacity import INVISIBLE, triangle_opacity

# Tolerance for a point behind the surface of its pixel, in pixel sizes and in slopes across a pixel.
_SIZES, _SLOPES = 0.5, 0.25
_ROUNDS = 64  # attempts to find visible points, before fewer than requested are accepted


class Surface(NamedTuple):
    """The surface visible in V views at one time.

    Attributes:
        depth: float32 [V, H, W], metres along the optical axis, 0 for background.
        normals: float32 [V, H, W, 3], unit, world space, 0 for background.
        flow: float32 [V, H, W, 2], motion to the next time in pixels; undefined for background.
        slope: float32 [V, H, W, 2], change of 1 / depth per pixel, to the right and downwards.
    """

    depth: np.ndarray
    normals: np.ndarray
    flow: np.ndarray
    slope: np.ndarray


class Tracker:
    """Follows points that are distributed uniformly by area over the surface visible in the first frame.

    Args:
        asset: the asset.
        one_sided: per primitive bool [F], triangles whose back face is never visible.
        shot: the shot that is being rendered.
        settings: `tracks` is the number of points, `track_seed` the seed for their selection.
        pose, surface: of the first frame.
    """

    def __init__(
        self,
        asset: Asset,
        one_sided: list[np.ndarray],
        shot: Shot,
        settings: RenderSettings,
        pose: Pose,
        surface: Surface,
    ) -> None:
        self._shot = shot
        self._points: list[np.ndarray] = []
        self._visible: list[np.ndarray] = []
        self._corners = np.concatenate([part.triangles for part in asset.primitives]).astype(np.int64)
        # +1 (or -1 if mirrored) for triangles of which only the front is visible, 0 for two-sided ones.
        sides = [
            np.where(front, -1 if m else 1, 0) for front, m in zip(one_sided, pose.mirrored, strict=True)
        ]
        self._side = np.concatenate(sides)
        self._choose(asset, settings, pose, surface)

    def _choose(self, asset: Asset, settings: RenderSettings, pose: Pose, surface: Surface) -> None:
        """Choose points uniformly by area among those visible in at least one view of the first frame.

        Fewer than requested if little of the surface is visible, none if nothing is.
        """
        corners = pose.positions[self._corners].astype(np.float64)
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        areas *= np.concatenate([opacity != INVISIBLE for opacity in triangle_opacity(asset)])
        cumulative = np.cumsum(areas)
        rng = np.random.default_rng(settings.track_seed)
        triangles, weights = np.empty(0, np.int64), np.empty((0, 3))
        for _ in range(_ROUNDS if cumulative[-1] > 0.0 else 0):
            u, v, place = rng.random((3, 2 * settings.tracks))
            candidates = np.searchsorted(cumulative, place * cumulative[-1], side="right")
            root = np.sqrt(u)
            inside = np.stack([1.0 - root, root * (1.0 - v), root * v], axis=1)
            world, normals = self._place(pose, candidates, inside)
            usable = visible(world, normals, self._shot.cameras, surface).any(axis=0)
            usable &= _opaque(asset, candidates, self._corners[candidates], inside)
            triangles = np.concatenate([triangles, candidates[usable]])[: settings.tracks]
            weights = np.concatenate([weights, inside[usable]])[: settings.tracks]
            if len(triangles) == settings.tracks:
                break
        self._triangles, self._weights = triangles, weights

    def _place(self, pose: Pose, triangles: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return world positions float32 [n, 3], and triangle normals [n, 3], 0 for two-sided triangles."""
        matrix = self._shot.asset_to_world
        corners = fixed.transformed(pose.positions[self._corners[triangles]], matrix[:3, :3], matrix[:3, 3])
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        points = _mean(weights, corners).astype(np.float32)
        return points, normals * self._side[triangles, None]

    def follow(self, pose: Pose, surface: Surface) -> None:
        """Record the positions of the points in the next frame, and in which views they are visible."""
        points, normals = self._place(pose, self._triangles, self._weights)
        self._points.append(points)
        self._visible.append(visible(points, normals, self._shot.cameras, surface))

    def tracks(self) -> Tracks:
        """Return the tracks of all frames so far."""
        points, is_visible = np.stack(self._points), np.stack(self._visible, axis=1)
        return Tracks.of(points, is_visible, self._shot.cameras)


def visible(points: np.ndarray, normals: np.ndarray, cameras: Cameras, surface: Surface) -> np.ndarray:
    """Return in which views points of the surface are visible, bool [V, P].

    Args:
        points: [P, 3], world.
        normals: [P, 3] outward normals of their triangles, any length; 0 for two-sided triangles.
        cameras: V cameras.
        surface: the surface visible in the V cameras at this time.
    """
    pixels, depth = cameras.project(points)
    size = np.array([cameras.width, cameras.height])
    inside = ((pixels >= 0.0) & (pixels < size)).all(axis=-1) & (depth > 0.0)
    place = np.floor(np.where(inside[..., None], pixels, 0.0)).astype(np.int64)
    where = np.arange(len(cameras))[:, None], place[..., 1], place[..., 0]
    nearest, slope = surface.depth[where].astype(np.float64), surface.slope[where]
    with np.errstate(divide="ignore", invalid="ignore"):
        continued = 1.0 / nearest + (slope * (pixels - place - 0.5)).sum(axis=-1)
        pixel_size = 1.0 / (cameras.K[:, :1, 0] * depth)  # as a change of 1 / depth
        tolerance = _SIZES * pixel_size + _SLOPES * np.abs(slope).sum(axis=-1)
        behind = (nearest > 0.0) & (continued - 1.0 / depth > tolerance)
    towards_eye = cameras.camera_to_world[:, None, :3, 3] - points
    turned_away = fixed.dot(towards_eye, normals) < 0.0
    return inside & ~turned_away & ~behind


def _opaque(asset: Asset, triangles: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return bool [n]: whether the material at a point is at smallest half opaque, or passes its alpha cutoff."""
    result = np.ones(len(triangles), bool)
    first = 0
    for primitive in asset.primitives:
        of_primitive = (triangles >= first) & (triangles < first + len(primitive.triangles))
        first += len(primitive.triangles)
        material = asset.materials[primitive.material]
        if material.alpha_mode != "OPAQUE" and of_primitive.any():
            smallest = material.alpha_cutoff if material.alpha_mode == "MASK" else 0.5
            result[of_primitive] = (
                _alpha(asset, material, corners[of_primitive], weights[of_primitive]) >= smallest
            )
    return result


def _alpha(asset: Asset, material: Material, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the alpha at points of triangles, [n], from the nearest texel."""
    alpha = material.base_color[3] * fixed.dot(weights, asset.colors[corners, 3])
    texture = material.base_color_texture
    if texture is None:
        return alpha
    uv = asset.texcoords[corners, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
    uv = fixed.transformed(_mean(weights, uv), texture.transform[:2, :2], texture.transform[:2, 2])
    height, width = texture.image.shape[:2]
    column = _texel(uv[:, 0], width, texture.wrap_s)
    row = _texel(uv[:, 1], height, texture.wrap_t)
    return alpha * texture.image[row, column, 3] / 255.0


def _mean(weights: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the weighted means [n, i] of the corners [n, 3, i] of triangles, terms added in order."""
    return np.add.reduce(weights[:, :, None] * corners, axis=1)


def _texel(coordinate: np.ndarray, size: int, wrap: str) -> np.ndarray:
    """Return the index of the texel that contains a texture coordinate."""
    if wrap == "clamp":
        place = coordinate
    elif wrap == "mirror":
        place = 1.0 - np.abs(coordinate % 2.0 - 1.0)
    else:
        place = coordinate % 1.0
    return np.floor(place * size).astype(np.int64).clip(0, size - 1)
