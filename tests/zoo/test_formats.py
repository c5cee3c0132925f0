"""A file has the format of its ending, as libraries that wrote none of it read it, or the ending is refused."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_dimo import tiny_pipeline

from zoo.export import write_glb, write_mp4
from zoo.families import capabilities_of

av = pytest.importorskip("av", reason='reads the videos: pip install "menagerie4d[zoo]"')
pytest.importorskip("diffusers", reason="diffusers is not installed")
ENDINGS = (
    ".mp4",
    ".MP4",
    ".glb",
    ".GLB",
    ".ply",
    ".npz",
    ".gif",
    ".webm",
    ".png",
    ".gltf",
    ".usdz",
    ".mp4.gif",
    "",
    ".",
)


def is_mp4(path: Path) -> None:
    with av.open(str(path)) as container:
        assert "mp4" in container.format.name.split(",") and container.streams.video[0].codec.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) > 1


def is_glb(path: Path) -> None:
    data = path.read_bytes()
    magic, version, length, chunk, kind = struct.unpack_from("<4sII I4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    assert json.loads(data[20 : 20 + chunk])["asset"]["version"] == "2.0"


def is_npz(path: Path) -> None:
    assert zipfile.is_zipfile(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def is_ply(path: Path) -> None:
    assert all(file.read_bytes().startswith(b"ply\nformat ") for file in path.iterdir())


def is_usdz(path: Path) -> None:
    """A USDZ package is an uncompressed archive that begins with the stage."""
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        assert first.filename.endswith(".usdc") and first.compress_type == zipfile.ZIP_STORED
        assert archive.read(first).startswith(b"PXR-USDC")


READERS = {".mp4": is_mp4, ".glb": is_glb, ".npz": is_npz, ".ply": is_ply, ".usdz": is_usdz}


def motion():
    return tiny_pipeline().sample(1, frames=3)


def videos():
    from zoo.mvvdm import MVVDMOutput

    return MVVDMOutput(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("family", "result"), [("dimo", motion), ("mvvdm", videos)])
def test_each_ending_is_what_it_says_or_is_refused(tmp_path, family, result, ending):
    formats = capabilities_of(family).formats
    path = tmp_path / f"hop{ending}"
    options = (
        {".mp4": {"resolution": 32}, ".glb": {"detail": 16}, ".usdz": {"detail": 16}}
        if family == "dimo"
        else {}
    )
    suffix = path.suffix.lower()
    if suffix in formats:
        READERS[suffix](result().save(path, **options.get(suffix, {})))
        return
    with pytest.raises(ValueError, match=f"are saved as one of {', '.join(formats)}, got ") as caught:
        result().save(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_readers_tell_formats_apart(tmp_path):
    """The control: a file under another name is found out."""
    videos().save(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    for suffix in (".glb", ".npz"):
        (tmp_path / f"a{suffix}").write_bytes(data)
        with pytest.raises((AssertionError, ValueError, struct.error)):
            READERS[suffix](tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["a.gif", "a.glb", "a", "a.mkv"])
def test_videos_are_written_under_names_of_videos(tmp_path, name):
    with pytest.raises(ValueError, match=r"videos are saved as one of \.mp4, got "):
        write_mp4(tmp_path / name, np.zeros((2, 16, 16, 3), np.uint8), 8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gltf", "a.mp4", "a", "a.fbx"])
def test_animations_are_written_under_names_of_animations(tmp_path, name):
    animation = motion().animation(16)
    with pytest.raises(ValueError, match=r"animations are saved as one of \.glb, got "):
        write_glb(tmp_path / name, animation)
    assert list(tmp_path.iterdir()) == []
    write_glb(tmp_path / "a.glb", animation)
    is_glb(tmp_path / "a.glb")


@pytest.mark.parametrize("output", ["np", "pt", "pil", "latent"])
def test_frames_of_other_types_are_not_saved(tmp_path, output):
    import torch
    from PIL import Image

    from zoo.mvvdm import MVVDMOutput

    frames = {
        "np": np.zeros((2, 3, 16, 16, 3), np.float32), "pt": torch.zeros(2, 3, 3, 16, 16),
        "pil": [[Image.new("RGB", (16, 16))]], "latent": torch.zeros(2, 3, 4, 2, 2),
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected frames of output_type 'uint8'"):
        MVVDMOutput(frames[output]).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
