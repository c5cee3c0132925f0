"""Every command that writes leaves the files of others alone, waits for nobody, and starts no second writer."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import MAINS
from tiny_gltf import TinyGltf, moving

import factory.render
import zoo
from cluster import OutputLock, Storage
from factory import TrainingClips, load_clips
from factory.clips.stage import RenderStage
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.training.mvvdm import options as mvvdm_options
from renderers.meshes import PICTURE_VERSIONS

WRITTEN = Path(__file__).parents[1] / "data" / "v0.1.0"
SMALL = ("--resolution", "16", "--num-frames", "4", "--fps", "4", "--max-animations", "1", "--views", "4")
DATASET = str(WRITTEN / "dataset")
MVVDM = f"--data {DATASET} --workers 0 --set resolution=16 --set views=2 --set frames=2"
# OUT is the user's folder. `zoo` commands that are given a name in it write beside what is there.
REFUSED = {
    "render": "render --out OUT --source creatures://robot --workers 0",
    "render, dry run": "render --out OUT --source creatures://robot --workers 0 --dry-run",
    "render, retried": "render --out OUT --source creatures://robot --workers 0 --retry-quarantined",
    "motions": "motions --out OUT --objects creatures://robot --workers 0",
    "train dimo": "train dimo --out OUT --objects creatures://robot --workers 0",
    "train mvvdm": f"train mvvdm --out OUT {MVVDM}",
    "takedown": "curate takedown robot --data OUT",
    "caption": "curate caption --data OUT --model none --gpus 0",
    "export": f"curate export --data {DATASET} --to OUT",
    "publish to": f"publish --data {DATASET} --to local:OUT",
    "publish to, old": f"publish {DATASET} --to local:OUT",
    "zoo publish": "zoo publish bundled:dimo/kangaroo local:dimo/egg --home OUT/../../..",
    "zoo render": "zoo render bundled:dimo/kangaroo --out OUT",
    "zoo sample": "zoo sample bundled:dimo/kangaroo --out OUT/README.md",
    "zoo export": "zoo export bundled:dimo/kangaroo --out OUT/contact_sheet.png",
    "zoo animate": "zoo animate bundled:mvvdm/tiny OUT/model.glb walks --out OUT/model.glb",
}
READS = ("curate report --data OUT", "curate duplicates --data OUT", "publish --data OUT --to local:OUT/new")
FOLDERS = {
    "pages": {},
    "a dataset of somebody else": {"data/train/part-00000.parquet": b"PAR1"},
    "snapshots of a disk": {"snapshots/monday/file": b"x", "refs/x": b"y"},
    "models of theirs": {"models/chair.glb": b"glTF", "motions/walk.bvh": b"x", "cameras.json": b"{}"},
    "a repository of theirs": {".git/HEAD": b"ref", "view_00.mp4": b"x", "src/main.py": b"x"},
}


def users_folder(folder: Path, kind: str) -> Path:
    files = {
        "README.md": b"# My project\n",
        "contact_sheet.png": b"\x89PNG my photographs",
        "ATTRIBUTION.md": b"Photographs by me",
        "leaderboard.md": b"of our club",
        "model.glb": b"glTF",
        "_hidden": b"x",
        **FOLDERS[kind],
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    """Path → bytes of every file, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def start(words: str, out: Path) -> int:
    name, *arguments = words.replace("OUT", str(out)).split()
    return MAINS[name](arguments)


def sentence(capsys, words: str, out: Path, code: int | tuple[int, ...] = 1) -> str:
    """The only line of a refused command on standard error."""
    capsys.readouterr()
    assert start(words, out) in (code if isinstance(code, tuple) else (code,))
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if not line.startswith("note: ")]
    assert shown.out == "" and len(lines) == 1 and "Traceback" not in lines[0], shown
    return lines[0]


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    """A copy of a dataset written by version 0.1.0."""
    monkeypatch.setitem(PICTURE_VERSIONS, "opengl", "1")  # the version of then
    return Path(shutil.copytree(WRITTEN / "dataset", tmp_path / "dataset"))


def resume(out: Path, *arguments: str) -> int:
    # The stored dataset was begun with opengl; without the option, a line says that it goes on with it.
    command = ["--source", "models", "--out", str(out), "--workers", "0", "--renderer", "opengl", *SMALL]
    return factory.render.main([*command, *arguments])


# --- files of others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_of_the_user_is_refused_and_not_touched(capsys, tmp_path, name, kind):
    out = users_folder(tmp_path / "models" / "dimo" / "egg", kind)
    before = content(tmp_path)
    line = sentence(capsys, REFUSED[name], out, (1, 2))
    assert str(out) in line or ".." in line or "are saved as one of" in line, line
    assert content(tmp_path) == before


@pytest.mark.parametrize("words", READS)
def test_commands_that_read_write_nothing_either(capsys, tmp_path, words):
    out = users_folder(tmp_path / "out", "pages")
    before = content(tmp_path)
    assert "no clips in" in sentence(capsys, words, out)
    assert content(tmp_path) == before


def test_a_named_file_is_written_beside_the_users(capsys, tmp_path):
    out = users_folder(tmp_path, "pages")
    before = content(out)
    assert start("zoo sample bundled:dimo/kangaroo --frames 2 --out OUT/hop.npz", out) == 0
    after = content(out)
    assert after.pop("hop.npz") and after == before


def test_an_empty_folder_is_accepted_and_the_same_command_resumes(capsys, tmp_path):
    (tmp_path / ".DS_Store").touch()
    command = ["--source", "creatures://robot?motions=1", "--out", str(tmp_path), "--workers", "0", *SMALL]
    assert factory.render.main(command) == 0
    first = content(tmp_path)
    assert b"pretty_name: MV-Video" in first["README.md"] and "contact_sheet.png" in first
    assert not any("locks" in name for name in first)
    assert factory.render.main(command) == 0
    again = content(tmp_path)
    assert first.pop("report-render.html") and again.pop("report-render.html")  # it tells when it was written
    assert "nothing new" in capsys.readouterr().out and again == first


def test_a_view_folder_is_rendered_again(capsys, tmp_path):
    words = "zoo render bundled:dimo/kangaroo --frames 2 --views 2 --resolution 32 --out OUT"
    assert start(words, tmp_path / "views") == 0
    first = content(tmp_path)
    (tmp_path / "views/view_01.mp4").unlink()  # as if it was interrupted
    assert start(words, tmp_path / "views") == 0 and content(tmp_path) == first
    (tmp_path / "views/notes.txt").touch()
    assert "notes.txt" in sentence(capsys, words, tmp_path / "views", 2)


def test_pages_that_were_replaced_by_the_user_are_kept(capsys, dataset):
    """The dataset is ours, its README.md is not any more."""
    (dataset / "README.md").write_text("# Rewritten by me\n")
    before = content(dataset)
    for words in (
        "render --out OUT --source models --workers 0",
        "curate takedown robot --data OUT",
        "curate caption --data OUT --model none --gpus 0",
    ):
        line = sentence(capsys, words, dataset)
        assert "README.md was not written by this program" in line
    for write in (write_card, write_contact_sheet):
        with pytest.raises(RuntimeError, match=r"README\.md was not written by this program"):
            write(dataset)
    assert content(dataset) == before


def test_a_folder_of_trainings_with_pages_of_the_user(capsys, tmp_path):
    """Its ledger makes it ours, but no dataset was rendered into it: the sheet and the card are the user's."""
    out = Path(shutil.copytree(WRITTEN / "trained", tmp_path / "trained"))
    (out / "contact_sheet.png").write_bytes(b"mine")
    before = content(out)
    words = "render --out OUT --source creatures://robot --workers 0"
    assert "contact_sheet.png was not written by this program" in sentence(capsys, words, out)
    (out / "leaderboard.md").write_text("of our club")
    before = content(out)
    words = "motions --out OUT --objects creatures://robot --workers 0"
    assert "leaderboard.md was not written by this program" in sentence(capsys, words, out)
    assert content(out) == before


def test_an_old_dataset_that_was_stopped_before_its_card_is_completed(dataset, monkeypatch):
    monkeypatch.chdir(WRITTEN)
    before = content(dataset)
    (dataset / "README.md").unlink()
    assert resume(dataset) == 0
    assert b"pretty_name: MV-Video" in (dataset / "README.md").read_bytes()
    kept = {
        name: data for name, data in content(dataset).items() if name.startswith(("data/", "_factory/done"))
    }
    assert kept and kept == {name: before[name] for name in kept}


def test_a_published_copy_is_not_rendered_into(capsys, dataset, tmp_path):
    """It has no ledger: the first new shard would replace its first shard."""
    shutil.rmtree(dataset / "_factory")
    before = content(dataset)
    line = sentence(capsys, "render --out OUT --source creatures://robot --workers 0", dataset)
    assert "no ledger" in line and content(dataset) == before
    assert start("curate takedown nobody --data OUT", dataset) == 0  # changes to its rows are possible


def test_publications_of_models_are_repeated(capsys, tmp_path):
    words = "zoo publish bundled:dimo/kangaroo local:dimo/egg --home OUT"
    assert start(words, tmp_path) == 0
    first = content(tmp_path / "models")
    assert start(words, tmp_path) == 0 and content(tmp_path / "models") == first
    assert zoo.list_models("local:*", home=tmp_path) == ["local:dimo/egg"]
    assert "no published model" in sentence(
        capsys, words, users_folder(tmp_path / "mine/models/dimo/egg", "pages").parents[2]
    )


# --- two commands --------------------------------------------------------------------------------------------

WRITERS = ("render", "render, retried", "motions", "train dimo", "train mvvdm", "takedown", "caption")


@pytest.mark.parametrize("name", WRITERS)
def test_the_second_command_names_the_first(capsys, dataset, name, monkeypatch):
    monkeypatch.setattr(
        "factory.curate.check_pretrained", lambda *_: None
    )  # no captioning model is needed for this
    with OutputLock(Storage(dataset), "factory.render"):
        before = content(dataset)
        line = sentence(capsys, REFUSED[name], dataset)
        assert "is in use: factory.render, process " in line and str(dataset) in line
        assert content(dataset) == before


def test_a_dataset_that_is_being_rendered_is_not_published(capsys, dataset, tmp_path):
    with OutputLock(Storage(dataset), "factory.render"):
        line = sentence(capsys, f"publish --data OUT --to local:{tmp_path}/published", dataset)
    assert "is being written: factory.render, process " in line and not (tmp_path / "published").exists()


def test_two_trainings_of_different_models_share_a_registry(monkeypatch, tmp_path):
    held = []

    def train_model(job, *arguments, **options):
        held.append(job.key)
        if len(held) == 1:
            assert start(f"train mvvdm --out OUT {MVVDM} --seed 2", tmp_path) == 0
            assert start(f"train mvvdm --out OUT {MVVDM} --seed 1", tmp_path) == 1  # the same training
            assert start("motions --out OUT --objects creatures://robot --workers 0", tmp_path) == 1
        return {"model": job.name}

    monkeypatch.setattr(mvvdm_options, "train_model", train_model)
    assert start(f"train mvvdm --out OUT {MVVDM} --seed 1", tmp_path) == 0
    assert len(held) == len(set(held)) == 2


def process(out: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "factory.render", "--out", str(out), "--workers", "0", *SMALL]
    sources = [
        "--source",
        "creatures://robot",
        "creatures://bird",
        "creatures://kangaroo",
        "--max-animations",
        "6",
    ]
    return subprocess.Popen(
        [*command, *sources, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_two_at_once_and_a_killed_one(tmp_path):
    """The loser says so, the winner's dataset is that of one command; and a killed command does not block the next."""
    alone, out = tmp_path / "alone", tmp_path / "out"
    killed = process(out)
    wait_for(lambda: len(list(out.glob("_factory/done/*/*.json"))) >= 3)
    refused = process(out)
    shown = refused.communicate(timeout=60)
    assert refused.returncode == 1 and f"is in use: factory.render, process {killed.pid} on" in shown[1]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.communicate()
    assert len(list(out.glob("_factory/locks/*"))) == 1
    pair = [process(out), process(out)]
    results = [each.communicate(timeout=120) for each in pair]
    codes = sorted(each.returncode for each in pair)
    assert codes in ([0, 1], [0, 0]), results  # both finish if the first one ends before the second begins
    assert process(alone).wait(120) == 0
    kept = [name for name in content(alone) if name.endswith((".parquet", ".md", ".png"))]
    assert kept and {name: content(out)[name] for name in kept} == {
        name: content(alone)[name] for name in kept
    }
    assert not (out / "_factory/locks").exists()


# --- one shape per dataset -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--resolution", "32"), ("at 16 x 16 px", "at 32 x 32 px", "give --resolution 16,")),
        (("--views", "8"), ("4 views of 4", "8 views of 4", "give --views 4,")),
        (("--num-frames", "2"), ("4 views of 4 frames", "4 views of 2 frames", "give --num-frames 4,")),
        (
            ("--num-frames", "2", "--views", "2"),
            ("4 views of 4", "2 views of 2", "give --views 4 --num-frames 4,"),
        ),
        (("--modalities", "depth"), ("colour only", "colour and depth")),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_another_shape_is_refused_at_the_start(capsys, monkeypatch, dataset, change, words, dry):
    def process(*arguments: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(RenderStage, "process", process)
    monkeypatch.chdir(WRITTEN)
    before = content(dataset)
    assert resume(dataset, *change, *dry) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1, error
    assert content(dataset) == before


def test_the_loader_refuses_the_same_mixtures_and_accepts_another_rate(tmp_path, monkeypatch):
    source = ["--source", "creatures://robot?motions=1", "--workers", "0", *SMALL]
    assert factory.render.main([*source, "--out", str(tmp_path / "mixed")]) == 0
    other = ["--source", "creatures://bird?motions=1", "--out", str(tmp_path / "mixed")]
    assert factory.render.main([*source, *other, "--fps", "2"]) == 0
    clips = load_clips(tmp_path / "mixed")
    assert set(clips.table(["fps"])["fps"].to_pylist()) == {2.0, 4.0}
    TrainingClips(clips, views=2, frames=2, batch_size=1)
    monkeypatch.setattr("factory.clips.run.check_same_shape", lambda *arguments: None)
    assert factory.render.main([*source, *other, "--resolution", "32", "--seed", "1"]) == 0
    with pytest.raises(ValueError, match="same shape"):
        TrainingClips(load_clips(tmp_path / "mixed"), views=2, frames=2, batch_size=1)


def test_a_dataset_that_was_mixed_before_still_resumes(tmp_path, monkeypatch):
    command = ["--source", "creatures://robot?motions=1", "--workers", "0", *SMALL, "--out", str(tmp_path)]
    assert factory.render.main(command) == 0
    with monkeypatch.context() as patch:
        patch.setattr("factory.clips.run.check_same_shape", lambda *arguments: None)
        assert factory.render.main([*command, "--resolution", "32"]) == 0
    assert factory.render.main(command) == 0 and factory.render.main([*command, "--resolution", "32"]) == 0
    assert factory.render.main([*command, "--resolution", "64"]) == 1


# --- what was left out ---------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    turn = moving("rotation", [0, 1], [[0, 0, 0, 1], [0, 1, 0, 0]])
    (folder / "turns.glb").write_bytes(turn.glb())
    (folder / "turns_again.glb").write_bytes(turn.glb())
    still = TinyGltf()
    still.scene(still.node(mesh=still.mesh()))
    (folder / "still.glb").write_bytes(still.glb())
    (folder / "torn.glb").write_bytes(turn.glb()[:200])
    both = moving("rotation", [0, 1], [[0, 0, 0, 1], [0, 1, 0, 0]])
    both.animation((0, "translation", [0, 1], np.zeros((2, 3))))
    (folder / "both.glb").write_bytes(both.glb())
    (folder / "tested.glb").write_bytes(moving("scale", [0, 1], [[1, 1, 1], [2, 2, 2]]).glb())
    return folder


def test_everything_that_is_left_out_is_listed_with_its_reason(capsys, tmp_path, models):
    (tmp_path / "deny.txt").write_text("tested.glb ActionBench\n")
    out = tmp_path / "out"
    arguments = [
        "--source",
        str(models),
        "--out",
        str(out),
        "--workers",
        "0",
        *SMALL,
        "--max-animations",
        "2",
    ]
    arguments += ["--deny-list", str(tmp_path / "deny.txt"), "--quality", "off"]
    assert factory.render.main(arguments) == 0
    shown = capsys.readouterr().out
    (file,) = (out / "_factory/runs").glob("*.left-out.jsonl")
    assert file.relative_to(out).as_posix() in shown
    listed = [json.loads(line) for line in file.read_text().splitlines()]
    found = {
        (entry["asset"], entry["status"], entry["reason"] if entry["status"] != "quarantined" else "")
        for entry in listed
    }
    assert found == {
        ("turns_again.glb", "left out", "a copy of another asset"),
        ("still.glb", "left out", "not animated"),
        ("torn.glb", "quarantined", ""),
        ("both.glb", "left out", next(e["reason"] for e in listed if e["asset"] == "both.glb")),
        ("tested.glb", "left out", "tested with by ActionBench"),
    }
    (still_part,) = (entry for entry in listed if entry["asset"] == "both.glb")
    assert still_part["index"] == 1 and still_part["location"] == str(models / "both.glb")
    (run,) = (out / "_factory/runs").glob("*Z.json")
    tally = json.loads(run.read_text())["tally"]
    counted = [tally[name] for name in ("rejected", "filtered", "dead")]
    assert sum(sum(each.values()) for each in counted) + len(tally["quarantined"]) == len(listed)

    before = content(out)
    assert factory.render.main(arguments) == 0  # the same list again
    assert content(out) == before and file.name in capsys.readouterr().out
    assert factory.render.main([*arguments, "--limit", "1"]) == 0  # another list
    assert len(list((out / "_factory/runs").glob("*.left-out.jsonl"))) <= 2


def test_records_that_are_not_sampled_are_listed(tmp_path, models):
    out = tmp_path / "out"
    arguments = ["--source", str(models), "--out", str(out), "--workers", "0", *SMALL, "--sample", "1"]
    assert factory.render.main(arguments) in (0, 3)
    (file,) = (out / "_factory/runs").glob("*.left-out.jsonl")
    listed = [json.loads(line) for line in file.read_text().splitlines()]
    unsampled = {entry["asset"] for entry in listed if "sample" in entry["reason"]}
    assert len(unsampled) == len(list(models.glob("*.glb"))) - 1, listed
