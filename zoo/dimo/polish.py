"""Last steps of training on tracks alone (not in the paper).

With the key points at their true places, instead of where the decoder puts them, the same Gaussians show the trained
motions of the robot and the human by 2.3 dB better: what limits a trained motion is the decoder's error of five
millimetres, about a pixel. A step of stage 2 spends most of its time on pictures; here nothing is rendered.

What limits an unseen motion is that the decoder shows little else than it was trained on. If the object is symmetric,
the mirror images of the training motions follow from their tracks, and the decoder learns them as well.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Feed
from zoo.dimo.fitting import nearest_latents
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.objective import track_loss
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.tracks import KeyPointTracks, mirrored_tracks

STAGE = 5  # of the random numbers: stages, the fitting of latents and their coordinates have 1 to 4
BATCH = 24, 3, 2  # motions, and views and frames, which give the number of frames as in stage 1
REFLECTED = 8  # mirror images beside the motions of a step
POINTS = 24  # key points of a step
# Learning rates at the first step; they fall in a straight line to nothing.
HIDDEN = 4e-3  # of the matrices between hidden layers, by Muon
OTHERS = 1e-3  # of the decoder's other parameters, by Adam
LATENTS = 5e-3


def polish(run: TrainingContext, steps: int) -> None:
    """Fit the decoder and the latents' means of `run.model` to the tracks, in place; all other parameters stay.

    The only loss is `track_loss`, and z = μ: with noise on the latents, the error falls more slowly. The matrices
    between hidden layers are trained by Muon (Jordan et al. 2024; `torch.optim.Muon`), which makes all directions of a
    step equally long. Without tracks, nothing is done.

    If the object is symmetric, a step has `REFLECTED` mirror images of the training motions beside the motions
    themselves. Their latents are searched for first, trained with the others, and dropped at the end.

    Args:
        run: a finished training.
        steps: of the optimiser.
    """
    model, tracks = run.model, run.tracks
    if not steps or tracks is None:
        return
    count, reflected = len(model.mu), model.mu.detach()[:0]
    if model.config.latent_space and (mirrored := mirrored_tracks(run.videos, run.pose, tracks.points.cpu())):
        mirrored = KeyPointTracks(*(field.to(run.device) for field in mirrored))
        phases = torch.tensor(run.videos.phases).to(run.device)
        reflected = nearest_latents(model, phases, mirrored.positions, partial(run.rng, STAGE, 2))
        pairs = zip(tracks[1:], mirrored[1:], strict=True)
        tracks = KeyPointTracks(tracks.points, *(torch.cat(pair) for pair in pairs))
    reflected = nn.Parameter(reflected)
    hidden = [each for each in model.decoder.parameters() if _between_hidden_layers(model, each)]
    others = [each for each in model.decoder.parameters() if not _between_hidden_layers(model, each)]
    adam = NamedAdam({"decoder": others, "latents": [model.mu, reflected]})
    muon = torch.optim.Muon(hidden, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    seed, size = (run.seed, STAGE), model.config.latent
    feed = Feed(run.videos, run.views, BATCH, ((0, 8),), size, seed, pictures=False)
    reach = model.log_radii.detach().exp().mean()
    for step in range(steps):
        batch, rng = feed.batch(step).to(run.device), run.rng(STAGE, 1, step)
        points = rng.choice(len(tracks.points), min(POINTS, len(tracks.points)), replace=False)
        images = rng.choice(len(reflected), min(REFLECTED, len(reflected)), replace=False)
        drawn = torch.from_numpy(images).to(run.device)
        z = model.mu[batch.motions] if model.config.latent_space else model.mu[batch.motions].detach()
        z = torch.cat([z, reflected[drawn]])
        batch = replace(batch, motions=torch.cat([batch.motions, count + drawn]))
        seen = _only(tracks, torch.from_numpy(points).to(run.device))
        offsets, rotations = model.decoder(seen.points, batch.phases, z)
        track_loss(model, seen, KeyPointMotion(seen.points + offsets, rotations), z, batch, reach).backward()
        left = 1 - step / steps
        for group in muon.param_groups:
            group["lr"] = HIDDEN * left
        muon.step()
        muon.zero_grad()
        adam.step({"decoder": OTHERS * left, "latents": LATENTS * left})


def _between_hidden_layers(model: DIMO, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) >= model.config.width


def _only(tracks: KeyPointTracks, points: Tensor) -> KeyPointTracks:
    """The tracks of some of the key points."""
    positions, rotations = tracks.positions[:, :, points], tracks.rotations[:, :, points]
    return tracks._replace(points=tracks.points[points], positions=positions, rotations=rotations)
