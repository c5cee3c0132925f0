"""Model names, the local registry and publishing to it, with a tiny model family."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_family import Pendulum, pendulum

import zoo
from zoo import families, lookup

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Register the tiny family and use an empty registry."""
    monkeypatch.setattr(families, "_registered", {})
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path / "home"))
    zoo.register_family("tiny", "tiny_family:Pendulum")


def same(a: Pendulum, b: Pendulum) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in {**a.weights, **b.weights})


def test_a_published_model_loads_bit_for_bit(tmp_path):
    model = pendulum(metrics={"psnr": 31.5, "protocol": "by eye"})
    name = zoo.publish(model, "local:tiny/clock")
    source, revision = name.split("@")
    assert source == "local:tiny/clock" and len(revision) == 40
    for spelling in ("tiny/clock", "local:tiny/clock", name, f"tiny/clock@{revision[:8]}", "tiny/clock@main"):
        loaded = zoo.load(spelling)
        assert isinstance(loaded, Pendulum) and same(loaded, model)
        assert loaded.metrics == model.metrics
        assert np.array_equal(loaded.sample(3), model.sample(3))
    assert not same(pendulum(1), model)


def test_the_registry_can_be_in_another_folder(tmp_path):
    zoo.publish(pendulum(), "local:tiny/clock", home=tmp_path / "elsewhere")
    assert zoo.list_models() == [n for n in zoo.list_models() if n != "tiny/clock"]
    assert "tiny/clock" in zoo.list_models(home=tmp_path / "elsewhere")
    with pytest.raises(zoo.UnknownModelError):
        zoo.load("tiny/clock")
    zoo.load("tiny/clock", home=tmp_path / "elsewhere")


def test_the_same_model_has_the_same_revision_and_another_has_another():
    first = zoo.publish(pendulum(0), "local:tiny/clock")
    assert zoo.publish(pendulum(0), "local:tiny/clock") == first
    second = zoo.publish(pendulum(1), "local:tiny/clock")
    assert second != first
    assert same(zoo.load("tiny/clock"), pendulum(1)) and same(zoo.load(first), pendulum(0))


def test_the_layout_is_that_of_a_hub_cache(tmp_path):
    revision = zoo.publish(pendulum(), "local:tiny/clock").split("@")[1]
    root = tmp_path / "home" / "models" / "tiny" / "clock"
    assert (root / "refs" / "main").read_text() == revision
    files = {path.name for path in (root / "snapshots" / revision).iterdir()}
    assert files == {
        "config.json",
        "model.safetensors",
        "README.md",
        "metrics.json",
        "preview.mp4",
        "manifest.json",
    }
    config = json.loads((root / "snapshots" / revision / "config.json").read_text())
    assert config["family"] == "tiny" and config["format_version"] == 1
    assert config["init"] == {"latent": 4, "title": "Pendulum"}
    assert {path.name for path in root.iterdir()} == {"refs", "snapshots"}


def test_info_does_not_load_the_weights(monkeypatch):
    name = zoo.publish(pendulum(metrics={"mean": {"psnr": 31.5}}), "local:tiny/clock")
    monkeypatch.setattr(Pendulum, "load_from", None)
    known = zoo.info("tiny/clock")
    assert known.name == name and known.source == "local" and known.family == "tiny"
    assert known.card["license"] == "CC0-1.0" and known.metrics == {"mean": {"psnr": 31.5}}
    assert known.files["model.safetensors"] == (known.folder / "model.safetensors").stat().st_size


def test_list_with_wildcards():
    for name in ("clock", "swing", "bell"):
        zoo.publish(pendulum(), f"local:tiny/{name}")
    bundled = zoo.list_models("bundled:*")
    assert [n for n in zoo.list_models("tiny/*")] == ["tiny/bell", "tiny/clock", "tiny/swing"]
    assert zoo.list_models("*/s*g") == ["tiny/swing"]
    assert zoo.list_models("local:tiny/[bc]*") == ["local:tiny/bell", "local:tiny/clock"]
    assert zoo.list_models("nothing/*") == []
    assert len(zoo.list_models()) == 3 + len(bundled)
    with pytest.raises(zoo.ZooError, match="expected it to begin with one of local:, bundled:, hub:"):
        zoo.list_models("s3:*")


def test_the_local_registry_comes_before_the_package(monkeypatch, tmp_path):
    folder = zoo.info(
        zoo.publish(pendulum(0), "local:tiny/clock", home=tmp_path / "other"), home=tmp_path / "other"
    ).folder
    bundled = tmp_path / "bundled" / "tiny" / "clock"
    bundled.parent.mkdir(parents=True)
    os.rename(folder, bundled)
    monkeypatch.setattr(lookup, "BUNDLED", tmp_path / "bundled")
    assert zoo.list_models() == ["tiny/clock"]
    assert same(zoo.load("tiny/clock"), pendulum(0))
    revision = zoo.info("tiny/clock").revision
    assert zoo.info("tiny/clock").source == "bundled" and same(
        zoo.load(f"tiny/clock@{revision[:7]}"), pendulum(0)
    )
    zoo.publish(pendulum(1), "local:tiny/clock")
    assert zoo.list_models() == ["tiny/clock"]
    assert same(zoo.load("tiny/clock"), pendulum(1)) and same(zoo.load("bundled:tiny/clock"), pendulum(0))
    assert same(zoo.load(f"tiny/clock@{revision}"), pendulum(0)), (
        "a revision that the registry lacks is searched in the package"
    )


def test_bundled_models_are_complete_and_small():
    for name in zoo.list_models("bundled:*"):
        known = zoo.info(name)
        most = {"dimo": 5_000_000, "mvvdm": 40_000_000}[known.family]
        assert sum(known.files.values()) <= most, name
        assert known.card["license"] and known.metrics, name


def test_an_unknown_name_gets_suggestions():
    for name in ("kangaroo", "bird", "robot"):
        zoo.publish(pendulum(), f"local:tiny/{name}")
    with pytest.raises(
        zoo.UnknownModelError, match=r"no model 'tiny/kangaro'; similar names: [^(]*tiny/kangaroo"
    ) as error:
        zoo.load("tiny/kangaro")
    assert "not bundled" in str(error.value) and "local registry" in str(error.value)
    with pytest.raises(zoo.UnknownModelError, match=r"similar names: .*tiny/robot"):
        zoo.load("timy/robot")
    with pytest.raises(
        zoo.UnknownModelError, match=r"'kangaroo' is not a model name: .*similar names: .*tiny/kangaroo"
    ):
        zoo.load("kangaroo")
    with pytest.raises(
        zoo.UnknownModelError, match="0 of 1 revisions of tiny/bird in the local registry match 'abc'"
    ):
        zoo.load("local:tiny/bird@abc")
    with pytest.raises(zoo.UnknownModelError, match="known here"):
        zoo.load("zzz/qqq")


@pytest.mark.parametrize(
    "name",
    ["", "tiny", "tiny/", "/tiny/clock", "../tiny/clock", "tiny/../clock", "a/b/c", "tiny/clock@../x", "s3:tiny/clock",
     "tiny/clock@", "tiny /clock", "tiny/cl--ock", "local:", "C:\\tiny/clock"],
)  # fmt: skip
def test_a_name_cannot_lead_elsewhere(name):
    with pytest.raises(zoo.UnknownModelError, match="is not a model name"):
        zoo.load(name)


@pytest.mark.parametrize("target", ["tiny/clock", "bundled:tiny/clock", "local:tiny/clock@main"])
def test_publishing_needs_a_target(target):
    with pytest.raises(zoo.ZooError, match="expected 'local:family/name' or 'hub:org/name'"):
        zoo.publish(pendulum(), target)


def test_a_model_of_another_family_is_not_published_under_this_one():
    with pytest.raises(zoo.ZooError, match="is of the family 'tiny'; publish it to 'local:tiny/clock'"):
        zoo.publish(pendulum(), "local:dimo/clock")
    with pytest.raises(zoo.ZooError, match="builtins:dict is not the class of a registered family"):
        zoo.publish({}, "local:tiny/clock")
    assert zoo.list_models("local:*") == []


def test_a_published_model_can_be_copied_by_name():
    first = zoo.publish(pendulum(metrics={"psnr": 3.0}), "local:tiny/clock")
    second = zoo.publish("tiny/clock", "local:tiny/copy")
    a, b = zoo.info(first), zoo.info(second)
    for name in ("model.safetensors", "preview.mp4", "config.json", "metrics.json"):
        assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()
    assert 'zoo.load("tiny/copy")' in (b.folder / "README.md").read_text()


# --- interrupted publication -----------------------------------------------------------------------

_PUBLISH = """
import os, signal, sys
sys.path.insert(0, {support!r})
import zoo, zoo.hub, zoo.repository
from tiny_family import pendulum
zoo.register_family("tiny", "tiny_family:Pendulum")
calls = 0
def stop(event, args):
    global calls
    if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove") and {home!r} in str(args[0]):
        calls += 1
        if calls == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
model = pendulum({seed})
sys.addaudithook(stop)
zoo.publish(model, "local:tiny/clock", home={home!r})
print(calls)
"""


def _publish_in_child(home: Path, seed: int, at: int) -> subprocess.CompletedProcess:
    code = _PUBLISH.format(support=str(SUPPORT), home=str(home), at=at, seed=seed)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_publisher_killed_anywhere_loses_nothing(tmp_path):
    """Killed before each file operation in turn: the old or the new model loads, and a rerun publishes the new one."""
    home = tmp_path / "home"
    zoo.publish(pendulum(0), "local:tiny/clock", home=home)
    steps = int(_publish_in_child(home, 1, 0).stdout)
    zoo.publish(pendulum(0), "local:tiny/clock", home=home)
    assert steps > 15
    seen = set()
    for at in range(1, steps + 1):
        seed = 100 + at  # new content, so that each kill interrupts a first publication
        killed = _publish_in_child(home, seed, at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        now = zoo.load("tiny/clock", home=home)
        seen.add("new" if same(now, pendulum(seed)) else "old")
        if seen == {"old"}:
            assert same(now, pendulum(0))
    assert "old" in seen
    zoo.publish(pendulum(2), "local:tiny/clock", home=home)
    assert same(zoo.load("tiny/clock", home=home), pendulum(2))


def test_a_failed_publication_leaves_the_previous_revision(tmp_path, monkeypatch):
    zoo.publish(pendulum(0), "local:tiny/clock")
    root = tmp_path / "home" / "models" / "tiny" / "clock"

    def full(self, target):
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(
            zoo.ZooError, match=r"No space left on device.*The previous revision is unchanged"
        ):
            zoo.publish(pendulum(1), "local:tiny/clock")
    assert same(zoo.load("tiny/clock"), pendulum(0))
    assert {path.name for path in root.iterdir()} == {"refs", "snapshots"}
    zoo.publish(pendulum(1), "local:tiny/clock")
    assert same(zoo.load("tiny/clock"), pendulum(1))


def test_a_damaged_snapshot_is_replaced(tmp_path):
    name = zoo.publish(pendulum(), "local:tiny/clock")
    weights = zoo.info(name).folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(zoo.RepositoryError, match="was altered or damaged"):
        zoo.load(name)
    assert zoo.publish(pendulum(), "local:tiny/clock") == name
    assert weights.read_bytes() == whole and same(zoo.load(name), pendulum())


def test_old_unfinished_snapshots_are_deleted(tmp_path):
    zoo.publish(pendulum(), "local:tiny/clock")
    root = tmp_path / "home" / "models" / "tiny" / "clock"
    for name, age in ((".unfinished-old", 7200), (".unfinished-new", 60)):
        (root / name).mkdir()
        os.utime(root / name, (time.time() - age,) * 2)
    zoo.publish(pendulum(), "local:tiny/clock")
    assert not (root / ".unfinished-old").exists() and (root / ".unfinished-new").exists()


# --- families --------------------------------------------------------------------------------------


def test_a_family_is_imported_only_on_use(tmp_path, monkeypatch):
    zoo.register_family("later", "no_such_module_anywhere:Model")
    assert "later" in zoo.known_families()
    with pytest.raises(zoo.ZooError, match=r"family 'later' cannot be used here.*No module named"):
        families.family_class("later")
    zoo.register_family("wrong", "tiny_family:Nothing")
    with pytest.raises(zoo.ZooError, match="tiny_family has no Nothing"):
        families.family_class("wrong")
    for name, target in (("Up", "a:B"), ("x y", "a:B"), ("x", "a.B"), ("x", "os.system('x'):y")):
        with pytest.raises(zoo.ZooError, match="expected"):
            zoo.register_family(name, target)


def test_replacing_a_family_warns():
    with pytest.warns(UserWarning, match="was tiny_family:Pendulum and is now other:Thing"):
        zoo.register_family("tiny", "other:Thing")


def test_packages_add_families(tmp_path, monkeypatch):
    """A package with an entry point, laid out as pip installs it."""
    site = tmp_path / "site"
    (site / "boids-1.0.dist-info").mkdir(parents=True)
    (site / "boids-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: boids\nVersion: 1.0\n"
    )
    (site / "boids-1.0.dist-info" / "entry_points.txt").write_text(
        "[menagerie4d.families]\nboids = boids_zoo:Boids\ndimo = boids_zoo:Boids\n"
    )
    (site / "boids_zoo.py").write_text("from tiny_family import Pendulum\nclass Boids(Pendulum): pass\n")
    with pytest.raises(zoo.ZooError, match="family 'boids' is not known here, only dimo, mvvdm, tiny"):
        families.family_class("boids")
    monkeypatch.syspath_prepend(str(site))
    assert families.family_class("boids").__name__ == "Boids"
    assert zoo.known_families()["dimo"] == "zoo.dimo.pipeline:DIMOPipeline", (
        "entry points cannot replace built-in families"
    )


def test_import_is_light(tmp_path):
    code = "import sys, zoo, zoo.hub, zoo.families; zoo.list_models(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert not loaded & {"torch", "numpy", "transformers", "huggingface_hub", "datasets", "safetensors", "av"}
    assert "zoo" in loaded
