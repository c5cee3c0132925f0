"""Folders of splat files, one per frame, and single files."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import torch

from renderers.cameras import Cameras
from renderers.gaussians import Gaussians, ply, render
from renderers.gaussians.types import TensorCameras
from zoo.viewer.scene import FPS, Description, MotionFacts, distance_of
from zoo.viewer.wire import Part

SUFFIXES = (".ply", ".spz")
LARGEST = 512 << 20  # bytes of all frames; beyond, every second one is left out, and so on
_SH_CONSTANT = 0.28209479177387814  # value of the spherical harmonic of degree 0


class FramesScene:
    """Frames of 3D Gaussians that have nothing to do with each other: their numbers may differ."""

    formats: tuple[str, ...] = (".mp4", ".ply")

    def __init__(self, path: Path) -> None:
        """Read a file, or all files of a folder in the order of their names.

        Raises:
            FileNotFoundError, ValueError: there is none, or a file is not one of splats.
        """
        self.title = path.name or str(path)
        self.paths = [path] if path.is_file() else splat_files(path)
        if not self.paths:
            raise FileNotFoundError(f"{path}: expected files of splats (.ply, .spz), found none")
        frames = [_Frame(ply.read(each)) for each in self._thinned()]
        self.step = -(-len(self.paths) // len(frames))
        self.count = max(len(frame.means) for frame in frames)
        self.degree = max(frame.degree for frame in frames)
        self.arrays = {
            name: _shared(np.stack([_padded(getattr(frame, name), self.count) for frame in frames]))
            for name in ("means", "scales", "quats", "opacities", "colors")
        }
        self.frames = len(frames)
        solid = np.concatenate([frame.solid for frame in frames])
        low, high = np.percentile(solid, [0.1, 99.9], axis=0)
        self.target = (low + high) / 2
        self.radius = float(np.percentile(np.linalg.norm(solid - self.target, axis=1), 99.9))

    def _thinned(self) -> list[Path]:
        """Every k-th file, so that all frames fit into memory."""
        size = sum(path.stat().st_size for path in self.paths)
        return self.paths[:: max(1, -(-size // LARGEST))]

    def describe(self) -> Part:
        """Facts; the Gaussians are the motion."""
        facts: dict[str, object] = {"files": len(self.paths), "Gaussians": self.count}
        if self.step > 1:
            facts["shown"] = f"every {self.step}th file"
        if self.degree:
            facts["colour"] = f"view-independent part of degree {self.degree}"
        header = Description(
            kind="frames", title=self.title, facts=facts, names=(self.title,), formats=self.formats,
            start={"kind": "trained", "index": 0}, target=tuple(self.target), distance=distance_of(self.radius),
        )  # fmt: skip
        return header.to_json(), {}

    def motion(self, choice: str) -> Part:
        """Fields of the Gaussians per frame, [T or 1, N, …]; fields that do not change are sent once."""
        header = MotionFacts(self.title, self.frames, (self.frames - 1) * self.step / FPS, 0.0, 1.0)
        arrays = {name: values for name, values in self.arrays.items() if name != "scales"}
        arrays["log_scales"] = np.log(np.maximum(self.arrays["scales"], 1e-7))
        return header.to_json(), arrays

    def save(self, choice: str, path: Path, camera: Cameras | None) -> Path:
        """Write a video, or the files themselves as a .zip."""
        if path.suffix == ".mp4":
            return self._save_video(path, camera)
        if len(self.paths) == 1:
            path.write_bytes(self.paths[0].read_bytes())
            return path.rename(path.with_suffix(self.paths[0].suffix))
        path = path.with_suffix(".zip")
        path.write_bytes(zipped({each.name: each.read_bytes() for each in self.paths}))
        return path

    def _save_video(self, path: Path, camera: Cameras | None) -> Path:
        from zoo.export.video import write_mp4

        if camera is None:
            raise ValueError("camera: expected the camera of the video")
        view = TensorCameras.from_cameras(camera)
        pictures = []
        for frame in range(self.frames):
            values = {
                k: torch.from_numpy(v[[min(frame, len(v) - 1)]]).float() for k, v in self.arrays.items()
            }
            values["opacities"] = values["opacities"][..., 0]
            picture = render(Gaussians(**values), view, background=torch.ones(3))
            pictures.append((picture.output("rgb")[0, 0].clamp(0, 1) * 255).round().byte().numpy())
        write_mp4(path, np.stack(pictures), FPS / self.step)
        return path


class _Frame:
    """The Gaussians of one file as arrays [N, …], with the colour that does not depend on the view."""

    def __init__(self, gaussians: Gaussians) -> None:
        sh = gaussians.sh
        assert sh is not None  # of ply.read
        self.degree = int(sh.shape[2] ** 0.5) - 1
        self.means, self.scales, self.quats = (
            each[0].numpy() for each in (gaussians.means, gaussians.scales, gaussians.quats)
        )
        self.opacities = gaussians.opacities[0, :, None].numpy()
        self.colors = np.maximum(sh[0, :, 0].numpy() * _SH_CONSTANT + 0.5, 0.0).astype(np.float32)
        length = np.linalg.norm(self.quats, axis=-1, keepdims=True)
        self.quats = np.where(length > 0, self.quats / np.maximum(length, 1e-12), [1, 0, 0, 0]).astype(
            np.float32
        )
        faults = [
            k
            for k in ("means", "scales", "quats", "opacities", "colors")
            if not np.isfinite(getattr(self, k)).all()
        ]
        if faults:
            raise ValueError(f"expected finite values, got NaN or infinity in {', '.join(faults)}")

    @property
    def solid(self) -> np.ndarray:
        """Centres of the Gaussians that are clearly visible; of all, if none is."""
        visible = self.opacities[:, 0] > 0.1
        return self.means[visible] if visible.any() else self.means


def splat_files(folder: Path) -> list[Path]:
    """The splat files in a folder, in the order of their names, with numbers by value: 999.ply before 1000.ply."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(files, key=lambda path: [_digits_by_value(part) for part in re.split(r"(\d+)", path.name)])


def _digits_by_value(part: str) -> tuple[int, str]:
    return (int(part), part) if part.isdecimal() else (0, part)


def zipped(files: dict[str, bytes]) -> bytes:
    """A .zip of some files, not compressed further; the same files give the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return target.getvalue()


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """[count, …]: zeros for Gaussians that a frame does not have, so their opacity is 0."""
    return np.pad(values, ((0, count - len(values)), (0, 0)))


def _shared(values: np.ndarray) -> np.ndarray:
    """[1, N, …] if all frames are equal."""
    return values[:1] if (values == values[:1]).all() else values
