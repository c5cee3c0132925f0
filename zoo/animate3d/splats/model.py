"""`SplatModel`: a still object as Gaussian splats, from a file of 3DGS."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from renderers.arguments import instance
from renderers.files import file_path
from renderers.gaussians import Gaussians, ply
from renderers.gltf import path_text
from renderers.values import by_value
from zoo.errors import ModelError

SOLID = 0.1  # opacity from which a Gaussian counts for the extent of the object
_STRAYS = 0.1  # per cent of Gaussians on each side of an axis that may lie outside of the extent
_FEWEST, _MOST = 10, 1_000_000  # Gaussians


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SplatModel:
    """A still object as Gaussian splats, +Y up, front +Z.

    Attributes:
        gaussians: one scene of N, float32, with `sh`.
        name: for messages.
        notes: sentences about what was assumed.
    """

    gaussians: Gaussians
    name: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"SplatModel({self.name!r}, {self.gaussians.means.shape[1]} Gaussians)"

    @cached_property
    def solid(self) -> np.ndarray:
        """Which Gaussians are more than a haze, bool [N]."""
        return (self.gaussians.opacities[0] >= SOLID).numpy()

    def points(self) -> np.ndarray:
        """Centres of the solid Gaussians without strays, float64 [n, 3]."""
        centres = self.gaussians.means[0].double().numpy()[self.solid]
        low, high = np.percentile(centres, [_STRAYS, 100 - _STRAYS], axis=0)
        return centres[((centres >= low) & (centres <= high)).all(1)]

    def unit(self) -> tuple[np.ndarray, float]:
        """Centre [3] and largest extent of the object: x_unit = (x - centre) / extent."""
        points = self.points()
        low, high = points.min(0), points.max(0)
        return (low + high) / 2, float((high - low).max())


def load_splats(
    source: str | os.PathLike[str] | Gaussians, *, name: str | None = None, up: str | None = None
) -> SplatModel:
    """Load splats that are to be animated.

    Args:
        source: a `.ply` of 3DGS or an `.spz`; or one scene of Gaussians with colours or `sh`.
        name: for messages; None uses the file's name.
        up: the direction that is up in the file, "y" or "-y" (y down, as in most scans); None is the one that the file
            names, and without one "y".

    Raises:
        ModelError: the file cannot be used; one sentence that says why.
        TypeError: `source` is of another type.
    """
    if isinstance(source, Gaussians):
        gaussians, name = source.to("cpu", torch.float32), name or "splats in memory"
        notes: tuple[str, ...] = ()
    else:
        instance(source, (str, os.PathLike), "load_splats: source")
        path = file_path(source, "load_splats: source")
        name = name or path_text(path.name)
        try:
            gaussians = ply.read(path, up=up)
        except (ValueError, RuntimeError) as error:
            raise ModelError(str(error)) from error
        except OSError as error:
            raise ModelError(
                f"{path_text(path)}: cannot be read ({error.strerror}); correct the path"
            ) from error
        notes = () if up is not None or _names_up(path) else (_ASSUMED,)
    count = gaussians.means.shape[1]
    if len(gaussians.means) != 1 or not _FEWEST <= count <= _MOST:
        raise ModelError(
            f"{name}: expected one scene of {_FEWEST} to {_MOST} Gaussians, got {len(gaussians.means)} of {count}; "
            f"remove those that do not belong to the object, for example with SuperSplat"
        )
    for field in ("means", "quats", "scales", "opacities", "sh", "colors"):
        values = getattr(gaussians, field)
        if values is not None and not values.isfinite().all():
            raise ModelError(f"{name}: {field} has values that are not finite; export the splats again")
    if not (gaussians.quats.norm(dim=-1) > 0).all():
        raise ModelError(f"{name}: a rotation is the quaternion 0; export the splats again")
    model = SplatModel(_with_harmonics(gaussians), name, notes)
    if model.solid.sum() < _FEWEST:
        raise ModelError(
            f"{name}: {int(model.solid.sum())} Gaussians have an opacity of {SOLID:g} or more, expected at least "
            f"{_FEWEST}; give the splats of a visible object"
        )
    if not model.unit()[1] > 0:
        raise ModelError(f"{name}: all Gaussians are at one place; give the splats of an object")
    return model


_ASSUMED = (
    "the file does not name the direction that is up: +Y was assumed; up='-y' (--up=-y) turns scans upright"
)


def _names_up(path: os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return os.fspath(path).lower().endswith(".spz") or ply.UP_COMMENT.encode() in file.read(1 << 14)


def _with_harmonics(gaussians: Gaussians) -> Gaussians:
    """The same with `sh` in the place of colours."""
    if gaussians.sh is not None or gaussians.colors is None:
        return gaussians
    sh = ((gaussians.colors - 0.5) / ply.SH_C0)[:, :, None]
    return Gaussians(gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, sh=sh)
