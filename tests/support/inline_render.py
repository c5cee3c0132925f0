"""`factory.render` with the job in this very process: no Ray, no child, everything else as the command does it."""

from __future__ import annotations

import sys

import factory.clips.run
import factory.render
from cluster import run_inline


def _run(stage, tasks, ledger, *, workers=None, on_resolved=None, on_tick=None):
    return run_inline(stage, tasks, ledger, on_resolved)


factory.clips.run.run = _run
sys.exit(factory.render.main())
