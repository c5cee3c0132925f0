"""One object's motions as motion spaces learn them: `python -m factory.motions --objects … --out …`.

Below `--out`, each object becomes a folder `motions/<object>/` that `zoo.dimo.data.MotionVideos` opens: every motion of
the object seen by 8 training views and 4 held-out views in 21 frames, in one world for all its motions.

An object is an animated asset of any source, an asset of an MV-Video dataset, or such a folder made before:

    creatures://kangaroo    models/knight.glb    a folder of .glb    a dataset's folder or URL    out/motions/kangaroo

Planning an object is a task, whose follow-ups are its motions, one task each, kept in the ledger: the same command
resumes, and the same recipe gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster import (
    Interrupted,
    Ledger,
    Outcome,
    Progress,
    Record,
    Stage,
    StageError,
    StorageError,
    Task,
    run,
    run_inline,
)
from factory.catalog import AssetRecord
from factory.downloads import DeadLink, WrongChecksum
from factory.motion_plans import (
    MotionPlan,
    MotionRecipe,
    clip_frames,
    clip_views,
    plan_clips,
    plan_motions,
    surface_points,
)
from factory.planning import Rejection
from factory.schema import attribution
from factory.selection import Selection
from factory.sources import COLLECTIONS, SourceError, open_source
from factory.stages import AssetCache, digest, settled
from renderers import gltf
from renderers.cameras import Cameras
from renderers.meshes import BACKENDS, PICTURE_VERSIONS, RenderSettings, Shot, renderer

if TYPE_CHECKING:
    from factory.dataset import ClipDataset

LEAST_MOTIONS = 2  # to train on; with fewer there is no space of motions
STATUS_EVERY_S = 10.0


# --- the work, one task at a time ---------------------------------------------------------------------


@dataclass
class MotionStage(Stage):
    """Plans objects and films their motions.

    Attributes:
        recipe: which motions, when and from where. settings: how they are rendered. backend: by what.
        films: whether anything is to be rendered; clips of a dataset have been.
    """

    recipe: MotionRecipe = field(default_factory=MotionRecipe)
    settings: RenderSettings = field(default_factory=RenderSettings)
    backend: str = "opengl"
    films: bool = True

    def __post_init__(self) -> None:
        recipe = self.recipe
        video_bytes = 4 * (recipe.views + recipe.heldout_views) * recipe.frames * recipe.resolution**2
        self.memory = 4 * 2**30 + 6 * video_bytes
        self.timeout_s = 300.0 + 3600.0 * (self.backend == "blender") + video_bytes / 1e6
        self._assets = AssetCache()
        self._datasets: dict[str, ClipDataset] = {}

    @property
    def identity(self) -> str:
        """Everything but the object that decides what its videos look like; part of every key."""
        parts = [self.recipe.hash(), self.settings.hash(), self.backend, PICTURE_VERSIONS[self.backend]]
        return ":".join(parts)

    def setup(self) -> None:
        if self.films:
            renderer(self.backend)  # now, so that a machine that cannot render says so at once

    def process(self, task: Task) -> Outcome:
        try:
            if "motion" not in task.payload:
                return self._plan(task)
            plan = MotionPlan(**task.payload["motion"])
            film = self._film if "asset" in task.payload else self._copy
            frames, points, summary = film(task, plan)
        except DeadLink as error:
            return Outcome("filtered", reason=f"dead: {error.reason}")
        except (gltf.GltfError, WrongChecksum) as error:  # known to be bad, and it says why: no second try
            return Outcome("quarantined", reason=str(error))
        path = f"{folder_of(task.payload['object'])}/{task.payload['file']}"
        files = {f"{path}.npy": _npy(frames)}
        if points is not None:
            files[f"{path}.points.npy"] = _npy(points)
        return Outcome("done", summary, files)

    def _plan(self, task: Task) -> Outcome:
        if "asset" in task.payload:
            plans, rejected, summary, fault = self._plan_asset(task)
        else:
            plans, rejected, summary, fault = self._plan_clips(task)
        reasons = "; ".join(sorted({rejection.reason for rejection in rejected}))
        trained = sum(plan.split == "train" for plan in plans)
        if not fault and not plans:
            fault = reasons
        elif not fault and trained < LEAST_MOTIONS:
            left_out = f" (left out: {reasons})" if reasons else ""
            fault = f"{_too_few(trained)}{left_out}"
        summary |= {"motions": len(plans), "rejected": [asdict(rejection) for rejection in rejected]}
        if fault:
            return Outcome("filtered", summary, reason=fault)
        return Outcome("done", summary, follow_up=[self._motion_task(task, plan) for plan in plans])

    def _plan_asset(self, task: Task) -> tuple[list[MotionPlan], list[Rejection], dict[str, Any], str]:
        record = AssetRecord.from_json(task.payload["asset"])
        terms = Selection().policy_for(record)
        record = settled(record, terms)
        if refusal := terms.refusal(record):
            return [], [], {}, refusal
        asset, sha256 = self._assets.open(record)
        known = record.completed(asset.metadata)
        if refusal := terms.refusal(known):
            return [], [], {}, refusal
        if not asset.animations:
            return [], [], {}, "not animated"
        plans, rejected = plan_motions(asset, record, self.recipe)
        train, heldout = self.recipe.view_splits
        summary = {
            "provenance": self._provenance({**asdict(known), "asset_sha256": sha256}),
            "index": {
                "resolution": self.recipe.resolution,
                "phases": self.recipe.phases.tolist(),
                "train_views": train,
                "heldout_views": heldout,
            },
        }
        return plans, rejected, summary, ""

    def _plan_clips(self, task: Task) -> tuple[list[MotionPlan], list[Rejection], dict[str, Any], str]:
        dataset = self._dataset(task.payload["dataset"])
        rows = [dataset.clip(clip_id).metadata for clip_id in task.payload["clips"]]
        plans, fault = plan_clips(rows, self.recipe)
        if fault:
            return [], [], {}, fault
        row = rows[0]
        train, heldout = clip_views(row["num_views"])
        summary = {
            "provenance": self._provenance({**row, "uid": row["asset_uid"]}),
            "index": {
                "resolution": row["height"],
                "phases": (clip_frames(row["num_frames"], self.recipe) / row["num_frames"]).tolist(),
                "train_views": list(range(len(train))),
                "heldout_views": list(range(len(train), len(train) + len(heldout))),
            },
        }
        return plans, [], summary, ""

    def _provenance(self, known: dict[str, Any]) -> dict[str, Any]:
        """What a model card says of the object; `known`: an asset's record, or a row of a dataset."""
        names = ("uid", "source", "title", "author", "licence", "source_url", "noai", "noai_checked_at")
        credit = attribution(known["title"], known["author"], known["source_url"], known["licence"])
        return {
            **{name: known[name] for name in names},
            "attribution": credit,
            "sha256": known["asset_sha256"],
        }

    def _motion_task(self, task: Task, plan: MotionPlan) -> Task:
        name, body = task.payload["object"], asdict(plan)
        key = digest("motion", task.key, json.dumps(body, sort_keys=True))
        shared = {what: value for what, value in task.payload.items() if what != "clips"}
        # The key in the name: another recipe in the same folder is another file.
        payload = {**shared, "motion": body, "file": f"{slug(plan.name)}-{key[:8]}"}
        return Task(key, payload, f"{name} – {plan.name}")

    def _film(self, task: Task, plan: MotionPlan) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        asset, _ = self._assets.open(AssetRecord.from_json(task.payload["asset"]))
        what, side = plan.what, self.recipe.resolution
        asset_to_world = np.asarray(what["asset_to_world"], np.float64).reshape(4, 4)
        cameras = Cameras(np.asarray(plan.world_to_camera), np.asarray(plan.K), side, side)
        shot = Shot(what["animation"], np.asarray(what["timestamps"]), asset_to_world, cameras)
        clip = renderer(self.backend).render_clip(asset, shot, self.settings)
        corners, weights = surface_points(asset, self.recipe.points, self.recipe.seed)
        poses = [asset.positions(what["animation"], time)[corners] for time in what["timestamps"]]
        points = (np.stack(poses) * weights[..., None]).sum(axis=2)
        points = points @ asset_to_world[:3, :3].T + asset_to_world[:3, 3]
        return clip.frames, points.astype(np.float32), {"renderer": clip.renderer}

    def _copy(self, task: Task, plan: MotionPlan) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        clip = self._dataset(task.payload["dataset"]).clip(plan.what["clip_id"])
        return clip.read(plan.what["views"], plan.what["frames"]).frames, None, {}

    def _dataset(self, url: str) -> ClipDataset:
        from factory.dataset import load_clips

        if url not in self._datasets:
            self._datasets[url] = load_clips(url)
        return self._datasets[url]


def _too_few(trained: int) -> str:
    return f"{trained} motions to train on, and a motion space needs at least {LEAST_MOTIONS}"


def folder_of(name: str) -> str:
    """Where an object's videos lie, relative to the output."""
    return f"motions/{name}"


def slug(name: str) -> str:
    """A name for files and models: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


# --- which objects ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """An object to be filmed, or filmed already.

    Attributes:
        name: of its folder, and of its model. payload: what its task needs; empty if `folder` is all there is.
        fingerprint: of what it is made from. folder: motion videos made before.
    """

    name: str
    payload: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    folder: Path | None = None

    def task(self, stage: MotionStage) -> Task:
        key = digest("motions", self.name, self.fingerprint, stage.identity)
        return Task(key, {"object": self.name, **self.payload}, self.name)


def find_subjects(objects: Iterable[str], limit: int | None = None) -> list[Subject]:
    """The objects that URIs name; `name=URI` gives the only object of a URI another name.

    Raises:
        SourceError: a URI cannot be read, or two objects have the same name.
    """
    found: dict[str, Subject] = {}
    for text in objects:
        wanted, uri = _split_name(text)
        subjects = list(_subjects(uri))
        if not subjects:
            raise SourceError(f"{uri!r} holds no object: expected .glb or .gltf files, or clips")
        if wanted and len(subjects) > 1:
            raise SourceError(
                f"{text!r}: {uri!r} holds {len(subjects)} objects, and only one can be {wanted!r}"
            )
        for subject in subjects:
            subject = replace(subject, name=wanted or subject.name)
            if subject.name in found:
                raise SourceError(
                    f"two objects are called {subject.name!r}: give one of them another name, NAME={uri}"
                )
            found[subject.name] = subject
    return list(found.values())[:limit]


def _split_name(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", text)
    return (slug(match[1]), match[2]) if match else ("", text)


def _subjects(uri: str) -> Iterator[Subject]:
    scheme, separator, _ = uri.partition("://")
    folder = Path(uri.removeprefix("file://"))
    if not separator or scheme == "file":
        if (folder / "motions.json").is_file():
            from zoo.dimo.data import MotionVideos

            yield Subject(slug(MotionVideos.open(folder).object), folder=folder.resolve())
            return
        is_dataset = any(folder.glob("data/*/*.parquet"))
        uri = str(folder.resolve()) if is_dataset else uri
    else:
        is_dataset = scheme not in ("creatures", "http", "https", *COLLECTIONS)
    yield from _subjects_of_dataset(uri) if is_dataset else _subjects_of_source(uri)


def _subjects_of_source(uri: str) -> Iterator[Subject]:
    for record in Selection(animated=True).apply(open_source(uri).list(), lambda reason: None):
        name = object_name(record.source, record.uid)
        yield Subject(name, {"asset": record.to_json()}, record.fingerprint)


def _subjects_of_dataset(url: str) -> Iterator[Subject]:
    from factory.dataset import load_clips

    try:
        table = load_clips(url).table(["clip_id", "source", "asset_uid"]).to_pylist()
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{url!r} is no dataset that can be read: {error}") from None
    assets: dict[tuple[str, str], list[str]] = {}
    for row in table:
        assets.setdefault((row["source"], row["asset_uid"]), []).append(row["clip_id"])
    for asset, clips in assets.items():
        yield Subject(object_name(*asset), {"dataset": url, "clips": clips}, digest("clips", *clips))


def object_name(source: str, uid: str) -> str:
    """What an asset's folder and model are called: kangaroo, kangaroo-7, kaykit-knight."""
    if source == "creatures":
        _, species, seed = uid.split("-")
        return species if seed == "0" else f"{species}-{seed}"
    return slug(re.sub(r"\.(glb|gltf)$", "", uid.rpartition("/")[2], flags=re.IGNORECASE))


# --- the run ------------------------------------------------------------------------------------------


@dataclass
class Made:
    """What became of one object.

    Attributes:
        folder: its motion videos; None if there are none. fault: why, in words.
        motions: filmed. heldout: of them, not to be trained on. rejected: reason → animations left out.
        quarantined: motion → cause, of those given up. key: names what its videos were made from.
    """

    name: str
    folder: Path | None = None
    fault: str = ""
    motions: int = 0
    heldout: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)
    key: str = ""


def make_motions(
    objects: Sequence[str],
    out: str | os.PathLike[str],
    recipe: MotionRecipe | None = None,
    *,
    settings: RenderSettings | None = None,
    backend: str = "opengl",
    workers: int | None = None,
    limit: int | None = None,
    ledger: Ledger | None = None,
) -> list[Made]:
    """Film every motion of the objects into `<out>/motions/<object>/`.

    Args:
        out: a folder that every machine sees.
        workers: side by side; None for as many as the cluster has room for, 0 for this very process, without Ray.
        limit: take only the first so many objects.
    Raises:
        SourceError, StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    subjects = find_subjects(objects, limit)
    ledger = ledger or Ledger(out)
    if "://" in ledger.root:
        raise StorageError(
            f"motion videos are mapped into memory: expected a folder that every machine sees, got {ledger.root}"
        )
    films = any("asset" in subject.payload for subject in subjects)
    stage = MotionStage(recipe or MotionRecipe(), settings or RenderSettings(), backend, films)
    tasks = {subject.name: subject.task(stage) for subject in subjects if subject.folder is None}
    plans: dict[str, Record] = {}
    resolved: dict[str, Record] = {}

    def on_resolved(task: Task, record: Record) -> None:
        if "motion" in task.payload:
            resolved[task.key] = record
        else:
            plans[task.payload["object"]] = record

    if workers == 0:
        run_inline(stage, tasks.values(), ledger, on_resolved)
    else:
        run(
            stage,
            tasks.values(),
            ledger,
            workers=workers,
            on_resolved=on_resolved,
            on_tick=_Ticker(plans, resolved),
        )
    return [
        _made_before(subject)
        if subject.folder
        else _finish(subject.name, plans[subject.name], resolved, ledger)
        for subject in subjects
    ]


def _finish(name: str, plan: Record, resolved: dict[str, Record], ledger: Ledger) -> Made:
    """Write the index of an object's videos, now that all of them are there."""
    made = Made(name)
    made.rejected.update(rejection["reason"] for rejection in plan.summary.get("rejected", ()))
    if plan.status != "done":
        made.fault = plan.reason
        return made
    tasks = [task for task in plan.follow_up if resolved[task.key].status == "done"]
    made.quarantined = {
        task.label: resolved[task.key].reason
        for task in plan.follow_up
        if resolved[task.key].status != "done"
    }
    motions = [MotionPlan(**task.payload["motion"]) for task in tasks]
    if sum(motion.split == "train" for motion in motions) < LEAST_MOTIONS:
        cause = next(iter(made.quarantined.values()))
        made.fault = f"{len(made.quarantined)} of its motions could not be filmed: {cause}"
        return made
    from zoo.dimo.data import MotionVideos

    index, made.folder = plan.summary["index"], Path(ledger.storage.path(folder_of(name)))
    seconds = round(float(np.mean([motion.seconds for motion in motions])), 3)
    MotionVideos(
        folder=made.folder,
        object=name,
        names=[motion.name for motion in motions],
        sentences=[motion.sentence for motion in motions],
        splits=[motion.split for motion in motions],
        files=[task.payload["file"] for task in tasks],
        frames=len(index["phases"]),
        world_to_camera=[motion.world_to_camera for motion in motions],
        K=[motion.K for motion in motions],
        # Sorted, as the ledger's markers are: a resumed run writes the same bytes.
        provenance=dict(sorted({**plan.summary["provenance"], "seconds": seconds}.items())),
        **index,
    ).write()
    made.motions, made.heldout = len(motions), sum(motion.split == "heldout" for motion in motions)
    made.key = digest(*(task.key for task in tasks))
    return made


def _made_before(subject: Subject) -> Made:
    from zoo.dimo.data import MotionVideos

    videos = MotionVideos.open(subject.folder)
    index = (subject.folder / "motions.json").read_text()
    heldout = videos.splits.count("heldout")
    if len(videos) - heldout < LEAST_MOTIONS:
        return Made(subject.name, fault=_too_few(len(videos) - heldout))
    return Made(subject.name, subject.folder, "", len(videos), heldout, key=digest("made", index))


class _Ticker:
    """A line every 10 s."""

    def __init__(self, plans: dict[str, Record], resolved: dict[str, Record]) -> None:
        self._plans, self._resolved, self._next = plans, resolved, STATUS_EVERY_S

    def __call__(self, progress: Progress) -> None:
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + STATUS_EVERY_S
        planned = sum(record.summary.get("motions", 0) for record in self._plans.values())
        print(
            f"[{progress.seconds:5.0f} s] motions {len(self._resolved)}/{planned}, objects {len(self._plans)}, "
            f"{progress.workers} workers",
            file=sys.stderr,
            flush=True,
        )


def summary(made: Sequence[Made]) -> str:
    """The closing table: an object a line, and what was left out and given up."""
    width = max(len(one.name) for one in made)
    lines = []
    for one in made:
        if one.fault:
            lines.append(f"{one.name:{width}}  no videos: {one.fault}")
        else:
            lines.append(
                f"{one.name:{width}}  {one.motions} motions ({one.motions - one.heldout} to train on, {one.heldout} "
                f"held out)  {one.folder}"
            )
        lines += [
            f"{'':{width}}  left out  {count:4d}  {reason}" for reason, count in one.rejected.most_common()
        ]
        lines += [f"{'':{width}}  given up  {label}: {cause}" for label, cause in one.quarantined.items()]
    return "\n".join(lines)


# --- the command --------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `factory.motions` and `factory.train` both take: objects, output and the recipe."""
    parser.add_argument(
        "datasets",
        nargs="*",
        metavar="OBJECT",
        help="more objects, such as the folder of an MV-Video dataset",
    )
    parser.add_argument(
        "--objects",
        nargs="+",
        default=[],
        help="comma-separated: creatures://SPECIES?seed=N, a .glb, a folder of them, a dataset, or motion videos "
        "made before; NAME=URI gives an object another name",
    )
    parser.add_argument("--out", required=True, help="a folder that every machine sees")
    parser.add_argument("--renderer", choices=BACKENDS, default="opengl")
    parser.add_argument(
        "--samples", type=int, choices=(1, 4, 16), default=4, help="anti-aliasing samples a pixel"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="side by side (default: what the cluster has room for); 0: in this process, without Ray",
    )
    parser.add_argument("--limit", type=int, help="take only the first so many objects")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try again what earlier runs gave up"
    )
    group = parser.add_argument_group("recipe", "how motions are filmed")
    for option in fields(MotionRecipe):
        flag, default = f"--{option.name.replace('_', '-')}", option.default
        if isinstance(default, bool):
            group.add_argument(flag, action="store_true", default=None)
        else:
            group.add_argument(
                flag, type=type(default), metavar="N", help=f"{default} unless a preset says otherwise"
            )


def read_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, base: MotionRecipe | None = None
) -> tuple[list[str], MotionRecipe]:
    """The objects and the recipe, `base` where nothing else is said; leaves with a sentence if they make no sense."""
    objects = [uri for text in [*args.objects, *args.datasets] for uri in text.split(",") if uri]
    if not objects:
        parser.error("no object: expected --objects creatures://kangaroo,…, or a dataset")
    for name, least in (("workers", 0), ("limit", 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    said = {option.name: getattr(args, option.name) for option in fields(MotionRecipe)}
    try:
        return objects, replace(base or MotionRecipe(), **{k: v for k, v in said.items() if v is not None})
    except ValueError as error:
        parser.error(str(error))


def film_as_asked(
    args: argparse.Namespace, ledger: Ledger, objects: Sequence[str], recipe: MotionRecipe
) -> list[Made]:
    """`make_motions` with what `add_options` has read; what it raises."""
    if args.retry_quarantined:
        ledger.retry_quarantined()
    return make_motions(
        objects,
        args.out,
        recipe,
        settings=RenderSettings(samples=args.samples),
        backend=args.renderer,
        workers=args.workers,
        limit=args.limit,
        ledger=ledger,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if there are videos of at least one object: the table says which are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m factory.motions",
        description="Film every motion of an object for a motion space to learn. The same command resumes.",
    )
    add_options(parser)
    args = parser.parse_args(argv)
    objects, recipe = read_options(parser, args)
    try:
        made = film_as_asked(args, Ledger(args.out), objects, recipe)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, StageError, StorageError) as error:
        print(f"factory.motions: {error}", file=sys.stderr)
        return 1
    print(summary(made))
    return 0 if any(one.folder for one in made) else 1


if __name__ == "__main__":
    from factory.motions import main  # by its name, by which the cluster finds the stages of this file

    sys.exit(main())
