"""Blender as the high-quality back end and as the oracle of poses, in a child process of its own.

Blender's module (bpy) is GPL, wants one Python version and an older numpy, and leaks over many imports: it
never enters this process. It is found, in this order: `MENAGERIE_BLENDER` (a Blender executable, or the
Python of an environment that has bpy), `.blender/` in the working directory (`make blender`), `blender` on
the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from renderers.gltf import Asset
from renderers.meshes import environment
from renderers.meshes.clip import RenderedClip, RenderError, RenderSettings, Shot

ENVIRONMENT_VARIABLE = "MENAGERIE_BLENDER"
_CHILD = Path(__file__).with_name("_blender_child.py")
_HELP = (
    f"run `make blender` (needs Python 3.11), or set {ENVIRONMENT_VARIABLE} to a Blender 4.4 or newer, "
    "or to the Python of an environment with bpy"
)


def find() -> Path | None:
    """The program that runs Blender scripts here: a Python with bpy, or a Blender executable."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named) if Path(named).exists() else None
    local = Path(".blender", "bin", "python").absolute()
    if local.exists():
        return local
    installed = shutil.which("blender")
    return Path(installed) if installed else None


class BlenderRenderer:
    """Cycles as a back end of `renderers.meshes.render_clip`."""

    name = "blender"

    def __init__(self) -> None:
        if find() is None:
            raise RenderError(f"blender: not found; {_HELP}")

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; Blender reads the asset's own file."""
        if isinstance(asset.source, Path):
            return render_clip(asset.source, shot, settings)
        with tempfile.NamedTemporaryFile(suffix=".glb") as file:
            file.write(asset.source)
            file.flush()
            return render_clip(file.name, shot, settings)


def render_clip(
    asset: str | Path,
    shot: Shot,
    settings: RenderSettings | None = None,
    *,
    engine: str = "CYCLES",
    samples_per_pixel: int = 64,
    threads: int = 1,
    timeout: float | None = None,
) -> RenderedClip:
    """Path-traced pictures of an asset under the house's environment.

    Args:
        asset: path of the .glb or .gltf.
        settings: `samples` does not apply (see `samples_per_pixel`); nothing but colour is made here.
        engine: "CYCLES", or another engine of the Blender found.
        samples_per_pixel: paths per pixel. threads: CPU threads. timeout: seconds for the whole clip.
    Raises:
        RenderError: no Blender, or it failed; the message ends with what it said.
    """
    settings = settings or RenderSettings()
    if settings.geometry:
        raise RenderError(
            "blender: depth, normals, flow and tracks are not available here; render them with opengl"
        )
    cameras = shot.cameras
    job = {
        "task": "render",
        "asset": str(Path(asset).resolve()),
        "animation": shot.animation,
        "times": [float(time) for time in shot.timestamps],
        "width": cameras.width,
        "height": cameras.height,
        "engine": engine,
        "samples": samples_per_pixel,
        "threads": threads,
    }
    arrays = {
        "asset_to_world": shot.asset_to_world,
        "camera_to_world": cameras.camera_to_world,
        "K": cameras.K,
        "environment": _environment_image(),
    }
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        job["frames"], job["arrays"] = folder, str(Path(folder, "arrays.npz"))
        np.savez(job["arrays"], **arrays)
        version = _run(job, Path(folder), timeout)
        frames = _read_frames(Path(folder), len(cameras), len(shot.timestamps))
    name = "Cycles" if engine == "CYCLES" else engine
    return RenderedClip(
        frames, cameras, np.asarray(shot.timestamps, np.float64), f"blender {version} ({name}, CPU)"
    )


def corner_positions(
    asset: str | Path, animation: int | None, times: Sequence[float], *, timeout: float | None = 300.0
) -> dict[tuple[int, int], np.ndarray]:
    """Where Blender puts the triangles of an asset: the oracle for `renderers.gltf`.

    Returns:
        For each (node, primitive of its mesh) in the file: float32 [T, F, 3, 3], the corners of its triangles
        in the file's order, glTF world.
    Raises:
        RenderError: as for `render_clip`.
    """
    job = {
        "task": "positions",
        "asset": str(Path(asset).resolve()),
        "animation": animation,
        "times": [float(time) for time in times],
    }
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        job["result"] = str(Path(folder, "result.npz"))
        _run(job, Path(folder), timeout)
        with np.load(job["result"]) as result:
            return {tuple(map(int, key.split("/"))): result[key] for key in result.files}


def convert(file: str | Path, kind: str, target: str | Path, *, timeout: float | None = 300.0) -> None:
    """Write what an FBX or BLEND file holds to `target` as a .glb, with its animations.

    Args:
        kind: "fbx" or "blend"; the file's name need not say it.
    Raises:
        RenderError: as for `render_clip`.
    """
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        named = Path(folder, f"asset.{kind}")  # Blender goes by the ending
        named.symlink_to(Path(file).resolve())
        made = Path(folder, "made.glb")
        _run(
            {"task": "convert", "kind": kind, "asset": str(named), "result": str(made)}, Path(folder), timeout
        )
        shutil.copyfile(made, target)


def _run(job: dict, folder: Path, timeout: float | None) -> str:
    """Runs one job in a fresh Blender; its version. A killed or failed child leaves nothing behind."""
    program = find()
    if program is None:
        raise RenderError(f"blender: not found; {_HELP}")
    job["done"] = str(folder / "done")
    script = folder / "job.json"
    script.write_text(json.dumps(job))
    is_python = program.name.startswith("python")
    flags = [] if is_python else ["--background", "--factory-startup", "--python-exit-code", "1", "--python"]
    separator = [] if is_python else ["--"]
    command = [str(program), *flags, str(_CHILD), *separator, str(script)]
    # Ours must not be found by its Python, nor may bpy write to the user's settings.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    clean |= {"BLENDER_USER_RESOURCES": str(folder), "OMP_NUM_THREADS": str(job.get("threads", 1))}
    log = folder / "log"
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=clean, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            raise RenderError(f"blender: {job['asset']}: no result after {timeout} s{_tail(log)}") from None
        except OSError as error:
            raise RenderError(f"blender: {program} does not start ({error}); {_HELP}") from error
    if not Path(job["done"]).exists():
        advice = f"; {_HELP}" if "No module named 'bpy'" in log.read_text(errors="replace") else ""
        raise RenderError(f"blender: {job['asset']}: exited with {code}{advice}{_tail(log)}")
    return Path(job["done"]).read_text()


def _tail(log: Path) -> str:
    """The last lines that Blender printed, without what it always complains about on headless machines."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line and "EGL" not in line]
    return "; it said:\n  " + "\n  ".join(lines[-15:]) if lines else "; it said nothing"


def _environment_image(height: int = 128) -> np.ndarray:
    """The environment as Blender maps it: float32 [H, 2 H, 3], rows from straight below to straight above."""
    # Blender reads column u at longitude atan2(y, x) = 2 pi (1/2 - u) of its z-up world.
    longitude = 2 * np.pi * (0.5 - (np.arange(2 * height) + 0.5) / (2 * height))
    latitude = np.pi * ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    x, y = np.cos(longitude) * np.cos(latitude), np.sin(longitude) * np.cos(latitude)
    z = np.broadcast_to(np.sin(latitude), x.shape)
    return environment.radiance(np.stack([x, z, -y], -1)).astype(np.float32)


def _read_frames(folder: Path, views: int, times: int) -> np.ndarray:
    from PIL import Image

    frames = [
        [
            np.asarray(Image.open(folder / f"{view:03d}-{time:04d}.png").convert("RGBA"))
            for time in range(times)
        ]
        for view in range(views)
    ]
    return np.array(frames, np.uint8)
