"""The command on collections of strangers: whatever they did to their records, each is accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from seeded_objaverse import seed_objaverse, seed_xl, uid_of, xl_row
from sketchfab_server import Request, SketchfabServer, annotation
from tiny_gltf import moving

from cluster import Ledger
from factory import load_clips
from factory.assets.licences import publishable
from factory.assets.selection import Selection
from factory.clips.stage import RenderStage, asset_tasks
from factory.sources import downloads, open_source
from factory.sources.downloads import DownloadError

markdown_it = pytest.importorskip("markdown_it", reason="renders the card as a web page would")

SMALL = ("--resolution", "16", "--fps", "3", "--num-frames", "2", "--views", "4", "--workers", "1")
HTML = "<script>alert(1)</script>![x](http://e.org/x.png) | </td>"
HUB = "/huggingface.co/datasets/allenai/objaverse/resolve/main"
GITHUB = "https://github.com/ada/m/blob/0123456789abcdef"
RAW = "/raw.githubusercontent.com/ada/m/0123456789abcdef"


def model(number: int) -> bytes:
    return moving("translation", [0, 1], [[0, 0, 0], [1 + number / 100, 0, 0]]).glb()


class World:
    """Seeded collections, a server, and what has to become of every record in them: reason → how many."""

    def __init__(self, home: Path, server: SketchfabServer) -> None:
        self.home, self.server, self.ray = home, server, False
        self.annotations: dict[str, object] = {}
        self.files: dict[str, bytes] = {}
        self.manifest: list[dict] = []
        self.rows: list[dict] = []
        self.expected: Counter[str] = Counter()
        self.number = 0

    def objaverse(self, what: str, *, seeded: bool = True, now: object = True, **changes: object) -> str:
        """A record of Objaverse 1.0; `now` is what Sketchfab says of it today (False: nothing)."""
        self.number += 1
        uid = uid_of(str(self.number))
        self.annotations[uid] = annotation(uid, **{"license": "by", **changes})
        if now:
            self.server.models[uid] = annotation(uid) if now is True else now
        (self.files if seeded else {})[uid] = model(self.number)
        if not seeded:
            self.server.static[f"{HUB}/glbs/000-023/{uid}.glb"] = model(self.number)
        self.expected[what] += 1
        return uid

    def listed(self, what: str, **entry: object) -> None:
        """A line of the manifest."""
        self.number += 1
        name = f"/models.example/{self.number}.glb"
        self.server.static[name] = model(self.number)
        known = {"url": f"https:/{name}", "licence": "CC-BY-4.0", "noai": "no", "author": "Ada"}
        self.manifest.append({**known, **entry})
        self.expected[what] += 1

    def on_github(
        self, what: str, kind: str = "glb", licence: object = "MIT License", **changes: object
    ) -> None:
        """A row of Objaverse-XL."""
        self.number += 1
        name = f"{self.number}.{kind}"
        self.server.static[f"{RAW}/{name}"] = model(self.number)
        self.rows.append(xl_row(f"{GITHUB}/{name}", model(self.number), kind, licence, **changes))
        self.expected[what] += 1

    def seed(self) -> None:
        seed_objaverse(self.home, self.annotations, self.files)
        seed_xl(self.home, "github", self.rows)
        (self.home / "list.jsonl").write_text("\n".join(map(json.dumps, self.manifest)))

    def command(self, out: Path) -> list[str]:
        sources = ("objaverse", str(self.home / "list.jsonl"), "objaverse-xl://github")
        return [
            *(sys.executable, "-P", "-m", "factory.render"),
            *("--out", str(out), *SMALL, "--animated", *(() if self.ray else ("--workers", "0"))),
            *("--source", *sources, "--allow-unknown-noai"),
        ]

    def start(self, out: Path, **options: object) -> subprocess.Popen:
        environment = self.server.environment(self.home)
        return subprocess.Popen(self.command(out), env=environment, start_new_session=True, **options)

    def finish(self, out: Path) -> str:
        run = self.start(out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said
        return said

    def kill(self, out: Path, after_requests: int) -> None:
        """Start the command and kill all of it when the server has seen so many more requests."""
        before = len(self.server.requests)
        run = self.start(out, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        try:
            while len(self.server.requests) - before < after_requests and run.poll() is None:
                assert time.monotonic() < deadline, "nothing happened in time"
                time.sleep(0.005)
        finally:
            with suppress(ProcessLookupError):  # it had come to its end before
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()

    def check(self, out: Path, said: str) -> None:
        """Every record has become what it had to."""
        tally = json.loads(sorted((out / "_factory" / "runs").glob("*.json"))[-1].read_text())["tally"]
        found = Counter({f"dead: {reason}": count for reason, count in tally["dead"].items()})
        found += Counter(tally["filtered"])
        found["rendered"] = len({clip.metadata["asset_uid"] for clip in load_clips(out)})
        for label, cause in tally["quarantined"].items():
            kind = (
                "checksum"
                if "wrong checksum" in cause
                else "broken"
                if "GLB" in cause
                else f"{label}: {cause}"
            )
            found[f"quarantined: {kind}"] += 1
        assert found == self.expected
        assert tally["listed"] == sum(self.expected.values())
        for reason, count in tally["dead"].items():
            assert f"{count:5d}  {reason}" in said


def shards(out: Path) -> dict[str, str]:
    files = sorted((out / "data").rglob("*.parquet"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def unreliable(seed: int, often: float = 0.2):
    """Trouble by chance, of every kind that passes."""
    chaos = random.Random(seed)

    def misbehave(request: Request) -> str | int | None:
        return chaos.choice(["throttle:0.05", "drop", "cut", 500]) if chaos.random() < often else None

    return misbehave


def populate(world: World, times: int) -> None:
    """Records of every fate."""
    noai = [{"name": "NoAI", "slug": "noai"}]
    no_ai, bad = "noai: the author forbids AI use", "malformed: no annotation"
    for turn in range(times):
        world.objaverse("rendered", name=HTML, user={"displayName": HTML})
        world.objaverse("rendered", seeded=False)
        world.objaverse(no_ai, tags=noai)
        world.objaverse(no_ai, now=annotation("0" * 32, tags=noai))
        world.objaverse(
            "licence: CC-BY-ND-4.0 is not in the policy research: it forbids derivatives, which renderings are "
            "(--allow-no-derivatives takes it)",
            license="by-nd",
        )
        world.objaverse(
            "licence: LicenseRef-Sketchfab-Standard is not in the policy research",
            now=annotation("0" * 32, license={"slug": "st", "label": "Standard"}),
        )
        world.objaverse("not animated", animationCount=0)
        world.objaverse("dead: gone from Sketchfab, HTTP 404", now=False)
        gone = world.objaverse("dead: HTTP 404", seeded=False)
        del world.server.static[f"{HUB}/glbs/000-023/{gone}.glb"]
        world.files[world.objaverse("quarantined: broken")] = model(0)[:300]
        world.annotations[world.objaverse(bad)] = "a string"
        world.listed("rendered", title=HTML, author=HTML, tags=[HTML])
        world.listed("quarantined: checksum", sha256=f"{turn:064x}")
        world.listed("dead: HTTP 404", url=f"https://models.example/gone-{turn}.glb")
        world.listed("licence: unknown (--allow-unknown-licence takes it)", licence="ask me")
        world.on_github("rendered")
        world.on_github("type obj: holds no animation", "obj")
        world.on_github("licence: unknown (--allow-unknown-licence takes it)", licence="Other")
        world.on_github("quarantined: checksum", sha256=f"{turn + 1000:064x}")


@pytest.fixture
def world(tmp_path):
    with SketchfabServer() as server:
        (tmp_path / "home").mkdir()
        yield World(tmp_path / "home", server)


def test_every_record_is_accounted_for_through_trouble_and_a_kill(world, tmp_path):
    populate(world, 1)
    world.seed()
    world.server.misbehave = unreliable(1)
    world.kill(tmp_path / "out", after_requests=8)
    said = world.finish(tmp_path / "out")
    world.check(tmp_path / "out", said)
    for clip in load_clips(tmp_path / "out"):
        assert publishable(clip.metadata) == ""
    page = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[2]
    )
    assert "<script" not in page and 'e.org/x.png"' not in page and "&lt;script&gt;" in page
    again = world.finish(tmp_path / "out")
    assert "nothing new" in again and "dead         3 assets are gone" in again


@pytest.mark.slow
def test_killed_anywhere_it_writes_the_same(world, tmp_path):
    """The whole command; killed after 1, 2, 4 … requests, again and again, then compared with a calm run."""
    world.ray = True
    populate(world, 4)
    world.seed()
    calm = world.finish(tmp_path / "calm")
    world.check(tmp_path / "calm", calm)
    for path in sorted((world.home / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    world.server.misbehave = unreliable(2)
    for requests in (1, 2, 4, 8, 12, 16, 20, 24):
        world.kill(tmp_path / "out", requests)
    said = world.finish(tmp_path / "out")
    world.check(tmp_path / "out", said)
    assert shards(tmp_path / "out") == shards(tmp_path / "calm")


# --- fuzzed annotations -------------------------------------------------------------------------------


def nonsense(chaos: random.Random, depth: int = 0) -> object:
    """Any JSON value, the unpleasant ones more often."""
    kinds = [
        None,
        True,
        -1,
        0,
        1e308,
        10**30,
        "",
        " ",
        "by",
        "../../etc/passwd",
        "\ud800",
        "\x00",
        "\u202e",
        "𝕏é東" * 9,
    ]
    kinds += [
        HTML,
        "x" * 20_000,
        "javascript:alert(1)",
        "https://e.org/\n<b>",
        "=cmd|' /C calc'!A0",
        "{}",
        "9" * 50,
    ]
    if depth < 3 and chaos.random() < 0.3:
        if chaos.random() < 0.5:
            return [nonsense(chaos, depth + 1) for _ in range(chaos.randrange(4))]
        return {str(chaos.choice(kinds)): nonsense(chaos, depth + 1) for _ in range(chaos.randrange(4))}
    return chaos.choice(kinds)


def fuzz(chaos: random.Random, record: dict) -> dict:
    """The record with some values missing, wrong, nested or huge."""
    result = {}
    for key, value in record.items():
        roll = chaos.random()
        if roll < 0.4:
            result[key] = value
        elif roll < 0.85:
            result[key] = nonsense(chaos)
    return result | {str(nonsense(chaos)): nonsense(chaos)}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_fuzzed_annotations_stop_nothing(seed, tmp_path, monkeypatch):
    """Listing: thousands of broken records, none lost, none dangerous."""
    chaos = random.Random(seed)
    monkeypatch.setenv("HOME", str(tmp_path))
    count = 300 if seed == 0 else 5000
    uids = [uid_of(str(number)) for number in range(count)]
    seed_objaverse(tmp_path, {uid: fuzz(chaos, annotation(uid)) for uid in uids}, {})
    row = {**xl_row(f"{GITHUB}/a.glb", b"x"), "metadata": "[]"}
    strings = [
        {key: value if isinstance(value, str) else None for key, value in fuzz(chaos, row).items()}
        for _ in uids
    ]
    seed_xl(
        tmp_path,
        "github",
        [
            {**row, **{k: v.encode("utf-8", "replace").decode() if v else v for k, v in entry.items()}}
            for entry in strings
        ],
    )
    lines = [
        json.dumps(
            fuzz(
                chaos,
                {
                    "url": "https://models.example/a.glb",
                    "title": "x",
                    "licence": "by",
                    "tags": [],
                    "faces": 1,
                },
            )
        )
        for _ in uids
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    for uri in ("objaverse", "objaverse-xl://github", str(tmp_path / "list.jsonl")):
        records = list(open_source(uri).list())
        assert len(records) == count
        left_out: list[str] = []
        taken = list(Selection(policy="any").apply(records, left_out.append))
        assert len(taken) + len(left_out) == count and taken and len(set(left_out)) < 100
        for record, task in zip(taken, asset_tasks(taken, RenderStage()), strict=True):
            assert json.dumps(record.to_json()).isascii() and len(json.dumps(record.to_json())) < 60_000
            repr(record).encode()  # no surrogates
            assert not any(ord(c) < 32 or c == "\u202e" for c in record.uid + record.title + record.author)
            assert task.key.isalnum() and record.source_url.startswith(("", "http"))
            fetched_from = open_source(record.location)
            assert ".." not in getattr(fetched_from, "_path", "")


def test_fuzzed_records_reach_the_card_as_text_only(world, tmp_path):
    """Rendered: broken titles, authors, tags and pages around good files."""
    chaos = random.Random(5)
    for _ in range(12):
        known = {
            "title": "t",
            "author": "a",
            "source_url": "https://e.org/m",
            "tags": ["x"],
            "faces": 3,
            "uid": "u",
        }
        world.listed("rendered", **{key: nonsense(chaos) for key in known if chaos.random() < 0.8})
    world.seed()
    run = subprocess.run(
        [*world.command(tmp_path / "out")[:-5], "--source", str(world.home / "list.jsonl")],
        env=world.server.environment(world.home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "rendered     12 clips of 12 assets" in run.stdout
    card = (tmp_path / "out" / "README.md").read_text() + (tmp_path / "out" / "ATTRIBUTION.md").read_text()
    page = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        card.split("---\n", 2)[2]
    )
    assert (
        "<script" not in page
        and "<b>" not in page
        and "javascript:" not in page.replace("\\", "").split("href=")[-1]
    )
    assert not any(char in card for char in "\x00\u202e")
    assert {path.name for path in tmp_path.iterdir()} == {"home", "out"}
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert all(name.isascii() and "passwd" not in name for name in names)
    assert {record.status for record in Ledger(tmp_path / "out")} == {"done"}


# --- terms, in the worker -----------------------------------------------------------------------------


def planned(location: str, selection: Selection):
    """What the stage makes of the one asset at a location, on the selection's terms."""
    (task,) = asset_tasks(open_source(location).list(), RenderStage(), selection)
    return RenderStage(plan_only=True).process(task)


def test_without_an_answer_about_ai_nothing_is_rendered_unless_asked_for(world, monkeypatch):
    uid = world.objaverse("rendered")
    world.seed()
    for name, value in world.server.variables(world.home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(downloads, "_BACK_OFF_S", 0.001)
    world.server.misbehave = lambda request: "drop"
    with pytest.raises(DownloadError, match="download failed after 5 attempts"):
        planned(f"objaverse://{uid}", Selection())
    taken = planned(f"objaverse://{uid}", Selection(allow_unknown_noai=True))
    assert taken.status == "done" and taken.summary["clips"] == 1


def test_a_folder_is_the_users_own_unless_a_policy_is_named(tmp_path):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    (tmp_path / "unlicensed.glb").write_bytes(tiny.glb())
    tiny.json["asset"] = {"version": "2.0", "extras": {"license": "CC-BY-NC-4.0 (http://…)", "author": "A"}}
    (tmp_path / "nc.glb").write_bytes(tiny.glb())
    nc, unlicensed = str(tmp_path / "nc.glb"), str(tmp_path / "unlicensed.glb")
    known = {"allow_unknown_noai": True}
    assert planned(unlicensed, Selection()).status == "done"
    assert planned(nc, Selection(policy="research", **known)).status == "done"
    assert planned(nc, Selection(licences=("CC-BY-NC-4.0",))).status == "done"
    for path, selection, reason in (
        (
            nc,
            Selection(policy="commercial", **known),
            "licence: CC-BY-NC-4.0 is not in the policy commercial",
        ),
        (nc, Selection(policy="research"), "noai: unknown (--allow-unknown-noai takes it)"),
        (nc, Selection(licences=("MIT",)), "licence: CC-BY-NC-4.0 was not asked for"),
        (
            unlicensed,
            Selection(policy="research", **known),
            "licence: unknown (--allow-unknown-licence takes it)",
        ),
    ):
        outcome = planned(path, selection)
        assert (outcome.status, outcome.reason) == ("filtered", reason)


def test_other_terms_are_another_question(tmp_path):
    """What one policy left out is looked at again under another; datasets made without one go on as they were."""
    (tmp_path / "a.glb").write_bytes(model(1))
    records = list(open_source(str(tmp_path)).list())

    def key(selection: Selection | None) -> str:
        (task,) = asset_tasks(records, RenderStage(), selection)
        return task.key

    assert key(None) == key(Selection()) == key(Selection(max_faces=3, tags=("x",)))
    assert len({key(Selection(policy=name)) for name in ("any", "research", "commercial")}) == 3
    assert key(Selection(policy="any")) == key(None)
