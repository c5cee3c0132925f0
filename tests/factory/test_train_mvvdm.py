"""`python -m factory.train mvvdm`: the published model, resuming to the same bits, and error messages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dying_mvvdm
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import VIEWS as TINY_VIEWS
from tiny_dataset import grow
from train_mvvdm_driver import FRAMES, SIZE, VIEWS, arguments, write_discs

import zoo
from cluster import connect
from factory import load_clips
from factory.train import main
from factory.training.mvvdm.clips import ClipShare, shrunk, true_clip
from factory.training.mvvdm.job import MVVDMTrainingJob
from factory.training.mvvdm.recipe import MVVDMRecipe
from factory.training.mvvdm.run import training_status
from factory.training.mvvdm.worker import model_card, training_data
from factory.training.overrides import apply_overrides
from zoo.mvvdm.training import averages_of
from zoo.provenance import SharingPolicy
from zoo.repository import Config

SUPPORT = Path(__file__).parents[1] / "support"
ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
    "OMP_NUM_THREADS": "1",
}


def start(data: Path, out: Path, *more: str, dies_at: int | None = None) -> subprocess.Popen:
    script = ["train_mvvdm_driver.py"] if dies_at is None else ["dying_mvvdm.py", str(dies_at)]
    command = [sys.executable, "-P", str(SUPPORT / script[0]), *script[1:], str(data), str(out), *more]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=1800)[0]
    assert process.returncode == 0, output
    return output


def weights(out: Path) -> str:
    (file,) = out.glob("models/mvvdm/tiny/snapshots/*/model.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def averages(out: Path) -> dict[str, torch.Tensor]:
    (file,) = out.glob("_factory/training/*/network.safetensors")
    return averages_of(file.read_bytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mvvdm") / "discs"
    write_discs(root)
    return root


@pytest.fixture(scope="module")
def undisturbed(data) -> Path:
    out = data.parent / "undisturbed"
    assert main(arguments(data, out, "--workers", "0")) == 0
    return out


def test_a_trained_model_is_in_the_registry(undisturbed):
    model = zoo.load("local:mvvdm/tiny", home=undisturbed)
    assert model.config.num_frames == 4 and model.config.resolution == 16
    metrics = model.metrics
    assert metrics["dataset"]["split"] == "test" and len(metrics["clips"]) == 2
    assert {"psnr", "psnr_still", "flow_error", "flow_error_still", "identity"} <= set(metrics["mean"])
    curve = metrics["training"].pop("loss")
    assert metrics["training"] == {"steps": 8, "batch": 2, "clips": 5}
    assert curve[-1]["step"] == 8 and all(0 < point["loss"] < 10 for point in curve)
    assert zoo.info("local:mvvdm/tiny", home=undisturbed).card["sections"]["Loss"] == curve
    whitening = model.unet.whitening.state_dict()
    assert whitening["mean"].any() and not torch.equal(
        whitening["matrix"], torch.eye(387)
    )  # of the clips' clauses
    assert zoo.info("local:mvvdm/tiny", home=undisturbed).card["license"] == "CC-BY-4.0"
    sheets = sorted(undisturbed.glob("_factory/training/*/validation/*.png"))
    assert [sheet.stem for sheet in sheets] == ["0000004", "0000008"]
    assert Image.open(sheets[0]).size == (4 * 16, 2 * 2 * 16)


def test_the_model_is_evaluated_on_test_data(data, tmp_path):
    other, out = tmp_path / "other", tmp_path / "out"
    write_discs(other, first=10)
    options = ["--set", "plan.steps=1", "--test-clips", "6", "--test-data", str(other), "--workers", "0"]
    assert main(arguments(data, out, *options)) == 0
    metrics = zoo.load("local:mvvdm/tiny", home=out).metrics
    assert metrics["dataset"]["name"] == "other" and len(metrics["clips"]) == 6
    assert "clips that were not used for training" in metrics["protocol"]


def test_a_model_is_never_measured_unseen_on_its_training_clips(data, tmp_path, capsys):
    """Without a test split the card says so; test data that has training clips is refused."""
    only_train, out = tmp_path / "train", tmp_path / "out"
    write_discs(only_train, test=0)
    assert main(arguments(only_train, out, "--set", "plan.steps=1", "--workers", "0")) == 0
    metrics = zoo.load("local:mvvdm/tiny", home=out).metrics
    assert metrics["dataset"]["split"] == "train"
    card = next(out.glob("models/mvvdm/tiny/snapshots/*/README.md")).read_text()
    for text in (metrics["protocol"], card):
        assert "clips that the model was trained on" in text and "not used for training" not in text
    with pytest.raises(SystemExit):
        main(arguments(data, tmp_path / "new", "--test-data", str(only_train)))
    assert "5 of its 5 clips, such as clip-00, are also in the training data" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_bits(data, undisturbed, tmp_path):
    process = start(data, tmp_path, "--workers", "0", dies_at=6)
    process.communicate(timeout=600)
    assert process.returncode == -9 and not list(tmp_path.glob("models/**/*.safetensors"))
    assert main(arguments(data, tmp_path, "--workers", "0")) == 0
    assert weights(tmp_path) == weights(undisturbed)


@pytest.mark.slow
def test_an_ablation_trains_the_network_without_its_parts(data, undisturbed, tmp_path, capsys):
    """Four models with the parameters of their variant; the whole one is the bits of a training alone."""
    short = ["--workers", "0", "--ablation"]
    assert main(arguments(data, tmp_path, *short)) == 0
    assert weights(tmp_path) == weights(undisturbed)
    table = (tmp_path / "ablation.md").read_text().splitlines()
    names = ["tiny", "tiny-without-spatial-attention", "tiny-without-adapter", "tiny-without-both"]
    assert [row.split("|")[1].strip() for row in table[2:]] == names and "psnr" in table[0]
    for name in names:
        unet = zoo.load(f"local:mvvdm/{name}", home=tmp_path).unet
        parts = {part for key in unet.state_dict() for part in ("_sp.", "_i2v.") if part in key}
        absent = {"spatial-attention": {"_sp."}, "adapter": {"_i2v."}, "both": {"_sp.", "_i2v."}}
        assert parts == {"_sp.", "_i2v."} - absent.get(name.removeprefix("tiny-without-"), set())
    capsys.readouterr()
    assert main(arguments(data, tmp_path, *short, "--json")) == 0  # nothing is trained again
    assert set(json.loads(capsys.readouterr().out)["models"]) == set(names)


def test_an_ablation_is_refused_where_it_means_nothing(data, tmp_path, capsys):
    for more, words in (
        (["--preset", "paper"], "--ablation: expected a preset that trains from scratch"),
        (["--publish", "local:mvvdm/one"], "--publish publishes one model, --ablation trains four"),
    ):
        with pytest.raises(SystemExit):
            sizes = ["--set", "views=2", "--set", "frames=4", "--set", "resolution=16"]
            main(["mvvdm", "--data", str(data), "--out", str(tmp_path), *sizes, "--ablation", *more])
        assert words in capsys.readouterr().err


def test_options_that_are_off_leave_the_keys_of_before():
    """Trainings of version 0.1 count as done: their keys did not contain `spatial`."""
    recipe = MVVDMRecipe.tiny()
    assert "spatial" not in json.dumps(recipe.key_content())
    off = replace(recipe, network=replace(recipe.network, spatial=False))
    assert off.key_content()["network"]["spatial"] is False


def test_a_rerun_trains_nothing(data, undisturbed, capsys):
    before = weights(undisturbed)
    assert main(arguments(data, undisturbed, "--workers", "0")) == 0
    assert "local:mvvdm/tiny@" in capsys.readouterr().out and weights(undisturbed) == before


TWO = ["--save-every", "5", "--set", "plan.steps=16", "--workers", "2"]


@pytest.mark.slow
def test_two_workers_give_the_same_bits_if_one_is_killed_and_the_weights_of_one_worker(data, tmp_path):
    """The worker is killed at step 12, with a checkpoint of step 10."""
    alone, lived, died = (tmp_path / name for name in ("alone", "lived", "died"))
    assert main(arguments(data, alone, *TWO[:-1], "0")) == 0
    with connect(2):  # one Ray for both
        assert main(arguments(data, lived, *TWO)) == 0
        assert dying_mvvdm.main(["12", str(data), str(died), *TWO]) == 0
    assert (died / "died").exists() and weights(died) == weights(lived)
    one, two = averages(alone), averages(lived)
    assert all(torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-4) for name in one)


@pytest.mark.slow
def test_two_workers_give_the_same_bits_if_the_driver_is_killed(data, tmp_path):
    lived, killed = tmp_path / "lived", tmp_path / "killed"
    finish(start(data, lived, *TWO))
    process = start(data, killed, *TWO)
    _wait(lambda: list(killed.glob("_factory/training/*/network.safetensors")), process)
    process.kill()
    process.communicate()
    assert not list(killed.glob("models/**/*.safetensors")), "the training ended before it was killed"
    finish(start(data, killed, *TWO))
    assert weights(killed) == weights(lived)


# --- the clips ------------------------------------------------------------------------------------------


def test_the_batch_does_not_depend_on_the_number_of_workers(data):
    def shares(size: int, first: int = 0) -> list[list[str]]:
        batches = []
        for rank in range(size):
            clips = ClipShare(
                load_clips(data, "train"), 16, part=slice(rank, None, size), views=2, frames=4, batch_size=3
            )
            clips.set_epoch(1, first)
            batches.append([[*zip(b["clip_id"], b["view_group"].tolist(), strict=True)] for b in clips])
        return [[sample for share in step for sample in share] for step in zip(*batches, strict=True)]

    alone = shares(1)
    assert len(alone) == 6 and all(len(batch) == 3 for batch in alone)
    for size in (2, 3):
        assert [sorted(batch) for batch in shares(size)] == [sorted(batch) for batch in alone]
    assert shares(1, first=4) == alone[4:]


def test_frames_are_downsampled_by_averaging_and_never_enlarged():
    frames = torch.rand(1, 2, 3, 3, 8, 8)
    torch.testing.assert_close(shrunk(frames, 4)[0, 0, 0, :, 1, 2], frames[0, 0, 0, :, 2:4, 4:6].mean((1, 2)))
    assert shrunk(frames, 8) is frames
    with pytest.raises(ValueError, match="the model needs square clips of 16 px or more"):
        shrunk(frames, 16)


def test_a_true_clip_has_the_shape_of_a_sample(data):
    dataset = load_clips(data, "test")
    recipe = apply_overrides(MVVDMRecipe.tiny(), ["views=2", "frames=4", "resolution=16"])
    clip = true_clip(dataset, dataset[0], recipe)
    assert clip.frames.shape == (2, 4, 16, 16, 3) and clip.caption == "rolls 5 times" and clip.depth is None
    whole = dataset[0].read([0, 4], [0, 3, 6, 9], background=(127, 127, 127)).frames
    assert np.abs(clip.frames[1, 2, 8, 8] - whole[1, 2, 16:18, 16:18].mean((0, 1))).max() <= 1
    centre, _ = clip.cameras.project(np.zeros(3))
    full, _ = dataset[0].cameras[[0, 4]].project(np.zeros(3))
    np.testing.assert_allclose(centre, full * 16 / SIZE)


# --- the command ----------------------------------------------------------------------------------------


def test_recipes_and_jobs_survive_json():
    from dataclasses import asdict

    for recipe in (MVVDMRecipe.tiny(), MVVDMRecipe.paper()):
        assert MVVDMRecipe.from_json(json.loads(json.dumps(asdict(recipe)))) == recipe
        job = MVVDMTrainingJob(
            recipe=recipe, seed=1, parts={"base": "folder"}, key="0", name="tiny", out="out", data="data",
            test_data=None, publish="local:mvvdm/tiny", home="out", sharded=False, at_once=1, compile=False,
            gradient_checkpointing=False, loader_workers=0, save_every=1, validate_every=1, test_clips=1,
        )  # fmt: skip
        assert MVVDMTrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    paper = MVVDMRecipe.paper()
    assert (paper.frames, paper.resolution, paper.plan.batch, paper.plan.learning_rate) == (16, 256, 32, 1e-4)
    assert paper.plan.precision == "fp16" and paper.autoencoder is None


def test_bad_arguments_are_refused_with_a_sentence(data, tmp_path, capsys):
    for more, words in (
        (["--set", "plan.stops=1"], "TrainingPlan has no 'stops'"),
        (["--set", "plan.precision=int8"], "expected one of fp32, bf16, fp16"),
        (["--set", "prediction_type=epsilon"], "expected 'sample' for a network with from_first"),
        (
            ["--set", "resolution=256"],
            "needs square clips of at least 256 px, these are 32x32 px: render them with --resolution 256",
        ),
        (
            ["--set", "frames=13"],
            f"13 frames, the clips have {VIEWS} and {FRAMES}: choose others with --set views",
        ),
        (
            ["--workers", "3"],
            "a batch of 2 cannot be split over 3 workers: use fewer workers, or --set plan.batch=3",
        ),
        (["--workers", "2-1"], "expected a number or LEAST-MOST, got '2-1'"),
        (["--workers", "many"], "expected a number or LEAST-MOST"),
        (["--cpus", "0"], "--cpus: expected more than 0"),
        (["--data", str(tmp_path)], "no clips in"),
        (["--quality", "high"], "none of the 5 clips of"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments(data, tmp_path), *more])
        assert words in capsys.readouterr().err


def test_the_assets_of_a_dataset_are_recorded_and_one_is_enough_to_refuse_the_model(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("zoo.hub_access.check_hub_repository", lambda *_: None)  # there is no account here
    grow(tmp_path / "made", 0, 6)
    assert training_data(load_clips(tmp_path / "made")) == [
        {
            "source": "tests", "licence": "CC-BY-4.0", "noai": "no", "uid": "disc-0", "assets": 3,
            "attribution": "in ATTRIBUTION.md of the dataset",
        }
    ]  # fmt: skip
    control = SharingPolicy("hub:org/x", lambda name: None, needs_licence=True, off=False)
    card = model_card("x", load_clips(tmp_path / "made"), MVVDMRecipe.tiny(), [])
    assert control.check(Config("mvvdm", {"card": card}, card)) == card["provenance"]
    grow(tmp_path / "made", 6, 7, licence="CC-BY-ND-4.0")
    grow(tmp_path / "made", 8, 10, attribution="")
    card = model_card("x", load_clips(tmp_path / "made"), MVVDMRecipe.tiny(), [])
    with pytest.raises(zoo.ZooError) as error:
        control.check(Config("mvvdm", {"card": card}, card))
    assert "asset tests/disc-3: licence CC-BY-ND-4.0 does not let anybody share" in str(error.value)
    assert "asset tests/disc-4: no attribution" in str(error.value)
    recipe = ["--set", f"views={TINY_VIEWS}", "--set", "frames=4", "--set", "resolution=16"]
    train = ["mvvdm", "--data", str(tmp_path / "made"), "--out", str(tmp_path / "out"), *recipe]
    with pytest.raises(SystemExit) as stop:
        main([*train, "--publish", "hub:org/x"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert (
        "--publish hub:org/x: a model trained on" in said and "2 of 9 clips may not be published" not in said
    )
    assert "3 of 9 clips may not be published" in said and not (tmp_path / "out").exists()


def test_the_progress_display_divides_a_steps_time():
    assert training_status({}, 1.0).line() == "[    1 s] steps 0, stage starting"
    assert training_status({"stage": "measuring"}, 1.0).facts == {"stage": "measuring"}
    progress = {
        "stage": "network", "step": 50, "steps": 200, "loss": 0.12345, "workers": 2, "seconds": 100.0,
        "loader": 0.01, "forward": 0.3, "backward": 0.6, "optimiser": 0.05,
    }  # fmt: skip
    line = training_status(progress, 101.0).line()
    assert line.startswith(
        "[  101 s] steps 50/200, stage network, loss 0.1235, workers 2, s/step 2.00, loader 1%"
    )
    assert line.endswith("minutes left 5")


def _wait(condition, process: subprocess.Popen, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
