"""Mistakes of users, over all commands: one sentence and an exit code, no traceback, and no file written or changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import contents, outcome
from tiny_dataset import grow

import factory.__main__
import zoo.__main__

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0\nsize 9\n"
FILES = {
    "README.md": b"# My thesis\n",
    "contact_sheet.png": b"my picture",
    "a-file": b"not a folder",
    "fbx/walk.fbx": b"Kaydara FBX Binary  \x00\x1a\x00",
    "fbx/run.fbx": b"; FBX 7.4.0 project file\n",
    "mixed/scene.blend": b"BLENDER-v300",
    "mixed/a.usdz": b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00a.usd",
    "mixed/b.usdz": b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00a.usd",
    "lfs.glb": LFS,
    "page.glb": b"<!DOCTYPE html><html><body>404</body></html>",
    "packed.gltf": b"PK\x03\x04" + bytes(22) + b"\x09\x00\x00\x00model.glb",
    "model.obj": b"# Blender\nmtllib a.mtl\no cube\nv 0 0 0\nv 1 0 0\n",
    "damaged/data/train/part-00000.parquet": b"PAR1 and nothing else",
    "wrong.csv": b"\xff\xfe\x00",
    "deny.txt": b"\xff\xfe\x00",
    "roars.txt": b"roars\n",
    "comments.txt": b"# nothing yet\n\n",
}


class Mistake(NamedTuple):
    """A command line that cannot work, its environment, its exit code, and words of its sentence."""

    argv: str
    code: int
    words: str
    env: dict[str, str] = {}

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.env.items()), self.argv])[:90]


BIRD = "--source creatures://bird --workers 0"
RENDER = f"render {BIRD} --out"
MOTIONS = "motions --objects creatures://bird --workers 0 --out"
DIMO = "train dimo --objects creatures://bird --workers 0 --out"
MVVDM = "train mvvdm --data discs --workers 0 --out"
EMPTY = {"PATH": "/nowhere", "MENAGERIE_BLENDER": "/nowhere/blender"}

ANIMATE = "animate --prompts roars.txt --workers 0 --out"
EVALUATE = "evaluate dimo/kangaroo --workers 0 --out"

FACTORY = [
    Mistake(f"{EVALUATE} new", 2, "the following arguments are required: --protocol"),
    Mistake(f"{EVALUATE} new --protocol dimo-view", 1, "protocol: there is no 'dimo-view'; expected one of"),
    Mistake(f"{EVALUATE} . --protocol dimo-views", 1, "README.md"),
    Mistake(f"{EVALUATE} new --protocol dimo-views --truth-only", 2, "--truth-only, got both"),
    Mistake("evaluate --out new --protocol dimo-views", 2, "expected models to evaluate, or --truth-only"),
    Mistake(f"{EVALUATE} new --protocol dimo-views --truth fbx", 1, "fbx has no truth of kangaroo; make it with"),
    Mistake(
        "evaluate --out new --protocol dimo-views --truth-only --objects dragon", 1,
        "dimo-views v2 has no object 'dragon'; it lists kangaroo",
    ),
    # animations
    Mistake("animate --out new", 2, "the following arguments are required: --source, --prompts"),
    Mistake("animate --source fbx --prompts nowhere.txt --out new", 2, "nowhere.txt: cannot be read (No such file"),
    Mistake("animate --source fbx --prompts comments.txt --out new", 2, "comments.txt: the file has no sentence"),
    Mistake("animate --source fbx --prompts deny.txt --out new", 2, "deny.txt: cannot be read"),
    Mistake(f"{ANIMATE} . --source fbx", 1, "README.md"),
    Mistake(f"{ANIMATE} new --source nowhere", 1, "no such file or folder"),
    Mistake(f"{ANIMATE} new --source empty", 3, "nothing to animate: empty is empty: it contains no .glb, .gltf, .vrm"),
    Mistake(f"{ANIMATE} new --source fbx --model mvvdm/huge", 1, "mvvdm/huge"),
    Mistake(f"{ANIMATE} new --source fbx --model dimo/bird", 1, "dimo/bird: models of the family dimo do not animate"),
    Mistake(f"{ANIMATE} abfs://bucket/mv --source fbx", 1, "menagerie4d[azure]"),
    Mistake(f"{ANIMATE} abfs://bucket/mv --source fbx --mv-video", 2, "--mv-video: reads the results as files"),
    Mistake(f"{ANIMATE} new --source fbx --resolution 33 --mv-video", 2, "resolution"),
    Mistake(f"{ANIMATE} new --source fbx --form bones", 2, "invalid choice: 'bones'"),
    Mistake(f"{ANIMATE} a-file --source fbx", 1, "a-file is a file, expected a folder"),
    Mistake(f"{ANIMATE} locked --source fbx", 1, "no permission to write in"),
    Mistake(f"{ANIMATE} new --source lfs.glb --dry-run", 3, "a Git LFS pointer"),
    # the command line
    Mistake("dance", 2, "'dance' is not a command; expected one of render"),
    Mistake("render", 2, "the following arguments are required: --out"),
    Mistake("render --out new --views four", 2, "invalid int value: 'four'"),
    Mistake("render --out new --resolution 33", 2, "resolution"),
    Mistake("render --out new --fps 0", 2, "fps"),
    Mistake("render --out new --heldout 0.7", 2, "expected a fraction from 0 to below 0.5"),
    Mistake("render --out new --licence freeware", 2, "not a known licence"),
    Mistake("render --out new --modalities depth,smell", 2, "expected names from"),
    Mistake("render --out new --renderer blender --modalities depth", 2, "cannot render depth"),
    Mistake("render --out new --workers -1", 2, "expected at least 0"),
    Mistake("render --out new --policy theft", 2, "invalid choice: 'theft'"),
    Mistake("motions --out new", 2, "no object: expected --objects"),
    Mistake("motions --objects creatures://bird", 2, "the following arguments are required: --out"),
    Mistake("motions --objects creatures://bird --out new --frames 1", 2, "frames"),
    Mistake("motions --asset a.glb --image a.png --out new", 2, "got --asset and --image"),
    Mistake("motions --asset a.glb --objects creatures://bird --out new", 2, "makes motions of one object"),
    Mistake("motions --image a.png --out new", 2, "--image needs --video-model"),
    Mistake("motions --image a.png --video-model mvvdm/tiny --out new", 2, "films 3D models: give --asset"),
    Mistake("motions --asset a.glb --out new --views-model mvvdm/tiny", 2, "expected module:function"),
    Mistake("motions --asset a.glb --out new --matte a/b/c", 2, "--matte 'a/b/c': neither a folder nor the name"),
    Mistake("motions --asset a.glb --out new --judge-model a/b/c", 2, "neither a folder nor the name of a model"),
    Mistake("motions --asset a.glb --out new --rubric a.txt", 2, "--rubric a.txt needs --judge-model"),
    Mistake("motions --asset a.glb --out new --matte rembg", 2, "neither a folder nor in the hub's cache"),
    Mistake("motions --asset a.glb --out new --prompts nowhere.txt", 2, "a text file with one sentence per line"),
    Mistake("motions --asset a.glb --out new --prompts vocabulary:ghost", 2, "kind of body 'ghost'"),
    Mistake("motions --asset a.glb --out new --prompts endpoint:", 2, "expected endpoint:MODEL"),
    Mistake("motions --asset a.glb --out new --thresholds nowhere.json", 2, "expected a JSON object"),
    Mistake("motions --asset a.glb --out new --video-option steps", 2, "expected NAME=VALUE"),
    Mistake("motions --asset a.glb --out new --views 6", 2, "--views is of motions that are rendered"),
    Mistake("motions --asset a.glb --out new --only edit", 2, "invalid choice: 'edit'"),
    Mistake("motions --asset a.glb --out new --motions 4 --heldout 3", 2, "expected at most 2"),
    Mistake("motions --objects creatures://bird --out new --category owl", 2, "--category needs --asset"),
    Mistake("motions --videos empty --out new", 1, "expected JSON with azimuths_deg and elevations_deg"),
    Mistake("motions --asset nowhere.glb --out new", 1, "no such file or folder"),
    Mistake("motions --asset lfs.glb --out new", 3, "a Git LFS pointer"),
    Mistake("motions --asset empty --out new", 3, "is empty"),
    Mistake("motions --image README.md --video-model json:load --out new", 1, "expected a picture"),
    Mistake("motions --asset creatures://fox --video-model mvvdm/huge --out new", 1, "mvvdm/huge"),
    Mistake("motions --asset a.glb --video-model no_such:model --out new", 2, "there is no module 'no_such'"),
    Mistake("train dimo --asset a.glb --image a.png --out new", 2, "got --asset and --image"),
    Mistake("train", 2, "the following arguments are required: FAMILY"),
    Mistake("train lora", 2, "invalid choice: 'lora'"),
    Mistake(f"{DIMO} new --preset huge", 2, "huge"),
    Mistake(f"{DIMO} new --set speed=9", 2, "speed"),
    Mistake(f"{DIMO} new --gpu-memory 8", 2, "add --gpus 1"),
    Mistake("train mvvdm --data nowhere --out new", 2, "no clips in"),
    Mistake(f"{MVVDM} new --set plan.steps=many", 2, "plan.steps"),
    Mistake("train mvvdm --data discs --out new --workers 3-1", 2, "expected a number or LEAST-MOST"),
    Mistake(f"{MVVDM} new", 2, "the recipe needs"),
    Mistake("status", 2, "the following arguments are required: OUT"),
    Mistake("status discs --watch 0", 2, "expected 0.1 to 86400 seconds, got 0"),
    Mistake("curate", 2, "the following arguments are required: COMMAND"),
    Mistake("curate polish --data discs", 2, "invalid choice: 'polish'"),
    Mistake("curate takedown --data discs", 2, "the following arguments are required: uid"),
    Mistake("curate caption --data discs", 2, "the following arguments are required: --model"),
    Mistake("publish --data discs", 2, "the following arguments are required: --to"),
    # sources
    Mistake("render --source nowhere --out new", 1, "no such file or folder"),
    Mistake("render --source creatures://unicorn --out new", 1, "unicorn"),
    Mistake("render --source ftp://host/fox.glb --out new", 1, "'ftp' is not a source"),
    Mistake("render --source objaverse://123 --out new", 1, "is no Objaverse uid"),
    Mistake("render --source http:// --out new", 1, "expected a web address"),
    Mistake("render --source fbx --out new", 3, "2 such as 'run.fbx', which is an FBX file: convert it to .glb"),
    Mistake("render --source fbx/walk.fbx --out new", 3, "this is an FBX file"),
    Mistake("render --source fbx/run.fbx --out new", 3, "this is an FBX file"),
    Mistake("render --source mixed --out new", 3, "2 such as 'a.usdz', which is a USDZ package"),
    Mistake("render --source mixed/scene.blend --out new", 3, "a Blender file: open it in Blender"),
    Mistake("render --source empty --out new", 3, "empty is empty: it contains no .glb, .gltf or .vrm file"),
    Mistake("render --source empty --out new --dry-run", 3, "is empty"),
    Mistake("render --source empty fbx --out new", 3, "an FBX file"),
    Mistake("render --source lfs.glb --out new", 3, "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    Mistake("render --source page.glb --out new", 3, "an HTML page, most likely an error or login page"),
    Mistake("render --source packed.gltf --out new", 3, "a zip archive: unpack it"),
    Mistake("render --source model.obj --out new", 3, "a Wavefront OBJ file: OBJ has no animation"),
    Mistake("motions --objects empty --out new", 3, "nothing to render: empty is empty"),
    Mistake("motions --objects fbx --out new", 3, "an FBX file"),
    Mistake("motions --objects lfs.glb --out new", 3, "a Git LFS pointer"),
    Mistake("train dimo --objects fbx/walk.fbx --out new", 3, "this is an FBX file"),
    Mistake("motions --objects nowhere --out new", 1, "no such file or folder"),
    Mistake("motions --objects abfs://bucket/mv --out new", 1, 'pip install "menagerie4d[azure]"'),
    Mistake("motions --objects creatures://bird creatures://bird --out new", 1, "two objects are called 'bird'"),
    Mistake("render --out new --deny-list nowhere.txt", 1, "nowhere.txt"),
    Mistake("render --out new --deny-list deny.txt", 1, "deny.txt"),
    # where the output goes
    Mistake(f"{RENDER} abfs://bucket/mv", 1, 'Azure Blob Storage); pip install "menagerie4d[azure]" brings it'),
    Mistake(f"{RENDER} gs://bucket/mv", 1, 'pip install "menagerie4d[gcs]" brings it'),
    Mistake(f"{RENDER} az://bucket/mv", 1, 'pip install "menagerie4d[azure]" brings it'),
    Mistake(f"{RENDER} nosuch://bucket/mv", 1, "expected a path or a URL that fsspec opens"),
    Mistake(f"{RENDER} memory://mv", 1, "lost when it ends: expected a folder or the URL of an object store"),
    Mistake(f"{RENDER} a-file", 1, "a-file is a file, expected a folder"),
    Mistake(f"{RENDER} a-file/below/it", 1, "a-file is a file, expected a folder"),
    Mistake(f"{RENDER} {'long' * 80}", 1, "cannot be an output folder: File name too long; choose another"),
    Mistake(f"{RENDER} locked/mv", 1, "no permission to write in"),
    Mistake(f"{MOTIONS} abfs://bucket/mv", 1, "menagerie4d[azure]"),
    Mistake(f"{MOTIONS} memory://mv", 1, "lost when it ends"),
    Mistake(f"{MOTIONS} a-file", 1, "a-file is a file, expected a folder"),
    Mistake(f"{DIMO} gcs://bucket/mv", 1, "menagerie4d[gcs]"),
    Mistake(f"{DIMO} a-file", 1, "a-file is a file, expected a folder"),
    Mistake(f"{DIMO} locked", 1, "no permission to write in"),
    Mistake(f"{MVVDM} abfs://bucket/mv --set views=2 --set frames=2 --set resolution=16", 1, "menagerie4d[azure]"),
    Mistake("curate export --data discs --to README.md", 1, "README.md"),
    Mistake("publish --data discs --to local:a-file", 1, "a-file"),
    Mistake("publish --data discs --to nowhere", 1, "expected hub:org/name or local:PATH"),
    Mistake("publish --data discs --to hub:one/two/three", 1, "not a repository name"),
    Mistake("publish --data discs --to local:shelf --tag main", 1, "--tag main"),
    # which data is read
    Mistake("curate report --data nowhere", 1, "no clips in"),
    Mistake("curate report --data a-file", 1, "no clips in"),
    Mistake("curate report --data damaged", 1, "it is incomplete or damaged"),
    Mistake("curate duplicates --data abfs://bucket/mv", 1, 'pip install "menagerie4d[azure]"'),
    Mistake("curate export --data nosuch://mv --to new", 1, "expected a path or a URL that fsspec opens"),
    Mistake("curate caption --data nowhere --model x --gpus 0", 1, "no clips in"),
    Mistake("curate takedown --data nosuch://mv disc-0", 1, "expected a path or a URL that fsspec opens"),
    Mistake("curate report --data discs --deny-list nowhere.txt", 1, "nowhere.txt"),
    Mistake("view", 2, "the following arguments are required: DATASET"),
    Mistake("view nowhere", 1, "no clips in nowhere"),
    Mistake("view a-file", 1, "no clips in a-file"),
    Mistake("view damaged", 1, "it is incomplete or damaged"),
    Mistake("view discs --port 99999", 2, "--port: expected at most 65535, got 99999"),
    Mistake("view discs --port -1", 2, "expected at least 0"),
    Mistake("view discs --token short --port 0", 2, "--token: expected at least 8 letters"),
    Mistake("view discs --host 203.0.113.9 --port 0", 2, "--host 203.0.113.9: cannot listen"),
    Mistake("view discs --limit 3", 2, "--limit and --views: are for --export"),
    Mistake("view discs --export . --quiet", 2, "has other files: choose an empty or a new folder"),
    Mistake("view discs --export a-file --quiet", 2, "a-file: is a file, expected a folder"),
    Mistake("view discs --export new --views 0", 2, "expected at least 1, got 0"),
    Mistake("curate rerender --data discs --to new.parquet", 2, "required: CLIP_ID"),
    Mistake("curate rerender none --data discs --to new.parquet", 1, "no clip 'none' among the"),
    Mistake(f"curate rerender {0:016x} --data discs --to new.parquet", 1, "as --asset"),
    Mistake(f"curate rerender {0:016x} --data discs --to new.parquet --asset lfs.glb", 1, "its SHA-256 is"),
    Mistake(f"curate rerender {0:016x} --data discs --to new.parquet --asset no.glb", 1, "no.glb"),
    Mistake("status nowhere", 1, "has no ledger: expected the output folder of a command"),
    Mistake("status a-file", 1, "has no ledger: expected the output folder of a command"),
    Mistake("status abfs://bucket/mv", 1, 'pip install "menagerie4d[azure]"'),
    Mistake("publish --data nowhere --to local:shelf", 1, "no clips in"),
    Mistake("publish --data damaged --to local:shelf", 1, "it is incomplete or damaged"),
    Mistake("train mvvdm --data gs://bucket/mv --out new", 1, "menagerie4d[gcs]"),
    # the machine
    Mistake(f"{RENDER} new --renderer blender", 1, "which does not exist; run `make blender`", EMPTY),
    Mistake(f"{MOTIONS} new --renderer blender", 1, "which does not exist; run `make blender`", EMPTY),
    Mistake("render --source creatures://bird --out new", 1, "is not an address", {"RAY_ADDRESS": "nonsense"}),
    Mistake("render --source creatures://bird --out new", 1, "is not an address", {"RAY_ADDRESS": "host:port"}),
    Mistake("render --source creatures://bird --out new", 1, "is not an address", {"RAY_ADDRESS": "host:99999"}),
    Mistake("motions --objects creatures://bird --out new", 1, "no Ray cluster", {"RAY_ADDRESS": "127.0.0.1:1"}),
    Mistake("motions --objects creatures://bird --out new", 1, "job server", {"RAY_ADDRESS": "http://127.0.0.1:1"}),
    Mistake("motions --objects creatures://bird --out new", 1, "no Ray cluster", {"RAY_ADDRESS": "nohost.invalid:1"}),
]  # fmt: skip

ZOO = [
    Mistake("evaluate dimo/kangaroo", 2, "--protocol: expected one of animate-truth"),
    Mistake("evaluate dimo/kangaroo --protocol fbx.json", 1, "fbx.json: no such file"),
    Mistake("evaluate dimo/kangaroo --protocol dimo-views --truth nowhere", 1, "nowhere is not a folder"),
    Mistake("evaluate dimo/kangaroo --protocol dimo-views --out .", 2, "has other files"),
    Mistake("evaluate dimo/kangaro --protocol dimo-views", 2, "dimo/kangaroo"),
    Mistake("leaderboard --out a-file", 2, "is a file, expected a folder"),
    Mistake("leaderboard huggingface:org", 1, "expected it to begin with one of"),
    Mistake("dance", 2, "invalid choice: 'dance'"),
    Mistake("list ape/*", 2, "no model name matches 'ape/*'"),
    Mistake("info dimo/unicorn", 2, "unicorn"),
    Mistake("info", 2, "the following arguments are required: name"),
    Mistake("info ../../etc/passwd", 2, "passwd"),
    Mistake("sample dimo/bird", 2, "the following arguments are required: --out"),
    Mistake("sample dimo/bird --out new.gif", 2, "new.gif"),
    Mistake("sample dimo/bird --out a-file/x.mp4", 2, "a-file"),
    Mistake("sample dimo/bird --motion swims --out new.npz", 2, "swims"),
    Mistake("sample dimo/bird --seed one --out new.mp4", 2, "invalid int value: 'one'"),
    Mistake("sample dimo/bird --frames 0 --out new.npz", 2, "0"),
    Mistake("sample dimo/bird --seed 1 --text hop --out new.mp4", 2, "not allowed with argument"),
    Mistake("sample mvvdm/tiny --out new.glb", 2, "new.glb"),
    Mistake("render dimo/bird --views 0 --out new", 2, "expected at least 1"),
    Mistake("render dimo/bird --out new.gif", 2, "expected a name that ends in .mp4"),
    Mistake("export dimo/bird --out new.docx", 2, "new.docx"),
    Mistake("animate mvvdm/tiny nowhere.glb jumps --out new.mp4", 1, "nowhere.glb: no such file"),
    Mistake("animate dimo/bird lfs.glb jumps --out new.mp4", 2, "dimo"),
    Mistake("view", 2, "the following arguments are required: NAME"),
    Mistake("view dimo/unicorn", 2, "unicorn"),
    Mistake("view dimo/bird --port 99999", 2, "--port 99999: expected a number from 0 to 65535"),
    Mistake("view dimo/bird --token abc", 2, "--token: expected at least 8 letters"),
    Mistake("view nowhere.glb", 1, "nowhere.glb: no such file or folder"),
    Mistake("publish dimo/bird nowhere", 2, "'nowhere' is not a model name"),
    Mistake("publish dimo/unicorn local:dimo/x", 2, "unicorn"),
    Mistake("list --home a-file local:*", 1, "a-file: the home of models is a file"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A user's folder with files of their own, and the inputs of the mistakes."""
    root = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty").mkdir()
    (root / "locked").mkdir()
    grow(root / "discs", 0, 2)
    yield root


@pytest.fixture
def user(folder, monkeypatch, tmp_path) -> Path:
    """Work in the user's folder, without drivers of object stores and without permission to write in `locked`."""
    monkeypatch.chdir(folder)
    for name in ("RAY_ADDRESS", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for driver in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, driver, None)  # whatever is installed here
    allowed = os.access
    # The superuser may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and allowed(path, mode))
    return folder


@pytest.mark.parametrize(
    ("main", "mistake"),
    [(factory.__main__.main, each) for each in FACTORY] + [(zoo.__main__.main, each) for each in ZOO],
    ids=lambda value: str(value) if isinstance(value, Mistake) else value.__module__.partition(".")[0],
)
def test_a_mistake_ends_in_a_sentence_and_changes_nothing(main, mistake, user, monkeypatch, capfd):
    for name, value in mistake.env.items():
        monkeypatch.setenv(name, value)
    if "RAY_ADDRESS" in mistake.env:  # an earlier test of this process may have left a session open
        monkeypatch.setattr("ray.is_initialized", lambda: False)
    before = contents(user)
    code = outcome(main, mistake.argv.split())
    out, err = capfd.readouterr()
    assert code == mistake.code, err
    assert mistake.words in err
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if not line.startswith(("note: ", "usage: ", " "))]
    assert len(lines) == 1, err
    assert contents(user) == before


def test_the_table_covers_every_command():
    assert len(FACTORY) + len(ZOO) >= 60
    for name in factory.__main__.COMMANDS:
        assert sum(each.argv.split()[0] == name for each in FACTORY) >= 3, name
    for name in (
        "list",
        "info",
        "sample",
        "render",
        "export",
        "animate",
        "evaluate",
        "leaderboard",
        "publish",
        "view",
    ):
        assert any(each.argv.split()[0] == name for each in ZOO), name
