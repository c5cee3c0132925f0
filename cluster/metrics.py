"""Metrics of a run for Prometheus, through the exporter that Ray runs on every machine of a cluster.

The driver sets them whenever it writes its progress file. Ray prefixes their names with `ray_`, and adds labels of its
own, such as the session. They have the label `Stage`.
"""

from __future__ import annotations

from typing import Any

from cluster.progress import RunProgress
from cluster.status import MINUTE_S, rate

# Name → description. All are gauges: a driver that resumes a run starts with the number of resolved tasks.
GAUGES = {
    "menagerie_tasks_done": "Tasks that are done, including those of earlier runs",
    "menagerie_tasks_filtered": "Tasks that were deliberately left out, including those of earlier runs",
    "menagerie_tasks_failed": "Quarantined tasks, including those of earlier runs",
    "menagerie_tasks_running": "Tasks that are being processed",
    "menagerie_tasks_waiting": "Tasks that wait in the driver; the source may have more",
    "menagerie_tasks_per_second": "Tasks resolved per second in the last minute",
    "menagerie_workers": "Live workers",
    "menagerie_workers_lost": "Workers that died in this run",
}


class RunMetrics:
    """The metrics of one run. Needs a connection to Ray.

    Args:
        stage: class name of the stage, the value of the label `Stage`.
    """

    def __init__(self, stage: str) -> None:
        from ray.util.metrics import Gauge

        self._tags = {"Stage": stage}
        self._gauges: dict[str, Any] = {
            name: Gauge(name, description, tag_keys=("Stage",)) for name, description in GAUGES.items()
        }

    def update(self, progress: RunProgress) -> None:
        """Set all metrics to the state of the run."""
        values = {
            "menagerie_tasks_done": progress.counts.get("done", 0),
            "menagerie_tasks_filtered": progress.counts.get("filtered", 0),
            "menagerie_tasks_failed": progress.counts.get("quarantined", 0),
            "menagerie_tasks_running": progress.running,
            "menagerie_tasks_waiting": progress.queued,
            "menagerie_tasks_per_second": rate([progress], MINUTE_S) or 0.0,
            "menagerie_workers": progress.workers,
            "menagerie_workers_lost": progress.workers_lost,
        }
        for name, value in values.items():
            self._gauges[name].set(float(value), tags=self._tags)
