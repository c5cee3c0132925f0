"""Animate a mesh file from a sentence, and save it as .glb with a skin.

The bundled video model draws the object's motion in four small videos, and the mesh follows them. Takes about a minute.
"""

from pathlib import Path

import zoo
from factory.sources.creatures import build

OUT = Path("out/examples/animated")
OUT.mkdir(parents=True, exist_ok=True)

# Any .glb, .gltf, .obj, .ply or .stl works here. This one is a generated fox at rest, without animations.
(OUT / "fox.glb").write_bytes(build("fox", seed=3, motions=[]))

animation = zoo.animate(OUT / "fox.glb", "looks left", seed=0)
print("\n".join(animation.report.sentences()))  # how well the mesh could follow the videos

animation.save(OUT / "fox-looks-left.glb")
animation.save(OUT / "fox-looks-left.mp4", resolution=256)
print(f"open {OUT / 'fox-looks-left.mp4'}")
