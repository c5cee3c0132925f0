"""Options that commands share which take assets from sources and render clips: which assets, and which clips."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.assets.exclusions import BENCHMARKS
from factory.assets.licences import POLICIES, UNKNOWN, to_spdx
from factory.assets.selection import Selection
from factory.console import option

RECIPE_HELP = {
    "fps": "frames per second",
    "num_frames": "frames per clip",
    "views": "cameras, evenly spaced in azimuth",
    "resolution": "width and height in pixels, even",
    "max_animations": "animations per asset; more are sampled with --seed",
    "max_elevation_deg": "each clip's elevation is uniform between 0 and this, in degrees",
    "azimuth_jitter_deg": "each clip's azimuth offset is uniform within ± this, in degrees",
    "fov_y_deg": "vertical field of view in degrees",
    "distance": "from the cameras to the origin; the asset is scaled to fill the frame at it",
    "margin": "fraction of the half image kept free around the asset",
    "min_motion": "a clip whose fastest vertex moves less than this fraction of the diagonal is left out",
    "min_duration": "animations shorter than this many seconds are left out",
    "seed": "of every random choice",
}


def _licence(text: str) -> str:
    spdx = to_spdx(text)
    if spdx == UNKNOWN:
        raise argparse.ArgumentTypeError(f"{text!r} is not a known licence; expected one like CC-BY-4.0")
    return spdx


@dataclass(frozen=True)
class SelectionOptions:
    """Which of the listed assets are taken, decided before they are fetched."""

    animated: bool = option(False, "leave out assets listed without an animation")
    licence: tuple[str, ...] = option(
        (), "take only these licences", flags=("--license",), metavar="SPDX", parse=_licence
    )
    tag: tuple[str, ...] = option((), "take only assets with one of these tags")
    max_faces: int | None = option(None, "leave out assets listed with more faces", at_least=1)
    sample: int | None = option(None, "take a random sample of N assets, drawn with --seed", at_least=1)
    policy: str | None = option(
        None,
        "what a licence has to allow (default: research; any for local files and creatures)",
        choices=tuple(POLICIES),
    )
    deny_list: tuple[str, ...] = option(
        (str(BENCHMARKS),),
        "files of uids to leave out, one per line; no file: none. The default list has the test objects of public "
        "benchmarks",
        metavar="FILE",
        empty=True,
        show_default=False,
    )
    allow_unknown_licence: bool = option(False, "take assets whose licence is unknown")
    allow_unknown_noai: bool = option(False, "take assets whose NoAI status could not be checked")
    allow_no_derivatives: bool = option(
        False,
        "take assets whose licence forbids derivatives (CC-BY-ND, CC-BY-NC-ND); their clips are not publishable",
    )

    def selection(self, seed: int) -> Selection:
        return Selection(
            animated=self.animated,
            licences=self.licence,
            tags=self.tag,
            max_faces=self.max_faces,
            sample=self.sample,
            seed=seed,
            policy=self.policy,
            allow_unknown_licence=self.allow_unknown_licence,
            allow_unknown_noai=self.allow_unknown_noai,
            allow_no_derivatives=self.allow_no_derivatives,
        )
