"""The CPU renderer: clips frame by frame, views one after the other."""

from __future__ import annotations

import math

import numpy as np

from renderers.cameras import Cameras
from renderers.gltf import Asset, Pose
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import CHUNK, ROWS, STRIDE, Bins, Grid, Records, Work
from renderers.meshes.cpu.scene import Scene, place
from renderers.meshes.recording import record_clip
from renderers.meshes.tracks import Surface

kernels = load_kernels()

# What is behind everything: premultiplied, sRGB-encoded.
CLEAR = np.zeros(4, np.float32)
# How textures are filtered:
# [0] squared texels per pixel up to which a texture is interpolated in linear light;
# [1] s: a look-up stands for a length d of the surface, in texels of level 0. Its level is the coarsest with texels of
#     at most sqrt(s) d, so that interpolation is as soft, on average, as the mean over d;
# [2] to [4] squared lengths of the footprint of a pixel, relative to its width, from which 2, 3 and 4 look-ups are made
#     along it;
# [5] 1 to look up all textures once per sample instead.
FILTER = np.array([1.0, 0.9, 1.0, 2.25, 6.25, 0.0], np.float32)
_ROUNDING = 1 / 64  # pixels
# Samples per pixel: pixels per side of a block of 16 samples, and width and height of a tile in pixels.
_GRIDS = {1: (4, 64, 64), 4: (2, 64, 32), 16: (1, 32, 16)}
_NEAREST = 1e-4  # distance of the near plane, as a fraction of the farthest visible distance


class CPURenderer:
    """The CPU back end, used for many clips."""

    def __init__(self) -> None:
        self.name = f"cpu {PICTURE_VERSIONS['cpu']}"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        shot = shot.centred(asset)
        scene = Scene(asset, shot)
        painter = _Painter(scene, shot.cameras, settings)
        return record_clip(
            asset, shot, settings, self.name, scene, painter.colour, lambda pose: painter.geometry(pose, shot)
        )


class _Painter:
    """Draws the current frame of a scene from all cameras of a shot."""

    def __init__(self, scene: Scene, cameras: Cameras, settings: RenderSettings) -> None:
        self._scene, self._cameras = scene, cameras
        self._eyes = np.ascontiguousarray(cameras.camera_to_world[:, :3, 3])
        self._matrices = _projections(cameras)
        self._grid, self._pixel_grid = _grid(settings.samples), _grid(1)
        self._work = _work(self._grid if settings.samples > 1 else self._pixel_grid)
        self._pixel_work = _work(self._pixel_grid) if settings.geometry else self._work
        self._screen = np.empty((len(scene.mesh.positions), 4), np.float32)
        self._records = _records(len(scene.mesh.corners) + 64, len(scene.mesh.corners))
        self._distances = np.empty(len(scene.mesh.corners) - scene.first_blended)

    def colour(self, images: np.ndarray) -> None:
        """Draw all views: uint8 [V, H, W, 4], straight alpha, top row first."""
        grid = self._grid
        columns, _ = self._tiles(grid)
        for v in range(len(self._cameras)):
            records = self._assemble(v, grid)
            opaque = self._bin(np.arange(len(records.owners)), grid)
            blended = self._bin(self._far_to_near(v, records), grid)
            kernels.draw(
                self._scene.mesh, self._scene.materials, self._screen, records, grid, columns, opaque, blended,
                self._eyes[v], CLEAR, self._work, images[v].view("<u4")[..., 0],
            )  # fmt: skip

    def geometry(self, upcoming: Pose, shot: Shot) -> Surface:
        """Return depth, normals and motion of the current frame from all views; `upcoming` is the next pose."""
        grid, cameras = self._pixel_grid, self._cameras
        columns, _ = self._tiles(grid)
        following = np.empty_like(self._scene.mesh.positions)
        place(upcoming.positions, shot.asset_to_world, following)
        surface = np.zeros((len(cameras), cameras.height, cameras.width, 8), np.float32)
        for v in range(len(cameras)):
            records = self._assemble(v, grid)
            bins = self._bin(np.arange(len(records.owners)), grid)
            kernels.survey(
                self._scene.mesh, self._scene.materials, self._screen, records, grid, columns, bins, following,
                self._matrices[v], self._pixel_work, surface[v],
            )  # fmt: skip
        return Surface(surface[..., 0], surface[..., 1:4], surface[..., 4:6], surface[..., 6:8])

    def _tiles(self, grid: Grid) -> tuple[int, int]:
        return -(-self._cameras.width // grid.tile_width), -(-self._cameras.height // grid.tile_height)

    def _assemble(self, v: int, grid: Grid) -> Records:
        """Project, cull and clip the triangles for a view."""
        scene, cameras = self._scene, self._cameras
        kernels.project(scene.mesh.positions, self._matrices[v], self._screen)
        far = float(np.sqrt((self._eyes[v] ** 2).sum())) + scene.radius
        # The box of a triangle may be smaller by the distance of samples from the edge of their pixels.
        margin = float(grid.inside.min()) - _ROUNDING
        arguments = (_NEAREST * far, cameras.width, cameras.height, margin)
        count = kernels.assemble(scene.mesh, self._screen, *arguments, self._records)
        if count < 0:
            self._records = _records(-count, len(scene.mesh.corners))
            count = kernels.assemble(scene.mesh, self._screen, *arguments, self._records)
        r = self._records
        return Records(r.points[:count], r.boxes[:count], r.owners[:count], r.facing, r.first, r.polygon)

    def _far_to_near(self, v: int, records: Records) -> np.ndarray:
        """Return the blended records of a view, sorted by the distance of their triangles, farthest first."""
        first = self._scene.first_blended
        if not len(self._distances):
            return np.empty(0, np.int64)
        kernels.centroid_distances(self._scene.mesh, first, self._eyes[v], self._distances)
        blended = np.arange(records.first[first], len(records.owners))
        distances = self._distances[records.owners[blended] - first]
        return blended[np.argsort(-distances, kind="stable")]

    def _bin(self, order: np.ndarray, grid: Grid) -> Bins:
        columns, rows = self._tiles(grid)
        starts, place = np.empty(columns * rows + 1, np.int32), np.empty(columns * rows, np.int32)
        found = np.empty(2 * len(order) + 64, np.uint32)
        count = kernels.bin_records(self._records, order, grid, columns, starts, place, found)
        if count < 0:
            found = np.empty(-count, np.uint32)
            count = kernels.bin_records(self._records, order, grid, columns, starts, place, found)
        return Bins(starts, found[:count])


def _projections(cameras: Cameras) -> np.ndarray:
    """Return K [R | t], float64 [V, 3, 4], summed in a fixed order."""
    K, pose = cameras.K, cameras.world_to_camera[:, :3]
    return np.ascontiguousarray(
        K[:, :, :1] * pose[:, None, 0] + K[:, :, 1:2] * pose[:, None, 1] + K[:, :, 2:] * pose[:, None, 2]
    )


def _grid(samples: int) -> Grid:
    """Return the layout of tiles.

    Four samples are a square grid, turned until rows and columns differ, but less than the usual rotated grid. Nearly
    vertical and horizontal edges get four levels, and the error at edges of random direction is hardly larger than that
    of a square grid (20.7 against 20.4 of 255, root mean square; the usual rotated grid: 21.6).
    """
    block, tile_width, tile_height = _GRIDS[samples]
    if samples == 4:
        inside = np.array([(5, 3), (13, 5), (3, 11), (11, 13)]) / 16.0
    else:
        side = math.isqrt(samples)
        number = np.arange(samples)
        inside = np.stack([(number % side + 0.5) / side, (number // side + 0.5) / side], axis=1)
    pixel = np.repeat(np.arange(block * block), samples)
    sample = np.tile(inside, (block * block, 1))
    offsets = np.concatenate([pixel % block + sample[:, 0], pixel // block + sample[:, 1]])
    blocks, rest = np.divmod(np.arange(tile_width * tile_height), block * block)
    rows, columns = np.divmod(blocks, tile_width // block)
    places = np.stack([columns * block + rest % block, rows * block + rest // block], axis=1)
    return Grid(
        samples=samples,
        block_width=block,
        block_height=block,
        tile_width=tile_width,
        tile_height=tile_height,
        block_shift=block.bit_length() - 1,
        tile_shift_x=tile_width.bit_length() - 1,
        tile_shift_y=tile_height.bit_length() - 1,
        offsets=offsets.astype(np.float32),
        inside=inside.astype(np.float32),
        centroids=_centroids(inside.astype(np.float32)),
        places=places.astype(np.uint32),
        filter=FILTER,
    )


def _centroids(inside: np.ndarray) -> np.ndarray:
    """Return float32 [16, 2]: the mean place of the samples in each mask of four, summed in their order."""
    result = np.zeros((16, 2), np.float32)
    if len(inside) == 4:
        for mask in range(1, 16):
            chosen = [s for s in range(4) if mask >> s & 1]
            for s in chosen:
                result[mask] += inside[s]
            result[mask] /= np.float32(len(chosen))
    return result


def _work(grid: Grid) -> Work:
    pixels = grid.tile_width * grid.tile_height
    samples = pixels * grid.samples
    return Work(
        depths=np.zeros(samples, np.int32),
        ids=np.zeros(samples, np.int32),
        colors=np.zeros(4 * samples, np.float32),
        sums=np.zeros(4 * pixels, np.float32),
        found=np.zeros(16, np.int32),
        bytes=np.zeros(16, np.uint32),
        pixels=np.zeros(STRIDE, np.uint32),
        triangles=np.zeros(STRIDE, np.uint32),
        masks=np.zeros(STRIDE, np.uint32),
        corners=np.zeros(3 * STRIDE, np.uint32),
        materials=np.zeros(STRIDE, np.uint32),
        found_alphas=np.zeros(16, np.float32),
        alphas=np.zeros((CHUNK, 16), np.float32),
        rows=np.ones(ROWS * STRIDE, np.float32),
        planes=np.zeros((4, 3), np.float32),
    )


def _records(room: int, triangles: int) -> Records:
    return Records(
        points=np.empty((room, 9), np.float32),
        boxes=np.empty((room, 4), np.int32),
        owners=np.empty(room, np.uint32),
        facing=np.ones(triangles, np.int8),
        first=np.empty(triangles + 1, np.int64),
        polygon=np.empty((4, 3), np.float32),
    )
