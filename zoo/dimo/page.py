"""The content of a page that plays motions of a model in the browser (`zoo.export.html`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import shown
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.precision import same_weights
from zoo.errors import UnsupportedError

if TYPE_CHECKING:
    from zoo.export.html import SkinnedSplats

FPS = (
    24  # frames stored per second unless the number of frames was chosen; the page interpolates between them
)
PREVIEW_FRAMES, PREVIEW_SIDE = 24, 192  # in notebooks
MOST_JOINTS = 65536  # indices are stored in 16 bits


@torch.no_grad()
def skinned_splats(
    model: DIMO, motions: Sequence[tuple[str, KeyPointMotion]], phases: Tensor, seconds: float
) -> SkinnedSplats:
    """The Gaussians of a model and some of its motions.

    Args:
        model: the model.
        motions: names, and trajectories [T, K, …].
        phases: of the frames, [T].
        seconds: duration of the phases 0..1.
    """
    from zoo.export.html import SkinnedSplats

    if model.config.factorised:
        joints, rest = model.neighbours, model.key_points
        weights = model.skinning_weights().gather(1, joints)
    else:  # every Gaussian is a key point of its own
        joints, rest = torch.arange(len(model.means))[:, None], model.means
        weights = torch.ones(len(model.means), 1)
    dtype = model.means.dtype  # the others may be stored in half precision
    return SkinnedSplats(
        means=_numpy(model.means),
        scales=_numpy(model.scales),
        quats=_numpy(model.quats),
        opacities=_numpy(model.opacity_logits.to(dtype).sigmoid()),
        colors=_numpy(model.colors),
        joints=joints.cpu().numpy(),
        weights=_numpy(weights),
        rest=_numpy(rest),
        positions=np.stack([_numpy(each.positions) for _, each in motions]),
        rotations=np.stack([_numpy(each.rotations) for _, each in motions]),
        names=tuple(name for name, _ in motions),
        phases=_numpy(phases),
        seconds=seconds,
        strains=np.stack([_strains(model, each) for _, each in motions]) if model.stretches else None,
        slopes=_numpy(model.weight_slopes()) if model.config.discs and model.config.factorised else None,
        blur=model.blur,
    )


def page_facts(model: DIMO, object_name: str, motions: int, frames: int, seconds: float) -> dict[str, object]:
    """Facts shown on a page and in notebooks, label → value."""
    return {
        **({"model": f"dimo/{object_name}"} if object_name else {}),
        **({"motions": motions} if motions > 1 else {}),
        "frames": frames,
        "seconds": f"{seconds:g}",
        "Gaussians": len(model.means),
        "key points": len(model.key_points),
    }


def motion_card(motion: Any) -> str:
    """HTML of a `zoo.dimo.Motion` for notebooks; without a preview if it cannot be rendered here."""
    from zoo.notebook import card, preview

    facts = page_facts(motion.model, motion.object_name, 1, len(motion.phases), motion.seconds)
    try:
        short = motion if len(motion.phases) <= PREVIEW_FRAMES else motion.resampled(PREVIEW_FRAMES)
        picture = preview(short.render(motion.default_camera(PREVIEW_SIDE))[0], short.fps)
    except (
        RuntimeError,
        ValueError,
        ImportError,
    ):  # no renderer for the device, or weights that are not finite
        picture = None
    return card(motion.name, {**facts, "device": motion.device}, picture)


def check_storable(model: DIMO, name: str) -> None:
    """Refuse a model without key points that is too large for a page.

    Raises:
        UnsupportedError: one sentence.
    """
    if not model.config.factorised and len(model.means) > MOST_JOINTS:
        raise UnsupportedError(
            f"{name}: a page stores at most {MOST_JOINTS} Gaussians of a model without key points, got "
            f"{len(model.means)}; save as .ply or .mp4"
        )


class DecodedMotion(Protocol):
    """The part of `zoo.dimo.Motion` that is needed here."""

    @property
    def name(self) -> str: ...
    @property
    def z(self) -> Tensor: ...
    @property
    def model(self) -> DIMO: ...
    @property
    def trained(self) -> tuple[str, ...]: ...


def other_motions(motion: DecodedMotion, motions: object) -> list[tuple[str, Tensor]]:
    """Names and latents of the further motions of a page.

    Args:
        motion: the motion of the page, which is left out.
        motions: "all" trained motions; a list of their sentences or indices, and of motions; or None.

    Raises:
        TypeError, ValueError: there is no such motion, or it is of another model.
    """
    model = motion.model
    names = motion.trained or tuple(f"motion {index}" for index in range(model.num_motions))
    if motions is None:
        return []
    if isinstance(motions, str) and motions == "all":
        motions = range(len(names))
    elif isinstance(motions, str | bytes) or not isinstance(motions, Sequence):
        raise TypeError(
            f'Motion.save: motions: expected "all", or a list of sentences, indices and motions of this model, got '
            f"{shown(motions)}"
        )
    result = []
    for each in motions:
        if isinstance(each, type(motion)):
            if not same_weights(each.model, model):
                raise ValueError(
                    f"Motion.save: motions: expected motions of one model, got {each!r} of another"
                )
            result.append((each.name, each.z.to(model.mu)))
        else:
            index = _trained_index(each, names)
            result.append((names[index], model.mu[index]))
    return [(name, z) for name, z in result if not torch.equal(z, motion.z.to(z))]


def _trained_index(which: object, names: Sequence[str]) -> int:
    """Index of a trained motion, given by sentence or index (negative ones count from the end)."""
    if isinstance(which, str) and which in names:
        return names.index(which)
    if isinstance(which, int) and not isinstance(which, bool) and -len(names) <= which < len(names):
        return which % len(names)
    raise ValueError(
        f"Motion.save: motions: expected sentences of the model's {len(names)} motions (such as {names[0]!r}), their "
        f"indices, or motions, got {shown(which)}"
    )


def _strains(model: DIMO, motion: KeyPointMotion) -> np.ndarray:
    """The six different entries of the strains of a motion, [T, K, 6]."""
    strains = _numpy(model.strains(motion.positions))
    return strains[..., [0, 1, 2, 0, 1, 0], [0, 1, 2, 1, 2, 2]]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
