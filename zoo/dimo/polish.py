"""Last steps of training on tracks alone (not in the paper).

With the key points at their true places, instead of where the decoder puts them, the same Gaussians show the trained
motions of the robot and the human by 2.3 dB better: what limits a trained motion is the decoder's error of five
millimetres, about a pixel. A step of stage 2 spends most of its time on pictures; here nothing is rendered.

What limits an unseen motion is that the decoder shows little else than it was trained on. If the object is symmetric,
the mirror images of the training motions follow from their tracks, and the decoder learns them as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.fitting import nearest_latents
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.objective import StepLoss, track_loss
from zoo.dimo.optimizer import Muon, NamedAdam
from zoo.dimo.stage import run_stage
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
    """Take all steps of `PolishStage`, in place; nothing is done without tracks.

    Args:
        run: a finished training.
        steps: of the optimiser.
    """
    if steps and run.tracks is not None:
        run_stage(run, PolishStage(run, steps))


class PolishStage:
    """Fits the decoder and the latents' means of `run.model` to the tracks; all other parameters stay.

    The only loss is `track_loss`, and z = μ: with noise on the latents, the error falls more slowly. The matrices
    between hidden layers are trained by `Muon`, which makes all directions of a step equally long.

    If the object is symmetric, a step has `REFLECTED` mirror images of the training motions beside the motions
    themselves. Their latents are searched for first, trained with the others, and dropped at the end.

    Args:
        run: a training whose model is past stage 2, with tracks.
        steps: of the optimiser.
        tensors: those of a checkpoint; None to begin.

    Raises:
        ValueError: there are no tracks.
    """

    name = "tracks"

    def __init__(self, run: TrainingContext, steps: int, tensors: Mapping[str, Tensor] | None = None) -> None:
        if (tracks := run.tracks) is None:
            raise ValueError(f"{run.videos.folder}: expected tracked points, got none")
        self.run, self.tracks, self.steps = run, tracks, steps
        model = run.model
        self.feed = Feed(
            run.videos, run.views, BATCH, ((0, 8),), model.config.latent, (run.seed, STAGE), pictures=False
        )
        self.reach = model.log_radii.detach().exp().mean()
        reflected = model.mu.detach()[:0]
        if model.config.latent_space and (
            mirrored := mirrored_tracks(run.videos, run.pose, tracks.points.cpu())
        ):
            mirrored = KeyPointTracks(*(field.to(run.device) for field in mirrored))
            phases = torch.tensor(run.videos.phases).to(run.device)
            if tensors is None:
                reflected = nearest_latents(model, phases, mirrored.positions, partial(run.rng, STAGE, 2))
            pairs = zip(tracks[1:], mirrored[1:], strict=True)
            self.tracks = KeyPointTracks(tracks.points, *(torch.cat(pair) for pair in pairs))
        self.reflected = nn.Parameter(reflected if tensors is None else tensors["reflected"])
        hidden = [each for each in model.decoder.parameters() if _between_hidden_layers(model, each)]
        others = [each for each in model.decoder.parameters() if not _between_hidden_layers(model, each)]
        self.adam = NamedAdam({"decoder": others, "latents": [model.mu, self.reflected]})
        self.muon = Muon(hidden)
        if tensors is not None:
            self.muon.load({key.removeprefix("muon."): value for key, value in tensors.items()})

    def tensors(self) -> dict[str, Tensor]:
        """State to be stored in a checkpoint, besides the model and Adam's."""
        momenta = {f"muon.{key}": value for key, value in self.muon.state().items()}
        return {"reflected": self.reflected.detach(), **momenta}

    def advance(self, step: int, batch: Batch) -> StepLoss:
        """Take one step of both optimisers.

        Args:
            step: index within this stage, from 0.
            batch: data of the step, on the training device; without pictures.
        """
        model, rng, count = self.run.model, self.run.rng(STAGE, 1, step), len(self.run.model.mu)
        points = rng.choice(len(self.tracks.points), min(POINTS, len(self.tracks.points)), replace=False)
        images = rng.choice(len(self.reflected), min(REFLECTED, len(self.reflected)), replace=False)
        drawn = torch.from_numpy(images).to(self.run.device)
        z = model.mu[batch.motions] if model.config.latent_space else model.mu[batch.motions].detach()
        z = torch.cat([z, self.reflected[drawn]])
        batch = replace(batch, motions=torch.cat([batch.motions, count + drawn]))
        seen = _only(self.tracks, torch.from_numpy(points).to(self.run.device))
        offsets, rotations = model.decoder(seen.points, batch.phases, z)
        motion = KeyPointMotion(seen.points + offsets, rotations)
        loss = track_loss(model, seen, motion, z, batch, self.reach)
        loss.backward()
        left = 1 - step / self.steps
        self.muon.step(HIDDEN * left)
        self.adam.step({"decoder": OTHERS * left, "latents": LATENTS * left})
        return StepLoss(loss, None)

    def finish(self) -> None:
        """Nothing is left to do."""


def _between_hidden_layers(model: DIMO, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) >= model.config.width


def _only(tracks: KeyPointTracks, points: Tensor) -> KeyPointTracks:
    """The tracks of some of the key points."""
    positions, rotations = tracks.positions[:, :, points], tracks.rotations[:, :, points]
    return tracks._replace(points=tracks.points[points], positions=positions, rotations=rotations)
