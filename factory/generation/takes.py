"""State of a generation in the driver: prompts, videos, and the records of their tasks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import Record
from factory.generation.jobs import GenerationRecipe, StillObject, ViewGeometry
from factory.motion_videos.run import SubjectVideos


@dataclass
class TakeState:
    """One prompt and what became of it.

    Attributes:
        text, heldout, origin: the prompt.
        seed: of its video.
        folder: of its video, relative to the output.
        video, matte, measure, judge: records of its tasks; None before they are resolved.
        views, views_matte, views_measure, views_judge: those of the added views; None where none were added.
        assembled: record of the motion in DIMO's layout.
    """

    text: str
    heldout: bool
    origin: str
    seed: int
    folder: str
    video: Record | None = None
    matte: Record | None = None
    measure: Record | None = None
    judge: Record | None = None
    views: Record | None = None
    views_matte: Record | None = None
    views_measure: Record | None = None
    views_judge: Record | None = None
    assembled: Record | None = None

    @property
    def views_folder(self) -> str:
        """Folder of the video with added views."""
        return f"{self.folder}/views"

    @property
    def kept(self) -> bool:
        """Whether every judgement so far is in its favour."""
        return _done(self.judge) and (self.views is None or _done(self.views_judge))

    @property
    def fault(self) -> str:
        """Why it was left out; "" if it was kept or is not resolved yet."""
        for record in (
            self.video,
            self.matte,
            self.measure,
            self.judge,
            self.views,
            self.views_matte,
            self.views_measure,
            self.views_judge,
        ):
            if record is not None and record.status != "done":
                return record.reason
        return ""

    @property
    def final(self) -> Record | None:
        """Record of the video with the most views."""
        return self.views if _done(self.views) else self.video if _done(self.video) else None

    @property
    def final_folder(self) -> str:
        """Folder of the video with the most views."""
        return self.views_folder if _done(self.views) else self.folder

    @property
    def geometry(self) -> ViewGeometry | None:
        return None if self.final is None else ViewGeometry.from_json(self.final.summary["geometry"])


def _done(record: Record | None) -> bool:
    return record is not None and record.status == "done"


@dataclass
class StageCount:
    """What a stage did, over this run and those before it.

    Attributes:
        total: number of tasks.
        done, filtered, quarantined: how many ended so.
        resumed: how many were resolved before this run.
        seconds: worker time of all of them.
        reasons: why tasks were filtered or quarantined → how many.
    """

    total: int = 0
    done: int = 0
    filtered: int = 0
    quarantined: int = 0
    resumed: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, total: int, records: Iterable[Record]) -> StageCount:
        count = cls(total)
        for record in records:
            setattr(count, record.status, getattr(count, record.status) + 1)
            count.resumed += record.resumed
            count.seconds += record.seconds
            if record.status != "done":
                count.reasons[record.reason] += 1
        count.seconds = round(count.seconds, 2)
        return count

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "reasons": dict(self.reasons.most_common())}


@dataclass
class Generation:
    """The result of `generate_motions`.

    Attributes:
        still, recipe: what was generated.
        takes: one per prompt.
        stages: name → counts.
        counts: of the prompts' writer.
        folder: of the videos and the report.
        report: the page.
        videos: the motion videos in DIMO's layout, or why there are none.
    """

    still: StillObject
    recipe: GenerationRecipe
    takes: list[TakeState] = field(default_factory=list)
    stages: dict[str, StageCount] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    folder: Path = Path()
    report: Path | None = None
    videos: SubjectVideos = field(default_factory=lambda: SubjectVideos(""))

    @property
    def kept(self) -> list[TakeState]:
        return [take for take in self.takes if take.kept]


def video_seed(seed: int, text: str) -> int:
    """Seed of the video of a sentence: different for every sentence, and the same in every plan that has it."""
    return int(hashlib.sha256(f"{seed}\x1f{text}".encode()).hexdigest()[:7], 16)


def stage_lines(stages: Mapping[str, StageCount]) -> list[str]:
    """One line per stage for the closing table."""
    lines = []
    for name, count in stages.items():
        parts = [f"{count.done} of {count.total} done"]
        parts += [f"{count.filtered} left out"] if count.filtered else []
        parts += [f"{count.quarantined} given up"] if count.quarantined else []
        parts += [f"{count.resumed} from earlier runs"] if count.resumed else []
        lines.append(f"{name:16} {', '.join(parts)}, {count.seconds:.1f} s of workers")
    return lines
