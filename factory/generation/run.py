"""Generate the motion videos of a still object: the driver of all stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import Ledger, Progress, Record, Stage, StorageError, Task, run
from factory.console import Show, Status
from factory.generation.assembly import Assembly, plan_assembly, remove_stale, write_index
from factory.generation.jobs import (
    MEASURE_VERSION,
    NO_MODEL,
    STAGES,
    GenerationRecipe,
    StillObject,
    TakeJob,
    VideoJob,
    key_of,
)
from factory.generation.judging.questions import PACKAGED, Rubric
from factory.generation.masks import BACKGROUND
from factory.generation.prompts import writer_fingerprint
from factory.generation.report import write_page
from factory.generation.stages import (
    SCORES,
    AssembleStage,
    JudgeStage,
    MatteStage,
    MeasureStage,
    PromptStage,
    VideoStage,
    ViewsStage,
)
from factory.generation.takes import Generation, StageCount, TakeState, video_seed
from factory.motion_videos.stage import folder_of, slug

LEDGERS = "_factory/generation"
HOME = "generated"  # below the output: <object>/ with videos, scores and the report


class GenerationError(RuntimeError):
    """Motions cannot be generated; one sentence that says why and what to do."""


@dataclass(frozen=True)
class Resources:
    """Of the workers.

    Attributes:
        workers: how many in parallel; None = as many as fit on the cluster, 0 = this process, without Ray.
        cpus, gpus: of one worker of a stage that runs a model.
    """

    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def generate_motions(
    still: StillObject,
    out: str,
    recipe: GenerationRecipe,
    *,
    resources: Resources = Resources(),
    only: str | None = None,
    retry_quarantined: bool = False,
    show: Show | None = None,
) -> Generation:
    """Generate, judge and assemble motion videos; the same call resumes.

    Args:
        still: the object.
        out: a folder that all machines share.
        recipe: prompts, models and thresholds.
        resources: of the workers.
        only: run only this one of `STAGES`; those before it must have been run.
        retry_quarantined: try tasks again that earlier runs gave up.
        show: receives the state of the run now and then.

    Raises:
        GenerationError: there are no prompts, or `only` needs results that do not exist.
        StageError, StorageError: finished tasks are kept; calling this again resumes.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    return _Generator(still, out, recipe, resources, only, show).run(retry_quarantined)


class _Generator:
    """Runs the stages of one object in order."""

    def __init__(
        self,
        still: StillObject,
        out: str,
        recipe: GenerationRecipe,
        resources: Resources,
        only: str | None,
        show: Show | None,
    ) -> None:
        self.ledgers = {name: Ledger(out, f"{LEDGERS}/{name}") for name in STAGES}
        self.storage = self.ledgers["prompts"].storage
        if "://" in self.ledgers["prompts"].root:
            raise StorageError(
                f"motion videos are memory-mapped files: expected a folder that all machines share, got "
                f"{self.ledgers['prompts'].root}"
            )
        self.root, self.recipe, self.still = self.ledgers["prompts"].root, recipe, still
        self.resources, self.only, self.show = resources, only, show
        self.result = Generation(still, recipe, folder=Path(self.root, HOME, still.name))

    def run(self, retry_quarantined: bool) -> Generation:
        if retry_quarantined:
            for ledger in self.ledgers.values():
                ledger.retry_quarantined()
        self._prompts()
        try:
            self._videos()
            self._matte_and_judge()
            self._views()
            self._assemble()
        finally:  # what was judged so far is written, also if a later stage fails or is interrupted
            self._write_scores()
        self.result.report = self.result.folder / "report.html"
        write_page(self.result, self.root)
        self._write(f"{HOME}/{self.still.name}/generation.json", _json_bytes(self._about()))
        return self.result

    # --- stages ---

    def _prompts(self) -> None:
        recipe, still = self.recipe, self.still
        settings = {"motions": recipe.motions, "heldout": recipe.heldout, "seed": recipe.seed}
        stage = PromptStage(recipe.writer, self.root)
        writer = json.dumps(writer_fingerprint(recipe.writer), sort_keys=True)
        key = key_of("prompts", still.category, writer, json.dumps(settings, sort_keys=True))
        if recipe.writer.kind in ("animations", "videos"):
            key = key_of("prompts", still.record.fingerprint, key)
        task = Task(key, {"still": still.to_json(), **settings}, f"prompts of {still.name}")
        # Only a local chat model needs a worker; the others take seconds.
        local = recipe.writer.kind == "local"
        stage.num_gpus = self.resources.gpus if local else 0.0
        record = self._resolve("prompts", stage, {0: task}, "", self.resources.workers if local else 0)[0]
        if record.status != "done" or not record.summary["prompts"]:
            self.ledgers["prompts"].forget(key)  # a server may answer the next time
            raise GenerationError(f"{still.name}: no prompts: {record.reason or 'the writer returned none'}")
        self.result.counts = record.summary["counts"]
        for prompt in record.summary["prompts"]:
            self.result.takes.append(
                TakeState(
                    prompt["text"],
                    prompt["heldout"],
                    prompt["origin"],
                    video_seed(recipe.seed, prompt["text"]),
                    folder="",
                )
            )
        home = f"{HOME}/{still.name}"
        self._write(f"{home}/prompts.json", _json_bytes(record.summary))
        self._write(f"{home}/prompts.txt", "".join(f"{take.text}\n" for take in self.result.takes).encode())
        self._write(f"{home}/thresholds.json", _json_bytes(recipe.thresholds.to_json()))

    def _videos(self) -> None:
        still, model = self.still, self.recipe.video_model
        stage = VideoStage(model, num_cpus=self.resources.cpus, num_gpus=self.resources.gpus)
        tasks = {}
        for index, take in enumerate(self.result.takes):
            key = key_of(
                "video",
                still.record.fingerprint,
                f"{still.elevation_deg:g}",
                model.identity,
                take.text,
                str(take.seed),
            )
            take.folder = f"{HOME}/{still.name}/takes/{slug(take.text)[:40].rstrip('-')}-{key[:8]}"
            job = VideoJob(still, take.text, take.seed, take.folder)
            tasks[index] = Task(key, job.to_json(), f"{still.name} – {take.text}")
        for index, record in self._resolve("videos", stage, tasks, "", self.resources.workers).items():
            self.result.takes[index].video = record

    def _matte_and_judge(self, suffix: str = "") -> None:
        """Matte, measure and judge all videos, or with the suffix " (views)" those with added views."""
        prefix, source = ("views_", "views") if suffix else ("", "video")
        recipe, root = self.recipe, self.root
        matte = MatteStage(root=root, model=recipe.matte)
        matte.num_gpus = 0.0 if recipe.matte.name == BACKGROUND else self.resources.gpus
        self._each(matte, "matte", suffix, source, prefix, recipe.matte.identity)
        measure = MeasureStage(root, recipe.judge_model, recipe.rubric, self.still.category)
        identity = MEASURE_VERSION
        if recipe.judge_model.name != NO_MODEL:
            measure.num_gpus = self.resources.gpus
            rubric = Rubric.load(recipe.rubric or PACKAGED).digest
            identity = f"{identity} {recipe.judge_model.identity} {rubric} {self.still.category}"
        self._each(measure, "measure", suffix, f"{prefix}matte", prefix, identity)
        thresholds = json.dumps(recipe.thresholds.to_json(), sort_keys=True)
        judge = JudgeStage(thresholds=recipe.thresholds)
        self._each(judge, "judge", suffix, f"{prefix}measure", prefix, thresholds)

    def _each(self, stage: Stage, name: str, suffix: str, before: str, prefix: str, identity: str) -> None:
        """Run a stage on every take whose step before it is done.

        Args:
            before: attribute of `TakeState` with that step's record; `prefix` + `name` receives the result.
            identity: everything but that step's result that determines the stage's.
        """
        tasks = {}
        for index, take in enumerate(self.result.takes):
            record: Record | None = getattr(take, before)
            if record is None or record.status != "done":
                continue
            folder = take.views_folder if suffix else take.folder
            payload = TakeJob(folder, folder, take.text).to_json()
            if name == "judge":
                payload = {"scores": dict(sorted(record.summary["scores"].items()))}
            key = key_of(name, record.key, identity)
            tasks[index] = Task(key, payload, f"{self.still.name} – {take.text}")
        workers = 0 if name == "judge" else self.resources.workers  # comparing numbers needs no worker
        records = self._resolve(name, stage, tasks, suffix, workers)
        for index, record in records.items():
            setattr(self.result.takes[index], f"{prefix}{name}", record)

    def _views(self) -> None:
        model = self.recipe.views_model
        if model.name == NO_MODEL:
            return
        stage = ViewsStage(root=self.root, model=model, num_gpus=self.resources.gpus)
        tasks = {}
        for index, take in enumerate(self.result.takes):
            if take.kept and take.video is not None and take.video.summary["views"] == 1:
                key = key_of("views", take.video.key, model.identity)
                job = TakeJob(take.folder, take.views_folder, take.text, take.seed)
                tasks[index] = Task(key, job.to_json(), f"{self.still.name} – {take.text}")
        for index, record in self._resolve("views", stage, tasks, "", self.resources.workers).items():
            self.result.takes[index].views = record
        self._matte_and_judge(" (views)")

    def _assemble(self) -> None:
        assembly: Assembly = plan_assembly(self.result)
        self.result.videos = assembly.videos
        tasks = {}
        for index, job in assembly.jobs.items():
            take = self.result.takes[index]
            task_label = f"{self.still.name} – {take.text}"
            tasks[index] = Task(assembly.keys[index], job.to_json(), task_label)
        here = self.only in (None, "assemble")
        if here:
            self._forget_removed(assembly)
        records = self._resolve("assemble", AssembleStage(root=self.root), tasks, "", self.resources.workers)
        for index, record in records.items():
            self.result.takes[index].assembled = record
        if here and tasks:
            write_index(self.result, assembly, Path(self.root))
        if here:
            kept = [] if assembly.videos.fault else [Path(job.file).name for job in assembly.jobs.values()]
            remove_stale(Path(self.root, folder_of(self.still.name)), kept)

    def _forget_removed(self, assembly: Assembly) -> None:
        """Let motions that were assembled and then removed, since other thresholds dropped them, be assembled again."""
        ledger = self.ledgers["assemble"]
        ledger.refresh()
        records = ledger.records(list(assembly.keys.values()))
        ledger.forget(
            *(
                key
                for index, key in assembly.keys.items()
                if key in records
                and records[key].status == "done"
                and not Path(self.root, f"{assembly.jobs[index].file}.npy").is_file()
            )
        )

    # --- tasks ---

    def _resolve(
        self, name: str, stage: Stage, tasks: Mapping[int, Task], suffix: str, workers: int | None
    ) -> dict[int, Record]:
        """Run the tasks of a stage, or with `only` another stage, read their records.

        Args:
            name: of the stage and its ledger. suffix: appended to it in the counts.
            tasks: by index of the take.
            workers: see `cluster.run`.
        """
        ledger = self.ledgers[name]
        # With `only` "views", what added views need runs, too.
        if self.only in (None, name) or (suffix and self.only == "views"):
            resolved: dict[str, Record] = {}
            run(
                stage,
                list(tasks.values()),
                ledger,
                workers=workers,
                on_resolved=lambda task, record: resolved.update({task.key: record}),
                on_tick=self.show and self._shower(f"{name}{suffix}", len(tasks)),
            )
        else:
            ledger.refresh()
            resolved = ledger.records([task.key for task in tasks.values()])
            missing = len(tasks) - len(resolved)
            if missing and not suffix and STAGES.index(name) < STAGES.index(self.only):
                raise GenerationError(
                    f"--only {self.only}: {missing} of the {len(tasks)} tasks of the stage {name!r} have not been done "
                    f"with these options; run the command without --only, or with --only {name}"
                )
        records = {index: resolved[task.key] for index, task in tasks.items() if task.key in resolved}
        self.result.stages[f"{name}{suffix}"] = StageCount.of(len(tasks), records.values())
        return records

    def _shower(self, name: str, total: int) -> Callable[[Progress], None]:
        show = self.show
        assert show is not None

        def on_tick(progress: Progress) -> None:
            show(
                lambda: Status(
                    unit=name,
                    done=sum(progress.counts.values()),
                    total=total,
                    seconds=progress.seconds,
                    facts={"workers": progress.workers, "resumed": progress.resumed},
                )
            )

        return on_tick

    # --- files ---

    def _write_scores(self) -> None:
        """Write the scores of every judged video beside it, from the ledger."""
        thresholds = self.recipe.thresholds.to_json()
        for take in self.result.takes:
            for folder, video, judge in (
                (take.folder, take.video, take.judge),
                (take.views_folder, take.views, take.views_judge),
            ):
                if video is None or judge is None or "scores" not in judge.summary:
                    continue
                scores = {
                    "video": video.key,
                    "sentence": take.text,
                    "kept": judge.status == "done",
                    **judge.summary,
                    "thresholds": thresholds,
                }
                self._write(f"{folder}/{SCORES}", _json_bytes(scores))

    def _about(self) -> dict[str, Any]:
        recipe, result = self.recipe, self.result
        return {
            "object": self.still.to_json(),
            "prompts": {"writer": recipe.writer.to_json(), "counts": result.counts, "seed": recipe.seed},
            "video_model": recipe.video_model.to_json(),
            "views_model": recipe.views_model.to_json(),
            "matte": recipe.matte.to_json(),
            "judge_model": recipe.judge_model.to_json(),
            "thresholds": recipe.thresholds.to_json(),
            "stages": {name: count.to_json() for name, count in result.stages.items()},
            "kept": [take.text for take in result.kept],
            "left_out": {take.text: take.fault for take in result.takes if take.fault},
            "assembled": None if result.videos.folder is None else str(result.videos.folder),
        }

    def _write(self, path: str, data: bytes) -> None:
        """Write a file unless it has this content."""
        if self.storage.read(path) != data:
            self.storage.write(path, data)


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    # The ledger's records are sorted by key: sorting here too gives a resumed run the same bytes.
    return json.dumps(value, indent=1, sort_keys=True).encode()
