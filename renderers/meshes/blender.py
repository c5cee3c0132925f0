"""Blender in a child process: the high-quality back end, the reference for poses, and a converter to glTF.

Blender's Python module (bpy) is never imported in this process: it is licensed under the GPL, requires one Python
version and an older numpy, and leaks memory over many imports. Blender is searched in this order: `MENAGERIE_BLENDER`
(a Blender executable, or the Python of an environment with bpy), `.blender/` in the working directory (`make
blender`), and `blender` on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renderers.gltf import Asset, load
from renderers.meshes import environment
from renderers.meshes.blender_scene import write_scene
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot

ENVIRONMENT_VARIABLE = "MENAGERIE_BLENDER"
_CHILD = Path(__file__).with_name("_blender_child.py")
_HELP = (
    f"run `make blender` (needs Python 3.11), or set {ENVIRONMENT_VARIABLE} to a Blender 4.4 or newer, "
    "or to the Python of an environment with bpy"
)


def find() -> Path | None:
    """Return the program that runs Blender scripts: a Python with bpy or a Blender executable, or None."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named) if Path(named).exists() else None
    local = Path(".blender", "bin", "python").absolute()
    if local.exists():
        return local
    installed = shutil.which("blender")
    return Path(installed) if installed else None


def _missing() -> str:
    """Return the message of the error that Blender is missing."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    place = f"{ENVIRONMENT_VARIABLE} is {named}, which does not exist" if named else "not found"
    return f"blender: {place}; {_HELP}"


class BlenderRenderer:
    """The Cycles path tracer as a back end of `renderers.meshes.render_clip`."""

    name = "blender"

    def __init__(self) -> None:
        if find() is None:
            raise RenderError(_missing())

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        return render_clip(asset, shot, settings)


def render_clip(
    asset: Asset | str | Path,
    shot: Shot,
    settings: RenderSettings | None = None,
    *,
    engine: str = "CYCLES",
    samples_per_pixel: int = 64,
    threads: int = 1,
    timeout: float | None = None,
) -> RenderedClip:
    """Render a shot by path tracing, lit by `renderers.meshes.environment`.

    The vertices of every frame are those of `Asset.pose`. Materials are converted by Blender's glTF importer, which
    supports more material extensions than the other back ends.

    Args:
        asset: the asset, or the path of its .glb or .gltf file.
        shot: animation, timestamps, normalisation transform and cameras.
        settings: only colour is supported; `samples` is ignored (see `samples_per_pixel`).
        engine: "CYCLES", or another engine of the installed Blender.
        samples_per_pixel: paths per pixel.
        threads: CPU threads.
        timeout: seconds for the whole clip; None for no limit.
    Raises:
        RenderError: Blender is missing or failed; the message ends with its last lines of output.
    """
    settings = settings or RenderSettings()
    if settings.geometry:
        raise RenderError(
            "blender: depth, normals, flow and tracks are not supported; use the opengl renderer for them"
        )
    cameras = shot.cameras
    options = {
        "width": cameras.width,
        "height": cameras.height,
        "engine": engine,
        "samples": samples_per_pixel,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as name:
        folder = Path(name)
        np.savez(
            folder / "cameras.npz",
            camera_to_world=cameras.camera_to_world,
            K=cameras.K,
            environment=_environment_image(),
        )
        version = _run_shot("render", asset, shot, folder, timeout, options)
        frames = _read_frames(folder, len(cameras), len(shot.timestamps))
    engine_name = "Cycles" if engine == "CYCLES" else engine
    label = f"blender {PICTURE_VERSIONS['blender']} (Blender {version}, {engine_name}, CPU)"
    return RenderedClip(frames, cameras, np.asarray(shot.timestamps, np.float64), label)


def rendered_corners(
    asset: Asset | str | Path, shot: Shot, *, timeout: float | None = 300.0
) -> list[np.ndarray]:
    """Return the triangles that `render_clip` draws, read back from Blender's evaluated scene.

    Args:
        asset: the asset, or the path of its .glb or .gltf file.
        shot: as for `render_clip`; its cameras are ignored.
        timeout: seconds; None for no limit.
    Returns:
        For each timestamp: float32 [F, 3, 3], the corners of the triangles of all primitives in order, in the shot's
        world, counter-clockwise as seen from their front. Triangles that use a vertex twice are omitted.
    Raises:
        RenderError: as for `render_clip`.
    """
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as name:
        folder = Path(name)
        _run_shot("corners", asset, shot, folder, timeout, {})
        corners = [np.load(folder / f"corners-{frame:04d}.npy") for frame in range(len(shot.timestamps))]
    return [np.stack([c[..., 0], c[..., 2], -c[..., 1]], -1) for c in corners]


def _run_shot(
    task: str,
    asset: Asset | str | Path,
    shot: Shot,
    folder: Path,
    timeout: float | None,
    options: dict[str, Any],
) -> str:
    """Write the scene of a shot to `folder` and run a task of `_blender_render.py` on it; return Blender's version."""
    if find() is None:  # before the work of posing every frame
        raise RenderError(_missing())
    asset = asset if isinstance(asset, Asset) else load(asset)
    write_scene(asset, shot, folder)
    job = options | {
        "task": task,
        "asset": asset.name,
        "folder": str(folder),
        "frames": len(shot.timestamps),
    }
    return _run(job, folder, timeout)


def corner_positions(
    asset: str | Path, animation: int | None, times: Sequence[float], *, timeout: float | None = 300.0
) -> dict[tuple[int, int], np.ndarray]:
    """Pose an asset in Blender: reference values for `renderers.gltf`.

    Args:
        asset: path of the .glb or .gltf file.
        animation: index in the file; None for the rest pose.
        times: seconds.
        timeout: seconds; None for no limit.
    Returns:
        For each (node, index of the primitive in its mesh): float32 [T, F, 3, 3], the corners of its triangles in the
        order of the file, in glTF's world.
    Raises:
        RenderError: as for `render_clip`.
    """
    job: dict[str, Any] = {
        "task": "positions",
        "asset": str(Path(asset).resolve()),
        "animation": animation,
        "times": [float(time) for time in times],
    }
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        job["result"] = str(Path(folder, "result.npz"))
        _run(job, Path(folder), timeout)
        with np.load(job["result"]) as result:
            keys = {key: key.split("/") for key in result.files}
            return {(int(node), int(index)): result[key] for key, (node, index) in keys.items()}


def convert(
    file: str | Path,
    kind: str,
    target: str | Path,
    *,
    images: Sequence[Path] = (),
    cameras: bool = False,
    timeout: float | None = 300.0,
) -> None:
    """Convert an FBX, BLEND or USD file with its animations to a .glb.

    Args:
        file: the input; its name may have any suffix.
        kind: "fbx", "blend", "usd", "usda", "usdc" or "usdz".
        target: the .glb to write.
        images: textures that the file may refer to by name, wherever they were when it was written.
        cameras: whether to keep the cameras of the file.
        timeout: seconds; None for no limit.
    Raises:
        RenderError: as for `render_clip`.
    """
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        named = Path(folder, f"asset.{kind}")  # Blender determines the format from the suffix
        named.symlink_to(Path(file).resolve())
        for image in images:  # Blender's FBX importer searches the folder of the file
            beside = Path(folder, image.name)
            if not beside.is_symlink():
                beside.symlink_to(image.resolve())
        result = Path(folder, "result.glb")
        job = {
            "task": "convert", "kind": kind, "asset": str(named), "result": str(result), "cameras": cameras
        }  # fmt: skip
        _run(job, Path(folder), timeout)
        shutil.copyfile(result, target)


def write_fbx(
    glb: bytes, target: str | Path, animation: int, *, fps: int, frames: int, timeout: float | None = 600.0
) -> None:
    """Write one animation of a .glb as .fbx, with its textures inside.

    Args:
        glb: the file. Its skins, morph targets and node transforms are baked at every frame.
        target: the .fbx to write.
        animation: index in the file.
        fps: frame rate.
        frames: number of frames, the first at 0 s.
        timeout: seconds; None for no limit.
    Raises:
        RenderError: as for `render_clip`.
    """
    with tempfile.TemporaryDirectory(prefix="menagerie-blender-") as folder:
        source, result = Path(folder, "asset.glb"), Path(folder, "result.fbx")
        source.write_bytes(glb)
        job = {
            "task": "fbx", "asset": str(source), "result": str(result), "animation": animation, "fps": fps,
            "frames": frames, "times": [frame / fps for frame in range(frames)],
        }  # fmt: skip
        _run(job, Path(folder), timeout)
        shutil.copyfile(result, target)


def _run(job: dict[str, Any], folder: Path, timeout: float | None) -> str:
    """Run one job in a new Blender process; return Blender's version. All files are written inside `folder`."""
    program = find()
    if program is None:
        raise RenderError(_missing())
    job["done"] = str(folder / "done")
    script = folder / "job.json"
    script.write_text(json.dumps(job))
    is_python = program.name.startswith("python")
    flags = [] if is_python else ["--background", "--factory-startup", "--python-exit-code", "1", "--python"]
    separator = [] if is_python else ["--"]
    command = [str(program), *flags, str(_CHILD), *separator, str(script)]
    # Keep our packages out of Blender's Python, and bpy out of the user's settings.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environ |= {"BLENDER_USER_RESOURCES": str(folder), "OMP_NUM_THREADS": str(job.get("threads", 1))}
    log = folder / "log"
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            raise RenderError(f"blender: {job['asset']}: no result after {timeout} s{_tail(log)}") from None
        except OSError as error:
            raise RenderError(f"blender: {program} cannot be started ({error}); {_HELP}") from error
    if not Path(job["done"]).exists():
        advice = f"; {_HELP}" if "No module named 'bpy'" in log.read_text(errors="replace") else ""
        raise RenderError(f"blender: {job['asset']}: exited with {code}{advice}{_tail(log)}")
    return Path(job["done"]).read_text()


def _tail(log: Path) -> str:
    """Return the last lines of Blender's output, without the EGL warnings that it prints on headless machines."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line and "EGL" not in line]
    return "; its output ends with:\n  " + "\n  ".join(lines[-15:]) if lines else "; it printed nothing"


def _environment_image(height: int = 128) -> np.ndarray:
    """Return the environment as an equirectangular image float32 [H, 2H, 3], rows from straight down to straight up."""
    # Blender maps column u to the longitude atan2(y, x) = 2π·(1/2 - u) of its z-up world.
    longitude = 2 * np.pi * (0.5 - (np.arange(2 * height) + 0.5) / (2 * height))
    latitude = np.pi * ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    x, y = np.cos(longitude) * np.cos(latitude), np.sin(longitude) * np.cos(latitude)
    z = np.broadcast_to(np.sin(latitude), x.shape)
    return environment.radiance(np.stack([x, z, -y], -1)).astype(np.float32)


def _read_frames(folder: Path, views: int, times: int) -> np.ndarray:
    """Read the PNG files of a clip: uint8 [V, T, H, W, 4]."""
    from PIL import Image

    frames = [
        [
            np.asarray(Image.open(folder / f"{view:03d}-{time:04d}.png").convert("RGBA"))
            for time in range(times)
        ]
        for view in range(views)
    ]
    return np.array(frames, np.uint8)
