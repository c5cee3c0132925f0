"""What the videos of one object cost: minutes and GPU memory by stage, from published figures, each marked as such."""

from __future__ import annotations

from dataclasses import dataclass

from factory.generation.video_models.checkpoints import CHECKPOINTS, find_checkpoint
from factory.generation.video_models.placement import PRESETS, preset_for
from renderers.arguments import integer, number
from zoo.errors import OptionError

PUBLISHED, MEASURED, UNKNOWN = "published", "measured here", "unknown"
# CPU time of `plan_prompts` with the packaged vocabulary, in minutes, loading of MiniLM included.
_PROMPT_MINUTES = 0.2


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage.

    Attributes:
        stage: its name.
        minutes: None if unknown. memory_gb: of the GPU; None if unknown, 0 on the CPU.
        basis: "published", "measured here" or "unknown".
        note: what the figure is and where it comes from.
    """

    stage: str
    minutes: float | None
    memory_gb: float | None
    basis: str
    note: str


@dataclass(frozen=True)
class CostPlan:
    """The cost of all videos of one object.

    Attributes:
        name: of the video model. card_gb: of the card. motions: number of videos.
        stages: in order. The videos are by far the most expensive; the stages after them are measured by each run.
        fits: whether the published or estimated memory fits the card.
    """

    name: str
    card_gb: float
    motions: int
    stages: tuple[StageCost, ...]
    fits: bool

    @property
    def minutes(self) -> float | None:
        """Minutes of the stages whose time is known; None if that of the videos is not."""
        videos = next(each for each in self.stages if each.stage == "videos")
        if videos.minutes is None:
            return None
        return sum(each.minutes for each in self.stages if each.minutes is not None)


def plan_cost(name: str, card_gb: float, motions: int) -> CostPlan:
    """Plan the videos of one object.

    Args:
        name: of a published model, see `CHECKPOINTS`.
        card_gb: memory of the card.
        motions: number of videos.

    Raises:
        OptionError: no figures are known for this model.
    """
    checkpoint = find_checkpoint(name)
    if checkpoint is None:
        raise OptionError(
            f"no figures for {name}; there are some for {', '.join(each.name for each in CHECKPOINTS)}"
        )
    card_gb, motions = number(card_gb, "card_gb", above=0), integer(motions, "motions", 1)
    import torch

    preset = preset_for(card_gb, torch.device("cpu"))
    streamed = checkpoint.weights_gb > preset.resident_gb
    # Published times are those of a card of a class; a smaller card is never faster than the smallest one listed.
    figures = [figure for figure in checkpoint.figures if figure.card_gb <= card_gb]
    figure = max(figures, key=lambda each: (each.card_gb, each.seconds), default=None)
    least = checkpoint.least_gb
    if figure is not None:
        note = f"{figure.seconds:g} s a video on {figure.card}: {figure.video}; {figure.source}"
        if streamed:
            note += "; weights are streamed, which is slower"
        videos = StageCost(
            "videos", round(figure.seconds * motions / 60, 1), _memory(checkpoint.weights_gb, least, streamed),
            PUBLISHED, note,
        )  # fmt: skip
    else:
        videos = StageCost(
            "videos", None, _memory(checkpoint.weights_gb, least, streamed), UNKNOWN,
            f"no time is published for a card of {card_gb:g} GB; measure one video and multiply by {motions}",
        )  # fmt: skip
    stages = (
        StageCost(
            "prompts",
            _PROMPT_MINUTES,
            0.0,
            MEASURED,
            "packaged vocabulary on one core; a chat model adds its own time",
        ),
        videos,
        *(
            StageCost(stage, None, None, UNKNOWN, "measured by the run and shown in its report")
            for stage in ("judge", "matte", "views", "assemble")
        ),
    )
    needed = videos.memory_gb or 0.0
    return CostPlan(name, card_gb, motions, stages, fits=needed <= card_gb and card_gb >= PRESETS[0].gb)


def _memory(weights: float, least: float, streamed: bool) -> float | None:
    """GPU memory: the published minimum if weights are streamed, else this minimum plus all weights."""
    if streamed:
        return least or None
    return round(weights + least, 1)
