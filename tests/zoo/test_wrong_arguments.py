"""Wrong arguments of all public functions of the zoo and the renderers: one sentence of ours that names the argument.

`TABLE` has a good call of each function and, for each argument, values that it must refuse; `SAME` has integers and
numbers of other types, which must give the same result. A refusal must be raised in our own code, so that the last line
of the traceback is ours, and leave no file.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_dimo import SENTENCES, tiny_dimo, tiny_pipeline
from tiny_gltf import moving
from tiny_motions import tiny_config, tiny_videos
from wrong_arguments import (
    HUGE,
    META,
    NAN,
    NO_PATH,
    NO_TEXT,
    Case,
    complaint,
    ints,
    numbers,
    orbit,
    plain,
    wrong_calls,
)

import renderers
import renderers.cameras
import renderers.gaussians
import renderers.gltf
import renderers.meshes
import zoo
import zoo.dimo
import zoo.export
import zoo.metrics
from renderers import cameras, gltf, meshes, video
from renderers.gaussians import Gaussians, TensorCameras, ply, render
from zoo.dimo import DIMO
from zoo.dimo.config import LatentFit


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> dict[str, Case]:
    """Name → case, of every public function."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "a-file").write_text("a file")
    return (
        camera_cases() | splat_cases(folder) | mesh_cases(folder) | motion_cases() | model_cases(folder)
        | metric_cases() | export_cases(folder) | zoo_cases(folder)
    )  # fmt: skip


def camera_cases() -> dict[str, Case]:
    eye, K = np.eye(4)[None], np.eye(3)[None]
    orbiting = {
        "azimuths": [0.0, 1.0],
        "elevations": 0.2,
        "distance": 2.0,
        "fov_y": 0.6,
        "width": 8,
        "height": 8,
    }
    sizes = {"width": ints(0, -1, HUGE, None), "height": ints(0, -1, HUGE, None)}
    counts = {"width": [np.int64(8), np.uint8(8), torch.tensor(8)], "height": [np.int32(8)]}
    lens = numbers(0, -1, 4.0, None)
    views = [None, 5, "orbit", eye]
    return {
        "Cameras": Case(
            cameras.Cameras,
            {"world_to_camera": eye, "K": K, "width": 8, "height": 8},
            {
                "world_to_camera": [None, "x", eye[0], eye[:, :3], NAN * eye, [[1], [1, 2]], eye * 1j],
                "K": [None, K[0], K * NAN, np.tile(K, (2, 1, 1)), "x"],
                **sizes,
            },
            counts,
        ),
        "Cameras.__getitem__": Case(
            lambda views: orbit()[views],
            {"views": 0},
            {"views": [2, -3, 0.5, "0", [5], [0.5], np.array([True] * 3), (0, 1)]},
            {"views": [np.int64(0), [0], slice(0, 1), [True, False]]},
        ),
        "Cameras.project": Case(
            orbit().project,
            {"points": np.zeros((4, 3))},
            {"points": [None, "x", np.zeros((4, 2)), 5, [[1], [1, 2]], ["a"] * 3]},
        ),
        "intrinsics": Case(
            cameras.intrinsics, {"fov_y": 0.6, "width": 8, "height": 8}, {"fov_y": lens, **sizes}, counts
        ),
        "orbit_rotations": Case(
            cameras.orbit_rotations,
            {"azimuths": [0.0, 1.0], "elevations": 0.2},
            {"azimuths": ["x", None, [NAN], [[0.0]], 1j], "elevations": ["x", None, NAN, [0.1] * 3]},
        ),
        "orbit_cameras": Case(
            cameras.orbit_cameras,
            orbiting,
            {
                "azimuths": ["x", None, [NAN]],
                "elevations": ["x", NAN, [0.1] * 3],
                "distance": numbers(0, -1, None),
                "fov_y": lens,
                **sizes,
            },
            counts,
        ),
        "to_opengl": Case(
            cameras.to_opengl, {"world_to_camera": eye}, {"world_to_camera": [None, "x", eye[:, :3], 5]}
        ),
        "opengl_projection": Case(
            cameras.opengl_projection,
            {"cameras": orbit(), "near": 0.1, "far": 10.0},
            {"cameras": views, "near": numbers(0, -1, None), "far": numbers(0.1, 0.05, None)},
        ),
        "mvvdm_camera_vectors": Case(cameras.mvvdm_camera_vectors, {"cameras": orbit()}, {"cameras": views}),
    }


def splat_cases(folder: Path) -> dict[str, Case]:
    splats = tiny_pipeline().motion(0).at([0.0, 0.5]).gaussians()
    view = TensorCameras.from_cameras(orbit())
    good = {
        "gaussians": splats,
        "cameras": view,
        "background": None,
        "want": ("rgb",),
        "eps2d": 0.3,
        "antialiased": False,
    }
    spoilt = [
        Gaussians(splats.means * NAN, splats.quats, splats.scales, splats.opacities, splats.colors),
        Gaussians(splats.means[..., :2], splats.quats, splats.scales, splats.opacities, splats.colors),
        Gaussians(splats.means, splats.quats[:, :5], splats.scales, splats.opacities, splats.colors),
        Gaussians(splats.means, splats.quats, -splats.scales, splats.opacities, splats.colors),
        Gaussians(splats.means, splats.quats, splats.scales, 2 * splats.opacities, splats.colors),
    ]  # fmt: skip
    ply.write(folder / "splats.ply", splats)
    names = "means|quats|scales|opacities"

    def splat(gaussians: Any, **options: Any) -> Any:
        return render(gaussians, **options).rgb

    return {
        "render": Case(
            splat,
            good,
            {
                "gaussians": [None, 5, splats.means, view],
                "cameras": [None, 5, orbit(), splats, view.viewmats],
                "eps2d": numbers(-1, None),
                "antialiased": [None, 1, "yes", 0.5],
                "want": [None, "x", (), ("rgb", 5), 5, ([],)],
                "sh_degree": [0, 1],
                f"gaussians ({names})": [*spoilt, splats.to("meta"), splats.to(torch.float16)],
                "cameras (viewmats|Ks|width|height)": [
                    view.to("meta"),
                    view.to(torch.float64),
                    TensorCameras(view.viewmats * NAN, view.Ks, 8, 8),
                    TensorCameras(view.viewmats, view.Ks, 8.0, 8),
                    TensorCameras(view.viewmats, view.Ks, 8, HUGE),
                    TensorCameras(view.viewmats[0], view.Ks, 8, 8),
                    TensorCameras(view.viewmats, -view.Ks, 8, 8),
                ],
            },
            {
                "eps2d": [np.float64(0.3), torch.tensor(0.3, dtype=torch.float64)],
                "cameras": [TensorCameras(view.viewmats, view.Ks, np.int64(8), torch.tensor(8))],
                "want": [["rgb"], "rgb"],
            },
        ),
        "TensorCameras.from_cameras": Case(
            TensorCameras.from_cameras,
            {"cameras": orbit()},
            {"cameras": [None, 5, [], [5], "x", [orbit(), orbit(3)], view]},
        ),
        "Rendered.output": Case(
            lambda name: render(splats, view).output(name),
            {"name": "rgb"},
            {"name": ["depth", "flow", None, 5, "output"]},
        ),
        "set_threads": Case(renderers.gaussians.set_threads, {"count": None}, {"count": ints(0, -1, HUGE)}),
        "ply.write": Case(
            ply.write,
            {"path": "out.ply", "gaussians": splats, "scene": 0, "up": "y"},
            {
                "path": [*NO_PATH, None],
                "gaussians": [None, 5, splats.means],
                "scene": ints(2, -3, HUGE, None),
                "up": ["z", 5, b"y"],
                f"gaussians ({names})": [*spoilt, splats.to("meta")],
            },
            {"scene": [np.int64(0), -2, torch.tensor(0)]},
        ),
        "ply.read": Case(
            ply.read,
            {"path": folder / "splats.ply"},
            {
                "path": [*NO_PATH, None],
                "up": ["z", 5, b"y"],
                "device": ["nowhere", 1.5, "meta", None],
                "path (nowhere|a-file|table)": ["nowhere.ply", folder / "a-file", folder],
            },
        ),
    }


def mesh_cases(folder: Path) -> dict[str, Case]:
    data = moving("translation", [0.0, 1.0], [[0, 0, 0], [1, 0, 0]]).glb()
    asset = gltf.load(data)
    (folder / "moving.glb").write_bytes(data)
    shot = {"animation": 0, "timestamps": np.zeros(1), "asset_to_world": np.eye(4), "cameras": orbit(1)}
    clip = meshes.RenderedClip(np.zeros((1, 1, 4, 4, 4), np.uint8), orbit(1, 4), np.zeros(1), "test")
    rgba = [None, 5, "x", clip.frames[..., :3], clip.frames.astype(float), clip.frames.tolist(), np.uint8(1)]
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    pose = {"animation": 0, "time": 0.5, "closed": False}
    bad_pose = {
        "animation": ints(1, -1, HUGE),
        "time": numbers(None),
        "closed": [None, 1, "x"],
    }
    same_pose = {"animation": [np.int64(0), torch.tensor(0)], "time": [np.float64(0.5), torch.tensor(0.5)]}
    backgrounds = ["white", (1, 1, 1), (0.5, 1, 1), (300, 0, 0), (NAN,) * 3, (0.5, 0.5), True]
    return {
        "gltf.load": Case(
            gltf.load,
            {"source": data},
            {
                "source": [None, 5, ["x"], 1.5],
                "name": [5, b"x"],
                "limits": [5, {}, "x"],
                "root": NO_PATH,
                "source (nowhere|a-file|table|in memory)": [
                    "nowhere.glb",
                    folder / "a-file",
                    folder,
                    b"",
                    b"glTF",
                    b"x" * 99,
                ],
            },
        ),
        "gltf.Limits": Case(
            gltf.Limits,
            {"nodes": 5},
            {"nodes": ints(-1, None), "vertices": ints(-1), "file_bytes": ["1", 1.5]},
            {"nodes": [np.int64(5)]},
        ),
        "Asset.pose": Case(asset.pose, pose, bad_pose, same_pose),
        "Asset.positions": Case(asset.positions, pose, bad_pose, same_pose),
        "Asset.origin": Case(asset.origin, {"animation": 0}, {"animation": ints(1, -1)}),
        "gltf.identify": Case(
            gltf.identify, {"head": b"PK"}, {"head": [None, 5, "PK"], "name": [None, 5, b"x"]}
        ),
        "gltf.format_of_suffix": Case(gltf.format_of_suffix, {"name": "a.fbx"}, {"name": [*NO_TEXT, folder]}),
        "gltf.find_file": Case(
            gltf.find_file,
            {"uri": "moving.glb", "folder": folder, "root": folder},
            {"uri": NO_TEXT, "folder": ["x", None, 5], "root": ["x", None, 5]},
        ),
        "RenderSettings": Case(
            meshes.RenderSettings,
            {"samples": 4},
            {
                "samples": ints(0, 3, -4, None),
                "tracks": ints(-1, None),
                "track_seed": ints(-1, None),
                "depth": [None, 1, "yes"],
                "normals": [0, 1.0],
                "flow": ["x"],
            },
            {"samples": [np.int64(4), torch.tensor(4)]},
        ),
        "Shot": Case(
            meshes.Shot,
            shot,
            {
                "animation": ints(-1),
                "timestamps": [None, "x", [], [NAN], [[0.0]], 0.5],
                "cameras": [None, 5, [orbit(1)]],
                "asset_to_world": [None, "x", np.eye(3), NAN * np.eye(4), 5],
                "closed": [None, 1],
                "turntable": numbers(None),
            },
            {"animation": [np.int64(0)]},
        ),
        "render_clip": Case(
            meshes.render_clip,
            {"asset": asset, "shot": meshes.Shot(**shot), "backend": "opengl"},
            {
                "asset": [None, 5, "fox.glb", data],
                "shot": [None, 5, shot],
                "settings": [5, {"samples": 4}, "x"],
                "backend": [None, 5, "", "directx", ["opengl"]],
            },
        ),
        "renderer": Case(
            meshes.renderer, {"backend": "opengl"}, {"backend": [None, 5, "", "directx", ["opengl"]]}
        ),
        "RenderedClip.over": Case(clip.over, {"background": 255}, {"background": backgrounds}),
        "composite": Case(
            meshes.composite,
            {"frames": clip.frames, "background": 255},
            {"frames": rgba, "background": backgrounds},
        ),
        "composite_in_place": Case(
            meshes.composite_in_place,
            {"frames": clip.frames.copy(), "background": 255},
            {"frames": [*rgba, np.zeros((4, 4, 8), np.uint8)[..., ::2]], "background": backgrounds},
        ),
        "encode_h264": Case(
            video.encode_h264,
            {"frames": frames, "fps": 24, "crf": 18, "gop": 8, "preset": "veryfast"},
            {
                "frames": [
                    None,
                    5,
                    "x",
                    frames[0],
                    frames[:0],
                    frames.astype(float),
                    frames[:, :7],
                    frames[..., :2],
                    frames[:, :0],
                    torch.from_numpy(frames),
                    frames.tolist(),
                ],
                "fps": numbers(0, -1, 1e-9, 1e9, None),
                "crf": ints(-1, 52, None),
                "gop": ints(0, -1, None),
                "preset": [None, 5, "", "fastest"],
            },
            {
                "fps": [24.0, np.int64(24), np.float32(24), torch.tensor(24)],
                "crf": [np.int64(18)],
                "gop": [np.uint8(8)],
            },
        ),
    }


def motion_cases() -> dict[str, Case]:
    egg = tiny_pipeline()
    motion, view = egg.motion(0), orbit(1)
    phases = [
        -0.1,
        1.5,
        NAN,
        [],
        "x",
        [0.1, "x"],
        {},
        [[0.1], [0.2, 0.3]],
        True,
        1j,
        torch.zeros(1, device="meta"),
    ]
    same_phases = [np.float64(0.5), torch.tensor(0.5), [0.5], np.array([0.5])]
    latents = [torch.zeros(7), torch.zeros(1, 8), torch.full((8,), NAN), torch.zeros(8, device="meta"), ["x"] * 8,
               "x", [], [0.0] * 9, np.zeros(8) * 1j, [None] * 8]  # fmt: skip
    frames = ints(0, -1, HUGE)
    missing = [6, -7, "flies", "", HUGE]
    return {
        "Motion.at": Case(motion.at, {"phases": 0.5}, {"phases": [*phases, None]}, {"phases": same_phases}),
        "Motion.gaussians": Case(motion.gaussians, {"phase": 0.5}, {"phases": []}, {"phase": same_phases}),
        "Motion.resampled": Case(
            motion.resampled,
            {"frames": 3},
            {"frames": [*frames, None]},
            {"frames": [np.int64(3), torch.tensor(3)]},
        ),
        "Motion.render": Case(
            motion.render,
            {"cameras": view, "phases": [0.5], "background": 1.0},
            {
                "cameras": [None, 5, "front", [], [view]],
                "phases": phases,
                "background": ["white", (1, 1, 1), (0.5, 1, 1), (300, 0, 0), (NAN,) * 3, (0.5, 0.5), True],
            },
            {
                "phases": same_phases,
                "background": [255, (255, 255, 255), np.ones(3)],
                "cameras": [TensorCameras.from_cameras(view)],
            },
        ),
        "Motion.default_camera": Case(
            motion.default_camera,
            {"resolution": 8},
            {"resolution": ints(0, -1, HUGE, None)},
            {"resolution": [np.int64(8)]},
        ),
        "Motion.animation": Case(
            motion.animation, {"detail": 8}, {"detail": ints(0, -1, HUGE, None)}, {"detail": [np.int16(8)]}
        ),
        "DIMOPipeline.sample": Case(
            egg.sample,
            {"z": 7, "frames": 3},
            {"z": [*latents, 5.5, 7.0, NAN, True, HUGE, META, np.float32(7), 1j], "frames": frames},
            {"z": [np.int64(7), torch.tensor(7), np.uint8(7)], "frames": [np.int64(3)]},
        ),
        "DIMOPipeline.draw": Case(
            egg.draw, {"seed": 7}, {"seed": ints(HUGE, -HUGE, None)}, {"seed": [np.int64(7)]}
        ),
        "DIMOPipeline.motion": Case(
            egg.motion,
            {"which": 1},
            {"which (which|motion)": [*ints(None), *missing]},
            {"which": [np.int64(1), torch.tensor(1), -5]},
        ),
        "DIMOPipeline.index": Case(
            egg.index,
            {"which": 1},
            {"which (which|motion)": [*ints(None), *missing]},
            {"which": [np.int8(1), "hops forward twice"]},
        ),
        "DIMOPipeline.interpolate": Case(
            egg.interpolate,
            {"a": 0, "b": 1, "steps": 2},
            {
                "a (which|motion)": [None, 5.5, 6, "flies"],
                "b (which|motion)": [None, 5.5, 6, b"x"],
                "steps": ints(0, 1, -1, HUGE, None),
            },
            {"a": [np.int64(0), motion], "steps": [np.int64(2)]},
        ),
        "DIMOPipeline.from_text": Case(
            lambda sentence: egg.from_text(sentence),
            {},
            {"sentence": NO_TEXT, "text head": [{"sentence": "hops"}]},
        ),
    }


def model_cases(folder: Path) -> dict[str, Case]:
    (data := folder / "motions").mkdir()
    videos, config = tiny_videos(data, resolution=16), tiny_config()
    model, egg = tiny_dimo(), tiny_pipeline()
    small = DIMO(
        tiny_config(
            gaussians=20, key_points=4, width=8, fit=LatentFit(steps=1, batch=(1, 1), resolutions=((0, 16),))
        ),
        3,
    )
    small.refresh()
    frames = np.zeros((2, 5, 16, 16, 4), np.uint8)
    view = orbit(2, 16)
    reading = {"motions": [0], "views": [0], "frames": [0], "resolution": 8}
    indices = [None, 5, "0", [0.5], [99], [-99], ["a"], [None], {}]
    index_same = [[np.int64(0)], np.array([0]), (0,)]
    devices = ["nowhere", 1.5, "cuda:99", "meta", True, None, b"cpu", ""]
    return {
        "DIMO": Case(
            lambda **options: DIMO(**options).num_motions,
            {"config": model.config, "num_motions": 2},
            {
                "config": [None, 5, {}],
                "num_motions": ints(0, -1, None),
                "num_gaussians": ints(-1),
                "num_key_points": ints(0),
            },
            {"num_motions": [np.int64(2)]},
        ),
        "MotionVideos.open": Case(
            zoo.dimo.MotionVideos.open,
            {"folder": data},
            {
                "folder": [*NO_PATH, None],
                "folder (nowhere|a-file|table)": ["nowhere", folder / "a-file", folder],
            },
        ),
        "MotionVideos.read": Case(
            videos.read,
            reading,
            {"motions": indices, "views": indices, "frames": indices, "resolution": ints(0, -1, 17, HUGE)},
            {"motions": index_same, "views": index_same, "frames": index_same, "resolution": [np.int64(8)]},
        ),
        "MotionVideos.cameras": Case(
            videos.cameras,
            {"motions": [0], "views": [0], "frames_count": 2, "resolution": 8},
            {"motions": indices, "views": indices, "frames_count": ints(0, None), "resolution": ints(0, -1)},
            {"motions": index_same, "frames_count": [np.int64(2)]},
        ),
        "MotionVideos.points": Case(
            videos.points, {"motion": 0}, {"motion": ints(99, -99, None)}, {"motion": [np.int64(0)]}
        ),
        "MotionVideos.select": Case(
            lambda motions: videos.select(motions).names,
            {"motions": [0]},
            {"motions": [None, 5, 0.5, {0: 1}, [0.5], [99], [None]], "split": [{"motions": "test"}]},
            {"motions": index_same},
        ),
        "write_motion": Case(
            zoo.dimo.write_motion,
            {"folder": ".", "stem": "a", "frames": frames, "points": np.zeros((5, 4, 3))},
            {
                "folder": [*NO_PATH, None, "nowhere"],
                "stem": [None, 5, "a/b", "../a", b"a"],
                "frames": [None, 5, "x", frames[0], frames.astype(float), frames[..., :3], frames[:, :, :8]],
                "points": ["x", np.zeros((4, 4, 3)), np.full((5, 4, 3), NAN), np.zeros((5, 4, 2)), 5],
            },
        ),
        "evaluate": Case(
            lambda **options: zoo.dimo.evaluate(**options)["psnr"],
            {"model": small, "videos": videos, "every": 5, "views": [0], "resolution": 8},
            {
                "model": [None, 5, egg],
                "videos": [None, 5, data],
                "every": ints(0, -1, None),
                "resolution": ints(0, -1),
                "views": indices[1:],
                "latents": [5, "x", torch.zeros(3, 3), torch.zeros(2, 4), torch.zeros(3, 4, device="meta")],
            },
            {"every": [np.int64(5)], "resolution": [np.int64(8)]},
        ),
        "fit_latent": Case(
            zoo.dimo.fit_latent,
            {"model": small, "videos": videos.select([0]), "steps": 0, "seed": 0},
            {
                "model": [None, 5, egg],
                "videos": [None, 5, data, frames],
                "steps": ints(-1),
                "seed": ints(-1, None),
                "starts": [5, "x", small.mu[0], small.mu[:0], small.mu[:, :-1], small.mu * torch.nan],
            },
            {"steps": [np.int64(0)], "seed": [np.int64(0)], "starts": [small.mu]},
        ),
        "dimo.train": Case(
            lambda **options: zoo.dimo.train(**({"videos": videos, "config": config} | options)),
            {},
            {
                "videos": [None, 5, data, frames],
                "config": [None, 5, {}],
                "seed": ints(-1, None),
                "save_every": ints(0, None),
                "checkpoint": [5, b"x", ""],
                "device": devices,
            },
        ),
        "train_text_head": Case(
            lambda **options: zoo.dimo.train_text_head(**({"sentences": list(SENTENCES)} | options)),
            {},
            {
                "sentences": [None, 5, "hops", [], [None], [5]],
                "paraphrases": ["hops", 5, [["a"]], [5] * 6, [[5]] * 6],
                "latents": ["hops", [[0.0]], torch.zeros(6), torch.zeros(2, 4)],
                "steps": ints(-1, None),
                "seed": ints(-1, None),
            },
        ),
        "DIMOPipeline.reconstruct": Case(
            lambda **options: egg.reconstruct(**({"videos": frames, "cameras": view, "steps": 1} | options)),
            {},
            {
                "videos (videos|frames)": [
                    None,
                    5,
                    "x",
                    frames[0],
                    frames.astype(float),
                    frames[..., :3],
                    frames[:1],
                    frames[:, :, :8],
                ],
                "cameras": [None, 5, [view], orbit(3, 16), orbit(2, 8), TensorCameras.from_cameras(view)],
                "steps": ints(-1),
                "seed": ints(-1, None),
            },
        ),
    }


def metric_cases() -> dict[str, Case]:
    image, frames, grey = torch.rand(2, 12, 12, 3), torch.rand(2, 3, 3, 16, 16), torch.rand(2, 16, 16)
    depth, flow, mask = torch.ones(2, 3, 16, 16), torch.rand(2, 2, 2, 16, 16), torch.ones(2, 2, 16, 16)
    points, graph = torch.rand(2, 3, 5, 3), torch.arange(5)[:, None]
    view = orbit(2, 16)

    def no(tensor: torch.Tensor, *more: Any) -> list[Any]:
        """Values of another type, shape or device than a tensor."""
        return [
            None,
            5,
            "x",
            tensor.numpy(),
            tensor[..., :-1],
            tensor[None],
            tensor.to("meta"),
            tensor * 1j,
            *more,
        ]

    def pair(function: Callable[..., Any], tensor: torch.Tensor, *more: Any) -> Case:
        names = list(function.__code__.co_varnames[:2])
        whole = tensor.to(torch.uint8) if more == ("floats",) else None
        bad = [*no(tensor), *([] if whole is None else [whole])]
        return Case(
            function, dict.fromkeys(names, tensor), {f"{name} ({'|'.join(names)})": bad for name in names}
        )

    metrics = zoo.metrics
    return {
        "squared_error": pair(metrics.squared_error, image),
        "psnr": pair(metrics.psnr, image),
        "ssim": pair(metrics.ssim, image, "floats"),
        "lpips": pair(lambda image, target: metrics.lpips(image, target) and 0, image),
        "intersection_and_union": pair(metrics.intersection_and_union, depth),
        "trajectory_error": pair(metrics.trajectory_error, points[0]),
        "psnr_from_mse": Case(
            metrics.psnr_from_mse,
            {"mse": 0.1, "lowest": 0.0},
            {"mse": [None, "x", -1.0, 1j, [0.1], torch.zeros(2), META, True], "lowest": numbers(-1, None)},
            {"mse": [np.float64(0.1)]},
        ),
        "iou": Case(
            metrics.iou,
            {"intersection": 1.0, "union": 2.0},
            {"intersection": numbers(-1, None), "union": numbers(-1, None)},
            {"intersection": [1, np.int64(1), torch.tensor(1)], "union": [2, torch.tensor(2)]},
        ),
        "foreground_mask": Case(
            metrics.foreground_mask,
            {"frames": frames, "background": 0.5},
            {"frames": no(frames[:, :, :2]), "background": [NAN, "grey", (1, 1, 1), 300, -0.5, None]},
        ),
        "color_histogram_overlap": Case(
            metrics.color_histogram_overlap,
            {"frames": frames, "bins": 6},
            {"frames": [*no(frames)[:4], frames[:, :1], frames[:, :, :2]], "bins": ints(0, -1, HUGE, None)},
            {"bins": [np.int64(6)]},
        ),
        "flow_between_frames": Case(
            metrics.flow_between_frames,
            {"frames": frames},
            {"frames": [*no(frames)[:4], frames[:, :1], (frames * 255).byte()]},
        ),
        "optical_flow": Case(
            metrics.optical_flow,
            {"before": grey, "after": grey, "levels": 3, "iterations": 2},
            {
                "before (before|after)": no(grey, grey.byte()),
                "after": no(grey, grey.byte()),
                "levels (levels)": [*ints(0, None), 9],
                "iterations": ints(-1, HUGE, None),
            },
            {"levels": [np.int64(3)], "iterations": [np.int64(2)]},
        ),
        "endpoint_error": Case(
            metrics.endpoint_error,
            {"flow": flow, "target": flow, "mask": mask},
            {"flow (flow|target)": no(flow), "target": no(flow), "mask": no(mask)},
        ),
        "view_error": Case(
            metrics.view_error,
            {"frames": frames, "depth": depth, "cameras": view, "tolerance": 0.02},
            {
                "frames (frames|depth)": no(frames),
                "depth": no(depth),
                "cameras": [None, 5, orbit(3, 16), orbit(2, 8)],
                "tolerance": numbers(-1, None),
            },
        ),
        "arap_rotations": Case(
            metrics.arap_rotations,
            {"positions": points, "graph": graph},
            {
                "positions (positions|graph)": [*no(points)[:5], points[:, :, :4], points[:, :1]],
                "graph": [None, 5, graph.float(), graph[:3], graph[0], "x"],
            },
        ),
        "nearest_neighbours": Case(
            metrics.nearest_neighbours,
            {"points": points[0, 0], "count": 2},
            {"points": no(points[0, 0]), "count": ints(0, None)},
            {"count": [np.int64(2)]},
        ),
        "torn_share": Case(
            metrics.torn_share,
            {"positions": points[0], "reference": points[0, 0], "neighbours": 2, "stretch": 1.5},
            {
                "positions (positions|reference)": no(points[0]),
                "reference": [*no(points[0, 0]), points[0, 0, :3]],
                "neighbours (neighbours|count)": ints(0, None),
                "stretch": numbers(-1, None),
            },
            {"neighbours": [np.int64(2)], "stretch": [np.float64(1.5)]},
        ),
        **weight_cases(no),
        **surface_cases(no),
        "reconstruction_psnr": Case(
            lambda frames: metrics.reconstruction_psnr(None, frames),
            {},
            {"frames": [*no(frames)[:4], frames[0, 0, 0], frames.byte()]},
        ),
    }


def weight_cases(no: Callable[..., list[Any]]) -> dict[str, Case]:
    """Metrics with published weights: refused before the weights are asked for, which are not on this machine."""
    metrics = zoo.metrics
    frames, image = torch.rand(2, 10, 3, 16, 16), torch.rand(3, 16, 16)
    large = torch.rand(1, 4, 3, 128, 128)
    spoilt = frames.clone()
    spoilt[0, 0, 0, 0, 0] = NAN
    bad = [*no(frames), frames[:, :0], spoilt, frames * 255, frames - 0.5, (frames * 255).byte()]
    cases = {
        "clip_similarity": ({"frames": frames, "target": frames}, {}),
        "clip_reference_similarity": (
            {"frames": frames, "image": image}, {"image": [*no(image)[:4], image[:2], image * NAN]},
        ),
        "clip_frame_consistency": ({"frames": frames}, {"frames (frames)": [frames[:, :1]]}),
        "fvd": ({"frames": frames, "target": frames}, {"target (target)": [frames[:, :9], torch.rand(2, 11, 3, 8, 8)]}),
        "i2v_subject": (
            {"frames": frames, "image": frames[:, 0]},
            {"image": [*no(frames[:, 0])[:4], image, frames[:1, 0]], "frames (square)": [frames[..., :12]]},
        ),
        "subject_consistency": ({"frames": frames}, {"frames (frames)": [frames[:, :1], frames[..., :12]]}),
        "background_consistency": ({"frames": frames}, {"frames (frames)": [frames[:, :1]]}),
        "motion_smoothness": ({"frames": frames}, {"frames (128 pixels)": [frames], "frames (frames)": [large[:, :2]]}),
        "aesthetic_quality": ({"frames": frames}, {}),
        "dynamic_degree": (
            {"frames": large, "fps": 8},
            {"fps": numbers(0, -1, None), "frames (128 pixels|3 frames)": [frames, large[:, :2]]},
        ),
        "motion_amplitude": (
            {"frames": large, "mask": large[:, :, 0] > 0.5},
            {"mask": [None, 5, large[:, :1, 0], large.numpy()], "frames (frames)": [large[:, :1]]},
        ),
        "raft_flow": ({"frames": large}, {"frames (128 pixels|frames)": [frames, large[:, :1]]}),
        "flow_amount": ({"frames": frames}, {"frames (frames)": [frames[:, :1]]}),
        "flow_smoothness": ({"frames": frames}, {"frames (frames)": [frames[:, :2]]}),
    }  # fmt: skip
    table = {}
    for name, (good, more) in cases.items():
        refused = {"frames (frames|target|image)": bad[:4] + bad[5:]} | more
        if name not in ("raft_flow", "flow_amount", "flow_smoothness"):
            refused["weights (weights|not computed)"] = [7, "", "a\0b", "nowhere"]
        if "weights (weights|not computed)" in refused and name in ("i2v_subject", "subject_consistency"):
            refused["weights (weights|not computed)"] = [7, "nowhere"]
        if name == "motion_smoothness":
            good = {"frames": large}
        table[name] = Case(getattr(metrics, name), good, refused)
    known = {"backbone": ["resnet", None, 5, ["raft"]], "weights (weights|not computed)": [7, "", "nowhere"]}
    table["find_weights"] = Case(metrics.find_weights, {"backbone": "raft", "weights": "nowhere"}, known)
    table["weight_hashes"] = Case(
        lambda backbone: metrics.weight_hashes(backbone, weights="nowhere"),
        {},
        {"backbone (backbone|not computed)": ["resnet", None, 5, "raft"]},
    )
    table["metric"] = Case(
        metrics.metric, {"name": "psnr"}, {"name (metric)": [*NO_TEXT, "", "psn", ["psnr"]]}
    )
    table["frechet_distance"] = Case(
        metrics.frechet_distance,
        {"features": frames[0, :, 0, 0], "target": frames[0, :, 0, 0]},
        {
            "features (features|target)": no(
                frames[0, :, 0, 0], frames[0, :0, 0, 0], frames[0, :, 0, 0] * NAN
            ),
            "target": no(frames[0, :, 0, 0]),
        },
    )
    return table


def surface_cases(no: Callable[..., list[Any]]) -> dict[str, Case]:
    metrics = zoo.metrics
    points, faces = torch.rand(3, 6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])
    spoilt = points.clone()
    spoilt[0, 0, 0] = NAN
    same = metrics.Alignment(torch.ones(3), torch.eye(3), torch.zeros(3), 0.0)
    clouds = {"predicted": points, "target": points}
    bad = {
        "predicted (predicted|target)": no(points, spoilt, points[:, :0], points.long()),
        "target": [*no(points)[:4], points[:2], spoilt],
    }
    single = {"predicted": points[0], "target": points[0]}
    bad_single = {
        "predicted (predicted|target)": no(points[0], spoilt[0], points[0, :0]),
        "target": [*no(points[0])[:4], spoilt[0]],
    }
    counts = {"icp_points": ints(0, None), "iterations": ints(0, None)}
    kept = {"alignment": [5, "x", torch.eye(4)]}
    quick = clouds | {"iterations": 1}
    return {
        "displacement_error": Case(
            metrics.displacement_error,
            clouds,
            {
                "predicted (predicted|target)": no(points, spoilt),
                "target (predicted|target)": [*no(points), spoilt],
            },
        ),
        "Alignment": Case(same.apply, {"points": points}, {"points": [*no(points)[:5]]}),
        "align": Case(
            metrics.align,
            single | {"iterations": 1, "learning_rate": 0.01},
            bad_single | {"iterations": ints(0, None), "learning_rate": numbers(0, -1, None)},
            {"iterations": [np.int64(1)]},
        ),
        "align_first": Case(metrics.align_first, quick, bad | counts),
        "chamfer_distance": Case(
            metrics.chamfer_distance,
            single | {"queries": 2, "seed": 44},
            bad_single | {"queries": ints(-1, None), "seed": ints(-1, 2**32, None)},
            {"queries": [np.int64(2)]},
        ),
        "chamfer_3d": Case(metrics.chamfer_3d, quick, bad | counts),
        "chamfer_4d": Case(metrics.chamfer_4d, quick, bad | counts | kept),
        "motion_chamfer": Case(metrics.motion_chamfer, quick, bad | counts | kept),
        "sample_surface": Case(
            metrics.sample_surface,
            {"vertices": points, "faces": faces, "count": 4, "seed": 0},
            {
                "vertices (vertices|faces)": no(points, spoilt, points[:, :0], points.long(), points * 0),
                "faces": [*no(faces)[:4], faces.float(), faces + 4, faces - 1, faces[:0]],
                "count": ints(0, None, HUGE),
                "seed": ints(-1, None),
            },
            {"count": [np.int64(4)]},
        ),
    }


def export_cases(folder: Path) -> dict[str, Case]:
    animation = tiny_pipeline().motion(0).resampled(2).animation(8)
    mesh, joints = animation.mesh, animation.joints
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    N = 6
    splats = {
        "means": np.random.default_rng(0).normal(size=(N, 3)),
        "rotations": np.tile(np.eye(3), (N, 1, 1)),
        "scales": np.full((N, 3), 0.2),
        "opacities": np.ones(N),
        "colors": np.ones((N, 3)),
        "detail": 8,
        "level": 0.5,
    }

    def no(array: np.ndarray) -> list[Any]:
        return [
            None,
            5,
            "x",
            array[:-1],
            array[..., None],
            array.astype(float) * NAN,
            array * 1j,
            array.tolist(),
        ]

    def values(thing: Any) -> dict[str, Any]:
        return {each.name: getattr(thing, each.name) for each in fields(thing)}

    return {
        "write_mp4": Case(
            zoo.export.write_mp4,
            {"path": "out.mp4", "frames": frames, "fps": 24, "crf": 16},
            {
                "path": [*NO_PATH, None],
                "frames": [None, 5, frames[0], frames.astype(float), frames[:, :7], frames[:0]],
                "fps": numbers(0, -1, None),
                "crf": ints(-1, 52, None),
            },
            {"fps": [np.int64(24)], "crf": [np.int64(16)]},
        ),
        "write_glb": Case(
            zoo.export.write_glb,
            {"path": "out.glb", "animation": animation},
            {"path": [*NO_PATH, None], "animation": [None, 5, "x", mesh]},
        ),
        "gaussian_surface": Case(
            zoo.export.gaussian_surface,
            splats,
            {
                **{
                    name: [each for each in no(splats[name]) if not isinstance(each, list)]
                    for name in list(splats)[1:5]
                },
                "means": [None, 5, "x", splats["means"][:, :2], splats["means"] * NAN, splats["means"][:0]],
                "detail": ints(0, -1, HUGE, None),
                "level": numbers(0, -1, None),
            },
            {"detail": [np.int64(8)]},
        ),
        "Mesh": Case(
            lambda **options: zoo.export.Mesh(**options).vertices,
            values(mesh),
            {
                "vertices (vertices|normals|triangles)": no(mesh.vertices),
                "normals": no(mesh.normals),
                "colors": no(mesh.colors),
                "triangles": [
                    None,
                    5,
                    "x",
                    mesh.triangles + 10**6,
                    mesh.triangles - 10**6,
                    mesh.triangles[:, :2],
                ],
            },
        ),
        "Joints": Case(
            lambda **options: zoo.export.Joints(**options).positions,
            values(joints),
            {"positions": no(joints.positions)},
        ),
        "SkinnedAnimation": Case(
            lambda **options: zoo.export.SkinnedAnimation(**options).times,
            values(animation),
            {
                "mesh": [None, 5, joints],
                "joints": [None, 5, mesh],
                **{
                    f"{name} (times|positions|rotations|vertex)": no(getattr(animation, name))
                    for name in ("vertex_joints", "vertex_weights", "times", "positions", "rotations")
                },
            },
        ),
    }


def zoo_cases(folder: Path) -> dict[str, Case]:
    egg = tiny_pipeline()
    home = folder / "home"
    zoo.publish(egg, "local:dimo/egg", home=home)
    names = [
        *NO_TEXT,
        "",
        "egg",
        "dimo/egg/",
        "../x",
        "dimo/../x",
        "dimo/egg@",
        "local:dimo/nobody",
        "bundled:dimo/nobody",
    ]
    return {
        "zoo.load": Case(
            lambda **options: zoo.load(**options).object,
            {"name": "local:dimo/egg", "home": home},
            {
                "name (name|model|egg)": names,
                "home": [*NO_PATH, folder / "a-file"],
                "home (registry)": [folder / "none"],
            },
        ),
        "zoo.info": Case(
            lambda **options: zoo.info(**options).name,
            {"name": "local:dimo/egg", "home": home},
            {"name (name|model|egg)": names, "home": [*NO_PATH]},
        ),
        "zoo.list_models": Case(
            zoo.list_models,
            {"pattern": "local:*", "home": home},
            {"pattern": [*NO_TEXT, "disk:*"], "home": [*NO_PATH]},
        ),
        "zoo.publish": Case(
            zoo.publish,
            {"model": egg, "target": "local:dimo/egg", "home": home},
            {
                "target (target|model|publish|family|egg)": [
                    *NO_TEXT,
                    "",
                    "egg",
                    "dimo/egg",
                    "bundled:dimo/x",
                    "local:mvvdm/egg",
                    "local:dimo/egg@main",
                    "local:../x/y",
                ],
                "model (class|model|nobody)": [None, 5, egg.model, "local:dimo/nobody"],
                "home": [*NO_PATH],
            },
        ),
        "zoo.register_family": Case(
            zoo.register_family,
            {"name": "boids-of-this-test", "target": "boids.zoo:Boids"},
            {
                "name (name|family)": [*NO_TEXT, "", "Boids", "a b"],
                "target (target|family)": [*NO_TEXT, "", "boids", "a:b:c", "1:2"],
            },
        ),
        "zoo.capabilities_of": Case(
            zoo.capabilities_of, {"name": "dimo"}, {"name (name|family)": [*NO_TEXT, "", "nobody"]}
        ),
        "zoo.evaluate": Case(
            zoo.evaluate,
            {"model": egg, "protocol": "dimo-between", "truth": folder, "home": home},
            {
                "model (model|egg)": [None, 5, ["egg"], "", "egg", "local:dimo/nobody"],
                "protocol": [*NO_TEXT, "", "dimo", folder, folder / "none.json"],
                "truth": [*NO_PATH, folder / "none", folder / "a-file", folder],
                "baseline (model|baseline)": [None, 5, [5], "local:dimo/nobody"],
                "own_truth": [None, 1, "yes"],
                "home": [*NO_PATH],
                "progress": [5, "show"],
            },
        ),
    }


NAMES = [
    "Cameras", "Cameras.__getitem__", "Cameras.project", "intrinsics", "orbit_rotations", "orbit_cameras",
    "to_opengl", "opengl_projection", "mvvdm_camera_vectors", "render", "TensorCameras.from_cameras",
    "Rendered.output", "set_threads", "ply.write", "ply.read", "gltf.load", "gltf.Limits", "Asset.pose",
    "Asset.positions", "Asset.origin", "gltf.identify", "gltf.format_of_suffix", "gltf.find_file",
    "RenderSettings", "Shot", "render_clip", "renderer", "RenderedClip.over", "composite",
    "composite_in_place", "encode_h264", "Motion.at", "Motion.gaussians", "Motion.resampled", "Motion.render",
    "Motion.default_camera", "Motion.animation", "DIMOPipeline.sample", "DIMOPipeline.draw",
    "DIMOPipeline.motion", "DIMOPipeline.index", "DIMOPipeline.interpolate", "DIMOPipeline.from_text", "DIMO",
    "MotionVideos.open", "MotionVideos.read", "MotionVideos.cameras", "MotionVideos.points",
    "MotionVideos.select", "write_motion", "evaluate", "fit_latent", "dimo.train", "train_text_head",
    "DIMOPipeline.reconstruct", "squared_error", "psnr", "ssim", "lpips", "intersection_and_union",
    "trajectory_error", "psnr_from_mse", "iou", "foreground_mask", "color_histogram_overlap",
    "flow_between_frames", "optical_flow", "endpoint_error", "view_error", "arap_rotations", "nearest_neighbours",
    "torn_share",
    "clip_similarity", "clip_reference_similarity", "clip_frame_consistency", "fvd", "i2v_subject",
    "subject_consistency", "background_consistency", "motion_smoothness", "aesthetic_quality", "dynamic_degree",
    "motion_amplitude", "raft_flow", "flow_amount", "flow_smoothness", "find_weights", "weight_hashes", "metric",
    "frechet_distance", "displacement_error", "Alignment", "align", "align_first", "chamfer_distance", "chamfer_3d",
    "chamfer_4d", "motion_chamfer", "sample_surface",
    "reconstruction_psnr", "write_mp4", "write_glb", "gaussian_surface", "Mesh", "Joints", "SkinnedAnimation",
    "zoo.load", "zoo.info", "zoo.list_models", "zoo.publish", "zoo.register_family", "zoo.capabilities_of",
    "zoo.evaluate",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_refused_in_a_sentence(table, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = list(wrong_calls(table[name]))
    complaints = {text: found for text, call, words in calls if (found := complaint(call, words)) is not None}
    assert complaints == {}
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_other_types_give_the_same_result(table, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = table[name]
    for argument, values in case.same.items():
        expected = plain(case.call(**case.good))
        for value in values:
            assert plain(case.call(**(case.good | {argument: value}))) == expected, (argument, value)


def test_the_check_sees_what_is_no_refusal():
    """The control: calls that pass, errors from below, messages that name nothing, and other types."""
    assert "accepted" in str(complaint(lambda: 5, "x"))
    assert "raised in" in str(complaint(lambda: int("x"), "x"))
    assert "another error" in str(complaint(lambda: 1 / 0, "x"))
    assert "does not name frames" in str(complaint(lambda: cameras.intrinsics("x", 8, 8), "frames"))
    assert "KeyError" in str(complaint(lambda: {}["x"], "x"))
    assert complaint(lambda: cameras.intrinsics("x", 8, 8), "fov_y") is None


# Results, errors, constants, and classes whose methods are in the table.
NOT_CALLED: dict[str, tuple[ModuleType, str]] = {
    "zoo": (
        zoo,
        "Capabilities HubError ModelInfo Needs Operation PlacementError RepositoryError UnknownModelError "
        # animate: tests/zoo/test_animate_videos.py; view: tests/zoo/test_viewer.py
        "UnsupportedError ZooError __version__ animate known_families view",
    ),
    "zoo.dimo": (
        zoo.dimo,
        "DIMOConfig DIMOPipeline KeyPointMotion LossWeights Motion MotionDecoder MotionVideos TextHead TextMatch",
    ),
    "zoo.export": (zoo.export, ""),
    "zoo.metrics": (zoo.metrics, "BACKBONES METRICS Metric NotComputed WeightFile"),
    "renderers.gaussians": (
        renderers.gaussians,
        "FAR NEAR OUTPUTS Gaussians Rendered TensorCameras get_threads",
    ),
    "renderers.gltf": (
        gltf,
        "SNIFFED_BYTES Animation Asset FileFormat GltfError Material Pose Primitive Texture UnsupportedGltf path_text",
    ),
    "renderers.meshes": (
        meshes,
        "AUTO default_backend BACKENDS GREY PICTURE_VERSIONS WHITE RenderError RenderedClip Renderer Tracks",
    ),
}


@pytest.mark.parametrize("package", NOT_CALLED)
def test_every_public_function_is_in_the_table(package):
    module, names = NOT_CALLED[package]
    short = {name.rpartition(".")[2] for name in NAMES}
    missing = set(module.__all__) - short - set(names.split())
    assert missing == set()


# --- several threads, one model ---------------------------------------------------------------------


def test_threads_may_share_a_model_and_an_asset():
    """Sampling, rendering and posing in four threads give what one thread gives.

    Up to rounding: libraries for matrix products choose how to divide them by how busy the machine is.
    """
    egg, view = tiny_pipeline(), orbit(1, 16)
    asset = gltf.load(moving("translation", [0.0, 1.0], [[0, 0, 0], [1, 0, 0]]).glb())

    def work(seed: int) -> list[np.ndarray]:
        pose = asset.positions(None if seed % 2 else 0, seed / 8)
        latent = egg.interpolate(seed % 6, 0, 2)[0].z
        return [egg.sample(seed).render(view).astype(np.int16), latent.detach().numpy(), pose]

    alone = [work(seed) for seed in range(8)]
    apart = [np.abs(a - b).max() for a, b in itertools.combinations([pictures for pictures, *_ in alone], 2)]
    assert min(apart) > 4  # pictures of two seeds differ by more than rounding does
    with ThreadPoolExecutor(4) as pool:
        for (pictures, *rest), (first, *others) in zip(
            pool.map(work, [*range(8)] * 3), alone * 3, strict=True
        ):
            assert np.abs(pictures - first).max() <= 1
            assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(rest, others, strict=True))


def test_threads_may_publish_and_load_the_same_model(tmp_path):
    egg = tiny_pipeline()

    def work(_: int) -> str:
        name = zoo.publish(egg, "local:dimo/egg", home=tmp_path)
        return name if zoo.load(name, home=tmp_path).object == "egg" else ""

    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(work, range(8)))
    assert len(names) == 1 and zoo.list_models(home=tmp_path, pattern="local:*") == ["local:dimo/egg"]
    hidden = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".") or ".part" in path.name]
    assert [name for name in hidden if "lock" not in name] == []
    assert pickle.loads(pickle.dumps(names)) == names
