"""The notes of a clip on its motion (column `notes`), with their durations, and counted without."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CYCLE = "cycle without closing key"
_STILL = {part: f"stands still at its {part}" for part in ("beginning", "end")}
_OF_MOTION = re.compile("|".join(map(re.escape, (_CYCLE, *_STILL.values()))))


def cycle_note(period: float) -> str:
    """The note of a clip that repeats a cycle without the closing key. `period`: seconds."""
    return f"{_CYCLE}, repeated every {period:.3f} s"


def still_note(part: str, seconds: float) -> str:
    """The note of a clip that stands still at its "beginning" or "end"."""
    return f"{_STILL[part]} for {seconds:.3f} s"


def is_of_motion(note: str) -> bool:
    """Whether a note is one of this module's, not one on how the model is drawn."""
    return _OF_MOTION.match(note) is not None


def countable(note: str) -> str:
    """The note without its duration, so that equal ones can be counted; other notes are unchanged."""
    match = _OF_MOTION.match(note)
    return match.group() if match else note


def count_notes(notes: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """Number of clips with each note, without durations, by the notes of each clip."""
    counts: dict[str, int] = {}
    for clip in notes:
        for note in dict.fromkeys(map(countable, clip)):
            counts[note] = counts.get(note, 0) + 1
    return counts
