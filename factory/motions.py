"""`python -m factory.motions`: render or generate the motion videos that a motion space is trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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
    generation_to_json,
    read_generation_options,
)
from factory.generation.run import GenerationError
from factory.motion_videos.options import (
    add_motion_options,
    check_registry,
    read_motion_options,
    render_motions,
)
from factory.motion_videos.pictures import pictures, rejected
from factory.motion_videos.run import subjects_to_json, summary
from factory.run_report import RunReport
from factory.sources import SourceError


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.motions") -> int:
    """Run the command; exit code 0 if at least one object has videos, the closing table lists the others."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Render every motion of animated objects, or generate motions of a still one, for a motion space "
        "to be trained on. The same command resumes.",
    )
    add_motion_options(parser)
    add_generation_options(parser)
    add_options(parser.add_argument_group("output"), OutputOptions)
    argv = rename_flags(argv, {"--seed": "--points-seed"})
    args = parser.parse_args(argv)
    output = read_options(args, OutputOptions)
    if (request := read_generation_options(parser, args)) is not None:
        return _generate(request, output)
    options, recipe = read_motion_options(parser, args)

    def action() -> int:
        check_registry(options.out)
        ledger = Ledger(options.out)
        lock = OutputLock(ledger.storage, "factory.motions", on_wait=notice)
        report = RunReport("factory.motions", ledger, ("MotionStage",), argv, notice)
        with lock, report, ProgressDisplay(output) as display:
            subjects = render_motions(options, recipe, ledger, display.update)
            report.result = summary(subjects)
            report.reasons = {"left out (animation)": rejected(subjects)}
            report.pictures = lambda: pictures(subjects)
        print_result(output, summary(subjects), {"objects": subjects_to_json(subjects)})
        return OK if any(subject.folder for subject in subjects) else FAILED

    return run_command("factory.motions", action, errors=(SourceError,), json_errors=output.json)


def _generate(request: GenerationRequest, output: OutputOptions) -> int:
    """Generate the motions of one object; exit code 0 if at least one video was kept."""
    out = request.motion_options.out

    def action() -> int:
        check_registry(out)
        ledger = Ledger(out)
        lock = OutputLock(ledger.storage, "factory.motions", on_wait=notice)
        with lock, ProgressDisplay(output) as display:
            generation = generate_objects(request, ledger, display.update)
        lines = [generation_summary(generation)]
        if request.options.only in (None, "assemble"):
            lines.append(summary([generation.videos]))
        objects = subjects_to_json([generation.videos])
        print_result(
            output, "\n".join(lines), {"objects": objects, "generation": generation_to_json(generation)}
        )
        return OK if generation.kept or request.options.only else FAILED

    return run_command(
        "factory.motions", action, errors=(SourceError, GenerationError), json_errors=output.json
    )


if __name__ == "__main__":
    sys.exit(main())
