"""Last steps of training on tracks alone (not in the paper).

With the key points at their true places, instead of where the decoder puts them, the same Gaussians show the trained
motions of the robot and the human by 2.3 dB better: what limits a trained motion is the decoder's error of five
millimetres, about a pixel. A step of stage 2 spends most of its time on pictures; here nothing is rendered.
"""

from __future__ import annotations

from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Feed
from zoo.dimo.model import KeyPointMotion
from zoo.dimo.objective import decayed_rate, track_loss
from zoo.dimo.optimizer import NamedAdam

STAGE = 5  # of the random numbers: stages, the fitting of latents and their coordinates have 1 to 4
BATCH = 8, 3, 2  # motions, and views and frames, which give the number of frames as in stage 1
DECODER = 5e-4, 5e-6  # learning rates at the first and the last step
LATENTS = 2e-3, 2e-5


def polish(run: TrainingContext, steps: int) -> None:
    """Fit the decoder and the latents' means of `run.model` to the tracks, in place; all other parameters stay.

    The only loss is `track_loss`, and z = μ: with noise on the latents, the error falls more slowly. Without tracks,
    nothing is done.

    Args:
        run: a finished training.
        steps: of Adam.
    """
    model, tracks = run.model, run.tracks
    if not steps or tracks is None:
        return
    feed = Feed(run.videos, run.views, BATCH, ((0, 8),), run.config.latent, (run.seed, STAGE), pictures=False)
    reach = model.log_radii.detach().exp().mean()
    adam = NamedAdam({"decoder": list(model.decoder.parameters()), "latents": [model.mu]})
    for step in range(steps):
        batch = feed.batch(step).to(run.device)
        z = model.mu[batch.motions] if model.config.latent_space else model.mu[batch.motions].detach()
        offsets, rotations = model.decoder(tracks.points, batch.phases, z)
        motion = KeyPointMotion(tracks.points + offsets, rotations)
        track_loss(model, tracks, motion, z, batch, reach).backward()
        rates = {"decoder": DECODER, "latents": LATENTS}
        adam.step({name: decayed_rate(rate, step, steps) for name, rate in rates.items()})
