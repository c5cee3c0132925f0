"""`fit`: the motion of a still model that given videos show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from renderers.arguments import array, instance, shown
from renderers.cameras import Cameras
from renderers.gltf import Asset, Pose
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.graph import GraphPose, make_graph
from zoo.animate3d.limits import METHODS
from zoo.animate3d.mending import mend, polish
from zoo.animate3d.motion import GraphMotion
from zoo.animate3d.rivals import contested
from zoo.animate3d.solver import STIFFNESS, Problem
from zoo.animate3d.surface import make_surface
from zoo.animate3d.tracking import measure, track
from zoo.animate3d.views import make_views
from zoo.threads import fitting_threads

if TYPE_CHECKING:
    from zoo.animate3d.paper import PaperSettings
    from zoo.animate3d.refine import RefineSettings
    from zoo.mvvdm.pipeline import MVVDMPipeline

    Guide = tuple[MVVDMPipeline, str] | tuple[MVVDMPipeline, str, RefineSettings]

NODES = 150
# Residual of a frame whose pose should not be trusted. Chosen on the 20 clips of `benchmarks.animate`: at least 8 of 15
# frames exceed it in each of the 5 clips with an error above 20 %, none in 7 clips, and 1 to 13 frames in the others.
DOUBTFUL = 0.14
# `mend`: the energy of bad frames, and passes over them, which take up to a minute each. "best" takes more time.
_MENDED = {"graph": (0.05, 2), "best": (0.015, 4)}
# About the shares of the time after which tracking, then polishing end and mending begins.
_TRACKED, _POLISHED = 0.6, 0.7
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fit:
    """The result of `fit`.

    Attributes:
        motion: in the coordinates of `Asset.positions`; frame 0 is the still model exactly.
        residual: float64 [T], difference of the model's images to the videos as a share of the still model's difference
            in the frame where that is largest; 0 is a perfect fit, 1 is no better than no motion.
        doubtful: bool [T], frames after the first whose residual exceeds `DOUBTFUL`, or that are contested.
        node_residual: float64 [T, K], root mean square difference, in intensities 0-1, of the pixels that each node
            moves; NaN for nodes that no view shows.
        contested: bool [T], of "best": another motion, far from this one, shows the frame nearly as well
            (`zoo.animate3d.rivals`).
        methods: [T], the method that found each frame: that of the fit, or for "best" one of the two others.
    """

    motion: GraphMotion
    residual: np.ndarray
    node_residual: np.ndarray
    doubtful: np.ndarray
    contested: np.ndarray
    methods: tuple[str, ...]


def fit(
    asset: Asset,
    videos: np.ndarray,
    cameras: Cameras,
    times: np.ndarray,
    *,
    stiffness: str = "rendered",
    still: Pose | None = None,
    nodes: int = NODES,
    method: str = "graph",
    settings: PaperSettings | None = None,
    guide: Guide | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit the motion of a deformation graph on a model to videos of it.

    Args:
        asset: the model.
        videos: uint8, or float in 0-1, [V, T, H, W, 4], straight RGBA, sRGB-encoded, one video per camera, V >= 1 and
            T >= 2. Frame 0 shows the still model.
        cameras: the V cameras, in the coordinates of `Asset.positions` (metres, relative to `Asset.origin(None)`).
        times: float [T], seconds, increasing.
        stiffness: "rendered" for rendered or measured videos, "generated" for videos of a generative model, whose views
            disagree: ten times as stiff.
        still: the still model; None is the asset's rest pose.
        nodes: number of nodes of the graph.
        method: "graph", photometric Gauss-Newton on the graph, or "paper", the Gaussians and the HexPlane field of
            Animate3D (`zoo.animate3d.paper`), whose motion the graph takes over, or "best", which takes each frame from
            that of the two whose energy is lower, and fits bad ones again (`zoo.animate3d.mending.mend`).
        settings: of method "paper", which "best" uses too.
        guide: a video model and a sentence, by which the result is refined (4D-SDS, `zoo.animate3d.refine`), and
            optionally the settings of that.
        progress: called with (frames done, T), in which the last steps of the fit have a share: (T, T) is its end.

    Raises:
        TypeError, ValueError: an argument has another type, shape or value.
    """
    videos, times = _check(asset, videos, cameras, times, stiffness, still)
    if method not in METHODS:
        raise ValueError(f"fit: method: expected one of {', '.join(METHODS)}, got {shown(method)}")
    if settings is not None:
        from zoo.animate3d.paper import PaperSettings

        instance(settings, PaperSettings, "fit: settings")
        if method == "graph":
            raise ValueError(
                f"fit: settings: expected None, as method {method} has none, got {shown(settings)}"
            )
    # The systems of equations have 900 unknowns. On more than one thread, BLAS mostly waits: ten times the CPU time.
    with threadpool_limits(limits=1, user_api="blas"):
        surface = make_surface(asset, asset.pose(None, 0.0) if still is None else still)
        views = make_views(videos, cameras, surface.centre, surface.scale)
        graph = make_graph(surface, nodes)
        problem = Problem(surface, graph, views, calibrate(surface, views), STIFFNESS[stiffness])
        return _result(problem, *_poses(problem, method, settings, guide, progress), times)


def _poses(
    problem: Problem,
    method: str,
    settings: PaperSettings | None,
    guide: Guide | None,
    progress: Progress | None,
) -> tuple[list[GraphPose], list[str], np.ndarray]:
    """The poses that a method finds, the method that found each, and which are contested."""
    undisputed = np.zeros(len(problem.views.frames), bool)
    if method == "graph" and guide is None:
        return _graph(problem, progress), [method] * len(undisputed), undisputed
    from zoo.animate3d.paper import track_field
    from zoo.animate3d.refine import refined

    with fitting_threads():
        if method == "best":
            poses, methods, disputed = _best(problem, settings, progress)
        else:
            found = (
                _graph(problem, progress) if method == "graph" else track_field(problem, progress, settings)
            )
            poses, methods, disputed = found, [method] * len(found), undisputed
        return poses if guide is None else refined(problem, poses, *guide), methods, disputed


def _graph(problem: Problem, progress: Progress | None) -> list[GraphPose]:
    """The poses of method `graph`. If the videos are right, they are polished, and those that remain bad mended."""
    if not problem.stiffness.softens:
        return track(problem, progress)
    poses = track(problem, _part_of(progress, 0, _TRACKED))
    poses = polish(problem, poses, _part_of(progress, _TRACKED, _POLISHED))
    poses = mend(problem, [poses], *_MENDED["graph"], _part_of(progress, _POLISHED, 1))[0]
    _end(progress, poses)
    return poses


def _best(
    problem: Problem, settings: PaperSettings | None, progress: Progress | None
) -> tuple[list[GraphPose], list[str], np.ndarray]:
    """In each frame, the pose of method `graph` or `paper` that has the lower energy once both are polished.

    Frames that remain bad are fitted again (`mend`), and count as found by `graph`, whose Gauss-Newton does this.
    Returns the poses, the method that found each, and which are contested.
    """
    from zoo.animate3d.paper import PaperSettings, track_field

    graph = _graph(problem, _part_of(progress, 0, 0.3))
    unpolished = replace(settings or PaperSettings(), polish=False)
    paper = track_field(problem, _part_of(progress, 0.3, 0.6), unpolished)
    motions = [polish(problem, each) for each in (graph, paper)]
    poses, chosen = mend(problem, motions, *_MENDED["best"], _part_of(progress, 0.6, 1))
    _end(progress, poses)
    methods = ["paper" if index == 1 else "graph" for index in chosen]
    return poses, methods, contested(problem, poses, motions)


def _part_of(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Progress of a part of the fit, from a share of the whole to another."""
    if progress is None:
        return None
    return lambda done, total: progress(int(begin * total + (end - begin) * done + 1e-9), total)


def _end(progress: Progress | None, poses: list[GraphPose]) -> None:
    """Say that nothing is left, once: passes over bad frames end before they reach all frames."""
    if progress is not None:
        progress(len(poses), len(poses))


def _result(
    problem: Problem, poses: list[GraphPose], methods: list[str], disputed: np.ndarray, times: np.ndarray
) -> Fit:
    """The poses as a motion, and their residuals."""
    residual = measure(problem, poses)
    doubtful = (residual.frames > DOUBTFUL) | disputed
    doubtful[0] = False  # the still model itself
    motion = _motion(problem, poses, times)
    return Fit(motion, residual.frames, residual.nodes, doubtful, disputed, tuple(methods))


def _motion(problem: Problem, poses: list[GraphPose], times: np.ndarray) -> GraphMotion:
    """The poses in the coordinates of the asset, with the weights of its own vertices."""
    surface, graph = problem.surface, problem.graph
    rotations = np.array([pose.rotations for pose in poses])
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat(canonical=True, scalar_first=True)
    quaternions = quaternions.reshape(*rotations.shape[:2], 4)
    for before, after in pairwise(quaternions):
        after[(before * after).sum(-1) < 0] *= -1  # the shorter way, for interpolation
    return GraphMotion(
        nodes=graph.centres * surface.scale + surface.centre,
        positions=np.array([pose.positions for pose in poses]) * surface.scale + surface.centre,
        rotations=quaternions,
        vertex_nodes=graph.point_nodes[surface.vertices].astype(np.int64),
        vertex_weights=graph.point_weights[surface.vertices],
        times=times,
    )


def _check(
    asset: Asset, videos: np.ndarray, cameras: Cameras, times: np.ndarray, stiffness: str, still: Pose | None
) -> tuple[np.ndarray, np.ndarray]:
    """Validate the arguments of `fit`: the videos as float32 and the times as float64."""
    instance(asset, Asset, "fit: asset")
    if still is not None:
        instance(still, Pose, "fit: still")
        array(still.positions, "fit: still.positions", (asset.num_vertices, 3))
    if stiffness not in STIFFNESS:
        raise ValueError(f"fit: stiffness: expected one of {', '.join(STIFFNESS)}, got {stiffness!r}")
    return check_videos("fit", videos, cameras, times)


def check_videos(
    function: str, videos: np.ndarray, cameras: Cameras, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Validate videos, their cameras and times: the videos as float32 and the times as float64.

    Raises:
        TypeError, ValueError: see `fit`; the message begins with the function's name.
    """
    instance(cameras, Cameras, f"{function}: cameras")
    instance(videos, np.ndarray, f"{function}: videos")
    if (
        videos.ndim != 5
        or videos.shape[-1] != 4
        or not (videos.dtype == np.uint8 or videos.dtype.kind == "f")
    ):
        raise ValueError(
            f"{function}: videos: expected uint8 or float [V, T, H, W, 4], got {videos.dtype} {list(videos.shape)}"
        )
    size = (len(cameras), cameras.height, cameras.width)
    if (videos.shape[0], *videos.shape[2:4]) != size or not size[0] or videos.shape[1] < 2:
        raise ValueError(
            f"{function}: videos: expected {size[0]} videos of {size[2]}×{size[1]} pixels, one per camera, with at "
            f"least 2 frames, got {videos.shape[0]} of {videos.shape[3]}×{videos.shape[2]} with {videos.shape[1]} "
            f"frames"
        )
    videos = videos / np.float32(255) if videos.dtype == np.uint8 else videos.astype(np.float32)
    if not np.isfinite(videos).all() or videos.min() < 0 or videos.max() > 1:
        raise ValueError(f"{function}: videos: expected finite values from 0 to 1")
    times = array(times, f"{function}: times", ("T",))
    if len(times) != videos.shape[1] or (np.diff(times) <= 0).any():
        raise ValueError(
            f"{function}: times: expected {videos.shape[1]} increasing seconds, one per frame, got {len(times)}"
        )
    return videos, times
