"""Models are shared by the policy for clips, and the same model has the same revision on every machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny_dimo import tiny_pipeline
from tiny_family import Pendulum, pendulum

import zoo
from zoo import families
from zoo.__main__ import main
from zoo.licences import publishable

ASSET = {
    "source": "folder",
    "uid": "dragon.glb",
    "licence": "CC0-1.0",
    "noai": "no",
    "attribution": '"Dragon" by Ada',
}
REFUSED = {
    "unknown": ({"licence": "unknown"}, "licence unknown"),
    "no derivatives": ({"licence": "CC-BY-ND-4.0"}, "licence CC-BY-ND-4.0 does not let anybody share"),
    "proprietary": ({"licence": "LicenseRef-Sketchfab-Standard"}, "licence LicenseRef-Sketchfab-Standard does not"),
    "both": ({"licence": "CC0-1.0 AND CC-BY-NC-ND-4.0"}, "licence CC0-1.0 AND CC-BY-NC-ND-4.0 does not let"),
    "noai": ({"noai": "yes"}, "the author forbids AI use"),
    "no licence": ({"licence": " "}, "no licence"),
    "no source": ({"source": ""}, "no source"),
    "no attribution": ({"attribution": None}, "no attribution"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "_registered", {})
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path / "home"))
    zoo.register_family("tiny", "tiny_family:Pendulum")


def carded(seed: int = 0, **card: object) -> Pendulum:
    model = pendulum(seed)
    model.card = {**model.card, **card}
    return model


def refusal(model: object, target: str = "local:tiny/clock") -> str:
    """Why a model is not published; the registry has no model afterwards."""
    before = zoo.list_models("local:*")
    with pytest.raises(zoo.ZooError) as error:
        zoo.publish(model, target)
    assert zoo.list_models("local:*") == before
    message = str(error.value)
    assert message.startswith(f"{target}: the model may not be published: ")
    assert "own_use=True (--own-use)" in message
    return message


# --- one policy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("target", ["local:tiny/clock", "hub:org/clock"])
def test_a_model_of_an_asset_that_may_not_be_shared_is_refused_like_a_clip_of_it(case, target):
    changes, reason = REFUSED[case]
    asset = {**ASSET, **changes}
    assert publishable(asset).startswith(reason), "the sentence for clips"
    assert publishable(asset) in refusal(carded(provenance=[ASSET, asset]), target)
    assert zoo.publish(carded(provenance=[ASSET]), "local:tiny/clock"), "the control"


def test_one_clip_in_a_dataset_is_enough():
    """As `factory.train mvvdm` records a dataset: groups of assets with the same terms."""
    groups = [
        {**ASSET, "uid": "dragon", "assets": 4000},
        {**ASSET, "licence": "CC-BY-ND-4.0", "uid": "cup", "assets": 1},
        {**ASSET, "licence": "unknown", "uid": "owl", "assets": 3},
    ]
    message = refusal(carded(provenance=groups))
    assert "asset folder/cup: licence CC-BY-ND-4.0" in message
    assert "asset folder/owl and 2 more: licence unknown" in message and "dragon" not in message


def test_a_motion_space_of_an_object_that_may_not_be_shared():
    """DIMO keeps its object's provenance in the arguments of its class."""
    pipeline = tiny_pipeline()
    pipeline.provenance = {**pipeline.provenance, "licence": "unknown", "source": "folder", "uid": "egg.glb"}
    assert "asset folder/egg.glb: licence unknown" in refusal(pipeline, "local:dimo/egg")
    pipeline.provenance = {**ASSET, "noai": "yes"}
    assert "the author forbids AI use" in refusal(pipeline, "hub:org/egg")
    pipeline.provenance = ASSET
    assert zoo.publish(pipeline, "local:dimo/egg").startswith("local:dimo/egg@")


def test_kept_for_own_use_and_still_not_shared(capsys):
    """Neither a copy by name nor what is loaded and given another card can be shared."""
    model = carded(provenance=[{**ASSET, "licence": "unknown"}])
    name = zoo.publish(model, "local:tiny/clock", own_use=True)
    assert zoo.publish(name, "local:tiny/copy", own_use=True)
    for target in ("local:tiny/copy", "hub:org/clock"):
        assert "asset folder/dragon.glb: licence unknown" in refusal("tiny/clock", target)
    loaded = zoo.load("tiny/clock")  # its card is that of the class, without a word on the training data
    assert "provenance" not in loaded.card
    assert "asset folder/dragon.glb: licence unknown" in refusal(loaded)
    loaded.weights["bias"] += 1  # fine-tuned
    zoo.publish(loaded, "local:tiny/tuned", own_use=True)
    assert "asset folder/dragon.glb: licence unknown" in refusal(zoo.load("tiny/tuned"))
    with pytest.raises(zoo.ZooError, match="own_use keeps a model in the local registry"):
        zoo.publish(model, "hub:org/clock", own_use=True)
    assert main(["publish", "tiny/clock", "local:tiny/copy"]) == 1
    assert "licence unknown" in capsys.readouterr().err
    assert main(["publish", "tiny/clock", "local:tiny/copy", "--own-use"]) == 0


def test_a_licence_that_was_found_out_corrects_the_record():
    """Of the same asset. Another one's record does not help, nor does a card without any."""
    pipeline = tiny_pipeline()
    pipeline.provenance = {**ASSET, "licence": "unknown"}
    zoo.publish(pipeline, "local:dimo/egg", own_use=True)
    loaded = zoo.load("dimo/egg")
    loaded.provenance = {**ASSET, "uid": "cup.glb"}
    assert "asset folder/dragon.glb: licence unknown" in refusal(loaded, "local:dimo/cup")
    loaded.provenance = {**ASSET, "licence": "CC-BY-4.0"}
    name = zoo.publish(loaded, "local:dimo/cup")
    assert zoo.publish(name, "local:dimo/copy") and zoo.publish(zoo.load(name), "local:dimo/copy")

    zoo.publish(
        carded(license="CC0-1.0 AND unknown"), "local:tiny/old", own_use=True
    )  # as version 0.1.0 wrote it
    loaded = zoo.load("tiny/old")
    assert "licence unknown" in refusal(loaded)
    loaded.card = {**loaded.card, "provenance": [ASSET]}
    assert zoo.publish(loaded, "local:tiny/clock")


def test_the_base_model_counts():
    zoo.publish(carded(1, provenance=[{**ASSET, "licence": "CC-BY-ND-4.0"}]), "local:tiny/base", own_use=True)
    zoo.publish(carded(1, provenance=[ASSET]), "local:tiny/free")
    for base in ("tiny/base", "local:tiny/base", ["tiny/free", "tiny/base"]):
        assert "licence CC-BY-ND-4.0" in refusal(carded(base_model=base))
    for base in ("tiny/free", "runwayml/stable-diffusion-v1-5", "no model name", []):
        assert zoo.publish(carded(base_model=base), "local:tiny/clock")


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC0-1.0 AND unknown", "licence unknown"),
        ("unknown", "licence unknown"),
        ("cc-by-nd-4.0", "licence cc-by-nd-4.0 does not let anybody share"),
        ("CC-BY-4.0 AND LicenseRef-Sketchfab-Editorial", "does not let anybody share"),
        ("CC-BY-4.0 OR CC-BY-ND-4.0", ""),
        ("cc-by-nc-sa-4.0", ""),
        ("openrail++", ""),
        ("other", ""),
    ],
)
def test_without_a_record_of_the_training_data_the_licence_in_the_card_decides(licence, reason):
    """Models of version 0.1.0 and those of other people; licences of weights that are no SPDX names are accepted."""
    if reason:
        assert reason in refusal(carded(license=licence))
    else:
        assert zoo.publish(carded(license=licence), "local:tiny/clock")


@pytest.mark.parametrize("licence", [None, "", " "])
def test_a_model_that_states_nothing_stays_local(licence):
    assert zoo.publish(carded(license=licence), "local:tiny/clock")
    message = refusal(carded(license=licence), "hub:org/clock")
    assert "may not be published: no licence. State the licence of the weights in its card" in message
    assert "no licence" in refusal("tiny/clock", "hub:org/clock")


def test_bundled_models_may_be_shared(tmp_path):
    for name in ("dimo/bird", "mvvdm/tiny"):
        assert zoo.publish(f"bundled:{name}", f"local:{name}")


# --- the same revision -----------------------------------------------------------------------------


@pytest.fixture
def other_encoder(monkeypatch):
    """An encoder that gives other bytes each time, as on other machines."""
    save_to = Pendulum.save_to

    def encoded_anew(self: Pendulum, folder: Path) -> dict:
        init = save_to(self, folder)
        (folder / "preview.mp4").write_bytes(os.urandom(16))
        return init

    monkeypatch.setattr(Pendulum, "save_to", encoded_anew)


def contents(name: str) -> dict[str, bytes]:
    folder = zoo.info(name).folder
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def changed(first: str, second: str) -> set[str]:
    a, b = contents(first), contents(second)
    return {path for path in {**a, **b} if a.get(path) != b.get(path)}


def test_a_bundled_model_keeps_its_revision_and_every_byte(tmp_path):
    """Its preview was encoded elsewhere; here the same frames give another file."""
    bundled = zoo.info("bundled:dimo/kangaroo")
    first = zoo.publish(zoo.load("dimo/kangaroo"), "local:dimo/kangaroo")
    again = zoo.publish(zoo.load(first), "local:dimo/kangaroo")
    by_name = zoo.publish("bundled:dimo/kangaroo", "local:dimo/kangaroo", home=tmp_path / "elsewhere")
    assert first == again == by_name == f"local:dimo/kangaroo@{bundled.revision}"
    assert contents(first) == contents(bundled.name)


def test_loading_and_publishing_changes_nothing(other_encoder, tmp_path):
    first = zoo.publish(pendulum(metrics={"mean": {"psnr": 3.0}}), "local:tiny/clock")
    assert zoo.publish(pendulum(metrics={"mean": {"psnr": 3.0}}), "local:tiny/clock") != first, "the control"
    copy = first
    for _ in range(3):
        copy = zoo.publish(zoo.load(first), "local:tiny/clock")
        assert copy == first
    elsewhere = zoo.publish(zoo.load(first), "local:tiny/clock", home=tmp_path / "elsewhere")
    assert elsewhere == first


def test_what_changed_is_all_that_changes(other_encoder):
    first = zoo.publish(pendulum(metrics={"mean": {"psnr": 3.0}}), "local:tiny/clock")
    named = zoo.publish(zoo.load(first), "local:tiny/watch")
    assert changed(first, named) == {"README.md", "manifest.json"}
    assert zoo.publish(first, "local:tiny/watch") == named, "by name or loaded"

    measured = zoo.load(first)
    measured.metrics = {"mean": {"psnr": 4.0}}
    assert changed(first, zoo.publish(measured, "local:tiny/clock")) == {
        "README.md",
        "metrics.json",
        "manifest.json",
    }

    described = zoo.load(first)
    described.card = {**described.card, "summary": "Ticks."}
    assert changed(first, zoo.publish(described, "local:tiny/clock")) == {
        "README.md",
        "config.json",
        "manifest.json",
    }


def test_another_model_gets_another_preview(other_encoder):
    first = zoo.publish(pendulum(), "local:tiny/clock")
    tuned = zoo.load(first)
    tuned.weights["bias"] = tuned.weights["bias"] + 1
    assert {"model.safetensors", "preview.mp4"} <= changed(first, zoo.publish(tuned, "local:tiny/clock"))
    retitled = zoo.load(first)
    retitled.init = {**retitled.init, "title": "Clock"}  # an argument that a preview may show
    assert "preview.mp4" in changed(first, zoo.publish(retitled, "local:tiny/clock"))


def test_a_repository_that_is_gone_or_altered_gives_no_preview(other_encoder):
    model = zoo.load(zoo.publish(pendulum(), "local:tiny/clock"))
    preview = zoo.info("tiny/clock").folder / "preview.mp4"
    preview.write_bytes(b"altered")
    name = zoo.publish(model, "local:tiny/watch")
    assert contents(name)["preview.mp4"] != b"altered"
    preview.unlink()
    assert json.loads(contents(zoo.publish(model, "local:tiny/watch"))["config.json"])["family"] == "tiny"
