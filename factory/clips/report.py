"""Progress display and closing table of `factory.render`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from tqdm import tqdm

from cluster import Progress, Report
from cluster.storage import Storage
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult, Tally

_STATUS_EVERY_S = 10.0
_MOST_LISTED = 20


class RenderProgress:
    """A progress bar on a terminal, a line every 10 s elsewhere."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._bar: tqdm | None = None
        self._started = self._next = time.monotonic()

    def __enter__(self) -> RenderProgress:
        if sys.stderr.isatty():
            self._bar = tqdm(unit="clip", dynamic_ncols=True, smoothing=0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        tally = self._tally
        more = "" if progress.exhausted else "+"
        if self._bar is not None:
            self._bar.total = tally.planned
            self._bar.n = tally.rendered
            self._bar.set_postfix_str(
                f"assets {tally.assets}, quarantined {len(tally.quarantined)}, {progress.workers} workers"
            )
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _STATUS_EVERY_S
        rate = 60.0 * tally.new / max(now - self._started, 1e-9)
        print(
            f"[{progress.seconds:5.0f} s] clips {tally.rendered}/{tally.planned}{more}, assets {tally.assets}, "
            f"quarantined {len(tally.quarantined)}, {progress.workers} workers, {rate:.1f} clips/min",
            file=sys.stderr,
            flush=True,
        )


def summary(result: RenderResult, stage: RenderStage) -> str:
    """The closing table: what was rendered, left out and given up, and how fast against the ceiling."""
    report, tally = result.report, result.tally
    again = f", {tally.resumed} of them by earlier runs" if tally.resumed else ""
    lines = [f"rendered     {tally.rendered} clips of {tally.assets} assets{again}"]
    left_out = tally.rejected + tally.filtered
    lines.append(
        f"left out     {sum(tally.rejected.values())} animations, {sum(tally.filtered.values())} assets"
    )
    lines += [f"             {count:5d}  {reason}" for reason, count in left_out.most_common(_MOST_LISTED)]
    if tally.dead:
        lines.append(f"dead         {sum(tally.dead.values())} assets are gone")
        lines += [
            f"             {count:5d}  {reason}" for reason, count in tally.dead.most_common(_MOST_LISTED)
        ]
    lines.append(f"quarantined  {len(tally.quarantined)}")
    listed = list(tally.quarantined.items())[:_MOST_LISTED]
    lines += [f"             {label}: {cause.removeprefix(label + ': ')}" for label, cause in listed]
    if len(tally.quarantined) > len(listed):
        lines.append(
            f"             … and {len(tally.quarantined) - len(listed)} more, in _factory/quarantine/"
        )
    if tally.new:
        lines += _throughput(report, tally, stage)
    return "\n".join(lines)


def _throughput(report: Report, tally: Tally, stage: RenderStage) -> list[str]:
    """Clips a minute beside what rasterising alone would give on as many workers."""
    drawn = tally.seconds["render"]
    rate = tally.new / report.wall_s
    ceiling = tally.new / drawn * report.workers
    frames = stage.recipe.views * stage.recipe.num_frames
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(tally.seconds.items()))
    return [
        f"throughput   {60 * rate:.1f} clips/min, {3600 * rate * frames / report.workers:,.0f} frames/h per worker, "
        f"{report.workers} workers, {report.wall_s:.0f} s",
        f"ceiling      {60 * ceiling:.1f} clips/min if workers did nothing but rasterise: {rate / ceiling:.2f} of it",
        f"worker-s     {parts}, waiting {max(report.workers * report.wall_s - sum(tally.seconds.values()), 0):.1f}",
        f"drawn by     {'; '.join(sorted(tally.renderers))}; {tally.bytes / tally.new / 2**20:.2f} MiB a clip",
    ]


def write_run_file(
    storage: Storage, args: argparse.Namespace, stage: RenderStage, result: RenderResult
) -> None:
    """The resolved configuration of the run and what came of it, beside the data."""
    content = {
        "arguments": vars(args),
        "recipe": asdict(stage.recipe),
        "settings": stage.settings.to_dict(),
        "tally": {**vars(result.tally), "renderers": sorted(result.tally.renderers)},
        "workers": result.report.workers,
        "wall_s": result.report.wall_s,
        "busy_s": dict(result.report.busy_s),
        "children_restarted": result.report.children_restarted,
        "workers_lost": result.report.actors_lost,
    }
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    storage.write(f"_factory/runs/{name}.json", json.dumps(content, indent=1).encode())
