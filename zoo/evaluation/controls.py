"""Controls: videos whose quality is known, scored as if a model had made them.

A protocol's "order" has pairs of controls: the first must have a better mean score than the second. A metric for which
a pair is the other way round, or equal, is reported as unfit for the protocol: a model could reach a good score in it
without showing the right motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from zoo.evaluation.media import Media

TRUTH, STILL, LATE, OTHER, NEAREST = "truth", "still", "late", "other", "nearest"
SHUFFLED, BLEND = "shuffled", "blend"
ABOUT = {
    TRUTH: "the truth itself",
    STILL: "the first true frame, repeated",
    LATE: "the truth one frame late",
    OTHER: "the truth of another clip of the object",
    NEAREST: "the trained motion whose true video is nearest to the clip's",
    SHUFFLED: "the true frames in random order",
    BLEND: "means of the points of two true motions",
}
TOLERANCE = 1e-9  # scores closer than this are equal


def still(truth: Media) -> Media:
    """The first frame for the whole clip."""
    return truth.take([0] * len(truth))


def late(truth: Media) -> Media:
    """Every frame one step later; the first is shown twice, the last is lost."""
    return truth.take([0, *range(len(truth) - 1)])


def another(index: int, count: int) -> int:
    """Index of the clip whose truth is the control `OTHER` of clip `index`: the one half the list away."""
    return (index + max(1, count // 2)) % count


@dataclass(frozen=True)
class Fitness:
    """Whether a metric can be used with a protocol, and if not, why.

    Attributes:
        fit: it ranks the controls as it should.
        reason: one sentence; "" if it is fit.
    """

    fit: bool
    reason: str = ""


def fitness(
    scores: Mapping[str, float],
    order: Iterable[tuple[str, str]],
    better: str,
    show: Callable[[float], str] = "{:.4g}".format,
) -> Fitness:
    """Check the order of a metric's mean scores of the controls.

    Args:
        scores: control → mean score; pairs that it lacks one of are not checked.
        order: pairs of controls; the first must score better than the second.
        better: "higher" or "lower".
        show: formats a score for the reason.
    """
    sign = 1.0 if better == "higher" else -1.0
    faults = []
    for first, second in order:
        a, b = scores.get(first), scores.get(second)
        if a is None or b is None or math.isnan(a) or math.isnan(b):
            continue
        if sign * (a - b) <= TOLERANCE:
            relation = "not better than" if abs(a - b) <= TOLERANCE else "worse than"
            faults.append(f"scores {ABOUT[first]} ({show(a)}) {relation} {ABOUT[second]} ({show(b)})")
    return Fitness(not faults, "; ".join(faults))
