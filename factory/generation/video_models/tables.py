"""The tables of docs/video-models.md, made from the code; a test compares them with the page."""

from __future__ import annotations

from factory.generation.video_models.adapters import ADAPTERS, Adapter
from factory.generation.video_models.checkpoints import CHECKPOINTS
from factory.generation.video_models.placement import PRESETS

_MODES = {"fixed": "this size", "area": "about this area", "buckets": "chosen by the pipeline"}


def adapter_table() -> str:
    """The adapters as a Markdown table."""
    lines = [
        "| adapter | pipeline of diffusers | frames | size | guidance | fps | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in ADAPTERS:
        size = f"{each.size.width}×{each.size.height}, {_MODES[each.size.mode]}, multiples of {each.size.multiple}"
        pipeline = f"`{each.pipeline}`" + (f": {each.variant}" if each.variant else "")
        lines.append(
            f"| `{each.name}` | {pipeline} | {_frames(each)} | {size} | "
            f"{_guidance(each)} | {each.fps:g} | {each.steps} |"
        )
    return "\n".join(lines)


def checkpoint_table() -> str:
    """The published models as a Markdown table."""
    lines = [
        "| model | adapter | licence | weights | least GPU memory | published time of a video |",
        "|---|---|---|---|---|---|",
    ]
    for each in CHECKPOINTS:
        least = f"{each.least_gb:g} GB" if each.least_gb else "not published"
        times = "; ".join(
            f"{figure.seconds:g} s on {figure.card} ({figure.video})" for figure in each.figures
        )
        lines.append(
            f"| `{each.name}` | `{each.adapter}` | {each.licence} | {each.weights_gb:g} GB | {least} | "
            f"{times or 'not published'} |"
        )
    return "\n".join(lines)


def preset_table() -> str:
    """The card presets as a Markdown table."""
    lines = [
        "| card | weights stay on the card up to | decoding in tiles | transformer in eight bits |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.gb} GB | {each.resident_gb:g} GB | {_yes(each.tiling)} | {_yes(each.eight_bit)} |"
        for each in PRESETS
    ]
    return "\n".join(lines)


def _frames(adapter: Adapter) -> str:
    rule = adapter.frames
    form = f"{rule.step}·k + 1" if rule.step > 1 else "any"
    return f"{form}, {rule.default}, at most {rule.most}"


def _guidance(adapter: Adapter) -> str:
    name = f"`{adapter.guidance.scale}`" if adapter.guidance.scale else "the pipeline's guider"
    return f"{name} {adapter.guidance.value:g}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
