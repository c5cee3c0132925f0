"""`python -m factory.animate`: one task per model and sentence, an index with licences, resumption, and a dataset."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import contents
from small_mvvdm import small_pipeline
from tiny_gltf import CORNERS, TinyGltf, moving

import zoo
from factory import load_clips
from factory.animate import main, read_sentences
from factory.animations.stage import AnimateStage
from renderers import gltf

SENTENCES = ("hops", "nods and looks left")
LICENCES = "file,licence,author,title,url\nowl.glb,CC-BY-4.0,Ann,An owl,https://example.org/owl\n"
SMALL_CLIPS = ("--resolution", "16", "--views", "2", "--num-frames", "4", "--fps", "4", "--renderer", "cpu")


def still(scale: float = 1.0, **asset: Any) -> bytes:
    """A model without animations."""
    file = TinyGltf()
    file.scene(file.node(mesh=file.mesh(CORNERS * scale)))
    file.json["asset"] |= asset
    return file.glb()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A registry with an untrained video model, sentences, and models: credited here or in the file, or unusable."""
    folder = tmp_path_factory.mktemp("animate")
    models = folder / "models"
    models.mkdir()
    (models / "owl.glb").write_bytes(still())
    (models / "twin.glb").write_bytes(still())
    (models / "LICENSES.csv").write_text(LICENCES)
    bat = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    bat.json["asset"]["copyright"] = "CC0-1.0, Bo"
    (models / "bat.glb").write_bytes(bat.glb())
    (models / "broken.glb").write_bytes(b"glTF\x02\x00\x00\x00 and no more")
    (folder / "prompts.txt").write_text("# what happens\nhops\n\nnods and  looks left\nhops\n")
    zoo.publish(small_pipeline(), "local:mvvdm/small", home=folder / "home")
    return folder


def arguments(inputs: Path, out: Path, *more: str) -> list[str]:
    options = [
        "--source",
        str(inputs / "models"),
        "--prompts",
        str(inputs / "prompts.txt"),
        "--out",
        str(out),
    ]
    options += ["--model", "mvvdm/small", "--home", str(inputs / "home"), "--inference-steps", "1"]
    return [*options, "--workers", "0", "--quiet", *more]


def results(out: Path) -> dict[str, str]:
    """Path → hash of everything that users see, except reports, which tell when each run was."""
    return {
        name: digest for name, digest in contents(out).items() if not name.startswith(("_factory", "report-"))
    }


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("animated") / "out"
    assert main(arguments(inputs, out, "--mv-video", *SMALL_CLIPS)) == 0
    return out


@pytest.fixture
def rows(finished) -> Iterator[list[dict[str, Any]]]:
    yield [json.loads(line) for line in (finished / "index.jsonl").read_text().splitlines()]


def test_every_model_is_animated_by_every_sentence(finished, rows):
    """The two owls are one file, listed under the first name."""
    expected = [(uid, sentence) for uid in ("bat.glb", "owl.glb") for sentence in SENTENCES]
    assert [(row["uid"], row["sentence"]) for row in rows] == expected
    for row in rows:
        asset = gltf.load((finished / row["file"]).read_bytes())
        assert asset.animations[-1].name == row["sentence"]
        assert (finished / row["preview"]).read_bytes().startswith(b"\xff\xd8")
        assert row["edge_stretch"] >= 1 and row["frames"] == 4 and len(row["settings"]) == 16
    assert len({row["key"] for row in rows}) == len(rows)
    assert len({row["settings"] for row in rows}) == 1
    assert (finished / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_licences_stay_with_the_results(finished, rows):
    """From the folder's table or the file, in the index, in the result's own file and in the dataset."""
    credits = {row["uid"]: (row["licence"], row["attribution"]) for row in rows}
    assert credits["owl.glb"] == (
        "CC-BY-4.0",
        '"An owl" by Ann, licence: CC-BY-4.0, https://example.org/owl',
    )
    assert credits["bat.glb"][0] == "CC0-1.0"
    for row in rows:
        copyright = gltf.load((finished / row["file"]).read_bytes()).metadata["copyright"]
        assert copyright == ("CC0-1.0, Bo" if row["uid"] == "bat.glb" else row["attribution"])
    clips = load_clips(finished / "mv-video").table(["asset_uid", "licence", "attribution"]).to_pylist()
    assert {(clip["asset_uid"], clip["licence"]) for clip in clips} == {
        (uid, licence) for uid, (licence, _) in credits.items()
    }


def test_the_dataset_has_the_new_animations_only(finished, rows):
    """The bat's own animation is in its file, too, but is no result."""
    bat = next(row for row in rows if row["uid"] == "bat.glb")
    assert len(gltf.load((finished / bat["file"]).read_bytes()).animations) == 2
    clips = load_clips(finished / "mv-video")
    names = sorted((clip.metadata["asset_uid"], clip.metadata["animation_name"]) for clip in clips)
    assert names == [(row["uid"], row["sentence"]) for row in rows]
    assert clips[0].read().frames.shape == (2, 4, 16, 16, 4)


def test_unusable_models_are_listed_with_reasons(finished):
    (file,) = (finished / "_factory" / "runs").glob("*.left-out.jsonl")
    reasons = {row["asset"]: row["reason"] for row in map(json.loads, file.read_text().splitlines())}
    assert reasons.keys() == {"broken.glb", "twin.glb"}
    assert reasons["twin.glb"] == "a copy of another asset"
    assert "broken.glb" in reasons["broken.glb"]


def test_the_same_command_makes_nothing_again(finished, inputs, monkeypatch, capsys):
    def again(*arguments: object) -> None:
        raise AssertionError(f"this was done before: {arguments}")

    monkeypatch.setattr(AnimateStage, "process", again)
    before = results(finished)
    assert main(arguments(inputs, finished, "--mv-video", *SMALL_CLIPS, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["animations"], result["resumed"], len(result["quarantined"])) == (4, 4, 1)
    assert results(finished) == before
    # The control: another seed is new work.
    main(arguments(inputs, finished, "--noise-seed", "1", "--json"))
    assert json.loads(capsys.readouterr().out)["animations"] == 0


def test_a_dry_run_opens_the_models_and_writes_nothing(inputs, tmp_path, capsys):
    assert main(arguments(inputs, tmp_path / "out", "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert f"would make 4 animations of 2 models in {tmp_path / 'out'}" in shown
    assert "broken.glb" in shown and "a copy of another asset" in shown
    assert not (tmp_path / "out").exists()


def test_sentences_of_a_file(tmp_path, inputs):
    assert read_sentences(str(inputs / "prompts.txt")) == SENTENCES
    (tmp_path / "long.txt").write_text("hop " * 200)
    with pytest.raises(ValueError, match="at most 500 printable characters"):
        read_sentences(str(tmp_path / "long.txt"))


def started(inputs: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    options = arguments(inputs, out)
    options[options.index("--workers") + 1] = str(workers)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "factory.animate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_again_and_again_it_writes_the_same_bytes(finished, inputs, tmp_path):
    """Killed after each result: no result is made twice, and the index and every file are those of one run."""
    out, kills, made = tmp_path / "out", 0, 0
    while True:
        driver = started(inputs, out, 0)
        while driver.poll() is None and len(list(out.glob("animations/*/*.glb"))) < made + 2:
            time.sleep(0.01)
        made = len(list(out.glob("animations/*/*.glb")))
        if driver.poll() is not None:
            break
        kills += 1
        os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()
    assert driver.returncode == 0, driver.communicate()[0]
    assert kills >= 2
    expected = {name: it for name, it in results(finished).items() if not name.startswith("mv-video")}
    assert results(out) == expected
    done = [json.loads(file.read_text()) for file in (out / "_factory/done").rglob("*.json")]
    assert len(done) == 6  # two models and four animations


@pytest.mark.slow
def test_other_formats_and_their_materials(inputs, tmp_path, capsys):
    """A folder may have .obj files; another material file is another model."""
    folder = tmp_path / "models"
    folder.mkdir()
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
    faces = "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    (folder / "cone.obj").write_text(f"mtllib cone.mtl\n{corners}usemtl skin\n{faces}")
    command = arguments(inputs, tmp_path / "out", "--json")
    command[command.index("--source") + 1] = str(folder)
    counts = []
    for colour in ("1 0 0", "1 0 0", "0 0 1"):
        (folder / "cone.mtl").write_text(f"newmtl skin\nKd {colour}\n")
        assert main(command) == 0
        result = json.loads(capsys.readouterr().out)
        counts.append((result["animations"], result["resumed"]))
    assert counts == [(2, 0), (2, 2), (2, 0)]
    rows = [json.loads(line) for line in (tmp_path / "out/index.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {row["licence"] for row in rows} == {"unknown"}


@pytest.mark.slow
def test_workers_write_the_same_bytes(finished, inputs, tmp_path):
    driver = started(inputs, tmp_path / "out", 2)
    shown, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, shown
    expected = {name: it for name, it in results(finished).items() if not name.startswith("mv-video")}
    assert results(tmp_path / "out") == expected
