"""Files that other programs open. Nothing here knows a model family.

    animation  `SkinnedAnimation`: what a family converts its motions to
    glb        an animation as glTF
    video      frames as mp4
    html       pages that play a scene in a browser
    surface    3D Gaussians to a coloured mesh

Names are imported on first use: a video needs no glTF writer.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.export.animation import Joints, Mesh, SkinnedAnimation
    from zoo.export.glb import write_glb
    from zoo.export.surface import gaussian_surface
    from zoo.export.video import write_mp4

__all__ = ["Joints", "Mesh", "SkinnedAnimation", "gaussian_surface", "write_glb", "write_mp4"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Joints": "zoo.export.animation",
            "Mesh": "zoo.export.animation",
            "SkinnedAnimation": "zoo.export.animation",
            "gaussian_surface": "zoo.export.surface",
            "write_glb": "zoo.export.glb",
            "write_mp4": "zoo.export.video",
        },
    )
