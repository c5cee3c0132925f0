"""Evaluate a model on views that it was not trained on, and publish it with the result to a local folder.

Uses the model of 5_train_a_motion_space.py. `python -m zoo evaluate` evaluates under published protocols, with controls
and confidence intervals (docs/evaluation.md). Takes about 20 seconds.
"""

from pathlib import Path

import zoo
from zoo.dimo import MotionVideos, evaluate

OUT = Path("out/examples")
REGISTRY = OUT / "registry"

drop = zoo.load("local:dimo/drop", home=REGISTRY)
videos = MotionVideos.open(OUT / "training/motions/drop").select("train")

result = evaluate(drop.model, videos)  # on the held-out views
print({name: value for name, value in result.items() if isinstance(value, float)})

# Publish the model with its result, under a name of its own. "hub:org/name" publishes to the Hugging Face hub.
drop.metrics = result
print(zoo.publish(drop, "local:dimo/drop-evaluated", home=REGISTRY))
info = zoo.info("local:dimo/drop-evaluated", home=REGISTRY)
print(info.card["title"], info.files)
print(f"open {info.folder / 'README.md'}")
