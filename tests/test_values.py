"""repr, `==`, hash, copy and pickle of what users hold: one line, no exception, equal to its copies and to its like."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sample_clips import clip_info, disc_clip
from tiny_dataset import FRAMES, VIEWS, grow
from tiny_dimo import tiny_dimo, tiny_pipeline
from tiny_motions import tiny_videos

import cluster
import factory
import zoo
from factory.sources.registry import open_source
from renderers import gltf
from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from renderers.meshes import Shot
from renderers.values import by_value, describe, same
from zoo.mvvdm.evaluation import TrueClip

LONGEST = 300  # characters of a repr


def cameras(views: int = 2) -> Cameras:
    return orbit_cameras(np.linspace(0, 3, views), 0.2, 2.4, fov_y=0.7, width=16, height=16)


def gaussians(count: int = 3) -> Gaussians:
    rows = torch.ones(1, count, 3)
    return Gaussians(rows, torch.ones(1, count, 4), 0.1 * rows, torch.full((1, count), 0.9), colors=rows)


def _glb(path: Path, kind: str) -> Path:
    source = open_source(f"creatures://{kind}")
    content = source.fetch(next(iter(source.list())))
    path.write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Callable[[int], Any]]:
    """Name → a function that makes the value anew; 0 and 1 make different ones."""
    folder = tmp_path_factory.mktemp("values")
    grow(folder / "clips", 0, 4)
    for name, motions in (("a", 3), ("b", 2)):
        (folder / name).mkdir()
        tiny_videos(folder / name, motions)
    pipeline = tiny_pipeline()
    creatures = [_glb(folder / f"{kind}.glb", kind) for kind in ("kangaroo", "fox")]

    def clip(n: int) -> factory.Clip:
        return factory.load_clips(folder / "clips")[n]

    return {
        "Motion": lambda n: tiny_pipeline().sample(n),
        "moved Motion": lambda n: pipeline.motion(n),
        "trajectories": lambda n: pipeline.motion(n).trajectories,
        "Gaussians": lambda n: gaussians(3 + n),
        "scenes": lambda n: pipeline.motion(n).gaussians(),
        "TensorCameras": lambda n: TensorCameras.from_cameras(cameras(2 + n)),
        "Cameras": lambda n: cameras(2 + n),
        "Rendered": lambda n: render(gaussians(3 + n), TensorCameras.from_cameras(cameras())),
        "SkinnedAnimation": lambda n: pipeline.motion(n).animation(detail=12),
        "MotionVideos": lambda n: zoo.dimo.MotionVideos.open(folder / "ab"[n]),
        "RenderedClip": lambda n: disc_clip(2, 2 + n, 16),
        "Shot": lambda n: Shot(0, np.arange(2 + n) / 24, np.eye(4), cameras()),
        "Asset": lambda n: gltf.load(creatures[n]),
        "Pose": lambda n: gltf.load(creatures[n]).pose(0, 0.1),
        "ClipInfo": lambda n: clip_info(asset_to_world=np.eye(4) * (n + 1)),
        "Clip": clip,
        "ClipArrays": lambda n: clip(n).read(frames=slice(0, 2 + n)),
        "TrueClip": lambda n: TrueClip(
            np.zeros((2, 2 + n, 8, 8, 4), np.uint8), cameras(), "a fox", None, None
        ),
        "ModelInfo": lambda n: zoo.info(("dimo/kangaroo", "dimo/fox")[n]),
        "Task": lambda n: cluster.Task(f"task-{n}", {"path": "a", "frames": [1, 2]}),
    }


NAMES = (
    "Motion", "moved Motion", "trajectories", "Gaussians", "scenes", "TensorCameras", "Cameras", "Rendered",
    "SkinnedAnimation", "MotionVideos", "RenderedClip", "Shot", "Asset", "Pose", "ClipInfo", "Clip", "ClipArrays",
    "TrueClip", "ModelInfo", "Task",
)  # fmt: skip


def test_every_value_is_in_the_table(made):
    assert set(NAMES) == set(made)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_equal_to_its_copies_and_to_nothing_else(name, made):
    value, again, other = made[name](0), made[name](0), made[name](1)
    assert value == value and value == again and not value != again
    assert value != other and not value == other
    for stranger in (None, 0, "text", [], (value,), np.zeros(3), torch.zeros(3)):
        with np.errstate(all="ignore"):
            assert not np.any(np.asarray(value == stranger, dtype=bool)), stranger
    assert hash(value) == hash(again) and len({value, again, other}) == 2 and value in [other, again]
    copies = (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value)))
    for each in copies:
        assert type(each) is type(value) and each == value and hash(each) == hash(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_repr_is_one_short_line(name, made):
    text = repr(made[name](0))
    assert (
        "\n" not in text and len(text) <= LONGEST and text.startswith(type(made[name](0)).__name__ + "(")
    ), text
    assert "tensor(" not in text and "array(" not in text, text


def test_what_a_repr_says(made, tmp_path):
    model = tiny_pipeline()
    assert repr(model) == "DIMOPipeline('egg', 6 motions, 600 Gaussians, cpu, float32)"
    assert repr(model.to(torch.float16)).endswith("cpu, float16)")
    assert repr(model.motion(0)) == "Motion('hops forward once', 'egg', 9 frames, 600 Gaussians, cpu)"
    assert repr(model.sample(3).resampled(4)) == "Motion('sample 3', 'egg', 4 frames, 600 Gaussians, cpu)"
    assert repr(gaussians()).startswith("Gaussians(means=float32[1, 3, 3], quats=float32[1, 3, 4], ")
    assert "sh=" not in repr(gaussians())  # None
    assert repr(made["Asset"](1)) == "Asset('fox.glb', 60 animations, 6859 vertices, 13684 triangles)"
    clip = made["Clip"](0)
    assert f"{VIEWS} views, {FRAMES} frames of 64×64" in repr(clip) and clip.clip_id in repr(clip)
    info = repr(made["ModelInfo"](0))
    assert info.startswith("ModelInfo('bundled:dimo/kangaroo@") and "family 'dimo'" in info and "MB" in info
    training = factory.TrainingClips(clip._dataset, views=2, frames=2, batch_size=2)
    assert "batches of 2, 2 views × 2 frames, float32, rank 0 of 1)" in repr(training)
    assert repr(factory.ClipLoader(training)).startswith("ClipLoader(TrainingClips(")


def test_training_clips_are_pickled_and_copied(made):
    training = factory.TrainingClips(made["Clip"](0)._dataset, views=2, frames=2)
    for each in (pickle.loads(pickle.dumps(training)), copy.copy(training), copy.deepcopy(training)):
        assert torch.equal(next(iter(each))["frames"], next(iter(training))["frames"])


def test_pipelines_are_pickled_and_copied():
    model = tiny_pipeline()
    for each in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert each.sample(1) == model.sample(1) and repr(each) == repr(model)
    assert len({model, copy.copy(model)}) == 2 and model == model


def test_a_video_model_and_its_output(tmp_path):
    pytest.importorskip("diffusers")
    from zoo.mvvdm import MVVDMOutput

    model = zoo.load("mvvdm/tiny")
    assert "8 frames of 64×64, network of 11,982,404 parameters, cpu, float32)" in repr(model)
    assert "\n" not in repr(model) and hash(model) and model == model
    copied = pickle.loads(pickle.dumps(model))
    assert same(copied.unet, model.unet) and copied.card == model.card
    frames = np.zeros((2, 3, 8, 8, 3), np.uint8)
    output, again, other = MVVDMOutput(frames), MVVDMOutput(frames.copy()), MVVDMOutput(frames + 1)
    assert output == again and output != other and len({output, again, other}) == 2
    assert repr(output) == "MVVDMOutput(frames=uint8[2, 3, 8, 8, 3])"
    assert pickle.loads(pickle.dumps(output)) == output and output["frames"] is frames and output[0] is frames


def test_the_repr_of_a_clip_that_cannot_be_read(tmp_path):
    grow(tmp_path, 0, 2)
    clips = factory.load_clips(tmp_path)
    (file,) = (tmp_path / "data/train").glob("*.parquet")
    file.write_bytes(b"damaged")
    assert repr(clips[1]).startswith("Clip(1 of ClipDataset(")
    assert clips[1] == factory.ClipDataset.__getitem__(clips, 1) and hash(clips[1])


def test_equality_is_of_the_content():
    a = np.array([1.0, math.nan, 3.0])
    assert same(a, a.copy()) and not same(a, a.astype(np.float32)) and not same(a, a[:2])
    assert not same(a, torch.tensor(a)) and same(torch.tensor(a), torch.tensor(a))
    assert not same(torch.zeros(2), torch.zeros(2).double()) and not same(
        torch.zeros(2), torch.zeros(2, device="meta")
    )
    assert same({"x": [a, (a,)]}, {"x": [a.copy(), (a.copy(),)]}) and not same({"x": a}, {"y": a})
    assert same([a], [a]) and not same([a], (a,)) and not same(a, None) and same(1, 1.0) and not same("1", 1)
    assert same(math.nan, float("nan")) and not same(1.0, math.nan)
    assert same(tiny_dimo(), tiny_dimo()) and not same(tiny_dimo(), tiny_dimo(seed=1))
    assert not same(tiny_dimo(), tiny_dimo(neighbours=1))


def test_a_named_tuple_and_a_repr_of_its_own():
    @by_value
    class Pair(NamedTuple):
        left: torch.Tensor
        right: str

    @by_value
    @dataclasses.dataclass(eq=False, repr=False)
    class Own:
        array: np.ndarray
        hidden: int = dataclasses.field(default=0, compare=False, repr=False)

        def __repr__(self) -> str:
            return "mine"

    pair = Pair(torch.zeros(2), "b" * 200)
    assert pair == Pair(torch.zeros(2), "b" * 200) and pair != Pair(torch.ones(2), "b" * 200)
    assert repr(pair).startswith("Pair(left=float32[2], right='bbb") and len(repr(pair)) < 100
    assert Own(np.zeros(2), 1) == Own(np.zeros(2), 2) and repr(Own(np.zeros(2))) == "mine"
    assert describe(Own(np.zeros(2), 1)) == "Own(array=float64[2])"


PUBLIC = ("zoo", "zoo.dimo", "zoo.export", "zoo.mvvdm", "factory", "factory.dataset", "cluster", "renderers.cameras",
          "renderers.gaussians", "renderers.gltf", "renderers.meshes")  # fmt: skip


def test_no_public_class_compares_or_prints_arrays():
    """Every public dataclass or named tuple with a field of an array type says how it is compared."""
    wrong, seen = [], 0
    for name in PUBLIC:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", vars(module)):
            cls = getattr(module, public)
            if not inspect.isclass(cls) or not (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
                continue
            types = " ".join(
                str(each) for base in cls.__mro__ for each in inspect.get_annotations(base).values()
            )
            if any(word in types for word in ("ndarray", "Tensor", "Frames")):
                seen += 1
                if cls.__eq__ in (tuple.__eq__,) or cls.__eq__.__module__ != "renderers.values":
                    wrong.append(f"{name}.{public}")
    assert seen > 15 and wrong == []


def test_versions():
    version = importlib.metadata.version("menagerie4d")
    for package in ("zoo", "factory", "cluster", "renderers"):
        module = importlib.import_module(package)
        assert module.__version__ == version and "__version__" in module.__all__
    for package in ("zoo", "factory"):
        assert "__version__" in dir(importlib.import_module(package))
    with pytest.raises(AttributeError, match=r"module 'zoo\.dimo' has no attribute '__version__'"):
        _ = zoo.dimo.__version__


def test_marked_as_typed():
    """In the wheel that was installed."""
    files = {str(file) for file in importlib.metadata.files("menagerie4d") or ()}
    assert {f"{package}/py.typed" for package in ("zoo", "factory", "cluster", "renderers")} <= files


def test_rows_of_ray_data_cannot_be_bfloat16(made):
    training = factory.TrainingClips(made["Clip"](0)._dataset, views=2, frames=2, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="NumPy arrays, which cannot be bfloat16; use dtype=torch"):
        factory.ray_dataset(training)
