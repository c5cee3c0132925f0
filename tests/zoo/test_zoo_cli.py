"""`python -m zoo`: files that other programs read, and errors on one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_dimo import SENTENCES, tiny_pipeline

import zoo
from zoo.__main__ import main
from zoo.export.html import read_page

av = pytest.importorskip("av", reason='reads the videos: pip install "menagerie4d[zoo]"')


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    pipeline = tiny_pipeline()
    pipeline.metrics = {"protocol": "not measured", "mean": {"psnr": 12.25}}
    zoo.publish(pipeline, "local:dimo/egg", home=home)
    return home


@pytest.fixture(autouse=True)
def registry(monkeypatch, home):
    monkeypatch.setenv("MENAGERIE_HOME", str(home))


def run(capsys, *argv: object) -> str:
    """Standard output of a successful command."""
    code = main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def fails(capsys, code: int, *argv: object) -> str:
    """The one-line error message of a failing command."""
    assert main([str(arg) for arg in argv]) == code
    out, err = capsys.readouterr()
    assert not out and err.startswith("zoo: ") and err.count("\n") == 1
    return err


def video(path: Path) -> np.ndarray:
    """uint8 [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_published_and_loaded_bit_for_bit(home):
    before, after = tiny_pipeline(), zoo.load("dimo/egg")
    state, again = before.model.state_dict(), after.model.state_dict()
    assert state.keys() == again.keys()
    assert all((state[name] == again[name]).all() for name in state)
    assert after.metrics == {"protocol": "not measured", "mean": {"psnr": 12.25}}
    assert after.motions == before.motions and after.sentences == SENTENCES
    first, second = before.sample(5).trajectories, after.sample(5).trajectories
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_the_same_model_is_the_same_revision(home):
    name = zoo.info("dimo/egg").name
    assert zoo.publish(zoo.load("dimo/egg"), "local:dimo/egg") == name


def test_list_and_info(capsys):
    assert "dimo/egg" in run(capsys, "list").split()
    assert run(capsys, "list", "local:*/e*").split() == ["local:dimo/egg"]
    shown = run(capsys, "info", "dimo/egg")
    for words in ("local:dimo/egg@", "CC0-1.0", "mean psnr 12.25", "not measured", "MB in 5 files"):
        assert words in shown
    known = json.loads(run(capsys, "info", "dimo/egg", "--json"))
    assert known["metrics"]["mean"] == {"psnr": 12.25} and Path(known["folder"]).is_dir()
    assert "no model name matches 'dimo/none*'; known here: " in fails(capsys, 2, "list", "dimo/none*")


def test_sample(capsys, tmp_path):
    """Different seeds give different motions."""
    files = [tmp_path / "a.mp4", tmp_path / "deep" / "b.mp4"]
    for seed, file in zip((3, 4), files, strict=True):
        assert run(capsys, "sample", "dimo/egg", "--seed", seed, "--out", file).strip() == str(file)
    frames = [video(file) for file in files]
    assert len(frames[0]) > 20 and 0.02 < (frames[0] < 200).any(-1).mean() < 0.9
    assert not np.array_equal(*frames)


def test_a_named_motion_and_interpolation(capsys, tmp_path):
    run(capsys, "sample", "dimo/egg", "--motion", SENTENCES[2], "--frames", 9, "--out", tmp_path / "wave.mp4")
    run(capsys, "sample", "dimo/egg", "--between", SENTENCES[0], SENTENCES[2], "--steps", 2, "--frames", 9,
        "--out", tmp_path / "x.mp4")  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wave.mp4", "x-0.mp4", "x-1.mp4"]
    wave, first, last = (video(tmp_path / name) for name in ("wave.mp4", "x-0.mp4", "x-1.mp4"))
    assert np.array_equal(wave, last) and not np.array_equal(first, last)


def test_render_orbits_the_object(capsys, tmp_path):
    run(
        capsys,
        "render",
        "dimo/egg",
        "--motion",
        SENTENCES[0],
        "--frames",
        8,
        "--resolution",
        64,
        "--out",
        tmp_path / "o.mp4",
    )
    orbit = video(tmp_path / "o.mp4")
    assert orbit.shape == (8, 64, 64, 3)
    run(capsys, "render", "dimo/egg", "--motion", SENTENCES[0], "--frames", 8, "--resolution", 64, "--views", 8,
        "--out", tmp_path / "ring")  # fmt: skip
    ring = np.stack([video(tmp_path / "ring" / f"view_{view:02d}.mp4") for view in range(8)])
    # Frame t of the orbit equals frame t of camera t, up to video compression.
    difference = np.abs(orbit.astype(int)[:, None] - ring.astype(int)[:, np.arange(8)].swapaxes(0, 1)).mean(
        (2, 3, 4)
    )
    assert (difference.argmin(1) == np.arange(8)).all()
    cameras = json.loads((tmp_path / "ring" / "cameras.json").read_text())
    world_to_camera = np.array(cameras["world_to_camera"])
    positions = -np.einsum("vji,vj->vi", world_to_camera[:, :3, :3], world_to_camera[:, :3, 3])
    assert np.allclose(np.linalg.norm(positions, axis=1), 2.0)
    assert np.allclose(positions[0], 2 * np.array([0, np.sin(np.radians(10)), np.cos(np.radians(10))]))
    assert np.array(cameras["K"]).shape == (8, 3, 3) and cameras["convention"].startswith("opencv")


def test_export(capsys, tmp_path):
    for ending in ("npz", "ply"):
        run(capsys, "export", "dimo/egg", "--seed", 1, "--frames", 4, "--out", tmp_path / f"hop.{ending}")
    with np.load(tmp_path / "hop.npz") as arrays:
        assert arrays["positions"].shape == (4, 24, 3)
    assert len(list((tmp_path / "hop").glob("*.ply"))) == 4


def test_a_page_of_all_motions(capsys, tmp_path):
    page = ("sample", "dimo/egg", "--frames", 4, "--all-motions", "--out")
    run(capsys, *page, tmp_path / "hop.html")
    scene, arrays = read_page(tmp_path / "hop.html")
    assert scene["names"] == ["sample 0", *SENTENCES] and arrays["motion"].shape == (7, 4, 24, 7)
    assert "does not end in .html" in fails(capsys, 2, *page, tmp_path / "new.glb")
    assert not (tmp_path / "new.glb").exists()


def test_without_arguments_it_lists_the_commands(capsys):
    shown = run(capsys)
    for command in ("list", "info", "sample", "render", "export", "animate", "publish"):
        assert any(line.split()[:1] == [command] and len(line.split()) > 3 for line in shown.splitlines())
    with pytest.raises(SystemExit):
        main(["--help"], prog="menagerie")
    assert capsys.readouterr().out.startswith("usage: menagerie ")


def test_publish(capsys, home, tmp_path):
    shown = run(capsys, "publish", "dimo/egg", "local:dimo/copy", "--home", home)
    assert shown.startswith("local:dimo/copy@")
    copy, egg = zoo.info("dimo/copy"), zoo.info("dimo/egg")
    assert (copy.folder / "model.safetensors").read_bytes() == (egg.folder / "model.safetensors").read_bytes()
    assert "expected local:family/name or hub:org/name" in fails(
        capsys, 2, "publish", "dimo/egg", "dimo/copy"
    )


def test_errors_are_one_line(capsys, tmp_path):
    out = ("--out", tmp_path / "x.mp4")
    assert "similar names: dimo/egg" in fails(capsys, 2, "sample", "dimo/eg", *out)
    assert "hops forward once" in fails(
        capsys, 2, "sample", "dimo/egg", "--motion", "hops forwards once", *out
    )
    assert "without a text head" in fails(capsys, 2, "sample", "dimo/egg", "--text", "jumps", *out)
    assert "saved as one of .mp4, .glb, .fbx, .usd, .usda, .usdc, .usdz, .ply, .4dgs, .npz, .html" in fails(
        capsys, 2, "export", "dimo/egg", "--out", tmp_path / "x.obj"
    )
    assert "ends in .mp4" in fails(capsys, 2, "render", "dimo/egg", "--out", tmp_path / "x.gif")
    assert "at least 1" in fails(capsys, 2, "render", "dimo/egg", "--views", 0, "--out", tmp_path / "views")
    assert "--steps 1: expected at least 2" in fails(
        capsys, 2, "sample", "dimo/egg", "--between", "a", "b", "--steps", 1, *out
    )
    assert list(tmp_path.iterdir()) == []
    for wrong in (
        ["nothing"],
        ["sample", "dimo/egg"],
        ["sample", "dimo/egg", "--seed", "1", "--motion", "x", *map(str, out)],
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "--motion", "nods"), "cannot reproduce a trained motion by name (--motion)"),
        (("sample", "--text", "nods"), "cannot find a motion by a sentence (--text)"),
        (("sample", "--between", "nods", "sits"), "cannot interpolate between two motions (--between)"),
        (("sample", "--frames", "3"), "cannot change the number of frames (--frames)"),
        (("export", "--text", "nods"), "cannot find a motion by a sentence (--text)"),
        (("render",), "cannot render from cameras around the object (render)"),
    ],
)
def test_operations_that_a_family_lacks_are_refused(capsys, tmp_path, monkeypatch, arguments, message):
    """The model is not loaded for it, and the message lists the operations that the family supports."""
    monkeypatch.setattr("zoo.commands.load", None)
    command, *options = arguments
    line = fails(capsys, 2, command, "bundled:mvvdm/tiny", *options, "--out", tmp_path / "x.mp4")
    assert line.startswith(f"zoo: bundled:mvvdm/tiny: models of the family 'mvvdm' {message}")
    assert line.endswith("they support --seed, animate\n")
    assert list(tmp_path.iterdir()) == []


def test_formats_and_objects_are_checked_before_the_model_is_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.commands.load", None)
    line = fails(capsys, 2, "sample", "bundled:mvvdm/tiny", "--out", tmp_path / "x.glb")
    assert "are saved as one of .mp4, got '.glb'" in line
    out = ("--out", tmp_path / "x.mp4")
    line = fails(
        capsys, 2, "animate", tmp_path / "egg.glb", "hops", "--model", "dimo/egg", "--videos-only", *out
    )
    assert "'dimo' cannot animate an object file" in line and "--seed, --motion" in line
    line = fails(
        capsys,
        1,
        "animate",
        tmp_path / "egg.glb",
        "hops",
        "--model",
        "bundled:mvvdm/tiny",
        "--videos-only",
        *out,
    )
    assert "egg.glb: no such file" in line


def test_animate(capsys, tmp_path, monkeypatch):
    """The object, the sentence and the seed reach the model, and its result is saved."""

    class Model:
        def animate(self, *arguments: object, **options: object) -> Model:
            self.arguments = (*arguments, options)
            return self

        def save(self, path: Path) -> Path:
            path.write_text(repr(self.arguments))
            return path

    monkeypatch.setattr("zoo.commands.load", lambda name, home: Model())
    (tmp_path / "egg.glb").touch()
    out = tmp_path / "deep" / "egg.mp4"
    shown = run(capsys, "animate", "mvvdm/tiny", tmp_path / "egg.glb", "rolls", "--seed", 3, "--out", out)
    assert shown.strip() == str(out)
    assert out.read_text() == repr((tmp_path / "egg.glb", "rolls", {"seed": 3}))


def test_info_lists_capabilities_and_needs(capsys):
    shown = run(capsys, "info", "bundled:dimo/fox")
    for words in (
        "interpolate between two motions (--between)",
        ".mp4, .glb, .fbx, .usd, .usda, .usdc, .usdz, .ply, .4dgs, .npz, .html", "menagerie4d[zoo,text]",
        "MiB of memory", "s to load the model and save the first sample", "cores of",
    ):  # fmt: skip
        assert words in shown
    content = json.loads(run(capsys, "info", "bundled:mvvdm/tiny", "--json"))
    assert content["capabilities"]["operations"] == ["sample", "animate"]
    assert content["capabilities"]["formats"] == [".mp4"]
    assert 0 < content["needs"]["warm_sample_s"] < content["needs"]["first_sample_s"]


def test_an_altered_model_is_refused(capsys, home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    run(capsys, "info", "dimo/egg", "--home", tmp_path / "home")
    weights = zoo.info("dimo/egg", home=tmp_path / "home").folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    sentence = fails(capsys, 1, "info", "dimo/egg", "--home", tmp_path / "home")
    assert "model.safetensors does not match manifest.json" in sentence


def test_runs_as_a_module(home, tmp_path):
    """From any folder, in a new process."""
    command = [sys.executable, "-P", "-m", "zoo", "list", "local:*/egg", "--home", str(home)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "local:dimo/egg\n"), result.stderr
