"""`Animation`: a model that moves, to cut, render and save."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renderers.arguments import array, instance, integer, number, shown
from renderers.background import Background, background_bytes
from renderers.cameras import Cameras
from renderers.gltf import Asset, load
from renderers.values import by_value
from zoo.animate3d.gltf_morph import add_morph
from zoo.animate3d.gltf_skin import WrittenPart, add_skin
from zoo.animate3d.limits import LARGEST_PICTURE, MOST_INFLUENCES, TOLERANCE
from zoo.animate3d.loading import StillModel
from zoo.animate3d.motion import GraphMotion
from zoo.animate3d.playing import Playable
from zoo.animate3d.stretch import edge_stretch, mesh_edges
from zoo.animate3d.viewpoints import three_quarter_view

if TYPE_CHECKING:
    from zoo.animate3d.fit_report import FitReport

FORMS = ("skin", "morph")
MOST_MOMENTS = 120  # of an own animation that are looked at


def _moments(start: float, end: float, interval: float) -> np.ndarray:
    """Times, seconds, at and half-way between the keys of an animation whose keys are `interval` apart.

    A node may be at rest in its first, middle and last key.
    """
    between = round(2 * (end - start) / interval) if interval else 0
    return np.linspace(start, end, min(max(between, 2), MOST_MOMENTS) + 1)


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Animation(Playable):
    """A model and its motion, as returned by `zoo.animate`.

    Attributes:
        model: the still model, with its file.
        motion: what moves it. Its vertices are those of `model.asset`.
        name: a title, also stored in exported files.
        report: how the motion was fitted to videos; None if it was not.
    """

    model: StillModel
    motion: GraphMotion
    name: str = "animation"
    report: FitReport | None = None

    def __post_init__(self) -> None:
        instance(self.model, StillModel, "Animation.model")
        instance(self.motion, GraphMotion, "Animation.motion")
        instance(self.name, str, "Animation.name")
        vertices, moved = self.model.asset.num_vertices, len(self.motion.vertex_nodes)
        if vertices != moved:
            raise ValueError(
                f"Animation: expected a motion of the {vertices} vertices of {self.model.name}, got one of {moved}"
            )
        self._start_at_zero()

    def _repr_html_(self) -> str:
        from zoo.animate3d.page import animation_card

        return animation_card(self)

    def vertices(self, times: np.ndarray | None = None) -> np.ndarray:
        """Return the vertices over time, float64 [T, V, 3], world space relative to `model.asset.origin(None)`.

        Args:
            times: seconds from the first frame; None = the frames of the motion.
        """
        motion = self.motion
        if times is not None:
            motion = self._elapsed(array(times, "Animation.vertices: times", ("T",)))
        return motion.move(self.model.vertices())

    def edge_stretch(self, share: float = 0.995) -> float:
        """Measure tears: the multiple of its length at rest that an edge of the mesh reaches at most.

        Args:
            share: of the edges, from 0 to 1, that stay within the result. 1 is the most stretched edge.
        """
        share = number(share, "Animation.edge_stretch: share", 0.0, 1.0)
        triangles = np.concatenate([part.triangles for part in self.model.asset.primitives])
        still = self.model.vertices()
        frames = (self.vertices(self.motion.times[t : t + 1])[0] for t in range(len(self.motion.times)))
        stretch = edge_stretch(still, frames, mesh_edges(triangles))
        return float(np.quantile(stretch, share)) if len(stretch) else 1.0

    # --- glTF ---

    @cached_property
    def _driven(self) -> bool:
        """Whether a skin or an animation of the file already moves a mesh."""
        asset = self.model.asset
        if any(part.skinned for part in self.model.parts()):
            return True
        rest = asset.positions(None, 0.0)
        return any(
            not np.array_equal(asset.positions(index, time), rest)
            for index, animation in enumerate(asset.animations)
            if animation.channels
            for time in _moments(animation.start, animation.end, animation.key_interval)
        )

    def form(self, as_: str | None = None) -> str:
        """Return how the motion is stored in a file: "skin" or "morph".

        Args:
            as_: the choice; None is "skin", the smaller one, unless a skin or an animation of the model's file already
                moves its meshes. These would lose them to the new skin, and go on working beside morph targets.
        """
        if as_ is not None and as_ not in FORMS:
            raise ValueError(f"Animation: as_: expected one of {', '.join(FORMS)}, got {shown(as_)}")
        return as_ or ("morph" if self._driven else "skin")

    def glb(
        self, as_: str | None = None, *, tolerance: float = TOLERANCE, influences: int = 4
    ) -> tuple[bytes, list[WrittenPart]]:
        """Return the model's file with the motion added as its last animation, and where its parts are in it.

        Everything else in the file stays: its JSON is only added to, except for the node of a mesh that gets a skin.

        Args:
            as_: "skin" or "morph"; see `form`.
            tolerance: how far vertices may be moved by leaving out key frames, as a share of the model's diagonal.
            influences: of "skin": most joints per vertex. Viewers support 4, Blender more. See `error`.
        """
        tolerance = number(tolerance, "Animation: tolerance", 0.0, 1.0)
        influences = integer(influences, "Animation: influences", 1, MOST_INFLUENCES)
        editor, name = self.model.editor(), self.name or "animation"
        if self.form(as_) == "skin":
            parts = add_skin(
                editor, self.model, self.motion, name, tolerance=tolerance, influences=influences
            )
        else:
            parts = add_morph(editor, self.model, self.motion, name, tolerance=tolerance)
        return editor.to_glb(), parts

    def error(self, as_: str | None = None, *, tolerance: float = TOLERANCE, influences: int = 4) -> float:
        """Measure how far vertices of the file that `glb` gives are from the motion, as a share of the diagonal.

        The file is read again and posed at every frame; the largest distance counts.
        """
        data, places = self.glb(as_, tolerance=tolerance, influences=influences)
        asset = load(data, name=self.model.name)
        ranges = {(part.node, part.index): part.vertices for part in asset.primitives}
        used = np.zeros(self.model.asset.num_vertices, bool)
        used[self.model.asset.visible] = True
        shift = asset.origin(len(asset.animations) - 1) - self.model.asset.origin(None)
        worst = 0.0
        for time, expected in zip(self.motion.times, self.vertices(), strict=True):
            moved = asset.positions(len(asset.animations) - 1, float(time)) + shift
            for part, place in zip(self.model.asset.primitives, places, strict=True):
                chosen = used[part.vertices]
                result = moved[ranges[place.node, place.index]]
                if place.reversed:
                    result = result.reshape(-1, 3, 3)[:, ::-1].reshape(-1, 3)
                apart = np.linalg.norm(result - expected[part.vertices], axis=1)[chosen]
                worst = max(worst, float(apart.max(initial=0.0)))
        return worst / self.model.diagonal()

    @cached_property
    def moving_asset(self) -> Asset:
        """The model with the motion as its last animation, exact at every frame, for `renderers.meshes`."""
        data, _ = self.glb("skin", tolerance=0.0, influences=MOST_INFLUENCES)
        return load(data, name=self.model.name)

    # --- pictures and files ---

    def default_camera(self, resolution: int = 384) -> Cameras:
        """Return a fixed square three-quarter view that frames the whole motion with a small margin."""
        resolution = integer(resolution, "Animation.default_camera: resolution", 1, LARGEST_PICTURE)
        moved = self.vertices()[:, self.model.asset.visible].reshape(-1, 3)
        return three_quarter_view(moved, resolution, self.model.asset.origin(None))

    def render(
        self,
        cameras: Cameras,
        times: np.ndarray | None = None,
        background: Background | None = 1.0,
        *,
        backend: str = "auto",
        samples: int = 4,
    ) -> np.ndarray:
        """Render every frame from every camera.

        Args:
            cameras: V cameras in the world of the model's file, the same for all frames (`default_camera`).
            times: seconds from the first frame; None = the frames of the motion.
            background: grey or RGB, sRGB-encoded, floats in 0..1 or integers in 0..255 (`renderers.background`);
                None = transparent.
            backend: of `renderers.meshes.render_clip`: "auto", "cpu", "opengl", "pyrender" or
                "blender".
            samples: anti-aliasing samples per pixel: 1, 4 or 16.

        Returns:
            uint8 [V, T, H, W, 3], or [V, T, H, W, 4] with straight alpha if the background is None.

        Raises:
            RenderError: the back end is not available.
        """
        from renderers.meshes import RenderSettings, Shot, composite, render_clip

        instance(cameras, Cameras, "Animation.render: cameras")
        times = self.motion.times if times is None else array(times, "Animation.render: times", ("T",))
        if background is not None:
            background_bytes(background, "Animation.render: background")
        asset = self.moving_asset
        shot = Shot(len(asset.animations) - 1, times, np.eye(4), cameras)
        clip = render_clip(asset, shot, RenderSettings(samples=samples), backend=backend)
        return clip.frames if background is None else composite(clip.frames, background)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the animation in the format given by the file extension. A file appears complete or not at all.

        A missing folder is created. Options are checked before any work.

        .glb   the model's own file with the motion added (options: as_="skin" or "morph", see `form`; tolerance=1e-4 of
               the diagonal, to which key frames are left out; influences=4, most joints per vertex of a skin)
        .fbx   through Blender, with textures inside (option: as_="skin", joints baked at every frame, or "morph",
               shape keys; as for .glb)
        .usd   .usda, .usdc, .usdz: a mesh with time samples per primitive, preview materials, and the texture files as
               they are: inside .usdz, else in a folder beside the file
        .mp4   video from a fixed three-quarter view on white (options: fps=24, resolution=384, cameras=a single camera,
               backend as of `render`)
        .npz   arrays: vertices over time, triangles, and the graph
        .ply   folder with one mesh per frame: "roar.ply" writes roar/000.ply … and replaces the frames of an earlier
               animation
        .html  page that plays the animation and turns it with mouse and touch, without a network (options: fps=24,
               frames that are stored per second; background: by default white, or dark grey in a browser's dark colour
               scheme). Textures are inside, as PNG

        Args:
            path: file to write, or the name of the folder with the suffix .ply.
            options: of the format.

        Returns:
            The path written: a file, or a folder for .ply.

        Raises:
            TypeError, ValueError: unknown extension or option, or an option of another type or out of range.
            ModelError: the animation cannot be expressed in the format, or what writes it is not installed.
            OSError: the file cannot be written.
        """
        from zoo.animate3d.saving import save

        return save(self, path, options)
