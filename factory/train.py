"""`python -m factory.train dimo|mvvdm`: train models.

`dimo` renders the motions of objects, or generates motions of a still one, and trains a motion space for each, one task
per object. Below `--out`:

    generated/<object>/         generated videos, their scores and a report
    motions/<object>/           motion videos
    models/dimo/<object>/       the model; `--out` is a registry: `zoo.load("dimo/<object>", home=OUT)`
    leaderboard.md              metrics of all models
    _factory/                   the ledger, and checkpoints of unfinished trainings

The same command resumes: committed work is not repeated, and a training that was killed continues from its newest
checkpoint with the same result, bit for bit, as one that was not. `mvvdm` is described in factory/training/mvvdm/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster import Ledger, OutputLock
from factory.console import (
    FAILED,
    OK,
    OutputOptions,
    ProgressDisplay,
    add_options,
    notice,
    print_result,
    read_options,
    rename_flags,
    run_command,
)
from factory.generation.options import (
    GenerationRequest,
    add_generation_options,
    generate_objects,
    generation_summary,
    read_generation_options,
)
from factory.generation.run import GenerationError
from factory.motion_videos.options import (
    MotionOptions,
    add_motion_options,
    check_registry,
    read_motion_options,
    render_motions,
)
from factory.motion_videos.pictures import rejected
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import SubjectVideos, subjects_to_json, summary
from factory.run_report import RunReport
from factory.sources import SourceError
from factory.training.dimo import DimoStage, configured, folder_bytes, resolve_encoder, train_objects
from factory.training.leaderboard import ablation_table, aligned, leaderboard, markdown
from factory.training.mvvdm import options as mvvdm_options
from factory.training.options import DIMOTrainingOptions
from zoo.dimo.config import DIMOConfig
from zoo.export.html.report import video_file
from zoo.terminal import printable

RENAMED = {"--skip-unseen": "--skip-heldout"}


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.train") -> int:
    """Run the command; exit code 0 if at least one model was trained, the closing tables list the others."""
    parser = argparse.ArgumentParser(prog=prog, description="Train models. The same command resumes.")
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    dimo = families.add_parser(
        "dimo",
        help="one motion space per object",
        description="Render the motions of objects, or generate motions of a still one, and train a motion space for "
        "each. The same command resumes.",
    )
    add_motion_options(dimo)
    add_generation_options(dimo)
    add_options(dimo.add_argument_group("training"), DIMOTrainingOptions)
    add_options(dimo.add_argument_group("output"), OutputOptions)
    mvvdm_parser = mvvdm_options.add_parser(families)
    argv = rename_flags(argv, RENAMED)
    args = parser.parse_args(argv)
    if args.family == "mvvdm":
        return mvvdm_options.run(args, mvvdm_parser, argv[1:])
    try:
        training = read_options(args, DIMOTrainingOptions)
        config = configured(training.preset, training.set)
        base = MotionRecipe(
            frames=config.frames,
            views=config.views,
            heldout_views=min(MotionRecipe.heldout_views, config.views),
            resolution=config.resolution,
        )
    except ValueError as error:
        dimo.error(str(error))
    output = read_options(args, OutputOptions)
    request = read_generation_options(dimo, args, base)
    if request is not None:
        options, recipe = request.motion_options, request.motion_recipe
    else:
        options, recipe = read_motion_options(dimo, args, base)

    def action() -> int:
        training.check(config, options.workers)
        check_registry(options.out)
        ledger = Ledger(options.out)
        report = RunReport("factory.train dimo", ledger, ("MotionStage", "DimoStage"), argv[1:], notice)
        with OutputLock(ledger.storage, "factory.train dimo", on_wait=notice), report:
            subjects = _motion_videos(request, options, recipe, output)
            return _train_dimo(options, subjects, training, config, output, report)

    return run_command(
        "factory.train",
        action,
        errors=(SourceError, GenerationError),
        json_errors=output.json,
    )


def _motion_videos(
    request: GenerationRequest | None, options: MotionOptions, recipe: MotionRecipe, output: OutputOptions
) -> list[SubjectVideos]:
    """Render the motions of the objects, or generate those of one object."""
    ledger, lines = Ledger(options.out), []
    with ProgressDisplay(output) as display:
        if request is None:
            subjects = render_motions(options, recipe, ledger, display.update)
        else:
            generation = generate_objects(request, ledger, display.update)
            subjects, lines = [generation.videos], [generation_summary(generation)]
    if not output.json:
        print("\n".join([*lines, summary(subjects)]), flush=True)
    return subjects


def _train_dimo(
    options: MotionOptions,
    subjects: list[SubjectVideos],
    training: DIMOTrainingOptions,
    config: DIMOConfig,
    output: OutputOptions,
    report: RunReport,
) -> int:
    ledger = report.ledger
    stage = DimoStage(
        out=ledger.root,
        num_cpus=training.cpus,
        num_gpus=training.gpus,
        gpu_memory=int(training.gpu_memory * 2**30),
        memory=8 * 2**30
        + max((folder_bytes(subject.folder) for subject in subjects if subject.folder), default=0),
        timeout_s=3600.0 * training.max_hours,
        checkpoint_s=training.checkpoint_seconds,
        unseen=not training.skip_heldout,
        encoder=resolve_encoder(training.text),
    )
    with ProgressDisplay(output) as display:
        results = train_objects(
            subjects,
            stage,
            config,
            ledger,
            seed=training.seed,
            ablation=training.ablation,
            workers=options.workers,
            show=display.update,
        )
    tables = [leaderboard(results)] + ([ablation_table(results)] if training.ablation else [])
    ledger.storage.write("leaderboard.md", "\n".join(map(markdown, tables)).encode())
    failed = {task.label: record.reason for task, record in results.values() if record.status != "done"}
    trained = len(results) > len(failed)
    lines = ["", "\n\n".join(map(aligned, tables))]
    lines += [f"failed  {printable(label)}: {printable(reason)}" for label, reason in failed.items()]
    lines += [f"\nload one with zoo.load('dimo/NAME', home={options.out!r})"] if trained else []
    report.result = "\n".join(lines)
    report.reasons = {"left out (animation)": rejected(subjects)}
    report.pictures = lambda: _previews(ledger, [task.label for task, _ in results.values()])
    models = {task.label: record.summary for task, record in results.values() if record.status == "done"}
    print_result(
        output, "\n".join(lines), {"objects": subjects_to_json(subjects), "models": models, "failed": failed}
    )
    return OK if trained else FAILED


def _previews(ledger: Ledger, names: Sequence[str]) -> Iterator[str]:
    """The preview videos of the models that were trained."""
    for name in names:
        folder = Path(ledger.root, "models", "dimo", name)
        try:
            revision = (folder / "refs" / "main").read_text().strip()
            data = (folder / "snapshots" / revision / "preview.mp4").read_bytes()
        except (OSError, ValueError):  # not trained, or a variant that is not published
            continue
        yield video_file(data, name)


if __name__ == "__main__":
    sys.exit(main())
