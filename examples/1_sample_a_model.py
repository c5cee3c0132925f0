"""Load a bundled model, and save motions of it as a video, a 3D file and a web page.

Takes about 10 seconds.
"""

from pathlib import Path

import zoo

OUT = Path("out/examples/motions")

print(
    zoo.list_models("dimo/*")
)  # the motion spaces on this machine: one object each, with about 50 trained motions
kangaroo = zoo.load("dimo/kangaroo")

# A trained motion, chosen by its sentence.
hop = kangaroo.motion("hops forward twice")
hop.save(OUT / "hop.mp4")
hop.save(OUT / "hop.glb")  # a skinned mesh, for Blender and game engines
hop.save(OUT / "hop.html")  # one file; open it in a browser and turn the kangaroo

# A new motion: a latent drawn from the distribution of the trained ones. The same seed gives the same motion.
kangaroo.sample(7).save(OUT / "new.mp4")

# The motions between two others.
for step, motion in enumerate(kangaroo.interpolate("hops forward twice", "waves its right paw", steps=3)):
    motion.save(OUT / f"between-{step}.mp4")

print(f"open {OUT / 'hop.html'}")
