"""What the page requests to be shown of a DIMO model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import instance, integer, number, shown
from zoo.choices import SEEDS
from zoo.dimo.motion import Motion
from zoo.dimo.pipeline import DIMOPipeline
from zoo.viewer.latent_map import LatentMap

LONGEST_SENTENCE = 1000  # characters
_NEAREST = 3  # trained motions listed for a sentence
_LARGEST_POINT = 1e6
KINDS = ("trained", "given", "seed", "text", "point", "between")


class Chosen(NamedTuple):
    """A latent to decode.

    Attributes:
        name: title of the motion.
        z: the latent, [Z].
        nearest: trained motions, as (index, share 0..1) of a sentence, else (index, 1).
        is_confident: whether `nearest` has shares that the text head predicted.
    """

    name: str
    z: Tensor
    nearest: tuple[tuple[int, float], ...]
    is_confident: bool = False


@dataclass(frozen=True)
class MotionRequest:
    """A motion, as requested in JSON: {"kind": …} and the fields of that kind.

    Attributes:
        kind: one of `KINDS`.
        index: of a trained motion ("trained").
        seed: of a sample ("seed").
        sentence: in free wording ("text").
        point: on the map ("point").
        ends: two requests of other kinds ("between").
        share: of the second, 0..1 ("between").
    """

    kind: str
    index: int = 0
    seed: int = 0
    sentence: str = ""
    point: tuple[float, float] = (0.0, 0.0)
    ends: tuple[MotionRequest, ...] = ()
    share: float = 0.0

    @staticmethod
    def from_json(content: Any, *, nested: bool = False) -> MotionRequest:
        """Check and read a request.

        Args:
            content: parsed JSON.
            nested: whether it is an end of another one.

        Raises:
            TypeError, ValueError: it is malformed.
        """
        instance(content, dict, "choice")
        kind = content.get("kind")
        if kind not in KINDS or (nested and kind == "between"):
            kinds = KINDS[:-1] if nested else KINDS
            raise ValueError(f"choice: expected a kind of {', '.join(kinds)}, got {shown(kind)}")
        if kind == "given":
            return MotionRequest(kind)
        if kind == "trained":
            return MotionRequest(kind, index=integer(content.get("index"), "choice: index", 0))
        if kind == "seed":
            return MotionRequest(
                kind, seed=integer(content.get("seed"), "choice: seed", SEEDS.start, SEEDS.stop - 1)
            )
        if kind == "text":
            return MotionRequest(kind, sentence=_sentence(content.get("sentence")))
        if kind == "point":
            limits = (-_LARGEST_POINT, _LARGEST_POINT)
            x, y = (number(content.get(name), f"choice: {name}", *limits) for name in "xy")
            return MotionRequest(kind, point=(x, y))
        ends = tuple(MotionRequest.from_json(content.get(name), nested=True) for name in "ab")
        return MotionRequest(kind, ends=ends, share=number(content.get("share"), "choice: share", 0.0, 1.0))

    def choose(self, pipeline: DIMOPipeline, plane: LatentMap, given: Motion | None = None) -> Chosen:
        """The latent of the request.

        Args:
            pipeline: the model.
            plane: the map of its latents.
            given: the motion that the viewer was opened with ("given").

        Raises:
            LookupError: the model has no such trained motion.
            UnsupportedError, RuntimeError: the model has no text head, or the language model is not installed.
        """
        mu = pipeline.model.mu
        if self.kind == "given":
            if given is None:
                raise LookupError("choice: the viewer was opened with a model, not with a motion")
            return _near(given.name, given.z.to(mu), mu)
        if self.kind == "trained":
            index = pipeline.index(self.index)
            return Chosen(pipeline.sentences[index], mu[index], ((index, 1.0),))
        if self.kind == "seed":
            return _near(f"sample {self.seed}", pipeline.draw(self.seed).to(mu), mu)
        if self.kind == "text":
            z = pipeline.from_text(self.sentence).z.to(mu)
            # A projection head has no shares of trained motions.
            if pipeline.text is None or pipeline.text.kind == "projection":
                return _near(self.sentence, z, mu)
            shares = pipeline.text.shares(self.sentence)
            best = shares.argsort(descending=True)[:_NEAREST].tolist()
            return Chosen(self.sentence, z, tuple((i, float(shares[i])) for i in best), True)
        if self.kind == "point":
            z = torch.as_tensor(plane.lift(self.point)).to(mu)
            return _near(f"map {self.point[0]:.2f}, {self.point[1]:.2f}", z, mu)
        a, b = (end.choose(pipeline, plane, given) for end in self.ends)
        name = f"{a.name} → {b.name}, {self.share:.0%}"
        return _near(name, torch.lerp(a.z, b.z, self.share), mu)


def parse_request(text: str) -> MotionRequest:
    """A request in JSON text.

    Raises:
        TypeError, ValueError: it is malformed.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"choice: expected JSON, got {shown(text)}") from None
    return MotionRequest.from_json(content)


def _sentence(value: Any) -> str:
    instance(value, str, "choice: sentence")
    words = " ".join(value.split())
    if not words:
        raise ValueError("expected a sentence that describes a motion, got no words")
    if len(words) > LONGEST_SENTENCE:
        raise ValueError(
            f"choice: sentence: expected at most {LONGEST_SENTENCE} characters, got {len(words)}"
        )
    return words


def _near(name: str, z: Tensor, mu: Tensor) -> Chosen:
    """The latent, and the trained motion whose latent is nearest to it."""
    distances = np.linalg.norm((mu - z).double().cpu().numpy(), axis=1)
    return Chosen(name, z, ((int(distances.argmin()), 1.0),))
