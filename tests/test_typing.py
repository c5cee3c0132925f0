"""What a type checker tells a user of the packages, who sees the installed ones and their py.typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_overloads

import pytest

import zoo
from zoo import hub

# Expression → the type that mypy reveals.
TYPES = {
    'zoo.load("dimo/kangaroo")': "zoo.dimo.pipeline.DIMOPipeline",
    'zoo.load("dimo/fox", device="cuda", dtype=torch.float16)': "zoo.dimo.pipeline.DIMOPipeline",
    'zoo.load("dimo/fox", home=pathlib.Path("x"), dtype="float16").to("cuda", torch.float16)': (
        "zoo.dimo.pipeline.DIMOPipeline"
    ),
    'zoo.load("dimo/kangaroo").sample(7)': "zoo.dimo.motion.Motion",
    'zoo.load("dimo/kangaroo").sample(7).trajectories.positions': "torch._tensor.Tensor",
    'zoo.load("dimo/kangaroo").motion("nods").gaussians()': "renderers.gaussians.types.Gaussians",
    'zoo.load("dimo/kangaroo").interpolate(0, 1)': "list[zoo.dimo.motion.Motion]",
    'zoo.load("mvvdm/tiny").sample(0)': "zoo.mvvdm.images.MVVDMOutput",
    'zoo.load("mvvdm/tiny").to("cuda")': "zoo.mvvdm.pipeline.MVVDMPipeline",
    'zoo.load("mvvdm/tiny")("fox.glb", "sits")': "zoo.mvvdm.images.MVVDMOutput",
    "zoo.load(input())": "Any",
    'zoo.info("x").capabilities': "zoo.capabilities.Capabilities | None",
    "zoo.list_models()": "list[str]",
    "zoo.__version__": "str",
    "factory.__version__": "str",
    "zoo.dimo.DIMO": "def (config: zoo.dimo.config.DIMOConfig,",
    'factory.load_clips("x")': "factory.dataset.reader.ClipDataset",
    'factory.load_clips("x")[0]': "factory.dataset.reader.Clip",
    'factory.load_clips("x")[0].read().frames': "numpy.ndarray[",
    'factory.load_clips("x")[0].read().cameras': "renderers.cameras.Cameras",
    'factory.TrainingClips("x")': "factory.dataset.loader.TrainingClips",
    'next(iter(factory.ClipLoader(factory.TrainingClips("x"))))': "dict[str, Any]",
    "cluster.run": "def (stage: cluster.stage.Stage, tasks: ",
    "cluster.train_together": "def (work: def (",
    "renderers.gaussians.render": "def (gaussians: renderers.gaussians.types.Gaussians, ",
    'renderers.gltf.load("x")': "renderers.gltf.asset.Asset",
}
# Mistakes that a checker finds only if the face of the package is not Any.
MISTAKES = [
    "zoo.laod",
    "zoo.dimo.DIM0",
    "factory.load_clip",
    "factory.dataset.publsh",
    "cluster.runn",
    "renderers.versio",
]
IMPORTS = (
    "import cluster, factory, factory.dataset, pathlib, renderers.gaussians, renderers.gltf\n"
    "import torch, zoo, zoo.dimo\n"
)


@pytest.mark.slow
def test_a_user_program_has_types(tmp_path: Path):
    pytest.importorskip("mypy")
    program = IMPORTS + "".join(f"reveal_type({each})\n" for each in TYPES) + "\n".join(MISTAKES) + "\n"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-P", "-m", "mypy", "--config-file=", "--no-pretty", "program.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    lines = dict(re.findall(r"^program\.py:(\d+): (.*)$", result.stdout, re.MULTILINE))
    shown = {
        each: re.sub(r'^note: Revealed type is "(.*)"$', r"\1", lines.get(str(number), "nothing"))
        for number, each in enumerate(TYPES, IMPORTS.count("\n") + 1)
    }
    assert {each: text for each, text in shown.items() if not text.startswith(TYPES[each])} == {}, (
        result.stdout
    )
    assert shown["zoo.load(input())"] == "Any"
    first = IMPORTS.count("\n") + len(TYPES) + 1
    missed = [
        each
        for number, each in enumerate(MISTAKES, first)
        if "no attribute" not in lines.get(str(number), "")
    ]
    assert missed == [] and len(lines) == len(TYPES) + len(MISTAKES), result.stdout


def test_overloads_name_the_bundled_models():
    families = {"dimo": "DIMOPipeline", "mvvdm": "MVVDMPipeline"}
    named = {}
    for overload in get_overloads(hub.load):
        hints = overload.__annotations__
        if hints["name"] != "str":
            literal = eval(hints["name"], {"Literal": Literal})
            named |= dict.fromkeys(get_args(literal), hints["return"])
    bundled = [name.removeprefix("bundled:") for name in zoo.list_models("bundled:*")]
    assert named == {name: families[name.partition("/")[0]] for name in bundled}
