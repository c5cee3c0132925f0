"""The state of a run, from the files in its output folder alone: while it is going, afterwards, and after a crash.

Nothing is written, and the output folder need not be on this machine.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.arguments import file_name, instance
from cluster.ledger import Ledger
from cluster.lock import fresh_claims
from cluster.progress import HISTORY_S, MOST_LISTED, WRITE_S, RunProgress, TaskTime
from cluster.storage import Storage

STALE_S = 60.0  # without an update, a run is assumed to be dead
WATCH_S = 2.5 * WRITE_S  # a run that looks dead is watched for this long, since the clocks of machines differ
MOST_CLOCK_ERROR_S = 86_400.0
MINUTE_S = 60.0


@dataclass(frozen=True)
class JobStatus:
    """State of a job: its ledger, and its newest run.

    Attributes:
        state: "running"; "finished"; "interrupted" by Ctrl-C or SIGTERM; "failed" with an error; "lost" if the driver
            was killed or cannot be seen; "unknown" if only an older version ran the job.
        counts: status → number of resolved tasks.
        failing: cause → number of quarantined tasks, the most frequent ones.
        rate_minute, rate_hour: tasks resolved per second in the last minute and hour of the run; None without data.
        left: number of unresolved tasks that are known or planned; None if the job's size is not known.
        eta_s: seconds until they are resolved; None if that cannot be told.
        eta_basis: what `eta_s` is derived from, or why it is None.
        age_s: seconds since the last update, by this machine's clock; None without a progress file.
        run: the progress file of the newest run, if there is one.
        writers: the commands that are writing to the folder.
    """

    state: str
    counts: Mapping[str, int]
    failing: Mapping[str, int]
    rate_minute: float | None
    rate_hour: float | None
    left: int | None
    eta_s: float | None
    eta_basis: str
    age_s: float | None
    run: RunProgress | None
    writers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the status as a JSON object."""
        return {**asdict(self), "run": None if self.run is None else self.run.to_json()}


def read_status(storage: Storage, namespace: str = "_factory") -> JobStatus | None:
    """Read the state of the job with this ledger; None if there is no ledger.

    While the driver lives, its progress file is the source of all figures, so this takes few requests. Otherwise the
    tasks are counted in the ledger, since workers may have committed more of them.

    Args:
        storage: the output folder.
        namespace: folder of the ledger, relative to it.

    Raises:
        StorageError: the storage cannot be read.
    """
    instance(storage, Storage, "read_status: storage")
    file_name(namespace, "read_status: namespace")
    runs = _read_runs(storage, namespace)
    writers = tuple(map(str, fresh_claims(storage, namespace)))
    newest = runs[-1] if runs else None
    now = time.time()
    age = None if newest is None else max(0.0, now - newest.updated)
    state = "unknown"
    if newest is not None:
        state = newest.state
        if state == "running" and abs(now - newest.updated) > STALE_S:
            later = _next_update(storage, namespace, newest)
            if later is None:
                state = "lost"
            else:
                runs[-1] = newest = later
                state, age = newest.state, 0.0
    if newest is not None and state in ("running", "finished"):
        counts, failing = dict(newest.counts), newest.reasons.get("quarantined", {})
    else:
        ledger = Ledger(storage.url, namespace)
        counts = {status: number for status, number in ledger.count().items()}
        failing = dict(ledger.causes().most_common(MOST_LISTED))
        if newest is None and not counts:
            return None
    rate_minute, rate_hour = rate(runs, MINUTE_S), rate(runs, HISTORY_S)
    left = None if newest is None else _left(newest)
    eta, basis = _eta(state, newest, left, rate_hour)
    return JobStatus(state, counts, failing, rate_minute, rate_hour, left, eta, basis, age, newest, writers)


def _next_update(storage: Storage, namespace: str, run: RunProgress) -> RunProgress | None:
    """Watch a run that looks dead: its next progress file, None if it writes none."""
    if abs(time.time() - run.updated) > MOST_CLOCK_ERROR_S:
        return None
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 5))
        runs = _read_runs(storage, namespace)
        if runs and runs[-1].updated != run.updated:
            return runs[-1]
    return None


def rate(runs: Sequence[RunProgress], window_s: float) -> float | None:
    """Tasks resolved per second in the last `window_s` seconds before the newest update; None without data.

    Args:
        runs: oldest first. Earlier runs count as far as they are within the window, and so does the time between them.
    """
    if not runs:
        return None
    end = runs[-1].updated
    begin = max(end - window_s, min(run.started for run in runs))
    resolved = sum(_resolved_at(run, end) - _resolved_at(run, begin) for run in runs)
    return resolved / (end - begin) if end > begin else None


def _resolved_at(run: RunProgress, at: float) -> float:
    """Number of tasks that a run had resolved at a time, interpolated between its samples."""
    samples = [*run.samples, (run.updated, run.resolved)]
    if at <= samples[0][0]:
        return samples[0][1]
    for (before, low), (after, high) in itertools.pairwise(samples):
        if at < after:
            return low + (high - low) * (at - before) / (after - before)
    return samples[-1][1]


def _left(run: RunProgress) -> int | None:
    """Number of unresolved tasks; None if the source may have any number of further ones."""
    known = run.running + run.queued
    if run.exhausted:
        return known
    if run.planned is None or not run.pulled:
        return None
    # Tasks have follow-up tasks: those still in the source are assumed to have as many as those before.
    per_pulled = (sum(run.counts.values()) + known) / run.pulled
    return known + round((run.planned - run.pulled) * per_pulled)


def _eta(
    state: str, run: RunProgress | None, left: int | None, rate_hour: float | None
) -> tuple[float | None, str]:
    if state != "running" or run is None:
        return None, f"the run is {state}" if state != "unknown" else "no run has written its progress"
    if left is None:
        return None, f"the source of tasks has no known size; {run.running + run.queued} tasks are known"
    if not rate_hour:
        return None, f"{left} tasks are left, and none was resolved in the last hour"
    span = min(run.updated - run.started, HISTORY_S)
    basis = f"{left} tasks left at the rate of the last {_duration(span)}"
    if not run.exhausted:
        basis += f"; {run.pulled} of {run.planned} tasks of the source gave their follow-up tasks so far"
    return left / rate_hour, basis


def _read_runs(storage: Storage, namespace: str) -> list[RunProgress]:
    """The progress files, in the order in which they were last written, those of live runs last.

    Damaged ones are left out.
    """
    names = [f"{namespace}/progress/{name}" for name in storage.names(f"{namespace}/progress")]
    runs = []
    for data in storage.read_many(names).values():
        try:
            runs.append(RunProgress.from_json(json.loads(data)))
        except (ValueError, TypeError, KeyError):
            continue
    now = time.time()
    return sorted(
        runs, key=lambda run: (run.state == "running" and now - run.updated <= STALE_S, run.updated)
    )


def _duration(seconds: float) -> str:
    """ "12 s", "3 min", "2 h 10 min", "3 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def status_lines(status: JobStatus) -> list[str]:
    """The status as a table for people."""
    run, counts = status.run, status.counts
    lines = []
    if run is not None:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started))
        lines.append(f"run          {run.stage}, process {run.pid} on {run.host} since {since}")
    age = "" if status.age_s is None else f", updated {_duration(status.age_s)} ago"
    lines.append(f"state        {_STATES.get(status.state, status.state)}{age}")
    done = f"{counts.get('done', 0):,} done, {counts.get('filtered', 0):,} filtered"
    lines.append(f"tasks        {done}, {counts.get('quarantined', 0):,} quarantined")
    if run is not None and status.state == "running":
        more = "" if run.exhausted else f", and more in the source ({run.pulled:,} taken"
        more += "" if run.exhausted else f" of {run.planned:,})" if run.planned is not None else " so far)"
        lines.append(f"open         {run.running:,} running, {run.queued:,} waiting{more}")
    if status.rate_minute is not None and status.rate_hour is not None:
        lines.append(
            f"rate         {60 * status.rate_minute:.3g} tasks/min in the last minute, "
            f"{60 * status.rate_hour:.3g} in the last hour"
        )
    if status.state == "running":
        eta = "unknown" if status.eta_s is None else _duration(status.eta_s)
        lines.append(f"ETA          {eta}: {status.eta_basis}")
    if run is not None:
        lines.append(f"workers      {run.workers} alive, {run.workers_lost} lost")
    lines += _listed("failing", ((f"{count:,}", cause) for cause, count in status.failing.items()))
    if run is not None:
        lines += _listed("retried", ((f"{count:,}", cause) for cause, count in run.retries.items()))
        lines += _listed("slowest", _times(run.slowest))
        lines += _listed("longest", _times(run.longest) if status.state == "running" else ())
    return [*lines, *(f"writing      {writer}" for writer in status.writers)]


_STATES = {
    "interrupted": "interrupted; the same command resumes",
    "failed": "failed with an error; the same command resumes",
    "lost": "lost: the driver was killed or cannot be seen; the same command resumes",
    "unknown": "no progress file, so the run is of version 0.1 or has not started",
}


def _times(tasks: Sequence[TaskTime]) -> Iterable[tuple[str, str]]:
    return (
        (_duration(each.seconds), f"{each.label} ({each.worker})" if each.worker else each.label)
        for each in tasks
    )


def _listed(title: str, items: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{'' if place else title:12} {value:>6}  {text}" for place, (value, text) in enumerate(items)]
