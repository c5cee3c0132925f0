"""The report of an object as one HTML file: prompts, videos, scores, verdicts, totals, and a wall of the kept videos.

The page loads nothing from elsewhere. Texts of any origin are escaped, and a content policy forbids scripts.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cluster import Record, atomic_path
from factory.generation.stages import ABOUT, VIDEO, Take, read_take
from factory.generation.takes import Generation, StageCount, TakeState
from renderers.video import encode_h264
from zoo.export.html.page import escaped

SIDE = 128  # pixels of a view on the page, along its longer side
WALL_SIDE = 96
MOST_VIEWS = 4  # shown of a video
POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:"
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
:root { --line: #8884; --bad: #c0392b; --good: #1e8449; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a7a; --good: #6fdc98; } }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .4rem; }
.wall figure { margin: 0; } .wall video { width: 100%; border-radius: 4px; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top; }
th { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.take { border-top: 1px solid var(--line); padding: .8rem 0; display: grid; gap: 0 1.2rem;
  grid-template-columns: minmax(0, 33rem) minmax(0, 1fr); }
.take h3 { grid-column: 1 / -1; margin: 0 0 .4rem; overflow-wrap: anywhere; font-size: 1rem; }
.take video { width: 100%; border-radius: 4px; background: #7f7f7f; }
.kept { color: var(--good); } .out { color: var(--bad); }
.scores { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 0 1rem; font-size: .85rem; }
.scores div { display: flex; justify-content: space-between; gap: .5rem; }
.key { font: .75rem ui-monospace, monospace; opacity: .7; overflow-wrap: anywhere; }
@media (max-width: 50rem) { .take { grid-template-columns: 1fr; } }
"""


def write_page(generation: Generation, root: str | Path) -> None:
    """Write the page of a generation to `generation.report`.

    Args:
        root: the output, to which the folders of the takes are relative.
    """
    page = _page(generation, Path(root))
    assert generation.report is not None
    with atomic_path(generation.report) as part:
        part.write_text(page, encoding="utf-8")


def _page(generation: Generation, root: Path) -> str:
    title = escaped(f"Generated motions of {generation.still.name}")
    limits = generation.recipe.thresholds.to_json()
    figures, sections = [], []
    for take in generation.takes:
        video = _read(root / take.final_folder)  # one at a time: they may be large
        sections.append(_take(take, video, limits))
        if take.kept and video is not None:
            figures.append(_figure(take, video))
    wall, rows = "\n".join(figures), "\n".join(sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
{_summary(generation)}
<h2>Kept: {len(generation.kept)} of {len(generation.takes)}</h2>
<div class="wall">
{wall}
</div>
<h2>Stages</h2>
{_stages(generation.stages)}
<h2>All prompts</h2>
{rows}
</body></html>
"""


def _summary(generation: Generation) -> str:
    recipe, record = generation.recipe, generation.still.record
    videos = generation.videos
    if videos.folder is not None:
        result = f"{videos.motions} motions, {videos.heldout} of them held out, in {videos.folder}"
    else:
        result = f"not assembled: {videos.fault or 'this run did not reach that stage'}"
    counts = ", ".join(f"{name} {count}" for name, count in generation.counts.items())
    facts = [
        ("object", f"{record.title or record.uid}, licence {record.licence}"),
        ("prompts", f"{recipe.writer.kind} {recipe.writer.name}: {counts}"),
        ("video model", f"{recipe.video_model.name} {recipe.video_model.revision[:12]}"),
        ("views model", recipe.views_model.name),
        ("matte", recipe.matte.name),
        ("judge model", recipe.judge_model.name),
        ("thresholds", "thresholds.json beside this page; to change them: --thresholds FILE --only judge"),
        ("motion videos", result),
    ]
    rows = "".join(f"<tr><th>{escaped(name)}<td>{escaped(value)}</tr>" for name, value in facts)
    return f"<table>{rows}</table>"


def _stages(stages: dict[str, StageCount]) -> str:
    head = "<tr><th>stage" + "".join(
        f"<th class=number>{name}"
        for name in (
            "tasks",
            "done",
            "left out",
            "given up",
            "from earlier runs",
            "seconds",
            "seconds per task",
        )
    )
    rows = []
    for name, count in stages.items():
        resolved = count.done + count.filtered + count.quarantined
        values: list[Any] = [
            count.total, count.done, count.filtered, count.quarantined, count.resumed, f"{count.seconds:.1f}",
            f"{count.seconds / resolved:.2f}" if resolved else "–",
        ]  # fmt: skip
        rows.append(f"<tr><td>{escaped(name)}" + "".join(f"<td class=number>{value}" for value in values))
        rows += [
            f"<tr><td><td colspan=7 class=out>{number} × {escaped(reason)}"
            for reason, number in count.reasons.most_common()
        ]
    return f"<table>{head}{''.join(rows)}</table><p>Seconds are the workers', over all runs.</p>"


def _figure(take: TakeState, video: Take) -> str:
    source = _video(video.frames[:1], video.fps, WALL_SIDE)
    return (
        f"<figure><video src='{source}' autoplay loop muted playsinline></video>"
        f"<figcaption>{escaped(take.text)}</figcaption></figure>"
    )


def _take(take: TakeState, video: Take | None, limits: Mapping[str, float | None]) -> str:
    if take.kept:
        verdict = "<span class=kept>kept</span>"
    elif take.fault:
        verdict = f"<span class=out>left out: {escaped(take.fault)}</span>"
    else:
        verdict = "not judged yet"
    held = ", held out" if take.heldout else ""
    media = (
        f"<video src='{_video(video.frames[:MOST_VIEWS], video.fps, SIDE)}' autoplay loop muted playsinline></video>"
        if video is not None
        else "no video"
    )
    judge = take.views_judge or take.judge
    return (
        f"<section class=take><h3>{escaped(take.text)} <small>({escaped(take.origin)}{held})</small> – {verdict}</h3>"
        f"<div>{media}</div><div>{_scores(judge, limits)}{_keys(take, video)}</div></section>"
    )


def _scores(judge: Record | None, limits: Mapping[str, float | None]) -> str:
    """The scores of a video, each with its threshold."""
    if judge is None or "scores" not in judge.summary:
        return ""
    summary = judge.summary
    cells = []
    for name, value in summary["scores"].items():
        shown = "not measured" if value is None else f"{value:.3g}"
        for side, sign in (("min", "≥"), ("max", "≤")):
            if (limit := limits.get(f"{side}_{name}")) is not None:
                shown += f" <small>({sign} {limit:g})</small>"
        bad = " class=out" if name in summary["failed"] else ""
        cells.append(f"<div{bad}><span>{escaped(name)}</span><span class=number>{shown}</span></div>")
    return f"<div class=scores>{''.join(cells)}</div>"


def _keys(take: TakeState, video: Take | None) -> str:
    """What made the video and the verdict, as keys of the ledgers."""
    keys = [
        f"{name} {record.key[:16]}"
        for name, record in (
            ("video", take.video),
            ("matte", take.matte),
            ("judge", take.judge),
            ("views", take.views),
        )
        if record is not None
    ]
    about = ""
    if video is not None:
        V, T, H, W, _ = video.frames.shape
        views = ", ".join(_degrees(video.geometry.azimuths_deg))
        elevations = ", ".join(sorted(set(_degrees(video.geometry.elevations_deg))))
        about = (
            f"<p class=key>{V} views at azimuth {views}°, elevation {elevations}°; {T} frames of {W}×{H} at "
            f"{video.fps:g} fps; seed {take.seed}</p>"
        )
    return f"{about}<p class=key>{escaped('; '.join(keys))}</p>"


def _degrees(values: Iterable[float]) -> list[str]:
    return [f"{value:g}" for value in values]


def _read(folder: Path) -> Take | None:
    """The video of a take; None if it does not exist or is damaged."""
    if not (folder / VIDEO).is_file() or not (folder / ABOUT).is_file():
        return None
    try:
        return read_take(folder)
    except (OSError, ValueError, KeyError):
        return None


def _video(frames: np.ndarray, fps: float, side: int) -> str:
    """Views [V, T, H, W, 3] beside each other as a data URI, each `side` pixels along its longer side."""
    from PIL import Image

    H, W = frames.shape[2:4]
    factor = side / max(H, W)
    height, width = (2 * max(1, round(length * factor / 2)) for length in (H, W))
    row = np.stack(
        [
            np.concatenate(
                [np.asarray(Image.fromarray(view[t]).resize((width, height))) for view in frames], axis=1
            )
            for t in range(frames.shape[1])
        ]
    )
    data = encode_h264(row, min(max(fps, 0.01), 1000.0), crf=24, gop=250)
    return "data:video/mp4;base64," + base64.b64encode(data).decode()
