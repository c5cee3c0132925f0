"""Files that a motion is saved to: complete or absent, in any folder, from several threads and processes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_dimo import tiny_pipeline

from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.files import atomic_folder, atomic_path
from renderers.gaussians import ply
from zoo.export.html import read_page

ENDINGS = (".mp4", ".glb", ".ply", ".npz", ".html")
OPTIONS = {".mp4": {"resolution": 32, "fps": 6}, ".glb": {"detail": 12}, ".ply": {}, ".npz": {}, ".html": {}}


@pytest.fixture(scope="module")
def motion():
    return tiny_pipeline().motion(0)


@pytest.fixture(scope="module")
def other():
    return tiny_pipeline().motion(3).resampled(5)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by path; folders end in a slash."""
    return {
        f"{path.relative_to(folder)}{'/' if path.is_dir() else ''}": b""
        if path.is_dir()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def readable(path: Path) -> bool:
    """Whether a saved motion is complete."""
    if path.is_dir():
        return len([ply.read(file) for file in path.iterdir()]) in (5, 9)
    if path.suffix == ".glb":
        return len(gltf.load(path).animations) == 1
    if path.suffix == ".npz":
        return len(np.load(path)["positions"]) in (5, 9)
    if path.suffix == ".html":
        return read_page(path)[1]["motion"].shape[1] in (5, 44)
    import av

    with av.open(str(path)) as video:
        return len(list(video.decode(video=0))) > 5


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files cannot grow beyond a size: writing fails in the operating system, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder in which nothing can be created, not even by root, who becomes nobody meanwhile."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_folder_is_made(motion, ending, tmp_path):
    path = motion.save(tmp_path / "a" / "b" / f"hop{ending}", **OPTIONS[ending])
    assert readable(path) and path.parent == tmp_path / "a" / "b"
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1
    assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("ending", ENDINGS)
def test_saving_again_replaces_the_whole(motion, other, ending, tmp_path):
    path = motion.save(tmp_path / f"hop{ending}", **OPTIONS[ending])
    (alone := tmp_path / "alone").mkdir()
    expected = other.save(alone / f"hop{ending}", **OPTIONS[ending])
    assert other.save(tmp_path / f"hop{ending}", **OPTIONS[ending]) == path
    if path.is_dir():  # five frames instead of nine
        assert files(path) == files(expected) and len(files(path)) == 5
    else:
        assert path.read_bytes() == expected.read_bytes()
    shutil.rmtree(alone)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_other_files_is_not_replaced(motion, tmp_path):
    (tmp_path / "hop").mkdir()
    (tmp_path / "hop" / "thesis.tex").write_text("mine")
    (tmp_path / "hop" / ".DS_Store").write_text("macOS")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"hop has files that would be lost \(thesis\.tex\)"):
        motion.save(tmp_path / "hop.ply")
    assert files(tmp_path) == before
    (tmp_path / "hop" / "thesis.tex").unlink()
    assert readable(motion.save(tmp_path / "hop.ply"))
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError, match="file"):
        motion.save(tmp_path / "file.ply")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_nothing(motion, ending, tmp_path):
    previous = motion.save(tmp_path / f"old{ending}", **OPTIONS[ending])
    before = files(tmp_path)
    for path in (tmp_path / "new" / f"hop{ending}", tmp_path / f"old{ending}"):
        with full_disk(800), pytest.raises(OSError, match="File too large") as caught:
            motion.save(path, **OPTIONS[ending])
        shown = path.with_suffix("") if ending == ".ply" else path
        assert caught.value.errno == errno.EFBIG and Path(caught.value.filename) == shown
        assert files(tmp_path) == before
    assert readable(previous)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_cannot_be_written_is_named(motion, ending):
    with read_only_folder() as folder:
        for path in (folder / f"hop{ending}", folder / "new" / f"hop{ending}"):
            with pytest.raises(PermissionError, match="Permission denied") as caught:
                motion.save(path, **OPTIONS[ending])
            named = Path(caught.value.filename)
            assert named in (path, path.with_suffix(""), path.parent) and ".part" not in str(named)
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_that_is_found_before_any_work(motion, ending, monkeypatch, tmp_path):
    """A folder that cannot be written, or a name that is taken by a folder, is found before anything is computed."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("computed something")

    for name in ("render", "animation", "gaussians", "resampled"):
        monkeypatch.setattr(type(motion), name, work)
    monkeypatch.setattr(np, "savez_compressed", work)
    with read_only_folder() as folder, pytest.raises(PermissionError):
        motion.save(folder / f"hop{ending}", frames=5, **OPTIONS[ending])
    (tmp_path / "a-file").write_text("")
    with pytest.raises(NotADirectoryError, match="a-file"):
        motion.save(tmp_path / "a-file" / f"hop{ending}", **OPTIONS[ending])
    if ending != ".ply":
        (tmp_path / f"taken{ending}").mkdir()
        with pytest.raises(IsADirectoryError, match="taken"):
            motion.save(tmp_path / f"taken{ending}", **OPTIONS[ending])


BAD_OPTIONS = [
    (".mp4", "fps", (0, -1, float("nan"), float("inf"), "24", True, 1e9, 1e-9, 10**400, (24,), 1j)),
    (".mp4", "resolution", (0, -2, 33, 32.0, float("nan"), "32", None, True, 10**9, np.float64(32), (32, 32))),
    (".glb", "detail", (0, -1, 1.5, 48.0, float("nan"), "48", None, True, 10**9, [48])),
    (".glb", "frames", (0, -1, 9.0, float("nan"), "9", True, 10**9)),
    (".ply", "up", ("z", "-Y", 1, None, b"y", ["y"])),
    (".mp4", "cameras", (1, "front", [], orbit_cameras([0, 1], 0, 2.0, fov_y=0.6, width=32, height=32),
                         orbit_cameras([0], 0, 2.0, fov_y=0.6, width=33, height=32))),
    (".html", "motions", ("hops", "", 1, True, ["nothing"], [99], [-99], [1.5], [True], [None], b"all", {"all": 1})),
    (".html", "background", ("white", 2.0, (1, 1, 1), (0.5, 0.5), float("nan"), True)),
    (".npz", "fps", (24,)), (".html", "resolution", (32,)),
    (".ply", "resolution", (32,)), (".glb", "fps", (24,)), (".mp4", "detail", (48,)),
]  # fmt: skip


@pytest.mark.parametrize(("ending", "name", "values"), BAD_OPTIONS)
def test_options_are_checked_before_any_work(motion, ending, name, values, monkeypatch, tmp_path):
    def work(*_: object, **__: object) -> None:
        raise AssertionError("computed something")

    for method in ("render", "animation", "gaussians", "resampled"):
        monkeypatch.setattr(type(motion), method, work)
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"{name}|a video has one view"):
            motion.save(tmp_path / "new" / f"hop{ending}", **{name: value})
        with pytest.raises((TypeError, ValueError), match=rf"{name}|a video has one view"):
            motion.save(tmp_path / "new" / f"hop{ending}", **({"frames": 5} | {name: value}))
        assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_and_torch_are_numbers(motion, tmp_path):
    import torch

    expected = motion.save(tmp_path / "a.mp4", fps=6, resolution=32).read_bytes()
    for fps in (6.0, np.int64(6), np.float32(6), torch.tensor(6)):
        for resolution in (np.int32(32), np.uint8(32), torch.tensor(32)):
            assert motion.save(tmp_path / "b.mp4", fps=fps, resolution=resolution).read_bytes() == expected
    expected = motion.save(tmp_path / "a.glb", detail=12, frames=3).read_bytes()
    assert motion.save(tmp_path / "b.glb", detail=np.int64(12), frames=np.int8(3)).read_bytes() == expected


@pytest.mark.parametrize("ending", ENDINGS)
def test_threads_may_save_the_same_path(motion, other, ending, tmp_path):
    path = tmp_path / "new" / f"hop{ending}"
    (alone := tmp_path / "alone").mkdir()
    wholes = [each.save(alone / f"{i}{ending}", **OPTIONS[ending]) for i, each in enumerate((motion, other))]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: each.save(path, **OPTIONS[ending]), [motion, other] * 3))
    saved = results[0]
    whole = [files(each) if each.is_dir() else each.read_bytes() for each in wholes]
    assert (files(saved) if saved.is_dir() else saved.read_bytes()) in whole
    assert [each.name for each in (tmp_path / "new").iterdir()] == [saved.name]


_SAVE_ALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_dimo import tiny_pipeline
motion = tiny_pipeline().motion(int(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    for ending, options in eval(sys.argv[4]).items():
        motion.save(Path(sys.argv[2]) / f"hop{ending}", **options)
"""


def test_processes_may_save_the_same_path(tmp_path):
    arguments = [sys.executable, "-P", "-c", _SAVE_ALL, str(Path(__file__).parents[1] / "support")]
    running = [
        subprocess.Popen(
            [*arguments, str(tmp_path / "new"), str(number), repr(OPTIONS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=120)
    assert [process.returncode for process in running] == [0, 0]
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["hop", "hop.glb", "hop.html", "hop.mp4", "hop.npz"]
    assert all(readable(tmp_path / "new" / name) for name in names)


def test_an_interrupted_save_leaves_nothing(tmp_path):
    for context in (atomic_path(tmp_path / "a" / "x.bin"), atomic_folder(tmp_path / "b" / "x", str.isdigit)):
        with pytest.raises(KeyboardInterrupt), context as part:
            assert part.exists()
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
    name = "n" * 250 + ".bin"  # the temporary name is short
    with atomic_path(tmp_path / name) as part:
        part.write_bytes(b"whole")
    assert files(tmp_path) == {name: b"whole"}


@pytest.mark.parametrize(
    "path", [None, 7, b"hop.mp4", "", ".mp4", "hop", "hop.avi", "ho\0p.mp4", ["hop.mp4"]]
)
def test_paths_that_are_none(motion, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=r"path|are saved as one of"):
        motion.save(path)
    assert list(tmp_path.iterdir()) == []
