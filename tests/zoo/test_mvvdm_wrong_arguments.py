"""Wrong arguments of MV-VDM's public functions: refused in a sentence that names the argument, before any work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_mvvdm import CONFIG, PLAN, batches, objective
from wrong_arguments import (
    HUGE,
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

import zoo.mvvdm
from zoo.mvvdm import (
    CheckpointFile,
    Denoising,
    MVVDMConfig,
    MVVDMOutput,
    MVVDMPipeline,
    MVVDMUNet,
    PatchAutoencoder,
    TrainingPlan,
    TrueClip,
    condition_cameras,
    condition_views,
    evaluate,
    mvvdm_scheduler,
    train,
)

PICTURES = np.full((2, 16, 16, 3), 127, np.uint8)
VIDEO = np.zeros((2, 3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> MVVDMPipeline:
    """A pipeline of the real classes; its language model does not exist, so that encoding a prompt would fail."""
    unet = MVVDMUNet(MVVDMConfig(**(vars(CONFIG) | {"in_channels": 4})))
    vae = PatchAutoencoder(4, (8, 8))
    made = MVVDMPipeline(
        vae, unet, mvvdm_scheduler(), sentence_encoder="no/such-model", num_frames=3, resolution=16
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def table(pipeline, tmp_path_factory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("table")
    (folder / "a-file").write_text("a file")
    call = {
        "resolution": ints(0, -8, HUGE, 17),
        "num_frames": ints(0, -1, HUGE),
        "num_inference_steps": ints(0, -1, 1001, HUGE, None),
        "decode_chunk_size": ints(0, -1, None),
        "guidance_scale": numbers(),
        "temperature": numbers(-1),
        "eta": numbers(-1, 2, None),
        "output_type": [None, 5, "", "gif", ["np"]],
        "negative_prompt": NO_TEXT,
        "cameras": [5, "front", [], orbit(2).K, [orbit(2)]],
        "callback_on_step_end": [5, "x"],
        "callback_on_step_end_tensor_inputs": [None, 5, "latents", ["noise"], [5]],
        "latents": [5, "x", [0.0], NAN * torch.zeros(2, 2, 4, 4, 4), torch.zeros(2, 2, 4, 4, 4, device="meta"),
                    torch.zeros(2, 2, 4, 4, 4, dtype=torch.int64), np.zeros((2, 2, 4, 4, 4))],
    }  # fmt: skip
    images = [None, 5, [], PICTURES[0], PICTURES.astype(float), PICTURES[..., :2], PICTURES[:0], [None], "nowhere.glb",
              torch.from_numpy(PICTURES).float(), 1.5]  # fmt: skip
    clip = TrueClip("a clip", "hops", VIDEO, orbit(2, 16))
    sizes = {"views": ints(0, -1, HUGE, None), "size": ints(0, -1, HUGE, None)}

    def training(**options: object) -> object:
        return train(**({"objective": objective(), "batches": batches, "plan": PLAN} | options))

    return {
        "MVVDMPipeline": Case(
            pipeline, {"images": PICTURES, "prompt": "hops"},
            call | {"images (images|nowhere.glb)": images, "prompt": NO_TEXT,
                    "generator": [5, "x", [torch.Generator()]]},
        ),
        "MVVDMPipeline.sample": Case(
            pipeline.sample, {"images": PICTURES, "prompt": "hops"},
            {"seed": ints(HUGE, -HUGE), "num_frames": ints(0), "prompt": NO_TEXT},
        ),
        "MVVDMPipeline.animate": Case(
            pipeline.animate, {"asset": "nowhere.glb", "sentence": "hops"},
            {"asset (images|nowhere.glb|a-file|asset)": ["nowhere.glb", str(folder / "a-file"), None, 5, ""],
             "seed": ints(HUGE), "sentence": NO_TEXT},
        ),
        "MVVDMOutput.save": Case(
            MVVDMOutput(frames=VIDEO).save, {"path": "out.mp4"}, {"path": [*NO_PATH, None]}
        ),
        "condition_cameras": Case(
            condition_cameras, {"views": 2, "size": 8}, sizes, {"views": [np.int64(2)], "size": [np.uint8(8)]}
        ),
        "condition_views": Case(
            condition_views, {"asset": "nowhere.glb"},
            {"asset (asset|nowhere.glb|a-file)": [None, 5, "nowhere.glb", folder / "a-file", PICTURES]},
        ),
        "TrainingPlan": Case(
            TrainingPlan, {"steps": 5},
            {"steps": ints(0, -1, None), "batch": ints(0, None), "warmup": ints(-1), "cooldown": ints(-1),
             "learning_rate": numbers(-1, None), "weight_decay": numbers(-1), "clip": numbers(-1),
             "ema": numbers(1, -0.1),
             "precision": [None, 5, "fp8"]},
            {"steps": [np.int64(5)], "batch": [np.int64(32)]},
        ),
        "CheckpointFile": Case(CheckpointFile, {"path": "a"}, {"path": [*NO_PATH, None]}),
        "MVVDMConfig": Case(
            MVVDMConfig, vars(CONFIG),
            {"in_channels": ints(0, None), "layers_per_block": ints(0, None), "num_heads": ints(0, None),
             "norm_num_groups": ints(0, None), "cross_attention_dim": ints(0, None), "image_embed_dim": ints(0),
             "image_tokens": ints(0), "block_out_channels": [None, 5, "ab", (8.0, 16), (8, 0), (), (8, "x"), (6, 16)],
             "attention_levels": [None, 5, (True,), (True, False, True), (1, 0)], "adapter": [None, 5, "x"],
             "from_first": [None, 1, "x"], "sentence": [None, 1]},
            {"in_channels": [np.int64(3)], "block_out_channels": [[8, 16], (np.int64(8), 16)]},
        ),
        "evaluate": Case(
            evaluate, {"sample": lambda clip: clip.frames, "clips": [clip]},
            {"sample": [None, 5, "x"], "clips": [None, 5, "x", [5], [None], [], VIDEO],
             "a video|a clip": []},
        ),
        "train": Case(
            training, {},
            {"objective": [None, 5, "x"], "batches": [None, 5, []], "plan": [None, 5, {}], "checkpoint": [5, "a.ckpt"],
             "save_every": ints(0, -1, None), "seed": ints(-1, None), "at_once": ints(0, None), "sharded": [None, 1],
             "validate_every": ints(-1, None), "device": ["nowhere", 1.5, "meta", "cuda:99", None]},
        ),
        "Denoising": Case(
            lambda **options: Denoising(**({"unet": pipeline.unet, "encode": lambda *_: None} | options)), {},
            {"caption_dropout": numbers(-1, 2, None), "prediction_type": [None, 5, "noise"],
             "timestep_power": numbers(0, -1, None), "mirrored": [None, 1], "encode": [None, 5], "unet": [None, 5]},
        ),
    }  # fmt: skip


NAMES = [
    "MVVDMPipeline", "MVVDMPipeline.sample", "MVVDMPipeline.animate", "MVVDMOutput.save", "condition_cameras",
    "condition_views", "TrainingPlan", "CheckpointFile", "MVVDMConfig", "evaluate", "train", "Denoising",
]  # fmt: skip
# Loading is in test_hub_*; the others are built by these.
NOT_CALLED = {
    "MVVDMUNet",
    "PatchAutoencoder",
    "Reconstruction",
    "TrueClip",
    "load_parts",
    "mvvdm_scheduler",
    "MVVDMOutput",
}


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_refused_in_a_sentence(table, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    complaints = {
        text: found
        for text, call, words in wrong_calls(table[name])
        if (found := complaint(call, words)) is not None
    }
    assert complaints == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_other_types_give_the_same_result(table, name):
    case = table[name]
    for argument, values in case.same.items():
        expected = plain(case.call(**case.good))
        for value in values:
            assert plain(case.call(**(case.good | {argument: value}))) == expected, (argument, value)


def test_every_public_name_is_in_the_table():
    assert set(zoo.mvvdm.__all__) - {name.partition(".")[0] for name in NAMES} - NOT_CALLED == set()
