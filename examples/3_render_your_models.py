"""Render a folder of animated models into a dataset of multi-view clips.

`python -m factory.render` does the same from the command line, on a whole cluster. Takes about 15 seconds.
"""

from pathlib import Path

from factory.clips import ClipRecipe, RenderStage, render
from factory.sources.creatures import build, motions

MODELS, OUT = Path("out/examples/models"), Path("out/examples/clips")
MODELS.mkdir(parents=True, exist_ok=True)

# Put your own .glb and .gltf files into this folder. Here are two generated creatures with two animations each.
for species in ("cat", "crab"):
    names = [motion.name for motion in motions(species)[:2]]
    (MODELS / f"{species}.glb").write_bytes(build(species, seed=0, motions=names))

# 16 views of 24 frames at 128 px. The licence of files in a folder is unknown, which is recorded in every clip.
stage = RenderStage(ClipRecipe(resolution=128, num_frames=24, max_animations=2))
result = render([str(MODELS)], str(OUT), stage, workers=0)  # 0: in this process, without Ray

print(f"{result.tally.rendered} clips rendered, {result.tally.resumed} were there already")
print(f"left out, by reason: {dict(result.tally.rejected)}")
print(f"open {OUT / 'contact_sheet.png'}")
