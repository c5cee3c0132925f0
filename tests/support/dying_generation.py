"""`dying_generation.py FOLDER [OPTION …]`: `factory.motions`, in which the first task of every stage kills its process.

FOLDER keeps which stages have done so: each does it once. Prompts and decisions run in the driver, which then dies.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cluster import Outcome, Task
from factory.generation import stages

FOLDER = "DYING_GENERATION"  # environment variable, which the workers inherit


class _Dies:
    """The first task of this kind of stage ends in SIGKILL."""

    def process(self, task: Task) -> Outcome:
        try:
            Path(os.environ[FOLDER], type(self).__name__).open("x").close()
        except FileExistsError:
            return super().process(task)  # type: ignore[misc]
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class PromptStage(_Dies, stages.PromptStage):
    """See the module."""


class VideoStage(_Dies, stages.VideoStage):
    """See the module."""


class MatteStage(_Dies, stages.MatteStage):
    """See the module."""


class MeasureStage(_Dies, stages.MeasureStage):
    """See the module."""


class JudgeStage(_Dies, stages.JudgeStage):
    """See the module."""


class ViewsStage(_Dies, stages.ViewsStage):
    """See the module."""


class AssembleStage(_Dies, stages.AssembleStage):
    """See the module."""


KINDS = (PromptStage, VideoStage, MatteStage, MeasureStage, JudgeStage, ViewsStage, AssembleStage)


def main() -> int:
    import dying_generation  # not from __main__, which the workers cannot import

    from factory.generation import run
    from factory.motions import main as motions

    os.environ[FOLDER] = sys.argv[1]
    for kind in dying_generation.KINDS:
        setattr(run, kind.__name__, kind)
    return motions(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
