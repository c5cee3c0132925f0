"""A tiny model family: real weights in a real file, without torch, which takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


class Pendulum:
    """`sample(seed)` returns angles [8], computed by a small linear layer."""

    def __init__(
        self, latent: int, *, title: str = "Pendulum", metrics: dict[str, Any] | None = None
    ) -> None:
        self.init = {"latent": latent, "title": title}
        self.weights = {"weight": np.zeros((8, latent), np.float32), "bias": np.zeros(8, np.float32)}
        self.metrics = metrics or {}
        self.card = {"title": title, "license": "CC0-1.0", "summary": "Swings.", "tags": ["test"]}

    def sample(self, seed: int = 0) -> np.ndarray:
        latent = np.random.default_rng(seed).normal(size=self.init["latent"]).astype(np.float32)
        return self.weights["weight"] @ latent + self.weights["bias"]

    def save_to(self, folder: Path) -> dict[str, Any]:
        save_file(self.weights, folder / "model.safetensors")
        (folder / "preview.mp4").write_bytes(b"a video")
        return self.init

    @classmethod
    def load_from(cls, folder: Path, init: dict[str, Any]) -> Pendulum:
        model = cls(**init)
        model.weights = load_file(folder / "model.safetensors")
        return model


def pendulum(seed: int = 0, **fields: Any) -> Pendulum:
    """A pendulum with random weights; the same seed gives the same weights."""
    model, random = Pendulum(4, **fields), np.random.default_rng(seed)
    model.weights = {
        name: random.normal(size=array.shape).astype(np.float32) for name, array in model.weights.items()
    }
    return model
