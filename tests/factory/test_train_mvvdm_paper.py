"""`python -m factory.train mvvdm --preset paper`, from small published parts of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from small_mvvdm import CONFIG, small_pipeline, write_parts
from train_mvvdm_driver import write_discs

import zoo
from factory.train import main
from zoo.mvvdm.files import MOTION_ADAPTER
from zoo.mvvdm.parts import kind
from zoo.mvvdm.pipeline import MVVDMPipeline

SETTINGS = {
    "network.block_out_channels": CONFIG.block_out_channels, "network.attention_levels": CONFIG.attention_levels,
    "network.layers_per_block": 1, "network.num_heads": 2, "network.norm_num_groups": 8,
    "network.cross_attention_dim": 16, "network.image_embed_dim": 12, "plan.steps": 2, "plan.batch": 1,
    "plan.precision": "fp32", "plan.learning_rate": 0.01, "views": 2, "frames": 4, "resolution": 16,
    "guidance": 3.0, "temperature": 0.9, "sampling_steps": 1,
}  # fmt: skip


class Training(NamedTuple):
    """A finished training of preset `paper`.

    Attributes:
        parts: the network as published, before the training.
        model: the trained one, loaded from the registry.
        folder: files of the trained one.
        moves: devices that the pipeline was moved to, in order; "sample" whenever it sampled.
    """

    parts: MVVDMPipeline
    model: MVVDMPipeline
    folder: Path
    moves: list[str]


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Training:
    root = tmp_path_factory.mktemp("paper")
    write_discs(root / "discs", test=1)
    published = small_pipeline()
    before = {name: tensor.clone() for name, tensor in published.unet.state_dict().items()}
    folders = write_parts(published, root)
    # The default source of the motion modules, as a folder below the working directory.
    (root / MOTION_ADAPTER).parent.mkdir(parents=True)
    folders["motion_adapter"].rename(root / MOTION_ADAPTER)
    moves: list[str] = []

    def moved(self, *args, **kwargs):
        moves.append(" ".join(str(value) for value in (*args, *kwargs.values())))
        return move(self, *args, **kwargs)

    def sampled(self, *args, **kwargs):
        moves.append("sample")
        return sample(self, *args, **kwargs)

    move, sample = MVVDMPipeline.to, MVVDMPipeline.sample
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(MVVDMPipeline, "to", moved)
        patch.setattr(MVVDMPipeline, "sample", sampled)
        options = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
        arguments = [
            "mvvdm", "--preset", "paper", "--data", "discs", "--out", "out", "--name", "small", "--workers", "0",
            "--loader-workers", "0", "--mvdream", str(folders["mvdream"]), "--ip-adapter", str(folders["ip_adapter"]),
            *options,
        ]  # fmt: skip
        assert main(arguments) == 0
    published.unet.load_state_dict(before)
    (folder,) = (root / "out" / "models" / "mvvdm" / "small" / "snapshots").iterdir()
    return Training(published, zoo.load("mvvdm/small", home=root / "out"), folder, moves)


def test_only_adapters_and_motion_modules_are_trained(training):
    """All other weights are the published ones to the bit, in the half precision of the file."""
    before, after = training.parts.unet.state_dict(), training.model.unet.state_dict()
    names = {name for name, _ in training.parts.unet.trainable_parameters()}
    assert 0 < len(names) < len(before)
    moved = {name for name, tensor in before.items() if not torch.equal(tensor.half().float(), after[name])}
    assert moved <= names and {kind(name) for name in moved} == {"motion", "spatial", "adapter"}
    for part in ("vae", "text_encoder", "image_encoder"):
        state = getattr(training.model, part).state_dict()
        for name, tensor in getattr(training.parts, part).state_dict().items():
            assert torch.equal(tensor.half(), state[name].half()), name


def test_motion_modules_are_animatediffs_without_the_option(training):
    """`--motion-adapter` was not given. After two steps of 0.01 the weights are still near AnimateDiff's."""
    before, after = training.parts.unet.state_dict(), training.model.unet.state_dict()
    for name in (name for name in before if kind(name) == "motion"):
        assert (before[name] - after[name]).abs().max() < 0.025, name


def test_the_recipe_is_written_to_the_model(training):
    """The defaults of a call are those that the model was trained and evaluated with."""
    config = training.model.config
    assert (config.num_frames, config.resolution) == (4, 16)
    assert (config.guidance_scale, config.temperature) == (3.0, 0.9)
    training.model.set_progress_bar_config(disable=True)
    assert training.model.sample(0, num_inference_steps=1).frames.shape == (2, 4, 16, 16, 3)


def test_the_preview_is_sampled_where_the_model_was_trained(training):
    """The pipeline is moved to the device of the training once, and the preview is sampled there."""
    assert (training.folder / "preview.mp4").stat().st_size > 200
    assert training.moves == ["cpu", "sample"]
