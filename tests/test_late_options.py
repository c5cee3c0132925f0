"""Options that would fail only after hours of work: refused before any of it, with one sentence and exit code 2."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import contents, outcome
from hub_server import HubServer
from tiny_dataset import grow

import factory.__main__
import zoo.__main__
from cluster import StageError
from factory.training.dimo import configured
from factory.training.mvvdm.recipe import MVVDMRecipe
from factory.training.overrides import apply_overrides

# What a command calls once it starts to work. None of these may be reached.
WORK = (
    "factory.render.render", "factory.motions.render_motions", "factory.train.render_motions",
    "factory.train.train_objects", "factory.training.mvvdm.options.train_model", "factory.curate.caption_dataset",
    "factory.curate.export_lerobot", "factory.publish.publish", "zoo.commands.load", "zoo.commands.publish",
)  # fmt: skip

RENDER = "render --source creatures://bird --workers 0 --out new"
MOTIONS = "motions --objects creatures://bird --workers 0 --out new"
DIMO = "train dimo --objects creatures://bird --workers 0 --out new"
MVVDM = "train mvvdm --data discs --workers 0 --out new --set views=2 --set frames=2 --set resolution=16"
CAPTION = "curate caption --data discs --workers 0 --gpus 0"
PAPER = (
    "train mvvdm --data discs --out new --workers 0 --preset paper --set plan.batch=2 "
    "--set views=2 --set frames=2 --set resolution=16"
)


class Late(NamedTuple):
    """A command line, words of its sentence, and the environment."""

    argv: str
    words: str
    env: dict[str, str] = {}

    def __str__(self) -> str:
        return self.argv[:40] + "…" + self.argv[-40:]


FACTORY = [
    # factory.render
    Late(f"{RENDER} --resolution 33", "ClipRecipe.resolution: expected an even number"),
    Late(f"{RENDER} --resolution 8", "ClipRecipe.resolution: expected at least 16 and at most 4096, got 8"),
    Late(f"{RENDER} --margin nan", "expected a finite number, got nan"),
    Late(f"{RENDER} --margin 0.5", "ClipRecipe.margin: expected at least 0 and less than 0.5, got 0.5"),
    Late(f"{RENDER} --distance -1", "ClipRecipe.distance: expected more than 0, got -1"),
    Late(f"{RENDER} --fov-y-deg inf", "expected a finite number, got inf"),
    Late(f"{RENDER} --max-elevation-deg 100", "ClipRecipe.max_elevation_deg"),
    Late(f"{RENDER} --azimuth-jitter-deg -1", "ClipRecipe.azimuth_jitter_deg"),
    Late(f"{RENDER} --min-duration -1", "ClipRecipe.min_duration: expected at least 0, got -1"),
    Late(f"{RENDER} --min-motion -1", "ClipRecipe.min_motion"),
    Late(f"{RENDER} --max-animations 0", "ClipRecipe.max_animations"),
    # factory.motions
    Late(f"{MOTIONS} --seconds nan", "expected a finite number, got nan"),
    Late(f"{MOTIONS} --seconds 0", "MotionRecipe.seconds: expected more than 0, got 0"),
    Late(f"{MOTIONS} --heldout -2", "MotionRecipe.heldout: expected at least -1, got -2"),
    Late(f"{MOTIONS} --heldout-views 9", "MotionRecipe.heldout_views: expected at most 8"),
    Late(f"{MOTIONS} --points-seed -1", "MotionRecipe.points_seed: expected at least 0, got -1"),
    Late(f"{MOTIONS} --low-deg 91", "MotionRecipe.low_deg"),
    Late(f"{MOTIONS} --resolution 5000", "MotionRecipe.resolution"),
    # factory.train dimo
    Late(f"{DIMO} --set joint.steps=-5", "joint.steps: expected at least 1, got -5"),
    Late(f"{DIMO} --set joint.steps=0", "joint.steps: expected at least 1, got 0"),
    Late(f"{DIMO} --set joint.steps=many", "joint.steps: expected an integer"),
    Late(f"{DIMO} --set joint.decoder=(0,1)", "joint.decoder[0]: expected more than 0, got 0"),
    Late(f"{DIMO} --set joint.decoder=0.1", "joint.decoder: expected a tuple, such as (0.1, 0.1)"),
    Late(f"{DIMO} --set joint.batch=(4,3)", "joint.batch: expected 3 values"),
    Late(f"{DIMO} --set joint.batch=(4,3,0)", "joint.batch[2]: expected at least 1, got 0"),
    Late(f"{DIMO} --set pretraining.resolutions=((9,64),)", "increasing steps from 0"),
    Late(f"{DIMO} --set pretraining.prune_opacity=2", "expected at least 0 and at most 1, got 2"),
    Late(f"{DIMO} --set losses.rgb=nan", "losses.rgb: expected a finite number"),
    Late(f"{DIMO} --set losses.rgb=1e999", "losses.rgb: expected a finite number"),
    Late(f"{DIMO} --set latent_space=2", "latent_space: expected True or False"),
    Late(f"{DIMO} --set joint.stepz=5", "similar: joint.steps"),
    Late(f"{DIMO} --set steps=5", "similar: pretraining.steps, joint.steps"),
    Late(f"{DIMO} --set depth=3", "DIMOConfig.skip: expected 0..1 with depth 3, got 4"),
    Late(f"{DIMO} --set resolution=8", "MotionRecipe.resolution: expected at least 16"),
    Late(f"{DIMO} --text nope/model", "--text nope/model: neither a folder nor in the hub's cache"),
    Late(f"{DIMO} --text no/such/folder", "neither a folder nor the name of a model"),
    Late(f"{DIMO} --text empty", "--text empty: the folder has no config.json"),
    Late(f"{DIMO} --gpus 3", "--gpus 3: a worker needs 3, torch can use 0 on this machine"),
    Late(f"{DIMO} --gpus 0.25", "--gpus 0.25: a worker needs 1, torch can use 0"),
    Late(f"{DIMO} --seed -1", "--seed: expected at least 0, got -1"),
    Late(f"{DIMO} --max-hours nan", "--max-hours: expected a finite number"),
    Late(f"{DIMO} --cpus inf", "--cpus: expected a finite number"),
    Late(
        f"{DIMO.replace('--workers 0', '')} --cpus 5000", "--cpus 5000: this machine has", {"RAY_ADDRESS": "local"}
    ),
    Late(f"{DIMO} --preset paper", "vgg16-397923af.pth"),
    # factory.train mvvdm
    Late(f"{MVVDM} --publish org/x", "--publish org/x: expected local:mvvdm/name or hub:org/name"),
    Late(f"{MVVDM} --publish local:dimo/x", "the model is of the family mvvdm, expected local:mvvdm/x"),
    Late(f"{MVVDM} --publish local:mvvdm/x@v1", "without a revision"),
    Late(f"{MVVDM} --publish hub:org/x", "--publish hub:org/x: no account: log in", {"OFFLINE": ""}),
    Late(f"{MVVDM} --publish hub:org/x", "--publish hub:org/x: the hub's client is in offline mode"),
    Late(f"{MVVDM} --publish hub:org/x.git", "--publish hub:org/x.git: ", {"OFFLINE": ""}),
    Late(f"{MVVDM} --publish hub:org/{'x' * 120}", "the maximum length is 96", {"OFFLINE": ""}),
    Late(f"{MVVDM} --name 'a b/c'", "--name a b/c: expected a name without '/'"),
    Late(f"{MVVDM} --name 'a b'", "--name: 'local:mvvdm/a b' is not a model name"),
    Late(f"{MVVDM} --name ''", "--name: 'local:mvvdm/' is not a model name"),
    Late(f"{MVVDM} --name a--b", "is not a model name"),
    Late(f"{MVVDM} --set plan.steps=0", "plan.steps: expected at least 1, got 0"),
    Late(f"{MVVDM} --set plan.learning_rate=-1", "plan.learning_rate: expected more than 0, got -1"),
    Late(f"{MVVDM} --set plan.ema=1", "plan.ema: expected at least 0 and less than 1, got 1"),
    Late(f"{MVVDM} --set sampling_steps=0", "sampling_steps: expected at least 1 and at most 1000, got 0"),
    Late(f"{MVVDM} --set temperature=nan", "temperature: expected a finite number"),
    Late(f"{MVVDM} --set resolution=12", "MVVDMRecipe.resolution: expected a multiple of 8"),
    Late(f"{MVVDM} --set network.num_heads=3", "MVVDMConfig.block_out_channels"),
    Late(f"{MVVDM} --set plan.batch=500", "2 samples do not fill one batch of 500 on each of 1 ranks"),
    Late(f"{MVVDM} --set views=3", "the recipe needs 3 evenly spaced views"),
    Late(f"{MVVDM} --gpus 1", "--gpus 1: a worker needs 1, torch can use 0"),
    Late(f"{MVVDM.replace('--workers 0', '--workers 2')} --gpus 1", "--gpus 1: 2 workers need 2, torch can use 0"),
    Late(f"{MVVDM} --seed -1", "--seed: expected at least 0, got -1"),
    Late(f"{MVVDM} --mvdream org/x", "--mvdream: this preset trains from scratch"),
    Late(f"{PAPER} --mvdream no/such/file", "--mvdream no/such/file: no such file or folder"),
    Late(f"{PAPER} --motion-adapter no/such/file", "--motion-adapter no/such/file: no such file or folder"),
    # factory.curate
    Late(f"{CAPTION} --model nope/model", "--model nope/model: neither a folder nor in the hub's cache"),
    Late(f"{CAPTION} --model empty", "--model empty: the folder has no config.json"),
    Late("curate caption --data discs --workers 0 --model empty", "--gpus 1: a worker needs 1, torch can use 0"),
    # factory.publish
    Late("publish --data discs --to hub:org/x", "--to hub:org/x: no account: log in", {"OFFLINE": ""}),
    Late("publish --data discs --to hub:org/x", "the hub's client is in offline mode"),
]  # fmt: skip

ZOO = [
    Late("sample dimo/bird --frames 0 --out new.npz", "--frames 0: expected at least 1"),
    Late("sample dimo/bird --between a b --steps 1 --out new.npz", "--steps 1: expected at least 2"),
    Late("sample dimo/bird --out a-file/new.npz", "a-file is a file, expected a folder"),
    Late("export dimo/bird --frames -3 --out new.glb", "--frames -3: expected at least 1"),
    Late("export dimo/bird --out a-file/new.glb", "a-file is a file, expected a folder"),
    Late("render dimo/bird --resolution 33 --out new.mp4", "--resolution 33: expected an even number"),
    Late("render dimo/bird --resolution 0 --out new.mp4", "--resolution 0: expected at least 2"),
    Late("render dimo/bird --distance 0 --out new.mp4", "--distance 0: expected a finite number above 0"),
    Late("render dimo/bird --elevation-deg nan --out new.mp4", "--elevation-deg nan: expected an angle from -90 to 90"),
    Late("render dimo/bird --azimuth-deg inf --out new.mp4", "--azimuth-deg inf: expected a finite angle"),
    Late("render dimo/bird --views 0 --out new", "--views 0: expected at least 1"),
    Late("render dimo/bird --out a-file/new.mp4", "a-file is a file, expected a folder"),
    Late("animate mvvdm/tiny thing.glb jumps --out a-file/new.mp4", "a-file is a file, expected a folder"),
    Late("publish dimo/bird org/x", "target org/x: expected local:family/name or hub:org/name"),
    Late("publish dimo/bird local:dimo/x@v1", "without a revision"),
    Late("publish dimo/bird hub:org/x", "target hub:org/x: no account: log in", {"OFFLINE": ""}),
    Late("publish dimo/bird hub:org/x", "the hub's client is in offline mode"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("late")
    grow(root / "discs", 0, 2)
    (root / "empty").mkdir()
    (root / "a-file").write_bytes(b"not a folder")
    (root / "thing.glb").write_bytes(b"not read before the other checks")
    return root


@pytest.fixture
def idle(folder, monkeypatch, tmp_path) -> list[str]:
    """Work in the folder, without account, cache, network and GPU; the work functions that were reached."""
    import huggingface_hub
    import torch
    from huggingface_hub import constants

    monkeypatch.chdir(folder)
    for name in ("RAY_ADDRESS", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("factory.training.machine._LPIPS_HOST", "127.0.0.1")
    reached: list[str] = []

    def work(name: str) -> None:
        reached.append(name)
        raise StageError(f"{name} was reached")

    for name in WORK:
        monkeypatch.setattr(name, lambda *args, _name=name, **options: work(_name))
    return reached


@pytest.mark.parametrize(
    ("main", "late"),
    [(factory.__main__.main, each) for each in FACTORY] + [(zoo.__main__.main, each) for each in ZOO],
    ids=lambda value: str(value) if isinstance(value, Late) else value.__module__.partition(".")[0],
)
def test_a_late_option_is_refused_before_any_work(main, late, idle, folder, monkeypatch, capfd):
    for name, value in late.env.items():
        if name == "OFFLINE":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        else:
            monkeypatch.setenv(name, value)
    before = contents(folder)
    code = outcome(main, shlex.split(late.argv))
    out, err = capfd.readouterr()
    assert code == 2, err
    assert late.words in err
    assert "Traceback" not in out + err
    assert len([line for line in err.splitlines() if not line.startswith(("note: ", "usage: ", " "))]) == 1, (
        err
    )
    assert idle == []
    assert contents(folder) == before


# --- the hub's answer -------------------------------------------------------------------------------


@pytest.fixture
def hub(idle, monkeypatch, tmp_path) -> Iterator[HubServer]:
    """A hub on this machine, and an account on it."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_any")
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


def test_a_hub_that_accepts_the_account_lets_the_work_begin(idle, hub):
    assert outcome(zoo.__main__.main, ["publish", "dimo/bird", "hub:org/x"]) == 1
    assert idle == ["zoo.commands.publish"]
    assert [request.path for request in hub.requests] == ["/api/whoami-v2"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (401, "the token of this account is not valid: log in"),
        (403, "the token of this account is not valid: log in"),
        ("drop", "does not answer: check the connection"),
        ("read", "the token of this account may only read: log in"),
        (500, None),  # it may be up again when the work is done
        (429, None),
    ],
)
@pytest.mark.parametrize("argv", [f"{MVVDM} --publish hub:org/x", "publish --data discs --to hub:org/x"])
def test_the_account_is_checked_with_the_hub(answer, words, argv, idle, hub, folder, monkeypatch, capfd):
    monkeypatch.setattr("zoo.hub_access.TIMEOUT_S", 2.0)
    if answer == "read":
        hub.account = {"auth": {"accessToken": {"role": "read"}}}
    else:
        hub.hook = lambda request: answer if "whoami" in request.path else None
    before = contents(folder)
    code = outcome(factory.__main__.main, shlex.split(argv))
    error = capfd.readouterr().err
    assert contents(folder) == before
    if words is None:
        assert idle, error
    else:
        assert code == 2 and words in error and not idle


# --- configurations ---------------------------------------------------------------------------------


def test_values_that_only_fit_together_are_applied_together():
    for overrides in (["depth=3", "skip=1"], ["skip=1", "depth=3"]):
        config = configured("laptop", overrides)
        assert (config.depth, config.skip) == (3, 1)
    for overrides in (
        ["network.from_first=False", "prediction_type=epsilon"],
        ["prediction_type=epsilon", "network.from_first=False"],
    ):
        recipe = apply_overrides(MVVDMRecipe.tiny(), overrides)
        assert recipe.prediction_type == "epsilon" and not recipe.network.from_first
    network = apply_overrides(
        MVVDMRecipe.tiny(),
        ["network.num_heads=2", "network.norm_num_groups=4", "network.block_out_channels=(8, 8, 8)"],
    ).network
    assert network.block_out_channels == (8, 8, 8)
    with pytest.raises(ValueError, match=r"--set prediction_type=epsilon: .*expected 'sample'"):
        apply_overrides(MVVDMRecipe.tiny(), ["prediction_type=epsilon"])


def test_the_last_of_two_values_is_taken_and_others_stay():
    config = configured(
        "laptop", ["joint.steps=5", "losses.ssim=2", "joint.steps=7", "pretraining.points_steps=5"]
    )
    assert (config.joint.steps, config.losses.ssim, config.pretraining.points_steps) == (7, 2, 5)
    assert type(config.losses.ssim) is int  # as before: hashes of configurations depend on it
    assert config.joint.batch == configured("laptop").joint.batch
