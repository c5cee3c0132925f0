"""The CPU renderer: clips frame by frame, the views of a frame one after the other or on several threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from queue import SimpleQueue

import numpy as np

from renderers.cameras import Cameras
from renderers.gltf import Asset, Pose
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import CHUNK, LAYER, LAYERS, ROWS, STRIDE, Bins, Grid, Records, Work
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
_NO_RECORDS = np.empty(0, np.int64)
# Samples per pixel: pixels per side of a block of 16 samples, and width and height of a tile in pixels.
_GRIDS = {1: (4, 64, 64), 4: (2, 64, 32), 16: (1, 32, 16)}
_NEAREST = 1e-4  # distance of the near plane, as a fraction of the farthest visible distance


class CPURenderer:
    """The CPU back end, used for many clips.

    Args:
        threads: number of threads that draw the views of a frame; by default OMP_NUM_THREADS, else the number of
            processors that this process may use. Images do not depend on it.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or _default_threads()

    @property
    def name(self) -> str:
        """Back end and version of its images: they depend on nothing else."""
        return f"cpu {PICTURE_VERSIONS['cpu']}"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        shot = shot.centred(asset)
        threads = min(self._threads, len(shot.cameras))
        with ThreadPoolExecutor(threads, "draw") if threads > 1 else nullcontext() as pool:
            painter = _Painter(Scene(asset, shot), shot.cameras, settings, pool, threads)
            clip = record_clip(
                asset, shot, settings, self.name, painter, painter.colour,
                lambda pose: painter.geometry(pose, shot),
            )  # fmt: skip
            painter.finish()
        return clip


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Painter:
    """Draws the current frame of a scene from all cameras of a shot.

    With several threads, `colour` returns before the images are complete: the next pose is evaluated meanwhile. They
    are complete after `finish`, or after the next call of another method.
    """

    def __init__(
        self,
        scene: Scene,
        cameras: Cameras,
        settings: RenderSettings,
        pool: ThreadPoolExecutor | None,
        threads: int,
    ) -> None:
        self._scene, self._cameras = scene, cameras
        self._eyes = np.ascontiguousarray(cameras.camera_to_world[:, :3, 3])
        self._matrices = _projections(cameras)
        self._grid, self._pixel_grid = _grid(settings.samples), _grid(1)
        self._pool = pool
        self._pending: list[Future[None]] = []
        self._desks: SimpleQueue[_Desk] = SimpleQueue()
        for _ in range(threads):
            self._desks.put(_Desk(scene, cameras, settings, self._grid, self._pixel_grid))

    @property
    def one_sided(self) -> list[np.ndarray]:
        """As `Scene.one_sided`."""
        return self._scene.one_sided

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Go on to the next frame."""
        self.finish()
        self._scene.deform(pose, shot)

    def finish(self) -> None:
        """Wait for the images of the current frame."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def colour(self, images: np.ndarray) -> None:
        """Draw all views: uint8 [V, H, W, 4], straight alpha, top row first."""
        self._for_each_view(lambda v, desk: self._draw(v, desk, images[v].view("<u4")[..., 0]))

    def geometry(self, upcoming: Pose, shot: Shot) -> Surface:
        """Return depth, normals and motion of the current frame from all views; `upcoming` is the next pose."""
        cameras = self._cameras
        following = np.empty_like(self._scene.mesh.positions)
        place(upcoming.positions, shot.asset_to_world, following)
        surface = np.zeros((len(cameras), cameras.height, cameras.width, 8), np.float32)
        self._for_each_view(lambda v, desk: self._survey(v, desk, following, surface[v]))
        self.finish()
        return Surface(surface[..., 0], surface[..., 1:4], surface[..., 4:6], surface[..., 6:8])

    def _for_each_view(self, draw: Callable[[int, _Desk], None]) -> None:
        """Call a function with the number of each view and the scratch memory of its thread."""

        def run(v: int) -> None:
            desk = self._desks.get()
            try:
                draw(v, desk)
            finally:
                self._desks.put(desk)

        for v in range(len(self._cameras)):
            if self._pool is None:
                run(v)
            else:
                self._pending.append(self._pool.submit(run, v))

    def _draw(self, v: int, desk: _Desk, image: np.ndarray) -> None:
        """Draw one view: uint32 [H, W]."""
        records = desk.assemble(v, self._eyes[v], self._matrices[v], self._grid)
        opaque = desk.bin(np.arange(len(records.owners)), self._grid)
        blended = desk.bin(desk.far_to_near(self._eyes[v], records), self._grid)
        kernels.draw(
            self._scene.mesh, self._scene.materials, desk.screen, records, self._grid, desk.columns(self._grid),
            opaque, blended, self._eyes[v], CLEAR, desk.work, image,
        )  # fmt: skip

    def _survey(self, v: int, desk: _Desk, following: np.ndarray, surface: np.ndarray) -> None:
        """Draw the surface of one view: float32 [H, W, 8]."""
        grid = self._pixel_grid
        records = desk.assemble(v, self._eyes[v], self._matrices[v], grid)
        bins = desk.bin(np.arange(len(records.owners)), grid)
        kernels.survey(
            self._scene.mesh, self._scene.materials, desk.screen, records, grid, desk.columns(grid), bins,
            following, self._matrices[v], desk.pixel_work, surface,
        )  # fmt: skip


class _Desk:
    """Scratch memory of a thread, and the preparation of views in it.

    Attributes:
        screen: float32 [N, 4], output of `kernels.project`.
        work, pixel_work: for the grid of samples, and for one sample per pixel.
    """

    def __init__(
        self, scene: Scene, cameras: Cameras, settings: RenderSettings, grid: Grid, pixel_grid: Grid
    ) -> None:
        self._scene, self._cameras = scene, cameras
        materials = len(scene.materials.flags)
        self.work = _work(grid if settings.samples > 1 else pixel_grid, materials)
        self.pixel_work = _work(pixel_grid, materials) if settings.geometry else self.work
        self.screen = np.empty((len(scene.mesh.positions), 4), np.float32)
        self._records = _records(len(scene.mesh.corners) + 64, len(scene.mesh.corners))
        self._distances = np.empty(len(scene.mesh.corners) - scene.first_blended)
        self._nothing: dict[int, Bins] = {}

    def columns(self, grid: Grid) -> int:
        """Return the number of tiles per row."""
        return -(-self._cameras.width // grid.tile_width)

    def assemble(self, v: int, eye: np.ndarray, matrix: np.ndarray, grid: Grid) -> Records:
        """Project, cull and clip the triangles for a view."""
        scene, cameras = self._scene, self._cameras
        kernels.project(scene.mesh.positions, matrix, self.screen)
        far = float(np.sqrt((eye**2).sum())) + scene.radius
        # The box of a triangle may be smaller by the distance of samples from the edge of their pixels.
        margin = float(grid.inside.min()) - _ROUNDING
        arguments = (_NEAREST * far, cameras.width, cameras.height, margin)
        count = kernels.assemble(scene.mesh, self.screen, *arguments, self._records)
        if count < 0:
            self._records = _records(-count, len(scene.mesh.corners))
            count = kernels.assemble(scene.mesh, self.screen, *arguments, self._records)
        r = self._records
        return r._replace(points=r.points[:count], boxes=r.boxes[:count], owners=r.owners[:count])

    def far_to_near(self, eye: np.ndarray, records: Records) -> np.ndarray:
        """Return the blended records of a view, sorted by the distance of their triangles, farthest first."""
        first = self._scene.first_blended
        if not len(self._distances):
            return _NO_RECORDS
        kernels.centroid_distances(self._scene.mesh, first, eye, self._distances)
        blended = np.arange(records.first[first], len(records.owners))
        distances = self._distances[records.owners[blended] - first]
        return blended[np.argsort(-distances, kind="stable")]

    def bin(self, order: np.ndarray, grid: Grid) -> Bins:
        """Sort records into tiles, in this order."""
        columns, rows = self.columns(grid), -(-self._cameras.height // grid.tile_height)
        if order is _NO_RECORDS:
            if grid.samples not in self._nothing:
                self._nothing[grid.samples] = Bins(
                    np.zeros(columns * rows + 1, np.int32), np.empty(0, np.uint32)
                )
            return self._nothing[grid.samples]
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


def _work(grid: Grid, materials: int) -> Work:
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
        sorted_pixels=np.zeros(STRIDE, np.uint32),
        sorted_triangles=np.zeros(STRIDE, np.uint32),
        sorted_masks=np.zeros(STRIDE, np.uint32),
        slots=np.zeros(STRIDE, np.uint32),
        tally=np.zeros(materials + 1, np.int64),
        layers=np.zeros((LAYERS + 1) * LAYER, np.float32),
        layer_blocks=np.zeros(LAYERS, np.uint32),
        layer_masks=np.zeros(LAYERS, np.uint32),
        corners=np.zeros(3 * STRIDE, np.uint32),
        materials=np.zeros(STRIDE, np.uint32),
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
        layer_starts=np.zeros(room, np.int32),
        layer_counts=np.zeros(room, np.int32),
    )
