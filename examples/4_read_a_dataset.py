"""Read clips of a dataset: pixels, cameras, licences; save a view as a picture, and iterate over training batches.

Reads what 3_render_your_models.py wrote. Takes about 10 seconds.
"""

from pathlib import Path

from PIL import Image

import factory

OUT = Path("out/examples")

clips = factory.load_clips(OUT / "clips")  # or "hub:org/name", or an fsspec URL
clip = clips[0]
metadata = clip.metadata
print(
    f"{len(clips)} clips; the first: {metadata['title']}, {metadata['animation_name']}, {metadata['licence']}"
)

# Only the views and frames that are asked for are decoded.
arrays = clip.read(views=[0, 4, 8, 12], frames=range(0, 24, 2), background=(255, 255, 255))
print(arrays.frames.shape, arrays.cameras.world_to_camera.shape)  # [V, T, H, W, 3] and [V, 4, 4]

# Four views beside each other, as an animated picture.
rows = [
    Image.fromarray(frame) for frame in arrays.frames.transpose(1, 2, 0, 3, 4).reshape(12, 128, 4 * 128, 3)
]
rows[0].save(OUT / "clip.webp", save_all=True, append_images=rows[1:], duration=83, loop=0)
print(f"open {OUT / 'clip.webp'}")

# Batches for training: [B, V, T, 3, H, W] in -1..1, in the same order on every machine.
training = factory.TrainingClips(clips, quality="any", views=4, frames=8, batch_size=2)
for batch in factory.ClipLoader(training):
    print(batch["frames"].shape, batch["caption"])
