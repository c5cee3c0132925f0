"""The CPU renderer: clips frame by frame, the views one after the other or on several threads."""

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
from renderers.meshes.buffers import aligned_zeros
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import (
    CHUNK,
    LAYER,
    LAYERS,
    ROWS,
    STRIDE,
    Bins,
    Grid,
    Lists,
    Records,
    Views,
    Work,
)
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


class CPURenderer:
    """The CPU back end, used for many clips.

    Args:
        threads: number of threads that draw views; by default OMP_NUM_THREADS, else the number of
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
            painter = _Painter(Scene(asset, shot, pool), shot.cameras, settings, pool, threads)
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
    """Draws the frames of a scene from all cameras of a shot.

    With several threads, `colour` returns before the images are complete. The next frame is posed meanwhile, in a
    second scene, so that a thread without views left goes on to it while others finish theirs. The images are complete
    after `finish`, or after `geometry`.
    """

    def __init__(
        self,
        scene: Scene,
        cameras: Cameras,
        settings: RenderSettings,
        pool: ThreadPoolExecutor | None,
        threads: int,
    ) -> None:
        self._scenes = [scene] if pool is None else [scene, scene.twin()]  # that of the current frame first
        self._pending: list[list[Future[None]]] = [[] for _ in self._scenes]  # the drawing of each
        self._cameras = cameras
        eyes = np.ascontiguousarray(cameras.camera_to_world[:, :3, 3])
        distances = np.array([np.sqrt((eye**2).sum()) for eye in eyes])
        self._views = Views(cameras.width, cameras.height, eyes, distances, _projections(cameras))
        self._grid, self._pixel_grid = _grid(settings.samples), _grid(1)
        self._pool, self._threads = pool, threads
        self._desks: SimpleQueue[_Desk] = SimpleQueue()
        for _ in range(threads):
            self._desks.put(_Desk(scene, self._views, settings, self._grid, self._pixel_grid))

    @property
    def one_sided(self) -> list[np.ndarray]:
        """As `Scene.one_sided`."""
        return self._scenes[0].one_sided

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Go on to the next frame."""
        self._scenes.reverse()
        self._pending.reverse()
        _wait(self._pending[0])
        self._scenes[0].deform(pose, shot)

    def finish(self) -> None:
        """Wait for all images."""
        for pending in self._pending:
            _wait(pending)

    def colour(self, images: np.ndarray, t: int) -> None:
        """Draw frame t of all views into uint8 [V, T, H, W, 4], straight alpha, top row first."""
        words = images.view("<u4")[..., 0]
        self._for_views(lambda desk, scene, queue: desk.draw(scene, queue, words, t))

    def geometry(self, upcoming: Pose, shot: Shot) -> Surface:
        """Return depth, normals and motion of the current frame from all views; `upcoming` is the next pose."""
        cameras = self._cameras
        following = np.empty_like(self._scenes[0].mesh.positions)
        place(upcoming.positions, shot.asset_to_world, following)
        surface = np.zeros((len(cameras), cameras.height, cameras.width, 8), np.float32)
        self._for_views(lambda desk, scene, queue: desk.survey(scene, queue, following, surface))
        self.finish()
        return Surface(surface[..., 0], surface[..., 1:4], surface[..., 4:6], surface[..., 6:8])

    def _for_views(self, draw: Callable[[_Desk, Scene, np.ndarray], None]) -> None:
        """Call a function once per thread, with its scratch memory, the current frame and a queue of its views.

        All threads take the next view from this queue. A thread that has to wait for Python's lock between two views
        would stand still while a pose is evaluated.
        """
        scene, queue = self._scenes[0], np.zeros(1, np.int64)

        def run() -> None:
            desk = self._desks.get()
            try:
                draw(desk, scene, queue)
            finally:
                self._desks.put(desk)

        if self._pool is None:
            run()
        else:
            self._pending[0] += [self._pool.submit(run) for _ in range(self._threads)]


def _wait(pending: list[Future[None]]) -> None:
    """Wait for tasks, which are removed from the list; raise the error of the first that failed."""
    while pending:
        pending.pop(0).result()


class _Desk:
    """Scratch memory of a thread, and the drawing of views in it."""

    def __init__(
        self, scene: Scene, views: Views, settings: RenderSettings, grid: Grid, pixel_grid: Grid
    ) -> None:
        self._triangles, self._vertices = len(scene.mesh.corners), len(scene.mesh.positions)
        self._views = views
        self._grid, self._pixel_grid = grid, pixel_grid
        self._work = _work(grid, scene.orders)
        self._pixel_work = self._work
        if settings.geometry and settings.samples > 1:
            self._pixel_work = _work(pixel_grid, scene.orders)
        self._reserve(self._triangles + 64, 2 * self._triangles + 64)

    def _reserve(self, records: int, references: int) -> None:
        """Allocate memory for a number of records per view, and of references to them from tiles."""
        self._room = records, references
        self._records = _records(records, self._triangles)
        self._lists = _lists(records, self._vertices)
        self._bins = {
            grid.samples: (self._empty_bins(grid), self._empty_bins(grid))
            for grid in (self._grid, self._pixel_grid)
        }

    def _empty_bins(self, grid: Grid) -> Bins:
        tiles = self._columns(grid) * -(-self._views.height // grid.tile_height)
        return Bins(
            np.empty(tiles + 1, np.int32), np.empty(self._room[1], np.uint32), np.empty(tiles, np.int32)
        )

    def _columns(self, grid: Grid) -> int:
        """Return the number of tiles per row."""
        return -(-self._views.width // grid.tile_width)

    def draw(self, scene: Scene, queue: np.ndarray, images: np.ndarray, t: int) -> None:
        """Draw frame t of the views in a queue into uint32 [V, T, H, W]."""

        def some(view: int) -> int:
            opaque, blended = self._bins[self._grid.samples]
            return kernels.draw(
                *self._scene_and_views(scene, queue, view, self._grid), opaque, blended, CLEAR, self._work,
                images, t,
            )  # fmt: skip

        self._all_views(some)

    def survey(self, scene: Scene, queue: np.ndarray, following: np.ndarray, surface: np.ndarray) -> None:
        """Draw the surface of the views in a queue into float32 [V, H, W, 8]."""

        def some(view: int) -> int:
            opaque, _ = self._bins[self._pixel_grid.samples]
            return kernels.survey(
                *self._scene_and_views(scene, queue, view, self._pixel_grid), opaque, following, self._pixel_work,
                surface,
            )  # fmt: skip

        self._all_views(some)

    def _scene_and_views(self, scene: Scene, queue: np.ndarray, view: int, grid: Grid) -> tuple:
        """Return the arguments that `kernels.draw` and `kernels.survey` have in common."""
        # The box of a triangle may be smaller by the distance of samples from the edge of their pixels.
        margin = float(grid.inside.min()) - _ROUNDING
        return (
            scene.mesh, scene.materials, self._views, queue, view, scene.radius, scene.first_blended, grid, margin,
            self._columns(grid), self._records, self._lists,
        )  # fmt: skip

    def _all_views(self, some: Callable[[int], int]) -> None:
        """Call a kernel, given the view to begin with, until it returns the number of views.

        When it returns another one, there was not enough memory for what the view requires.
        """
        view = -1
        while (view := some(view)) < len(self._views.eyes):
            required = self._lists.required.tolist()
            self._reserve(*(max(pair) for pair in zip(self._room, required, strict=True)))


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
        reach=np.array([offsets.min(), offsets.max()], np.float32),
        places=places.astype(np.uint32),
        filter=FILTER,
    )


def _work(grid: Grid, orders: int) -> Work:
    rows = aligned_zeros(ROWS * STRIDE, np.float32)
    rows[:] = 1.0  # those of no fragment are shaded, too
    pixels = grid.tile_width * grid.tile_height
    samples = pixels * grid.samples
    return Work(
        depths=aligned_zeros(samples, np.int32),
        ids=aligned_zeros(samples, np.int32),
        colors=aligned_zeros(4 * samples, np.float32),
        sums=aligned_zeros(4 * pixels, np.float32),
        found=aligned_zeros(16, np.int32),
        bytes=aligned_zeros(16, np.uint32),
        triangles=aligned_zeros(STRIDE, np.uint32),
        coverage=aligned_zeros(STRIDE, np.uint32),
        sorted_triangles=aligned_zeros(STRIDE, np.uint32),
        sorted_coverage=aligned_zeros(STRIDE, np.uint32),
        slots=aligned_zeros(STRIDE, np.uint32),
        tally=aligned_zeros(orders + 1, np.int64),
        layers=aligned_zeros((LAYERS + 1) * LAYER, np.float32),
        layer_blocks=aligned_zeros(LAYERS, np.uint32),
        layer_masks=aligned_zeros(LAYERS, np.uint32),
        corners=aligned_zeros(3 * STRIDE, np.uint32),
        materials=aligned_zeros(STRIDE, np.uint32),
        alphas=aligned_zeros((CHUNK, 16), np.float32),
        rows=rows,
        planes=aligned_zeros((4, 3), np.float32),
        batch=aligned_zeros(16, np.uint32),
        prepared=aligned_zeros(17 * 16, np.float32),
        owners=aligned_zeros(16, np.uint32),
        first_samples=aligned_zeros(16, np.int32),
        touched=aligned_zeros(4, np.int64),
        rests=aligned_zeros(16 * 4 * 16, np.float32),
        block_corners=aligned_zeros(16 * 4 * 16, np.float32),
    )


def _lists(records: int, vertices: int) -> Lists:
    return Lists(
        screen=aligned_zeros((vertices, 4), np.float32),
        order=np.empty((2, records), np.uint32),
        keys=np.empty((2, records), np.uint64),
        digits=np.empty((6, 2048), np.int32),
        required=np.zeros(2, np.int64),
    )


def _records(room: int, triangles: int) -> Records:
    return Records(
        points=aligned_zeros((room, 12), np.float32),
        boxes=np.empty((room, 4), np.int32),
        owners=np.empty(room, np.uint32),
        facing=np.ones(triangles, np.int8),
        polygon=np.empty((4, 3), np.float32),
        lanes=aligned_zeros(64, np.int32),
        layer_starts=np.zeros(room, np.int32),
        layer_counts=np.zeros(room, np.int32),
    )
