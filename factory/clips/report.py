"""Progress display and closing table of `factory.render`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cluster import Progress, Report
from cluster.storage import Storage
from factory.clips.left_out import run_name
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult, Tally
from factory.console import Status
from zoo.terminal import printable

_MOST_LISTED = 20
# Whether --turntable is given → what to do about static models.
_STATIC_HELP = {False: "--turntable makes clips in which they turn once", True: "they give no clip"}


def render_status(progress: Progress, tally: Tally) -> Status:
    """The run at this moment, for the progress display."""
    return Status(
        unit="clips",
        done=tally.rendered,
        total=tally.planned,
        growing=not progress.exhausted,
        seconds=progress.seconds,
        facts={
            "assets": tally.assets,
            "quarantined": len(tally.quarantined),
            "workers": progress.workers,
            "clips/min": round(60.0 * tally.new / max(progress.seconds, 1e-9), 1),
        },
    )


def tally_to_json(tally: Tally) -> dict[str, Any]:
    """The counts as plain JSON values."""
    return {**vars(tally), "renderers": sorted(tally.renderers)}


def summary(result: RenderResult, stage: RenderStage) -> str:
    """The closing table: clips rendered, left out and quarantined, and throughput against its ceiling."""
    report, tally = result.report, result.tally
    earlier = f", {tally.resumed} of them in earlier runs" if tally.resumed else ""
    lines = [f"rendered     {tally.rendered} clips of {tally.assets} assets{earlier}"]
    left_out = tally.rejected + tally.filtered
    lines.append(
        f"left out     {sum(tally.rejected.values())} animations, {sum(tally.filtered.values())} assets"
    )
    lines += _counted(left_out)
    if tally.dead:
        lines.append(f"dead         {sum(tally.dead.values())} assets are gone")
        lines += _counted(tally.dead)
    if tally.noted:
        lines.append(f"notes        {tally.noted} assets are not drawn exactly as their files specify")
        lines += _counted(tally.notes)
    if tally.clip_notes:
        lines.append("clips        some repeat a cycle or stand still in part")
        lines += _counted(tally.clip_notes)
    if tally.static:
        lines.append(f"static       {tally.static} models are not animated; {_STATIC_HELP[stage.turntable]}")
    if tally.turntables:
        lines.append(f"turntable    {tally.turntables} models that are not animated turn once")
    lines.append(f"quarantined  {len(tally.quarantined)}")
    listed = list(tally.quarantined.items())[:_MOST_LISTED]
    lines += [
        f"             {printable(label)}: {printable(cause.removeprefix(label + ': '))}"
        for label, cause in listed
    ]
    if len(tally.quarantined) > len(listed):
        lines.append(
            f"             … and {len(tally.quarantined) - len(listed)} more, in _factory/quarantine/"
        )
    if tally.new:
        lines += _throughput(report, tally, stage)
    return "\n".join(lines)


def _counted(reasons: Counter[str]) -> list[str]:
    """One line per reason, the most frequent first. Reasons may quote names from the files."""
    return [
        f"             {count:5d}  {printable(reason)}" for reason, count in reasons.most_common(_MOST_LISTED)
    ]


def _throughput(report: Report, tally: Tally, stage: RenderStage) -> list[str]:
    """Clips per minute, beside the rate if the same workers did nothing but rasterise."""
    drawn = tally.seconds["render"]
    rate = tally.new / report.wall_s
    ceiling = tally.new / drawn * report.workers
    frames = stage.recipe.views * stage.recipe.num_frames
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(tally.seconds.items()))
    drawn_by = "; ".join(map(printable, sorted(tally.renderers)))
    return [
        f"throughput   {60 * rate:.1f} clips/min, {3600 * rate * frames / report.workers:,.0f} frames/h per worker, "
        f"{report.workers} workers, {report.wall_s:.0f} s",
        f"ceiling      {60 * ceiling:.1f} clips/min if the workers only rasterised; {rate / ceiling:.2f} of it reached",
        f"worker-s     {parts}, waiting {max(report.workers * report.wall_s - sum(tally.seconds.values()), 0):.1f}",
        f"drawn by     {drawn_by}; {tally.bytes / tally.new / 2**20:.2f} MiB per clip",
    ]


def write_run_file(
    storage: Storage, arguments: Mapping[str, object], stage: RenderStage, result: RenderResult
) -> str:
    """Write the resolved configuration and the counts of the run to `_factory/runs/`; returns the run's name."""
    content = {
        "arguments": dict(arguments),
        "recipe": asdict(stage.recipe),
        "settings": stage.settings.to_dict(),
        "tally": tally_to_json(result.tally),
        "workers": result.report.workers,
        "wall_s": result.report.wall_s,
        "busy_s": dict(result.report.busy_s),
        "children_restarted": result.report.children_restarted,
        "workers_lost": result.report.actors_lost,
    }
    name = run_name()
    storage.write(f"_factory/runs/{name}.json", json.dumps(content, indent=1).encode())
    return name
