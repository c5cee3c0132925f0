"""Clips that may not be shared are not published, the hub is always consistent, and nothing is uploaded twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer
from PIL import Image
from tiny_dataset import FRAMES, grow

from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.pages.histograms import draw_histogram
from factory.dataset.reader import load_clips
from factory.dataset.release import PublishError, check_publishable, publish
from factory.dataset.shards import read_manifests
from factory.dataset.takedown import takedown
from factory.publish import main
from renderers.meshes.clip import GREY
from zoo.export.html.report import MARK

datasets = pytest.importorskip("datasets")
SUPPORT = Path(__file__).parents[1] / "support"
_PROLOGUE = f"""
import json, os, sys
sys.path.insert(0, {str(SUPPORT)!r})
from factory.dataset import release_hub as module
from factory.dataset.release import publish
from tiny_dataset import grow
from zoo.errors import ZooError
def attempt(*args, **options):
    try:
        return publish(*args, **options).revision
    except ZooError as error:
        return type(error).__name__ + ": " + str(error)
"""


def child(hub: HubServer, home: Path, code: str, **environment: str) -> object:
    """Run code in a process that uses this hub; return its variable `answer`, or None if it was killed."""
    environment = {**hub.environment(home), "OMP_NUM_THREADS": "1", **environment}
    code = f"{_PROLOGUE}\n{code}\nprint(json.dumps(answer))"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=1200
    )
    if run.returncode == -signal.SIGKILL:
        return None
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def shards_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path.startswith("data/")}


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def root(tmp_path) -> Path:
    """Eight clips of four assets in two shards."""
    grow(tmp_path / "made", 0, 8, shard=4)
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"licence": "unknown"}, "licence unknown"),
        ({"noai": "yes"}, "the author forbids AI use"),
        ({"licence": "CC-BY-ND-4.0"}, "licence CC-BY-ND-4.0 does not let anybody share"),
        ({"licence": " "}, "no licence"),
        ({"source": ""}, "no source"),
        ({"attribution": None}, "no attribution"),
    ],
)
def test_what_may_not_be_shared_stops_everything(tmp_path, changes, reason):
    root = tmp_path / "made"
    grow(root, 0, 2)
    check_publishable(root)  # the control
    grow(root, 2, 9, **changes)
    with pytest.raises(PublishError) as refusal:
        publish(root, f"local:{tmp_path / 'out'}")
    message = str(refusal.value)
    assert message.startswith("7 of 9 clips may not be published: 0000000000000002 (asset ")
    assert message.count(reason) == 5 and "disc-1" in message
    assert not (tmp_path / "out").exists()


def test_into_a_folder(root, tmp_path):
    """Two versions side by side can be loaded; a takedown removes clips from the next version and is listed there."""
    out = tmp_path / "out"
    first = publish(root, f"local:{out}", tag="v1")
    again = publish(root, f"local:{out}", tag="v1")
    assert again.revision == first.revision and not again.sent
    old = contents(Path(first.address))
    assert shards_of(old) == shards_of(contents(root)) and "_factory" not in str(sorted(old))
    assert os.path.samefile(
        Path(first.address) / "data/train/part-00000.parquet", root / "data/train/part-00000.parquet"
    )

    grow(root, 8, 10)
    with pytest.raises(PublishError, match="the version v1 exists"):
        publish(root, f"local:{out}", tag="v1")
    second = publish(root, f"local:{out}")
    assert (out / "refs/main").read_text() == second.revision and (
        out / "refs/v1"
    ).read_text() == first.revision

    takedown(root, "disc-0", reason="a secret")
    third = publish(root, f"local:{out}", tag="v3")
    now = contents(Path(third.address))
    ids = load_clips(third.address).table(["clip_id"])["clip_id"].to_pylist()
    assert ids == [f"{number:016x}" for number in range(2, 10)]
    (removed,) = map(json.loads, now["takedowns.jsonl"].decode().splitlines())
    assert (
        removed["uid"] == "disc-0" and len(removed["clips"]) == 2 and b"secret" not in now["takedowns.jsonl"]
    )
    assert "takedowns.jsonl" in now["README.md"].decode()
    assert contents(Path(first.address)) == old, "bit for bit"
    for version, clips in ((first, 8), (second, 10), (third, 8)):
        rows = datasets.load_dataset(version.address, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == clips

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").touch()
    with pytest.raises(PublishError, match="holds something else"):
        publish(root, f"local:{tmp_path / 'theirs'}")


def test_the_report_of_the_command(root, tmp_path, capsys):
    """It says what was sent; a file of that name that is no report stays; a dataset on a hub gets none."""
    command = ["--data", str(root), "--to", f"local:{tmp_path / 'out'}", "--tag", "v1"]
    assert main(command) == 0
    page = (root / "report-publish.html").read_text()
    revision = (tmp_path / "out/refs/v1").read_text()
    assert revision in page and "sent, data/train" in page and "data:image/webp" in page
    assert MARK in page and "v1" in page and "http" not in page.replace("http-equiv", "")
    grow(root, 8, 10)
    assert main(command[:-1] + ["v2"]) == 0
    assert (tmp_path / "out/refs/v2").read_text() in (root / "report-publish.html").read_text()

    (root / "report-publish.html").write_text("mine")
    assert main(command[:-2]) == 0
    assert (root / "report-publish.html").read_text() == "mine"
    assert "is not a report of this program" in capsys.readouterr().err


def test_a_shard_with_another_checksum_is_refused_and_no_folder_is_left(tmp_path):
    """Neither by a first publication, nor in a folder of the user's, nor beside what was published before."""
    root, published = tmp_path / "made", tmp_path / "published"
    grow(root, 0, 1)
    first = publish(root, f"local:{published}")
    grow(root, 1, 2)
    before = sorted(published.rglob("*"))
    (manifest,) = (root / "_factory" / "shards").glob("train-00001*.json")
    intact, (shard,) = manifest.read_text(), read_manifests(root)[1:]
    manifest.write_text(intact.replace(shard.sha256, shard.sha256[::-1]))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty", published):
        with pytest.raises(
            PublishError, match=r"part-00001\.parquet does not match the sha256 in its manifest"
        ):
            publish(root, f"local:{folder}")
    assert not (tmp_path / "new").exists() and not list((tmp_path / "empty").iterdir())
    assert sorted(published.rglob("*")) == before
    manifest.write_text(intact)
    assert publish(root, f"local:{published}").revision != first.revision


def test_two_threads_publish_one_dataset_into_one_folder(root, tmp_path):
    """Both finish, with the same revision."""
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: publish(root, f"local:{tmp_path / 'out'}"), range(2)))
    assert results[0].revision == results[1].revision
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"refs", "snapshots"}
    (snapshot,) = (tmp_path / "out/snapshots").iterdir()
    assert (tmp_path / "out/refs/main").read_text() == snapshot.name == results[0].revision
    assert shards_of(contents(snapshot)) == shards_of(contents(root))


def test_the_preview_is_a_configuration_and_a_folder_of_videos(root, tmp_path):
    from factory.dataset.codecs.video import decode_h264

    snapshot = Path(publish(root, f"local:{tmp_path / 'out'}").address)
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset(str(snapshot), "preview", split="preview", cache_dir=cache)
    folder = datasets.load_dataset("videofolder", data_dir=str(snapshot / "preview"), cache_dir=cache)[
        "train"
    ]
    assert len(rows) == len(folder) == 4, "one clip an asset"
    rows, folder = (table.cast_column("video", datasets.Video(decode=False)) for table in (rows, folder))
    for row, file in zip(rows, folder, strict=True):
        assert Path(file["video"]["path"]).read_bytes() == row["video"]["bytes"]
        assert row["licence"] == "CC-BY-4.0" and "Ada" in row["attribution"]
        frames = decode_h264(row["video"]["bytes"])
        assert len(frames) == FRAMES
        assert np.abs(frames[:, :4, :4].astype(int) - GREY).max() <= 3, "no outline around nothing"


def test_histograms_show_what_was_counted(root, tmp_path):
    """Bar heights measured in the image, compared with known counts."""
    png = tmp_path / "h.png"
    png.write_bytes(draw_histogram(np.repeat([0.0, 1, 2], [10, 40, 20]), "things"))
    picture = np.asarray(Image.open(png)).astype(int)
    blue = picture[..., 2] - picture[..., 0] > 60
    height = blue.sum(axis=0)
    bars = [int(height[at]) for at in (90, 240, 390)]
    assert bars[1] > 0 and np.abs(np.array(bars) / bars[1] - [0.25, 1, 0.5]).max() < 0.02
    files = contents(Path(publish(root, f"local:{tmp_path / 'out'}").address))
    pictures = [path for path in files if path.startswith("assets/")]
    assert "assets/speed.png" in pictures and "assets/flow.png" not in pictures, "flow was not measured"
    assert all(f"]({path})" in files["README.md"].decode() for path in pictures)


def _appending(hub: HubServer, tmp_path: Path, clips: int, more: int, shard: int) -> None:
    root, name = tmp_path / "made", "org/discs"
    grow(root, 0, clips, shard)
    write_contact_sheet(root)
    call = f"publish({str(root)!r}, 'hub:{name}', tag={{!r}}).revision"
    revisions = child(hub, tmp_path / "a", f"answer = [{call.format('v1')}, {call.format('v1')}]")
    assert len(set(revisions)) == 1, "the second time there is nothing to do"
    old = hub.files("datasets", name, "v1")
    assert shards_of(old) == shards_of(contents(root))

    del hub.uploaded[:]
    new = grow(root, clips, clips + more, shard)
    child(hub, tmp_path / "a", f"answer = {call.format('v2')}")
    sizes = {sha256: hub.object(sha256).stat().st_size for sha256 in hub.uploaded}
    sent = shards_of(hub.files("datasets", name, "v2")).keys() - shards_of(old).keys()
    assert sent == {shard.path for shard in new}
    wanted = {shard.sha256 for shard in new}
    assert wanted <= set(hub.uploaded) and len(hub.uploaded) == len(sizes)
    before = {shard.sha256 for shard in read_manifests(root)} - wanted
    assert before and not before & set(hub.uploaded)
    extra = [hub.object(sha256).read_bytes()[:4] for sha256 in set(sizes) - wanted]
    assert len(extra) < 30 and sum(sizes[sha256] for sha256 in set(sizes) - wanted) < 1_000_000

    commits = hub.repository("datasets", name)["commits"]
    for commit in commits.values():  # any state that a reader may have seen
        if "README.md" in commit["files"]:
            card = hub.object(commit["files"]["README.md"]["sha256"]).read_text()
            count = sum(
                pq.read_metadata(hub.object(entry["sha256"])).num_rows
                for path, entry in commit["files"].items()
                if path.startswith("data/")
            )
            assert any(
                f"\n{number:,} clips of" in card for number in (clips, clips + more) if number <= count
            )

    assert hub.files("datasets", name, "v1") == old, "bit for bit"
    code = f"""
import datasets, hashlib
def digest(revision):
    rows = datasets.load_dataset({name!r}, split="train", streaming=True, revision=revision)
    rows = rows.select_columns(["clip_id", "view_00"]).cast_column("view_00", datasets.Video(decode=False))
    return [(row["clip_id"], hashlib.sha256(row["view_00"]["bytes"]).hexdigest()) for row in rows]
preview = datasets.load_dataset({name!r}, "preview", split="preview", streaming=True)
answer = [digest("v1"), digest("main"), len(list(preview.select_columns(["clip_id"])))]
"""
    v1, now, preview = child(hub, tmp_path / "reader", code)
    assert [key for key, _ in now] == [f"{number:016x}" for number in range(clips + more)]
    assert now[:clips] == v1 and preview == 12


def test_appending_sends_the_new_shards_only(hub, tmp_path):
    _appending(hub, tmp_path, 40, 4, 8)


@pytest.mark.slow
def test_appending_100_clips_to_1000_sends_the_new_shards_only(hub, tmp_path):
    _appending(hub, tmp_path, 1000, 100, 50)


def test_a_takedown_reaches_the_hub(hub, root, tmp_path):
    """A shard with removed clips is replaced, an empty one is deleted, in the same commit as the card."""
    grow(root, 8, 10)
    call = f"publish({str(root)!r}, 'hub:org/discs').revision"
    code = f"""
from factory.dataset.takedown import takedown
{call}
for asset in ("disc-0", "disc-4"):
    takedown({str(root)!r}, asset)
open({str(root / "notes.txt")!r}, "w").close()
answer = {call}
"""
    child(hub, tmp_path / "a", code)
    repository = hub.repository("datasets", "org/discs")
    last = repository["commits"][repository["branches"]["main"]]
    before = repository["commits"][last["parent"]]["files"]
    assert shards_of(hub.files("datasets", "org/discs")) == shards_of(contents(root))
    assert len(shards_of(before)) == 3 and len(shards_of(last["files"])) == 2
    changed = {path for path in last["files"] if last["files"][path] != before.get(path)}
    assert {"data/train/part-00000.parquet", "README.md", "takedowns.jsonl"} <= changed
    assert "data/train/part-00001.parquet" not in changed
    assert not {path for path in last["files"] if "_factory" in path or path == "notes.txt"}


def test_somebody_elses_repository_is_left_alone(hub, root, tmp_path):
    entry = {"sha256": hub.put(b"theirs"), "size": 6, "oid": "0" * 40, "lfs": False}
    for name, files in {
        "org/theirs": {"README.md": entry, "data/train/part-00000.parquet": entry},
        "org/other": {"train.csv": entry},
        "org/mine": {"README.md": entry, "LICENSE": entry},
    }.items():
        hub.commit("datasets", name, "main", "theirs", files)
    code = f"""
said = lambda target, **options: attempt({str(root)!r}, target, **options)
answer = [said("hub:org/theirs"), said("hub:org/other"), said("hub:org/mine"), said("hub:org/mine", private=True)]
answer += [said("hub:org/hidden", private=True), said("hub:discs"), said("s3://discs"), said("hub:o/n", tag="main")]
"""
    answers = child(hub, tmp_path / "home", code)
    assert answers[0].startswith(
        "PublishError: hub:org/theirs holds something else (data/train/part-00000.parquet"
    )
    assert answers[1].startswith("PublishError: hub:org/other holds something else (train.csv")
    assert set(hub.files("datasets", "org/other")) == {"train.csv"}
    assert answers[2] == hub.repository("datasets", "org/mine")["branches"]["main"]
    assert "LICENSE" in hub.files("datasets", "org/mine")
    assert "exists and is public" in answers[3] and hub.repository("datasets", "org/hidden")["private"]
    assert all(said.startswith("PublishError: ") for said in answers[5:])


# One shard per commit, so that there are many requests to interrupt. Each round starts with an empty hub.
_CUT = """
import shutil
from hub_server import HubServer
how, folder, root = {how!r}, {folder!r}, {root!r}
with HubServer(folder) as hub:
    os.environ.update(hub.environment({home!r}))  # before the client is imported, here in its own process
    import huggingface_hub.utils._http
    huggingface_hub.utils._http.time.sleep = lambda seconds: None  # its pauses between attempts
    module.COMMIT_FILES = 1
    def state():
        known = hub.repository("datasets", "org/discs")
        return hub.files("datasets", "org/discs") if known else {{}}
    publish(root, "hub:org/discs", tag="v1")
    requests, whole, answer = len(hub.requests), state(), []
    del hub.uploaded[:]
    for nth in range(1, requests + 1):
        for part in ("objects", "datasets"):
            shutil.rmtree(os.path.join(folder, part))
        os.mkdir(os.path.join(folder, "objects"))
        hub.interrupt(nth, how)
        said = attempt(root, "hub:org/discs", tag="v1")
        hub.hook = None
        seen, sent = state(), len(hub.uploaded)
        assert "README.md" not in seen or seen == whole, (nth, sorted(seen))
        there = {{path for path in seen if path.startswith("data/")}}
        before = set(hub.uploaded[-sent:])
        del hub.uploaded[:]
        assert attempt(root, "hub:org/discs", tag="v1") == hub.repository("datasets", "org/discs")["tags"]["v1"]
        assert state() == whole, nth
        assert len(set(hub.uploaded)) == len(hub.uploaded) and not before & set(hub.uploaded), "nothing goes twice"
        del hub.uploaded[:]
        answer.append([nth, said, len(there)])
"""


def _cut_everywhere(tmp_path: Path, root: Path, how: str | int) -> None:
    places = {name: str(tmp_path / name) for name in ("folder", "home")}
    code = _PROLOGUE + _CUT.format(how=how, root=str(root), **places) + "\nprint(json.dumps(answer))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=1200, env=clean
    )
    assert run.returncode == 0, run.stderr
    rounds = json.loads(run.stdout.splitlines()[-1])
    assert len(rounds) > 10 and {shards for *_, shards in rounds} == {0, 1, 2}
    failed = [said for _, said, _ in rounds if said.startswith("HubError: org/discs: ")]
    assert failed and (how != 403 or len(failed) == len(rounds))


def test_an_upload_refused_at_any_request_loses_nothing(root, tmp_path):
    """The hub then has either no card or everything; the same command uploads the rest and nothing twice."""
    write_contact_sheet(root)
    _cut_everywhere(tmp_path, root, 403)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["drop", "lose"])
def test_an_upload_cut_at_any_request_loses_nothing(root, tmp_path, how):
    write_contact_sheet(root)
    _cut_everywhere(tmp_path, root, how)


@pytest.mark.slow
def test_an_upload_killed_at_any_request_loses_nothing(hub, root, tmp_path):
    """Killed at the first request, then at the second of the remaining ones, and so on, it finishes eventually."""
    write_contact_sheet(root)
    pid = tmp_path / "pid"
    code = f"""
open({str(pid)!r}, "w").write(str(os.getpid()))
module.COMMIT_FILES = 1
answer = publish({str(root)!r}, "hub:org/discs", tag="v1").revision
"""
    for nth in range(1, 100):
        hub.interrupt(nth, lambda request: os.kill(int(pid.read_text()), signal.SIGKILL))
        if child(hub, tmp_path / "home", code) is not None:
            break
        if hub.repository("datasets", "org/discs"):
            seen = hub.files("datasets", "org/discs")
            assert "README.md" not in seen or shards_of(seen) == shards_of(contents(root))
    assert nth > 5
    assert shards_of(hub.files("datasets", "org/discs", "v1")) == shards_of(contents(root))
    assert len(hub.uploaded) == len(set(hub.uploaded)), "nothing went twice"
