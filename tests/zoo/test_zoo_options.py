"""Every option of `python -m zoo` with every family: it does what it says, or one sentence and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from frame_counts import COUNT
from tiny_dimo import SENTENCES, tiny_pipeline
from tiny_gltf import moving

import zoo
from zoo.__main__ import main

pytest.importorskip("av", reason='writes the videos: pip install "menagerie4d[zoo]"')
pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_mvvdm import tiny_videos_pipeline

FROM, TO = SENTENCES[0].replace(" ", "-"), SENTENCES[1].replace(" ", "-")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """A model of each family, and what its models may lack."""
    home = tmp_path_factory.mktemp("home")
    zoo.publish(tiny_pipeline(), "local:dimo/egg", home=home)
    zoo.publish(tiny_pipeline(factorised=False), "local:dimo/bare", home=home)
    zoo.register_family("quiet", "tiny_mvvdm:VideosOfNothing")
    for name in ("disc", "empty"):
        pipeline = tiny_videos_pipeline()
        if name == "empty":
            pipeline.example = None
        zoo.publish(pipeline, f"local:quiet/{name}", home=home)
    (home / "a-file").write_text("mine")
    (home / "asset.glb").write_bytes(moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).glb())
    (home / "ring").mkdir()
    (home / "ring" / "notes.txt").write_text("mine")
    yield home
    del zoo.families._registered["quiet"]  # a pipeline of its class would be taken for one of this family


@pytest.fixture(autouse=True)
def there(monkeypatch, home, tmp_path):
    monkeypatch.setenv("MENAGERIE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for name in ("a-file", "asset.glb", "ring"):
        (tmp_path / name).symlink_to(home / name)


FORMATS = ".mp4, .glb, .fbx, .usd, .usda, .usdc, .usdz, .ply, .4dgs, .npz, .html"


class Refusal(NamedTuple):
    """A command line that is refused, and words of its sentence."""

    argv: str
    words: str

    def __str__(self) -> str:
        return self.argv[:80]


ANIMATE = "animate asset.glb hops --videos-only"
LACKS = "models of the family 'mvvdm' cannot"
REFUSED = [
    # operations that a family lacks; the model is bundled, and not loaded for this
    *(
        Refusal(f"{command} mvvdm/tiny {option} --out x.mp4", f"{LACKS} {words}")
        for command in ("sample", "export")
        for option, words in {
            "--motion nods": "reproduce a trained motion by name (--motion)",
            "--text nods": "find a motion by a sentence (--text)",
            "--between nods sits": "interpolate between two motions (--between)",
            "--between nods sits --steps 3 --frames 4": "interpolate between two motions (--between)",
            "--frames 4": "change the number of frames (--frames)",
            "--seed 3 --frames 1": "change the number of frames (--frames)",
        }.items()
    ),
    Refusal("render mvvdm/tiny --out x.mp4", f"{LACKS} render from cameras around the object (render)"),
    Refusal("render mvvdm/tiny --motion nods --out ring", f"{LACKS} reproduce a trained motion"),
    Refusal(f"{ANIMATE} --model dimo/egg --out x.mp4", "'dimo' cannot animate an object file"),
    # formats
    Refusal("sample mvvdm/tiny --out x.glb", "saved as one of .mp4, got '.glb'"),
    Refusal("export mvvdm/tiny --out x", "saved as one of .mp4, got 'no suffix'"),
    Refusal("sample dimo/egg --out x.gif", f"saved as one of {FORMATS}, got '.gif'"),
    Refusal(f"{ANIMATE} --out x.gif", "saved as one of .mp4, got '.gif'"),
    Refusal("render dimo/egg --out x.glb", "expected a name that ends in .mp4"),
    Refusal("export dimo/bare --out x.glb", "trained without key points, so it has no joints"),
    # values
    Refusal("sample dimo/egg --frames 0 --out x.mp4", "--frames 0: expected at least 1"),
    Refusal("sample dimo/egg --frames -3 --out x.npz", "--frames -3: expected at least 1"),
    Refusal("export dimo/egg --frames 1000000000 --out x.ply", "--frames 1000000000: expected at most 10000"),
    Refusal(f"sample dimo/egg --between {FROM} {TO} --steps 1 --out x.mp4", "--steps 1: expected at least 2"),
    Refusal(f"sample dimo/egg --between {FROM} {TO} --steps 1000000000 --out x.mp4", "expected at most 1000"),
    Refusal("sample dimo/egg --steps 3 --out x.mp4", "--steps 3: is for --between only"),
    Refusal("render dimo/egg --motion x --steps 3 --out x.mp4", "--steps 3: is for --between only"),
    Refusal(f"sample dimo/egg --seed {2**64} --out x.mp4", f"--seed {2**64}: expected a whole number from"),
    Refusal(f"sample quiet/disc --seed {-(2**63) - 1} --out x.mp4", "expected a whole number from -2^63"),
    Refusal(f"{ANIMATE} --model quiet/disc --seed {2**65} --out x.mp4", "expected a whole number from"),
    Refusal("sample dimo/egg --motion nods --out x.mp4", "has no motion 'nods'"),
    Refusal(f"sample dimo/egg --between {FROM} nods --out x.mp4", "has no motion 'nods'"),
    Refusal("sample dimo/egg --text hops --out x.mp4", "was published without a text head"),
    Refusal("sample dimo/egg --text= --out x.mp4", "--text: expected a sentence, got no words"),
    Refusal("sample quiet/empty --out x.mp4", "has no example: call it with images and a prompt"),
    Refusal("render dimo/egg --views 0 --out new", "--views 0: expected at least 1"),
    Refusal("render dimo/egg --views 4 --out x.mp4", "--views 4: is for a folder"),
    Refusal("render dimo/egg --resolution 33 --out x.mp4", "--resolution 33: expected an even number"),
    Refusal("render dimo/egg --resolution 0 --out x.mp4", "--resolution 0: expected at least 2"),
    Refusal("render dimo/egg --resolution 100000 --out x.mp4", "--resolution 100000: expected at most"),
    Refusal("render dimo/egg --distance 0 --out x.mp4", "--distance 0: expected a finite number above 0"),
    Refusal("render dimo/egg --distance -1 --out x.mp4", "--distance -1: expected a finite number above 0"),
    Refusal("render dimo/egg --distance inf --out x.mp4", "--distance inf: expected a finite number above 0"),
    Refusal("render dimo/egg --distance nan --out x.mp4", "--distance nan: expected a finite number above 0"),
    Refusal("render dimo/egg --azimuth-deg nan --out x.mp4", "--azimuth-deg nan: expected a finite angle"),
    Refusal("render dimo/egg --elevation-deg 91 --out x.mp4", "--elevation-deg 91: expected an angle from"),
    Refusal("render dimo/egg --elevation-deg nan --out x.mp4", "--elevation-deg nan: expected an angle from"),
    # where the result goes
    Refusal("sample dimo/egg --out a-file/x.mp4", "a-file is a file, expected a folder"),
    Refusal(f"sample dimo/egg --between {FROM} {TO} --out a-file/b/x.mp4", "a-file is a file, expected a folder"),
    Refusal("render dimo/egg --out a-file", "a-file is a file: expected a folder"),
    Refusal("render dimo/egg --out a-file/ring", "a-file is a file, expected a folder"),
    Refusal("render dimo/egg --out ring", "ring has files that this command did not write (notes.txt)"),
    Refusal(f"{ANIMATE} --model quiet/disc --out a-file/x.mp4", "a-file is a file, expected a folder"),
    # names
    Refusal("sample dimo/eg --out x.mp4", "there is no model 'dimo/eg'; similar names: dimo/egg"),
    Refusal("info egg", "'egg' is not a model name"),
    Refusal("list dimo/none*", "no model name matches 'dimo/none*'"),
    Refusal("publish dimo/eg local:dimo/copy", "there is no model 'dimo/eg'"),
]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("refusal", REFUSED, ids=str)
def test_refused(refusal, capsys, tmp_path, home):
    before = files(tmp_path), files(home)
    assert main(refusal.argv.split()) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("zoo: ") and err.count("\n") == 1 and refusal.words in err
    assert (files(tmp_path), files(home)) == before


@pytest.mark.parametrize(
    "argv",
    [
        "sample dimo/egg --frames four --out x.mp4",
        "sample dimo/egg --frames 1.5 --out x.mp4",
        "sample dimo/egg --seed one --out x.mp4",
        "sample dimo/egg --seed 0 --motion x --out x.mp4",
        "sample dimo/egg --text a --motion x --out x.mp4",
        f"sample dimo/egg --between {FROM} --out x.mp4",
        "render dimo/egg --views 2.5 --out ring",
        "render dimo/egg --distance far --out x.mp4",
        "animate --out x.mp4",
        "animate mvvdm/tiny asset.glb hops --frames 3 --out x.mp4",
        "sample dimo/egg",
        "publish dimo/egg",
    ],
)
def test_refused_by_the_parser(argv, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(argv.split())
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err
    assert not (tmp_path / "x.mp4").exists()


def test_the_mistakes_of_a_terminal_are_sentences(home, tmp_path):
    """The same in a process of its own."""
    command = [sys.executable, "-P", "-m", "zoo", "sample", "mvvdm/tiny", "--frames", "4", "--out", "x.mp4"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "(--frames)" in result.stderr


WORKS = [
    ("sample dimo/egg --out x.mp4", {"x.mp4": 44}),
    ("sample dimo/egg --seed -1 --frames 5 --out x.mp4", {"x.mp4": 5}),
    (f"sample dimo/egg --seed {2**64 - 1} --frames 1 --out x.npz", {"x.npz": 1}),
    (f"export dimo/egg --motion {FROM} --frames 4 --out deep/x.ply", {"deep/x.ply": 4}),
    (f"export dimo/egg --between {FROM} {TO} --steps 2 --frames 2 --out x.npz", {"x-0.npz": 2, "x-1.npz": 2}),
    (f"sample dimo/egg --between {FROM} {TO} --frames 2 --out x.npz", {f"x-{i}.npz": 2 for i in range(5)}),
    ("sample dimo/bare --frames 3 --out x.MP4", {"x.MP4": 3}),
    ("render dimo/egg --frames 3 --resolution 16 --azimuth-deg -30 --elevation-deg 90 --out x.mp4", {"x.mp4": 3}),
    (f"render dimo/egg --motion {FROM} --frames 2 --resolution 16 --views 2 --distance 3 --out fan",
     {"fan/view_00.mp4": 2, "fan/view_01.mp4": 2}),
    ("render dimo/egg --resolution 16 --views 1 --elevation-deg -90 --out fan", {"fan/view_00.mp4": 48}),
    ("sample quiet/disc --out x.mp4", {"x.mp4": 3}),
    ("export quiet/disc --seed 9 --out deep/x.mp4", {"deep/x.mp4": 3}),
    ("animate quiet/disc asset.glb hops --seed 2 --out x.mp4", {"x.mp4": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "expected"), WORKS, ids=lambda x: str(x)[:60])
def test_works(argv, expected, capsys, tmp_path):
    """Each file is there with its number of frames."""
    assert main(argv.split()) == 0, capsys.readouterr().err
    for name, count in expected.items():
        path = tmp_path / name
        assert COUNT[path.suffix.lower()](path) == count
    others = {"a-file", "asset.glb", "ring/notes.txt"} | {"fan/cameras.json"}
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} - others
    assert written == {name for name in expected if not name.endswith(".ply")} | {
        f"deep/x/{i:03d}.ply" for i in range(4) if "deep/x.ply" in expected
    }
