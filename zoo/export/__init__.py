"""Files that other programs open. Nothing here knows a model family.

animation  `SkinnedAnimation`: what a family converts its motions to
glb        an animation as glTF
video      frames as mp4
surface    3D Gaussians to a coloured mesh
"""

from zoo.export.animation import Joints, Mesh, SkinnedAnimation
from zoo.export.glb import write_glb
from zoo.export.video import write_mp4

__all__ = ["Joints", "Mesh", "SkinnedAnimation", "write_glb", "write_mp4"]
