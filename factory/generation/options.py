"""Command-line options that generate motions of a still object: for `factory.motions` and `factory.train dimo`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cluster import Ledger
from factory.console import Show, add_options, option, read_options
from factory.generation.jobs import NO_MODEL, STAGES, GenerationRecipe, ModelChoice, StillObject, WriterChoice
from factory.generation.judging import Thresholds
from factory.generation.judging.questions import PACKAGED, Rubric
from factory.generation.masks import BACKGROUND
from factory.generation.prompts import writer_fingerprint
from factory.generation.run import Resources, generate_motions
from factory.generation.still import find_still
from factory.generation.takes import Generation, stage_lines
from factory.generation.video_sources import FILES, RENDERED, is_custom, is_zoo_model, resolved
from factory.motion_videos.options import MotionOptions
from factory.motion_videos.plan import MotionRecipe
from zoo.errors import OptionError
from zoo.hub_access import check_pretrained
from zoo.terminal import printable

HELDOUT_EVERY = 6  # one prompt in this many is held out, 10 of 60, unless --heldout says otherwise
DEFAULT_MODEL = "mvvdm/tiny"
RECIPE_FIELDS = (
    "frames",
    "resolution",
    "heldout",
)  # of `MotionRecipe`, those that apply to generated motions


@dataclass(frozen=True)
class GenerationOptions:
    """Generate motions of one still object instead of rendering known ones."""

    asset: str = option(
        "", "a 3D model to generate motions for: a .glb, .gltf, or creatures://SPECIES?seed=N"
    )
    image: str = option("", "a picture to generate motions for, on a plain background", metavar="FILE")
    videos: str = option(
        "",
        "a folder with your own videos of an object's motions and info.json with their cameras",
        metavar="FOLDER",
    )
    motions: int = option(60, "prompts, each of which gives one video", at_least=2)
    category: str = option("", "what the object is, in a word or two (default: from its file name)")
    name: str = option("", "of the object's folder and model (default: from its file name)")
    prompts: str = option(
        "vocabulary",
        "vocabulary or vocabulary:KIND (packaged), a text file with one sentence per line, endpoint:MODEL (an "
        "OpenAI-compatible server at OPENAI_BASE_URL), local:MODEL (transformers), or animations (of the file itself)",
        metavar="WRITER",
    )
    video_model: str = option(
        "",
        "mvvdm/NAME films an --asset in all views at once; an image-to-video pipeline by name or folder gives one "
        f"view; {RENDERED} renders the file's own animations; module:function is your own (default with --asset: "
        f"{DEFAULT_MODEL})",
        metavar="MODEL",
    )
    video_option: tuple[str, ...] = option(
        (), "an option of the video model, such as num_inference_steps=10", metavar="NAME=VALUE"
    )
    views_model: str = option(
        NO_MODEL, "module:function of a model that adds views to a video from one view", metavar="MODEL"
    )
    matte: str = option(
        BACKGROUND,
        "background (of one colour), a segmentation model by name or folder, such as facebook/sam2.1-hiera-tiny, or "
        "module:function",
        metavar="MODEL",
    )
    judge_model: str = option(
        NO_MODEL,
        "a vision-language model by name or folder, which answers the questions of --rubric about each video",
        metavar="MODEL",
    )
    rubric: str = option("", "text file with yes/no questions for --judge-model", metavar="FILE")
    thresholds: str = option("", "JSON file with thresholds of the judges", metavar="FILE")
    elevation_deg: float = option(0.0, "of the camera that took the picture, in degrees")
    generation_seed: int = option(0, "of the prompts and videos", at_least=0)
    only: str | None = option(None, "run only this stage; those before it must have been run", choices=STAGES)
    video_cpus: float = option(1.0, "CPUs per worker that runs a video model", more_than=0)
    video_gpus: float = option(0.0, "GPUs per worker that runs a video model", at_least=0)

    @property
    def is_given(self) -> bool:
        return bool(self.asset or self.image or self.videos)

    @property
    def kind(self) -> str:
        return "asset" if self.asset else "image" if self.image else "videos"


@dataclass(frozen=True)
class GenerationRequest:
    """A checked command line: what to generate, and how."""

    options: GenerationOptions
    motion_options: MotionOptions
    motion_recipe: MotionRecipe


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `GenerationOptions`."""
    group = parser.add_argument_group(
        "generation",
        "generate motions of one still object (--asset or --image) instead of rendering known ones",
    )
    add_options(group, GenerationOptions)


def read_generation_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, base: MotionRecipe | None = None
) -> GenerationRequest | None:
    """The request, or None if neither --asset nor --image is given; exits with code 2 if it makes no sense."""
    try:
        options = read_options(args, GenerationOptions)
        if not options.is_given:
            _refuse_without_object(args)
            return None
        _refuse_without_effect(args)
        motion_options = read_options(args, MotionOptions)
        recipe = read_options(args, MotionRecipe, base or MotionRecipe())
        _check(options, motion_options, recipe)
    except ValueError as error:
        parser.error(str(error))
    return GenerationRequest(options, motion_options, recipe)


def _refuse_without_object(args: argparse.Namespace) -> None:
    """Refuse flags that have no effect without an object to generate motions for."""
    for each in fields(GenerationOptions):
        if getattr(args, each.name) not in (None, "", ()):
            flag = "--" + each.name.replace("_", "-")
            raise OptionError(f"{flag} needs --asset, --image or --videos: an object")


def _refuse_without_effect(args: argparse.Namespace) -> None:
    """Refuse flags of rendered motion videos that generated ones do not have."""
    names = [each.name for each in fields(MotionRecipe) if each.name not in RECIPE_FIELDS]
    for name in (*names, "renderer", "samples", "limit"):
        if getattr(args, name) not in (None, False):
            raise OptionError(
                f"--{name.replace('_', '-')} is of motions that are rendered with --objects; with --asset or --image, "
                f"the video model decides"
            )


def _check(options: GenerationOptions, motion_options: MotionOptions, recipe: MotionRecipe) -> None:
    if recipe.heldout > options.motions - 2:
        raise OptionError(
            f"--heldout {recipe.heldout}: expected at most {options.motions - 2}, as a motion space needs two of "
            f"{options.motions} motions to train on"
        )
    given = [f"--{name}" for name in ("asset", "image", "videos") if getattr(options, name)]
    if len(given) > 1:
        raise OptionError(f"expected one of --asset, --image and --videos, got {' and '.join(given)}")
    if motion_options.uris:
        raise OptionError(
            f"{given[0]} makes motions of one object; render others with a second command with --objects"
        )
    model = options.video_model
    if options.videos and model:
        raise OptionError(f"--video-model {model}: --videos are read, not generated; leave it out")
    if options.image and not model:
        raise OptionError(
            "--image needs --video-model: an image-to-video pipeline by name or folder, such as "
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers, or module:function"
        )
    if options.image and (is_zoo_model(model) or model == RENDERED):
        raise OptionError(
            f"--video-model {model} films 3D models: give --asset instead of --image, or an image-to-video pipeline"
        )
    views = options.views_model
    if views != NO_MODEL and not is_custom(views):
        advice = (
            " (an MV-VDM needs a 3D model: give --asset and --video-model instead)"
            if is_zoo_model(views)
            else ""
        )
        raise OptionError(
            f"--views-model: expected module:function, a Python function that returns a model with "
            f"add_views(frames, image, geometry, seed), got {views!r}{advice}"
        )
    for flag, name in (("--video-model", model), ("--views-model", views), ("--matte", options.matte)):
        if is_custom(name) and not is_zoo_model(name):
            _check_function(flag, name)
    _check_judge(options)
    writer_fingerprint(_writer(options.prompts))
    _thresholds(options.thresholds)
    _video_options(options.video_option)


def _check_judge(options: GenerationOptions) -> None:
    """Refuse names of models that do not exist, and a rubric that cannot be read, before anything is written."""
    if options.matte != BACKGROUND and not is_custom(options.matte):
        check_pretrained(options.matte, "--matte")
    if options.judge_model != NO_MODEL:
        check_pretrained(options.judge_model, "--judge-model")
        Rubric.load(options.rubric or PACKAGED)
    elif options.rubric:
        raise OptionError(
            f"--rubric {options.rubric} needs --judge-model: a model that answers its questions"
        )


def _check_function(flag: str, name: str) -> None:
    """Refuse a module:function whose module does not exist, before anything is written."""
    module = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise OptionError(
            f"{flag} {name}: there is no module {module!r}; install it, or put its folder into PYTHONPATH"
        )


def _writer(text: str) -> WriterChoice:
    kind, _, name = text.partition(":")
    if kind in ("endpoint", "local"):
        if not name:
            raise OptionError(f"--prompts {text}: expected {kind}:MODEL")
        return WriterChoice(kind, name, os.environ.get("OPENAI_BASE_URL", "") if kind == "endpoint" else "")
    if kind == "vocabulary":
        return WriterChoice("vocabulary", name)
    if text == "animations":
        return WriterChoice("animations")
    path = Path(text)
    if not path.is_file():
        raise OptionError(
            f"--prompts: expected vocabulary, vocabulary:KIND, endpoint:MODEL, local:MODEL, animations, or a text "
            f"file with one sentence per line, got {text!r}"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--prompts {text}: expected a text file, but it cannot be read ({error})"
        ) from None
    sentences = tuple(line for line in lines if line and not line.startswith("#"))
    if not sentences:
        raise OptionError(f"--prompts {text}: the file has no sentences")
    return WriterChoice("file", sentences=sentences)


def _thresholds(path: str) -> Thresholds:
    if not path:
        return Thresholds()
    try:
        return Thresholds.from_json(json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptionError(
            f"--thresholds {path}: expected a JSON object as in generated/NAME/thresholds.json ({error})"
        ) from None


def _video_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            raise OptionError(f"--video-option: expected NAME=VALUE, got {pair!r}")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _model_options(model: str, still: StillObject, pairs: tuple[str, ...]) -> dict[str, Any]:
    """The options of a video model; an image-to-video pipeline is told what the picture shows."""
    options = _video_options(pairs)
    if model in (FILES, RENDERED) or is_zoo_model(model) or is_custom(model):
        return options
    return {"subject": still.category, **options}


def generate_objects(request: GenerationRequest, ledger: Ledger, show: Show | None = None) -> Generation:
    """`generate_motions` with the options of a command line; raises what that raises, and SourceError."""
    options, motion_options, motion_recipe = request.options, request.motion_options, request.motion_recipe
    ledger.storage.check_writable()
    still: StillObject = find_still(
        options.asset or options.image or options.videos,
        kind=options.kind,
        name=options.name,
        category=options.category,
        elevation_deg=options.elevation_deg,
    )
    model = FILES if options.videos else options.video_model or DEFAULT_MODEL
    known = {FILES: "videos", RENDERED: "animations"}  # their motions are those that there are
    writer = WriterChoice(known[model]) if model in known else _writer(options.prompts)
    heldout = motion_recipe.heldout
    recipe = GenerationRecipe(
        motions=options.motions,
        heldout=options.motions // HELDOUT_EVERY if heldout < 0 else heldout,
        seed=options.generation_seed,
        writer=writer,
        video_model=resolved(ModelChoice(model, _model_options(model, still, options.video_option))),
        views_model=ModelChoice(options.views_model),
        matte=ModelChoice(options.matte),
        judge_model=ModelChoice(options.judge_model),
        rubric=options.rubric and str(Path(options.rubric).resolve()),
        thresholds=_thresholds(options.thresholds),
        frames=motion_recipe.frames,
        resolution=motion_recipe.resolution,
    )
    return generate_motions(
        still,
        motion_options.out,
        recipe,
        resources=Resources(motion_options.workers, options.video_cpus, options.video_gpus),
        only=options.only,
        retry_quarantined=motion_options.retry_quarantined,
        show=show,
    )


def generation_summary(generation: Generation) -> str:
    """Lines for the closing table: kept and left out, the stages, and where the report is."""
    lines = [
        f"{printable(generation.still.name)}: {len(generation.kept)} of {len(generation.takes)} videos kept",
        *(f"  {line}" for line in stage_lines(generation.stages)),
        f"  report           {printable(str(generation.report))}",
    ]
    return "\n".join(lines)


def generation_to_json(generation: Generation) -> dict[str, Any]:
    """The result as plain JSON values."""
    return {
        "object": generation.still.name,
        "prompts": len(generation.takes),
        "kept": len(generation.kept),
        "stages": {name: count.to_json() for name, count in generation.stages.items()},
        "report": str(generation.report),
    }
