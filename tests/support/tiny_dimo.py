"""A small DIMO of a coloured egg, with random weights that give visible motion."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from zoo.dimo.config import DIMOConfig
from zoo.dimo.model import DIMO
from zoo.dimo.pipeline import DIMOPipeline

SENTENCES = (
    "hops forward once",
    "hops forward twice",
    "waves its left paw",
    "waves its right paw",
    "bows, then nods",
    "shakes its head",
)


def tiny_dimo(seed: int = 0, **config: object) -> DIMO:
    """Six motions, 24 key points, 600 Gaussians, 9 frames."""
    sizes = {"key_points": 24, "gaussians": 600, "latent": 8, "width": 32, "depth": 4, "skip": 1, "frames": 9}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DIMO(DIMOConfig(**sizes | config), len(SENTENCES))
        directions = F.normalize(torch.randn(len(model.means), 3), dim=-1)
        with torch.no_grad():
            model.means.copy_(directions * torch.tensor([0.25, 0.4, 0.2]))
            model.log_scales.copy_(torch.log(0.02 + 0.02 * torch.rand(len(model.means), 3)))
            model.quats.copy_(torch.randn(len(model.means), 4))
            model.opacity_logits.fill_(2.5)
            model.colors.copy_(directions * 0.5 + 0.5)
            model.key_points.copy_(model.means[: len(model.key_points)])
            model.mu.copy_(torch.randn_like(model.mu))
            for head in (model.decoder.offset_head, model.decoder.rotation_head):
                head[1].weight.copy_(0.04 * torch.randn_like(head[1].weight))
            model.refresh()
    return model


def tiny_pipeline(seed: int = 0, **config: object) -> DIMOPipeline:
    """Return the model with motion names, sentences and provenance."""
    names = [sentence.replace(",", "").replace(" ", "-") for sentence in SENTENCES]
    provenance = {"licence": "CC0-1.0", "author": "nobody", "title": "Egg"}
    return DIMOPipeline(tiny_dimo(seed, **config), "egg", names, SENTENCES, provenance=provenance)
