"""One motion of one object: its latent and key-point trajectories, with rendering and export on demand."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import integer, number, shown
from renderers.background import Background, background_color
from renderers.cameras import Cameras
from renderers.files import atomic_folder, atomic_path, file_path
from renderers.values import by_value
from renderers.video import frame_rate
from zoo.dimo.mesh_files import MESH_SUFFIXES, save_4dgs, save_mesh
from zoo.formats import check_suffix

if TYPE_CHECKING:
    from renderers.gaussians import Gaussians, TensorCameras
    from zoo.dimo.model import DIMO, KeyPointMotion
    from zoo.dimo.text import TextMatch
    from zoo.export.animation import SkinnedAnimation

# Camera of previews and of `save("….mp4")`: a three-quarter view from slightly above, with the field of view of the
# training cameras.
AZIMUTH_DEG, ELEVATION_DEG, FOV_DEG = 35.0, 12.0, 33.9
MOST_FRAMES, LARGEST_VIDEO = 10_000, 4096  # of `resampled`, and sides of videos in pixels
DRAWN_AT_ONCE = 8  # frames per render call; more use memory without being faster


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Motion:
    """A decoded motion, as returned by `DIMOPipeline.sample`. Gaussians and images are computed on request.

    Attributes:
        name: a title, also stored in exported files.
        z: the latent, [Z].
        phases: times of the frames, [T] in [0, 1].
        seconds: duration of the phases 0..1.
        trajectories: key-point positions [T, K, 3], world coordinates, and rotations [T, K, 4] (w, x, y, z).
        model: the model that decoded it. Latents of another model mean something else.
        object_name: of the model, "" if unknown.
        exact: the frames were chosen, so that `save` writes exactly these; else a video is resampled to 24 fps.
        trained: sentences of the motions that the model was trained on, in the order of its latents; () if unknown.
        match: how well the trained motions fit the sentence that the motion was decoded for; None if it was not.
    """

    name: str
    z: Tensor
    phases: Tensor
    seconds: float
    trajectories: KeyPointMotion
    model: DIMO
    object_name: str = ""
    exact: bool = False
    trained: tuple[str, ...] = ()
    match: TextMatch | None = None

    def __repr__(self) -> str:
        about = f"{self.object_name!r}, " if self.object_name else ""
        return (
            f"Motion({self.name!r}, {about}{len(self.phases)} frames, {len(self.model.means)} Gaussians, "
            f"{self.device})"
        )

    def _repr_html_(self) -> str:
        from zoo.dimo.page import motion_card

        return motion_card(self)

    @property
    def device(self) -> torch.device:
        """Device of the trajectories. Renders are computed on that of the model, which may have been moved since."""
        return self.z.device

    def at(self, phases: float | Sequence[float] | Tensor) -> Motion:
        """Evaluate the motion at other phases with the decoder, without interpolating frames.

        Args:
            phases: one phase or several, in [0, 1].

        Raises:
            ValueError: no phase is given, or one is outside [0, 1].
            TypeError: `phases` are not numbers.
        """
        check_numbers(phases, f"{self.name}: phases")
        phases = torch.as_tensor(phases, dtype=self.phases.dtype, device=self.phases.device).reshape(-1)
        if not len(phases) or not (0 <= phases.min() and phases.max() <= 1):
            raise ValueError(
                f"{self.name}: phases: expected at least one phase, all in 0..1, got {phases.tolist()}"
            )
        motion = decode(self.model, self.z, phases, self.name, self.seconds, self.object_name)
        return replace(motion, exact=True, trained=self.trained, match=self.match)

    def resampled(self, frames: int) -> Motion:
        """Evaluate the motion at `frames` phases, evenly spaced from its first to its last."""
        return self.at(evenly(self.phases, frames))

    @property
    def fps(self) -> float:
        """Frame rate at which the frames play in real time; 1 if there is a single frame."""
        spacing = float(self.phases[-1] - self.phases[0]) / max(len(self.phases) - 1, 1)
        return 1.0 / (spacing * self.seconds) if spacing > 0 else 1.0

    @torch.no_grad()
    def gaussians(self, phase: float | Sequence[float] | None = None) -> Gaussians:
        """The object as 3D Gaussians, one scene per phase; opacities and colours are shared by all scenes, and so
        are scales unless the model stretches (`DIMOConfig.stretching`). `DIMO.draw` renders them.

        Args:
            phase: one phase or several, in [0, 1]; None = the T phases of the motion.
        """
        motion = (self if phase is None else self.at(phase)).trajectories
        # The model may have been moved since it decoded the motion.
        return self.model.skin(type(motion)(*(field[None].to(self.model.means) for field in motion)))

    def render(
        self,
        cameras: Cameras | TensorCameras,
        phases: Sequence[float] | None = None,
        background: Background | None = 1.0,
    ) -> np.ndarray:
        """Render every frame from every camera. For gradients, depth or normals use `model.draw` with `gaussians()`.

        Args:
            cameras: V cameras, the same for all frames.
            phases: in [0, 1]; None = the T phases of the motion.
            background: grey or RGB, sRGB-encoded, floats in 0..1 or integers in 0..255 (`renderers.background`);
                None = transparent.

        Returns:
            uint8 [V, T, H, W, 3], or [V, T, H, W, 4] with straight alpha if the background is None.

        Raises:
            TypeError, ValueError: an argument is of another type or out of range.
        """
        from renderers.gaussians import TensorCameras

        if not isinstance(cameras, Cameras | TensorCameras):
            raise TypeError(
                f"Motion.render: cameras: expected Cameras or TensorCameras, got {shown(cameras)}"
            )
        color = None if background is None else background_color(background, "Motion.render: background")
        return _draw(self.model, self.gaussians(phases), cameras, color)

    def default_camera(self, resolution: int = 384) -> Cameras:
        """A fixed square three-quarter view that frames the whole motion with a small margin."""
        from renderers.cameras import orbit_cameras

        resolution = integer(resolution, "Motion.default_camera: resolution", 1, 4 * LARGEST_VIDEO)
        distance = 2.0
        view = orbit_cameras(
            np.radians([AZIMUTH_DEG]), np.radians(ELEVATION_DEG), distance,
            fov_y=np.radians(FOV_DEG), width=resolution, height=resolution,
        )  # fmt: skip
        gaussians = self.gaussians()
        solid = gaussians.opacities[0] > 0.1
        centres = gaussians.means[:, solid] if solid.any() else gaussians.means
        pixels, depth = view.project(centres.cpu().numpy())
        seen = pixels[0][depth[0] > 0.1]  # one camera; points behind it have no valid projection
        # Percentiles instead of the extent, so that a few stray Gaussians do not affect the framing.
        low, high = (
            np.percentile(seen, [0.1, 99.9], axis=0) if len(seen) else np.array([[0.0] * 2, [resolution] * 2])
        )
        zoom = resolution / max(float((high - low).max()) * 1.15, 1e-3 * resolution)
        K = view.K.copy()
        K[:, :2, 2] -= (low + high) / 2
        K[:, :2] *= zoom
        K[:, :2, 2] += resolution / 2
        return type(view)(view.world_to_camera, K, resolution, resolution)

    def animation(self, detail: int = 128) -> SkinnedAnimation:
        """Convert the motion to a skinned animation: key points as joints, the Gaussians' surface as the mesh.

        Args:
            detail: grid cells along the object's longest side for the surface extraction.

        Raises:
            ValueError: the model has no key points (trained without motion factorisation).
        """
        from zoo.dimo.skin import skinned_animation
        from zoo.export.surface import MOST_DETAIL

        detail = integer(detail, "Motion.animation: detail", 1, MOST_DETAIL)
        times = (self.phases - self.phases[0]).double().cpu().numpy() * self.seconds
        return skinned_animation(self.model, self.trajectories, times, name=self.name, detail=detail)

    def save(self, path: str | os.PathLike[str], *, frames: int | None = None, **options: Any) -> Path:
        """Write the motion in the format given by the file extension. A file appears complete or not at all.

        A missing folder is created. Options are checked before any work.

        .mp4  video from a fixed three-quarter view on white (options: fps, resolution=384, cameras=a single camera). Of
              a motion whose number of frames was not chosen, it is resampled to `fps`, by default 24; of another one,
              exactly its frames are written, by default at the rate that plays them in real time
        .glb  animated glTF for Blender and viewers: key points as joints, the Gaussians' surface as a coloured mesh
              (options: detail=128: grid cells along the object's longest side)
        .fbx  the same through Blender; .usd, .usda, .usdc, .usdz: the mesh with time samples (options: detail=128)
        .ply  folder with one splat file per frame in the layout of 3DGS: "hop.ply" writes hop/000.ply … and replaces
              the frames of an earlier motion (options: up="-y", as viewers of 3DGS expect, or "y" as in this package)
        .4dgs the moving splats as one file (https://4dgs.dev)
        .npz  arrays: trajectories, rotations, skinning weights, canonical Gaussians
        .html page that plays the motion and turns it with mouse and touch, without a network (options: motions="all" or
              a list of names, indices and motions to choose from and to blend; background: by default white, or dark
              grey in a browser's dark colour scheme). Of a motion whose number of frames was not chosen, 24 per second
              are stored

        Args:
            path: file to write, or the name of the folder with the suffix .ply.
            frames: number of frames, evenly spaced; None = those of the motion.
            options: of the format.

        Returns:
            The path written: a file, or a folder for .ply.

        Raises:
            TypeError, ValueError: unknown extension or option, an option of another type or out of range, or phases
                that do not rise, in a format with times (all but .mp4, .ply and .npz).
            OSError: the file cannot be written.
        """
        path = file_path(path, "Motion.save: path")
        check_suffix(path, _WRITERS, "motions of DIMO")
        write = _WRITERS[path.suffix.lower()]
        if write not in (_save_mp4, _save_ply, _save_npz) and (self.phases.diff() <= 0).any():
            phases = [round(phase, 4) for phase in self.phases.tolist()]
            raise ValueError(f"{self.name}: {path.suffix}: expected phases that rise, got {phases}")
        accepted = [
            name
            for name, each in inspect.signature(write).parameters.items()
            if each.kind == each.KEYWORD_ONLY
        ]
        if unknown := [name for name in options if name not in accepted]:
            raise TypeError(
                f"Motion.save: {unknown[0]}: not an option of {path.suffix}; expected "
                f"{' or '.join(['frames', *accepted])}"
            )
        if frames is not None:
            frames = integer(frames, "Motion.save: frames", 1, MOST_FRAMES)
        return write(self, path, frames, **options)


@torch.no_grad()
def decode(
    model: DIMO, z: Tensor, phases: Tensor, name: str, seconds: float, object_name: str = ""
) -> Motion:
    """Decode one latent [Z] at phases [T] in a single pass, on the device of the model."""
    z, phases = z.to(model.mu), phases.to(model.mu)
    decoded = model.trajectories(z[None], phases)
    return Motion(
        name, z, phases, seconds, type(decoded)(*(field[0] for field in decoded)), model, object_name
    )


def evenly(phases: Tensor, frames: int) -> Tensor:
    """`frames` evenly spaced phases from the first to the last of `phases`, [frames]."""
    frames = integer(frames, "frames", 1, MOST_FRAMES)
    return torch.linspace(
        float(phases[0]), float(phases[-1]), frames, dtype=phases.dtype, device=phases.device
    )


@torch.no_grad()
def _draw(
    model: DIMO, gaussians: Gaussians, cameras: Cameras | TensorCameras, background: Sequence[float] | None
) -> np.ndarray:
    from renderers.gaussians import Gaussians, TensorCameras

    # Images are drawn in single precision; CPU and CUDA are the only devices with a renderer.
    device = gaussians.means.device if gaussians.means.is_cuda else torch.device("cpu")
    gaussians = gaussians.to(device, torch.float32)
    if not isinstance(cameras, TensorCameras):
        cameras = TensorCameras.from_cameras(cameras)
    cameras = cameras.to(device, torch.float32)
    behind = None if background is None else torch.as_tensor(background, dtype=torch.float32).expand(3)
    drawn = []
    for start in range(0, len(gaussians.means), DRAWN_AT_ONCE):
        chunk = slice(start, start + DRAWN_AT_ONCE)
        scenes = Gaussians(
            gaussians.means[chunk],
            gaussians.quats[chunk],
            gaussians.scales if len(gaussians.scales) == 1 else gaussians.scales[chunk],
            gaussians.opacities,
            gaussians.colors,
        )
        picture = model.draw(scenes, cameras, None if behind is None else behind.to(scenes.means))
        if behind is None:  # the renderer's colour is premultiplied; images use straight alpha
            rgb, alpha = picture.output("rgb"), picture.output("alpha")
            frames = torch.cat([rgb / alpha.clamp(min=1e-6), alpha], -1)
        else:
            frames = picture.output("rgb")
        drawn.append(frames.clamp(0, 1).mul(255).round().byte().cpu())
    return torch.cat(drawn).transpose(0, 1).contiguous().numpy()


def _chosen(motion: Motion, frames: int | None) -> Motion:
    """The motion to write. Writers call it after all their checks."""
    return motion if frames is None else motion.resampled(frames)


def _save_mp4(
    motion: Motion,
    path: Path,
    frames: int | None = None,
    *,
    fps: float | None = None,
    resolution: int = 384,
    cameras: Cameras | None = None,
) -> Path:
    from zoo.export.video import write_mp4

    phases = motion.phases if frames is None else evenly(motion.phases, frames)
    exact = motion.exact or frames is not None
    if fps is None:
        fps = replace(motion, phases=phases).fps if exact else 24
    frame_rate(fps, "Motion.save: fps")
    fps = number(fps, "Motion.save: fps")
    resolution = integer(resolution, "Motion.save: resolution", 2, LARGEST_VIDEO)
    if resolution % 2:
        raise ValueError(f"Motion.save: resolution: expected an even number of pixels, got {resolution}")
    if cameras is not None:
        _check_single_camera(cameras, path)
    # The phases end one frame before 1, so a cyclic motion loops without a repeated frame.
    length = float(phases[-1] - phases[0]) * motion.seconds
    count = len(phases) if exact else max(2, round(length * fps) + 1)
    if count > MOST_FRAMES:
        raise ValueError(
            f"Motion.save: fps: {fps:g} gives {count} frames, expected at most {MOST_FRAMES}; choose a lower rate"
        )
    with atomic_path(path) as part:
        smooth = _chosen(motion, frames) if exact else motion.resampled(count)
        view = smooth.default_camera(resolution) if cameras is None else cameras
        write_mp4(part, smooth.render(view)[0], fps)
    return path


def _check_single_camera(cameras: Cameras, path: Path) -> None:
    if not isinstance(cameras, Cameras):
        raise TypeError(f"Motion.save: cameras: expected renderers.cameras.Cameras, got {shown(cameras)}")
    if len(cameras) != 1:
        raise ValueError(
            f"{path}: a video has one view, got {len(cameras)} cameras; pass a single one, cameras[i]"
        )
    if cameras.width % 2 or cameras.height % 2 or max(cameras.width, cameras.height) > LARGEST_VIDEO:
        raise ValueError(
            f"Motion.save: cameras: expected even sides of at most {LARGEST_VIDEO} pixels, got {cameras.width} x "
            f"{cameras.height}"
        )


def check_numbers(values: object, name: str) -> None:
    """Check that torch can convert an argument to real numbers.

    Raises:
        TypeError: it cannot.
    """
    try:
        array = values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name}: expected numbers, got {shown(values)}") from None
    if array.dtype == torch.bool or array.is_complex() or array.device.type == "meta":
        raise TypeError(f"{name}: expected real numbers, got {shown(values)}")


def _save_ply(motion: Motion, path: Path, frames: int | None = None, *, up: str = "-y") -> Path:
    from renderers.gaussians import ply

    ply.check_up(up, "Motion.save")
    folder = path.with_suffix("")
    with atomic_folder(folder, re.compile(r"\d{3,}\.ply").fullmatch) as part:
        motion = _chosen(motion, frames)
        gaussians = motion.gaussians()
        for frame in range(len(motion.phases)):
            ply.write(part / f"{frame:03d}.ply", gaussians, scene=frame, up=up)
    return folder


def _save_npz(motion: Motion, path: Path, frames: int | None = None) -> Path:
    with atomic_path(path) as part:
        _write_npz(part, _chosen(motion, frames))
    return path


def _save_html(
    motion: Motion,
    path: Path,
    frames: int | None = None,
    *,
    motions: str | Sequence[str | int | Motion] | None = None,
    background: Background | None = None,
) -> Path:
    from zoo.dimo.page import FPS, check_storable, other_motions, page_facts, skinned_splats
    from zoo.export.html import write_splats

    color = None if background is None else background_color(background, "Motion.save: background")
    others, model = other_motions(motion, motions), motion.model
    check_storable(model, motion.name)
    if frames is None and not motion.exact:
        length = float(motion.phases[-1] - motion.phases[0]) * motion.seconds
        frames = max(2, round(length * FPS) + 1)
    with atomic_path(path) as part:
        motion = _chosen(motion, frames)
        pages = [motion, *(replace(motion, name=name, z=z).at(motion.phases) for name, z in others)]
        trajectories = [(each.name, each.trajectories) for each in pages]
        write_splats(
            part,
            skinned_splats(model, trajectories, motion.phases, motion.seconds),
            title=motion.name,
            facts=page_facts(model, motion.object_name, len(pages), len(motion.phases), motion.seconds),
            background=None if color is None else (list(color) * 3)[:3],
        )
    return path


def _write_npz(part: Path, motion: Motion) -> None:
    model = motion.model
    weights = {} if not model.config.factorised else {"skinning_weights": model.skinning_weights()}
    gaussians = {name: getattr(model, name) for name in ("means", "quats", "opacity_logits", "colors")}
    gaussians["log_scales"] = model.scales.log()  # as they are drawn
    strains = {} if not model.stretches else {"strains": model.strains(motion.trajectories.positions)}
    arrays = {
        "z": motion.z, "phases": motion.phases, "positions": motion.trajectories.positions,
        "rotations": torch.nn.functional.normalize(motion.trajectories.rotations, dim=-1),
        "key_points": model.key_points, "radii": model.log_radii.exp(), **weights, **strains, **gaussians,
    }  # fmt: skip
    np.savez_compressed(
        part,
        name=motion.name,
        seconds=motion.seconds,
        **{k: v.detach().float().cpu().numpy() for k, v in arrays.items()},
    )


_WRITERS: dict[str, Callable[..., Path]] = {
    ".mp4": _save_mp4,
    **dict.fromkeys(MESH_SUFFIXES, save_mesh),
    ".ply": _save_ply,
    ".4dgs": save_4dgs,
    ".npz": _save_npz,
    ".html": _save_html,
}
