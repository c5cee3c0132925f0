"""A trained DIMO model with its metadata, as returned by `zoo.load("dimo/kangaroo")`.

kangaroo = zoo.load("dimo/kangaroo")
kangaroo.motions                                  # names of the training motions
kangaroo.motion("hops forward").save("hop.mp4")   # a training motion
kangaroo.sample(7).save("new.glb")                # a new motion
"""

from __future__ import annotations

import copy
import difflib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import instance, integer, shown
from renderers.cameras import Cameras
from zoo.dimo.config import DIMOConfig
from zoo.dimo.model import DIMO
from zoo.dimo.motion import MOST_FRAMES, Motion, check_numbers, decode, evenly
from zoo.dimo.precision import convert, dtype_name, pack, round_weights, same_weights
from zoo.errors import PlacementError, UnsupportedError
from zoo.placement import placement
from zoo.precision import STORAGES, Storage
from zoo.seeds import random_seed, untouched
from zoo.weights import check_weights

if TYPE_CHECKING:
    from typing import Self

    from zoo.dimo.data import MotionVideos
    from zoo.dimo.text import TextHead

SECONDS = 2.0  # duration of the phases 0..1, as in the training clips
WEIGHTS, PREVIEW = "model.safetensors", "preview.mp4"
PREVIEW_SIDE = 320  # pixels


class DIMOPipeline:
    """Motion space of one object.

    Attributes:
        object: the object's name.
        model: the `DIMO`, frozen.
        phases: training phases, [T] in [0, 1].
        seconds: duration of the phases 0..1.
        motions, sentences: name and description of each training motion, [M] each.
        text: the `TextHead` that predicts latents from sentences, or None.
        storage: type of the matrices in the model's file, "int8" or "float16" (`zoo.dimo.precision`).
        metrics: evaluation protocol and results, the content of metrics.json.
        provenance: licence, author, source_url, title and so on of the object.
    """

    def __init__(
        self,
        model: DIMO,
        object: str,
        motions: Sequence[str],
        sentences: Sequence[str] | None = None,
        *,
        phases: Sequence[float] | None = None,
        seconds: float = SECONDS,
        provenance: dict[str, object] | None = None,
        metrics: dict[str, object] | None = None,
        text: TextHead | None = None,
        storage: Storage = "int8",
    ) -> None:
        """Copy the model and round its weights to the precision of the file format.

        Rounding here instead of on saving makes the evaluated model and the published one identical to the bit.

        Raises:
            ValueError: the number of names or sentences differs from the model's number of motions, or there is no such
                storage.
        """
        if storage not in STORAGES:
            raise ValueError(
                f"dimo/{object}: storage: expected {' or '.join(STORAGES)}, got {shown(storage)}"
            )
        self.storage: Storage = storage
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        round_weights(self.model, storage)
        self.object = object
        self.motions = tuple(motions)
        self.sentences = tuple(self.motions if sentences is None else sentences)
        self.phases = (
            model.phases.float().cpu() if phases is None else torch.tensor(phases, dtype=torch.float32)
        )
        self.seconds = seconds
        self.provenance = dict(provenance or {})
        self.metrics = dict(metrics or {})
        self.text = copy.deepcopy(text)
        if self.text is not None:
            round_weights(self.text, storage)
        if not len(self.motions) == len(self.sentences) == model.num_motions:
            raise ValueError(
                f"dimo/{object}: the model has {model.num_motions} motions, expected as many names and sentences, "
                f"got {len(self.motions)} and {len(self.sentences)}"
            )

    @staticmethod
    def of(model: DIMO, videos: MotionVideos, **fields: Any) -> DIMOPipeline:
        """Build a pipeline from a model and its training videos, which give names, sentences, phases and provenance."""
        return DIMOPipeline(
            model,
            videos.object,
            videos.names,
            videos.sentences,
            phases=videos.phases,
            provenance=videos.provenance,
            **fields,
        )

    def __repr__(self) -> str:
        return (
            f"DIMOPipeline({self.object!r}, {len(self.motions)} motions, {len(self.model.means)} Gaussians, "
            f"{self.device}, {dtype_name(self.dtype)})"
        )

    # --- device and precision ---------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of the weights; results are computed on it."""
        return self.model.mu.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the decoder's layers."""
        return next(self.model.decoder.parameters()).dtype

    def to(
        self,
        *args: Tensor | torch.dtype | torch.device | str | int | bool | None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | str | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Move the model to a device, convert it to another precision, or both, in place. Arguments as of `Module.to`.

        In half precision, the decoder's layers, rotations, scales, opacities and colours are stored and computed as
        `dtype`; positions and latents stay float32, as in the model's file (`HALVED`). Trajectories and Gaussians are
        therefore never half, and a model in float16 keeps its weights to the bit. The text head stays on the CPU,
        beside the language model. Motions decoded before remain valid.

        Args:
            args: `to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`.
            device: for example "cuda" or "cuda:1".
            dtype: float16, bfloat16, float32 or float64.
            non_blocking: as in `torch.Tensor.to`.

        Returns:
            The pipeline itself.

        Raises:
            PlacementError: the device does not exist here, or models do not compute in this type.
        """
        target = placement(
            *args, device=device, dtype=dtype, non_blocking=non_blocking, caller=f"dimo/{self.object}"
        )
        if target.device is not None:
            self.model.to(target.device, non_blocking=target.non_blocking)
        if target.dtype is not None:
            convert(self.model, target.dtype)
        return self

    def _in_single(self) -> DIMO:
        """The model in single precision, in which it is stored and latents are fitted; a copy if it is in another."""
        if self.dtype == self.model.means.dtype == torch.float32:
            return self.model
        return convert(copy.deepcopy(self.model), torch.float32)

    # --- files ------------------------------------------------------------------------------------

    def save_to(self, folder: Path) -> dict:
        """Write model.safetensors and preview.mp4.

        The bytes are deterministic.

        Returns:
            The JSON-serialisable argument `init` of `load_from`.
        """
        from safetensors.torch import save

        model = self._in_single()
        parts = {"dimo": model} if self.text is None else {"dimo": model, "text": self.text}
        state = {
            f"{part}.{name}": tensor
            for part, module in parts.items()
            for name, tensor in pack(module.state_dict(), self.storage).items()
        }
        (folder / WEIGHTS).write_bytes(save(state))  # save_file would make it readable for its owner only
        check_weights([folder / WEIGHTS])  # here rather than an error of the renderer
        preview = self._decode(model.mu[0], self.sentences[0], model=model)
        preview.save(folder / PREVIEW, resolution=PREVIEW_SIDE)
        return {
            "object": self.object,
            "motions": list(self.motions),
            "sentences": list(self.sentences),
            "phases": self.phases.tolist(),
            "seconds": self.seconds,
            "provenance": self.provenance,
            "config": self.model.config.to_json(),
            "text": None if self.text is None else self.text.to_json(),
        }

    @classmethod
    def load_from(cls, folder: Path, init: dict) -> DIMOPipeline:
        """Load a pipeline written by `save_to`.

        Raises:
            RepositoryError: the files do not match `init`.
        """
        from zoo.dimo.files import read_parts

        fields = dict(init)
        config, text = DIMOConfig(**fields.pop("config")), fields.pop("text")
        with untouched():
            model, head, storage = read_parts(Path(folder) / WEIGHTS, config, text)
        return cls(model, text=head, storage=storage, **fields)

    @property
    def card(self) -> dict:
        """Content of the model card except the metrics."""
        rows = [{"motion": n, "say": s} for n, s in zip(self.motions, self.sentences, strict=True)]
        words = " and answers sentences in any words" if self.text is not None else ""
        return {
            "title": f"{self.object}: {len(self.motions)} motions and all between them",
            "summary": (
                f"A motion space of one object, learnt from videos of {len(self.motions)} motions (DIMO, Mou et al., "
                f"ICCV 2025). One pass of a small decoder moves {len(self.model.key_points)} key points, which carry "
                f"{len(self.model.means)} 3D Gaussians. It samples new motions, blends known ones, follows unseen ones "
                f"from video{words}."
            ),
            "license": self.provenance.get("licence"),
            "pipeline_tag": "text-to-3d",
            "tags": ["dimo", "4d", "gaussian-splatting", "animation"],
            "sections": {
                "Motions": rows,
                "The object": [{"what": key, "value": str(value)} for key, value in self.provenance.items()],
            },
        }

    # --- motions ----------------------------------------------------------------------------------

    def sample(self, z: int | Tensor | Sequence[float] | None = None, frames: int | None = None) -> Motion:
        """Decode a motion.

        Args:
            z: a latent [Z], or a seed for `draw`; None = a seed from torch's global generator.
            frames: number of evenly spaced frames; None = the training phases.

        Raises:
            TypeError, ValueError: an argument is of another type or out of range.
        """
        if frames is not None:
            frames = integer(frames, "frames", 1, MOST_FRAMES)
        if z is None or isinstance(z, int) or not hasattr(z, "__len__") or not getattr(z, "ndim", 1):
            seed = random_seed() if z is None else self._seed(z, "z")
            return self._decode(self.draw(seed), f"sample {seed}", frames)
        return self._decode(z, "sample", frames)

    def draw(self, seed: int) -> Tensor:
        """Draw a latent from N(0, I), [Z] (paper §3.2). torch's global generator is left alone."""
        mu, generator = self._placed(self.model).mu, torch.Generator()
        return torch.randn(mu.shape[1], generator=generator.manual_seed(self._seed(seed, "seed"))).to(mu)

    def _seed(self, seed: Any, name: str) -> int:
        return integer(seed, f"dimo/{self.object}: {name}", -(2**63), 2**64 - 1)

    def motion(self, which: str | int) -> Motion:
        """Decode a training motion, given by name, sentence or index."""
        index = self.index(which)
        return self._decode(self.model.mu[index], self.sentences[index])

    def interpolate(self, a: str | int | Motion, b: str | int | Motion, steps: int = 5) -> list[Motion]:
        """Interpolate linearly in latent space from `a` to `b`, both included.

        Args:
            a, b: training motions by name, sentence or index, or any `Motion` of this object.
            steps: number of motions returned, at least 2.

        Raises:
            ValueError: fewer than 2 steps, or a motion of another model: its latent means something else here.
            LookupError: no such motion.
        """
        steps = integer(steps, f"dimo/{self.object}: steps")
        if not 2 <= steps <= MOST_FRAMES:
            raise ValueError(
                f"dimo/{self.object}: interpolate expects at least 2 steps (the two ends) and at most {MOST_FRAMES}, "
                f"got {steps}"
            )
        ends = [self._own(each) if isinstance(each, Motion) else self.motion(each) for each in (a, b)]
        name = f"{ends[0].name} → {ends[1].name}"
        shares = torch.linspace(0, 1, steps).tolist()
        first, last = (end.z.to(self.model.mu) for end in ends)
        return [self._decode(torch.lerp(first, last, share), f"{name}, {share:.0%}") for share in shares]

    def from_text(self, sentence: str) -> Motion:
        """Decode the motion described by a sentence in free wording.

        The result's `match` says how well any trained motion fits the sentence; if none does, a `SentenceWarning` is
        issued too.

        Raises:
            UnsupportedError: the model has no text head.
            RuntimeError: the language model is not installed; the message says what to install.
        """
        instance(sentence, str, f"dimo/{self.object}: sentence")
        if self.text is None:
            raise UnsupportedError(
                f"dimo/{self.object} was published without a text head; choose with .motion(name) among .motions, "
                "or train one with zoo.dimo.text.train_text_head"
            )
        z = self.text.latent(sentence, self.model.mu)
        nearest = self.sentences[int(torch.cdist(z[None], self.model.mu).argmin())]
        match = self.text.match(sentence, self.sentences, nearest)
        match.warn(f"dimo/{self.object}")
        return replace(self._decode(z, sentence), match=match)

    def reconstruct(
        self, videos: MotionVideos | np.ndarray, cameras: Cameras | None = None, **options: Any
    ) -> Motion:
        """Fit a latent to videos of a motion with all other parameters frozen (methods §4.7; 300 steps by default).

        Args:
            videos: a `MotionVideos` with one motion, or frames uint8 [V, T, H, H, 4], straight alpha.
            cameras: the V cameras of the frames, in the object's world coordinates; only used with frames.
            options: keyword arguments of `zoo.dimo.training.fit_latent`.

        Raises:
            ValueError: more than one motion, or frames and cameras of different sizes.
        """
        from zoo.dimo.data import MotionVideos
        from zoo.dimo.training import fit_latent

        if isinstance(videos, MotionVideos):
            if len(videos) != 1:
                raise ValueError(
                    f"dimo/{self.object}: reconstruct expects one motion, got {len(videos)}; select one with "
                    "videos.select([name])"
                )
            return self._decode(fit_latent(self._in_single(), videos, **options)[0], videos.sentences[0])
        with tempfile.TemporaryDirectory() as folder:
            z = fit_latent(self._in_single(), self._as_videos(Path(folder), videos, cameras), **options)[0]
        return self._decode(z, "reconstruction")

    def _as_videos(self, folder: Path, frames: np.ndarray, cameras: Cameras | None) -> MotionVideos:
        """Write frames and cameras as `MotionVideos` of one motion in `folder`."""
        from zoo.dimo.data import MotionVideos, write_motion

        if cameras is not None:
            instance(cameras, Cameras, f"dimo/{self.object}: cameras")
        frames = np.asarray(frames)
        if frames.dtype != np.uint8:
            raise TypeError(f"dimo/{self.object}: videos: expected frames of uint8, got {shown(frames)}")
        expected = None if cameras is None else (len(cameras), cameras.height, cameras.width)
        if cameras is None or frames.ndim != 5 or expected != (len(frames), *frames.shape[2:4]):
            raise ValueError(
                f"dimo/{self.object}: reconstruct expects frames [V, T, H, H, 4] and the V cameras of that size that "
                f"took them, got {list(frames.shape)} and cameras {expected} (views, height, width)"
            )
        write_motion(folder, "seen", frames)
        views, T = tuple(range(len(frames))), frames.shape[1]
        return MotionVideos(
            folder, self.object, ("seen",), ("reconstruction",), ("heldout",), ("seen",), T, cameras.height,
            tuple(torch.linspace(float(self.phases[0]), float(self.phases[-1]), T).tolist()),
            cameras.world_to_camera[None], cameras.K[None], views, (),
        )  # fmt: skip

    def index(self, which: str | int) -> int:
        """Index of a training motion given by name, sentence or index (negative ones count from the end).

        Raises:
            LookupError: no such motion; the message suggests similar ones.
        """
        if not isinstance(which, str):
            which = integer(which, f"dimo/{self.object}: which: a name, a sentence or an index")
            if not -len(self.motions) <= which < len(self.motions):
                raise LookupError(
                    f"dimo/{self.object} has {len(self.motions)} motions, there is no number {which}"
                )
            return which % len(self.motions)
        query = _plain(which)
        for labels in (self.motions, self.sentences):
            plain = [_plain(label) for label in labels]
            if query in plain:
                return plain.index(query)
        sentences = {_plain(sentence): sentence for sentence in self.sentences}
        close = [sentences[each] for each in difflib.get_close_matches(query, sentences, n=4, cutoff=0.5)]
        close += [s for p, s in sentences.items() if query in p and s not in close][:4]
        advice = f"did you mean {' or '.join(map(repr, close))}?" if close else "see .motions"
        raise LookupError(f"dimo/{self.object} has no motion {which!r}: {advice}")

    def _decode(
        self, z: Tensor | Sequence[float], name: str, frames: int | None = None, model: DIMO | None = None
    ) -> Motion:
        model = model or self.model
        z = self._latent(z, model)
        phases = self.phases.to(z)
        phases = phases if frames is None else evenly(phases, frames)
        motion = decode(model, z, phases, name, self.seconds, self.object)
        return replace(motion, exact=frames is not None, trained=self.sentences)

    def _placed(self, model: DIMO) -> DIMO:
        """The model, unless it is on the device meta."""
        if model.mu.is_meta:
            raise PlacementError(
                f"dimo/{self.object} is on the device meta, which holds no values; load the model again"
            )
        return model

    def _latent(self, z: Tensor | Sequence[float], model: DIMO) -> Tensor:
        """A latent [Z] on the model's device and in its precision."""
        mu = self._placed(model).mu
        check_numbers(z, f"dimo/{self.object}: z")
        z = torch.as_tensor(z, dtype=mu.dtype, device=mu.device)
        if z.shape != mu.shape[1:]:
            raise ValueError(f"dimo/{self.object}: expected a latent z [{mu.shape[1]}], got {list(z.shape)}")
        if not z.isfinite().all():
            raise ValueError(f"dimo/{self.object}: expected a finite latent z, got NaN or infinity in it")
        return z

    def _own(self, motion: Motion) -> Motion:
        """A motion whose latent is one of this model, on its device."""
        if not same_weights(motion.model, self.model):
            other = (
                "another revision of it, with other weights"
                if motion.object_name == self.object
                else f"dimo/{motion.object_name}"
                if motion.object_name
                else "another model"
            )
            raise ValueError(
                f"dimo/{self.object}: expected a motion of this model, got {motion.name!r} of {other}, whose latents "
                f"mean something else here; choose one of .motions, or draw one with .sample()"
            )
        return replace(motion, z=self._latent(motion.z, self.model))


def _plain(words: str) -> str:
    """Normalise a name or sentence: lower case, alphanumeric words separated by single spaces."""
    return " ".join("".join(c if c.isalnum() else " " for c in words.lower()).split())
