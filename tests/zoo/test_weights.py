"""Weights that cannot be right are refused when a model is loaded or published, with the file and the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from resealing import reseal
from safetensors.torch import load_file, save_file
from tiny_dimo import tiny_pipeline
from tiny_family import pendulum

import zoo
from zoo.weights import check_weights

if TYPE_CHECKING:
    from zoo.mvvdm import MVVDMPipeline

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def dimo() -> str:
    from zoo.dimo.text import TextHead

    pipeline = tiny_pipeline()
    pipeline.text = TextHead("none", 5, len(pipeline.motions))
    return zoo.publish(pipeline, "local:dimo/egg")


def tiny_mvvdm() -> MVVDMPipeline:
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    from tiny_mvvdm import CONFIG

    from zoo.mvvdm import MVVDMPipeline, MVVDMUNet, PatchAutoencoder, mvvdm_scheduler

    parts = {"vae": PatchAutoencoder(3, (8,)), "unet": MVVDMUNet(CONFIG), "scheduler": mvvdm_scheduler()}
    return MVVDMPipeline(**parts, sentence_encoder="none", num_frames=3, resolution=8)


def mvvdm() -> str:
    return zoo.publish(tiny_mvvdm(), "local:mvvdm/small")


def tiny() -> str:
    zoo.register_family("tiny", "tiny_family:Pendulum")
    return zoo.publish(pendulum(), "local:tiny/clock")


def changed(publish: Callable[[], str], change: Callable[[Tensors], None]) -> str:
    """Publish a model, change its weights, and make the manifest match; returns the model's name."""
    name = publish()
    folder = zoo.info(name).folder
    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
    return reseal(folder)


def fill(name: str, value: float) -> Callable[[Tensors], None]:
    def change(state: Tensors) -> None:
        state[name].view(-1)[-1] = value

    return change


def refusal(name: str, call: Callable[[str], object] = zoo.load) -> str:
    with pytest.raises(zoo.RepositoryError) as caught:
        call(name)
    message = str(caught.value)
    assert "model.safetensors" in message and message.count("\n") == 0
    assert "another revision" in message or "download" in message  # what to do
    return message


MATRIX = "dimo.decoder.trunk.0.weight"  # [32, 80] of the small model, stored as int8


def test_unchanged_weights_load():
    """Control for all tests below."""
    for publish in (dimo, mvvdm, tiny):
        zoo.load(changed(publish, lambda state: None))


@pytest.mark.parametrize(
    ("publish", "tensor", "value"),
    [
        (dimo, "dimo.key_points", float("nan")),  # F32
        (dimo, "dimo.colors", float("inf")),  # F16
        (dimo, "dimo.decoder.trunk.0.weight.scale", float("-inf")),
        (dimo, "text.network.3.bias", float("nan")),
        (mvvdm, "unet.conv_in.weight", float("nan")),
        (mvvdm, "vae.components", float("-inf")),
        (tiny, "bias", float("-inf")),
        (tiny, "weight", float("nan")),
    ],
)
def test_weights_that_are_not_finite(publish, tensor, value):
    model = changed(publish, fill(tensor, value))
    for call in (zoo.load, lambda name: zoo.publish(name, "local:tiny/copy")):
        message = refusal(model, call)
        assert "1 of " in message and f"the tensor '{tensor}' are NaN or infinite" in message
    assert zoo.info(model).files  # a model can still be described


def test_a_diverged_model_is_not_published(home):
    pipeline = tiny_pipeline()
    pipeline.model.means.data[3] = torch.nan
    with pytest.raises(zoo.RepositoryError, match=r"3 of 1800 values of the tensor 'dimo.means'"):
        zoo.publish(pipeline, "local:dimo/egg")
    pipeline = tiny_mvvdm()
    pipeline.unet.conv_in.bias.data[:] = torch.inf
    with pytest.raises(zoo.RepositoryError, match=r"8 of 8 values of the tensor 'unet.conv_in.bias'"):
        zoo.publish(pipeline, "local:mvvdm/small")
    broken = pendulum()
    broken.weights["bias"][2] = np.nan
    zoo.register_family("tiny", "tiny_family:Pendulum")
    with pytest.raises(zoo.RepositoryError, match=r"1 of 8 values of the tensor 'bias'"):
        zoo.publish(broken, "local:tiny/clock")
    assert zoo.list_models("local:*") == []


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "largest", "smallest", "-0", "subnormal"])
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]
)
def test_every_format(tmp_path, dtype, value):
    """Compared with torch's own test, in the middle of other tensors."""
    kind = getattr(torch, dtype)
    limits = torch.finfo(kind)
    number = {"largest": limits.max, "smallest": limits.min, "-0": -0.0, "subnormal": limits.tiny / 2}
    tensor = torch.zeros(7, dtype=torch.float64)
    tensor[4] = number[value] if value in number else float(value)
    tensor = tensor.to(kind)
    finite = bool(tensor.double().isfinite().all())
    assert finite or value not in number
    others = {"b": torch.arange(-3, 3, dtype=torch.int8), "z": torch.full((2, 3), -1), "e": torch.zeros(0, 2)}
    save_file({"a": torch.full((5,), -1.5, dtype=kind), "m": tensor, **others}, tmp_path / "w.safetensors")
    if finite:
        check_weights([tmp_path / "w.safetensors"])
        return
    with pytest.raises(zoo.RepositoryError, match=r"w.safetensors: 1 of 7 values of the tensor 'm'"):
        check_weights([tmp_path / "w.safetensors"])


def remove(name: str) -> Callable[[Tensors], object]:
    return lambda state: state.pop(name)


def put(name: str, tensor: torch.Tensor) -> Callable[[Tensors], object]:
    return lambda state: state.__setitem__(name, tensor)


@pytest.mark.parametrize(
    ("publish", "change", "words"),
    [
        (dimo, remove("dimo.mu"), "has no tensor 'dimo.mu'"),
        (dimo, remove("dimo.decoder.trunk.0.bias"), "has no tensor 'dimo.decoder.trunk.0.bias'"),
        (dimo, remove("text.network.0.weight"), "has no tensor 'text.network.0.weight'"),
        (dimo, put("dimo.extra", torch.zeros(3)), "'dimo.extra' is not one of the model"),
        (dimo, put("other.x", torch.zeros(3)), "'other.x' is not one of this model"),
        (dimo, put("dimo.means", torch.zeros(600, 2)), "'dimo.means' is [600, 2], expected [600, 3]"),
        (dimo, put("dimo.mu", torch.zeros(8)), "'dimo.mu' is [8], expected two dimensions"),
        (dimo, put("dimo.quats", torch.zeros(599, 4)), "'dimo.quats' is [599, 4], expected [600, 4]"),
        (dimo, put("dimo.means", torch.zeros(600, 3, dtype=torch.int32)), "'dimo.means' is torch.int32, expected"),
        (dimo, put("dimo.graph", torch.zeros(24, 24)), "'dimo.graph' is"),
        (dimo, put("dimo.colors", torch.zeros(600, 3, dtype=torch.uint8)), "'dimo.colors' is torch.uint8"),
        (dimo, lambda state: state["dimo.neighbours"].fill_(24), "'dimo.neighbours' has indices 24 to 24"),
        (dimo, put("dimo.neighbours", torch.full((600, 4), -1)), "'dimo.neighbours' has indices -1 to -1"),
        (dimo, put("text.network.3.weight", torch.zeros(6, 127, dtype=torch.int8)),
         "'text.network.3.weight' is [6, 127], expected"),
        (dimo, remove(f"{MATRIX}.scale"), f"'{MATRIX}' is torch.int8, expected floating-point numbers"),
        (dimo, put(f"{MATRIX}.scale", torch.ones(32, 1)), f"'{MATRIX}.scale' is [32, 1], expected [32, 3]"),
        (dimo, put(f"{MATRIX}.scale", torch.ones(32, 3, dtype=torch.int8)), f"'{MATRIX}.scale' is torch.int8"),
        (dimo, lambda state: state[f"{MATRIX}.scale"][4, 1].zero_(), f"'{MATRIX}.scale' has values that are not"),
        (dimo, lambda state: state[f"{MATRIX}.scale"].neg_(), f"'{MATRIX}.scale' has values that are not positive"),
        (dimo, put(MATRIX, torch.zeros(32, 80)), f"'{MATRIX}.scale' belongs to a tensor of torch.float32"),
        (dimo, put("dimo.colors.scale", torch.ones(600, 1)), "'dimo.colors.scale' belongs to a tensor of"),
        (mvvdm, remove("unet.conv_in.weight"), "has no tensor 'unet.conv_in.weight'"),
        (mvvdm, put("unet.extra", torch.zeros(3)), "'unet.extra' is not one of the model"),
        (mvvdm, put("image_encoder.x", torch.zeros(3)), "'image_encoder.x' is not one of vae, unet"),
        (mvvdm, put("unet.conv_in.bias", torch.zeros(9)), "'unet.conv_in.bias' is [9], expected [8]"),
        (mvvdm, put("unet.conv_in.bias", torch.zeros(8, dtype=torch.int64)), "'unet.conv_in.bias' is torch.int64"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(publish, change, words):
    assert words in refusal(changed(publish, change))


@pytest.mark.parametrize("publish", [dimo, mvvdm, tiny])
def test_a_truncated_file_with_a_matching_manifest(publish):
    folder = zoo.info(publish()).folder
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    message = refusal(reseal(folder))
    assert "cannot be read as safetensors" in message and "truncated" in message


@pytest.mark.parametrize("size", [0, 5, 8])
@pytest.mark.parametrize("publish", [dimo, tiny])
def test_an_empty_file(publish, size):
    folder = zoo.info(publish()).folder
    (folder / "model.safetensors").write_bytes(bytes(size))
    with pytest.raises(zoo.RepositoryError, match=r"model.safetensors: is not a safetensors file"):
        zoo.load(reseal(folder))


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"format_version": NaN}']
)
def test_a_configuration_that_is_not_json(content):
    folder = zoo.info(dimo()).folder
    (folder / "config.json").write_bytes(content)
    with pytest.raises(
        zoo.RepositoryError, match=r"config.json is not a JSON object; download the model again"
    ):
        zoo.load(reseal(folder))


def test_a_configuration_with_infinite_numbers():
    """Python's JSON reader accepts NaN and Infinity, which JSON does not have."""
    folder = zoo.info(dimo()).folder
    content = json.loads((folder / "config.json").read_text())
    content["init"]["phases"][1] = np.inf
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(zoo.RepositoryError, match=r"config.json is not a JSON object"):
        zoo.load(reseal(folder))


def test_a_pipeline_folder_of_diffusers(tmp_path):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    from zoo.mvvdm import MVVDMPipeline

    zoo.load(mvvdm()).save_pretrained(tmp_path / "saved")
    MVVDMPipeline.from_pretrained(tmp_path / "saved")  # the control
    (file,) = (tmp_path / "saved" / "unet").glob("*.safetensors")
    state = load_file(file)
    state["conv_in.weight"].view(-1)[0] = torch.nan
    save_file(state, file, {"format": "pt"})
    with pytest.raises(zoo.ZooError, match=r"unet/.*safetensors: 1 of .* 'conv_in.weight'"):
        MVVDMPipeline.from_pretrained(tmp_path / "saved")
