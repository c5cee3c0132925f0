"""Train a motion space (DIMO) on four motions of a creature, and sample from it.

The sizes are far below those of the bundled models (`DIMOConfig.bundled()`), so the result is blurred. Takes about a
minute. `python -m factory.train dimo` trains many objects in parallel.
"""

from dataclasses import replace
from pathlib import Path

import zoo
from factory.motion_videos import MotionRecipe, make_motions
from zoo.dimo import DIMOConfig, DIMOPipeline, MotionVideos, train

OUT = Path("out/examples")
STEPS = 150, 250  # of the two stages

# Render the motions that the model is trained on, from eight views, and hold out four more views for the evaluation.
recipe = MotionRecipe(resolution=64, frames=16)
(rendered,) = make_motions(["creatures://drop?motions=5"], OUT / "training", recipe, workers=0)
videos = MotionVideos.open(rendered.folder)
training = videos.select("train")
print(training.sentences)

laptop = DIMOConfig.laptop()
config = replace(
    laptop,
    resolution=64,
    frames=16,
    gaussians=1500,
    pretraining=replace(laptop.pretraining, steps=STEPS[0]),
    joint=replace(laptop.joint, steps=STEPS[1], resolutions=((0, 64),), polish_steps=0, surface_steps=0),
    fit=replace(laptop.fit, resolutions=((0, 64),)),
)
model = train(
    training,
    config,
    on_step=lambda report: print(report),  # every 25 steps
)

drop = DIMOPipeline(model, "drop", training.names, training.sentences, provenance=training.provenance)
print(zoo.publish(drop, "local:dimo/drop", home=OUT / "registry"))
drop.sample(1).save(OUT / "drop.mp4")
print(f"open {OUT / 'drop.mp4'}")
