"""The job of `python -m factory.train mvvdm`, which the driver makes from its arguments and sends to the workers."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster import Ledger, task_key
from factory.dataset.ratings import selected_clips
from factory.dataset.reader import ClipDataset, load_clips
from factory.training.mvvdm.recipe import PARTS, TRAINING_VERSION, MVVDMRecipe

UNSEEN = ("test", "validation")  # splits to evaluate on; the first that has clips
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class MVVDMTrainingJob:
    """Everything a worker needs to train one model. `recipe`, `seed`, `parts` and the clips determine `key`.

    Attributes:
        recipe: network, training plans and clip size.
        seed: of initialisation, noise and the order of clips.
        parts: name of a published part (one of `PARTS`) → hub repository, folder or file.
        key: of the ledger's record and of the checkpoint folder.
        name: of the model.
        out: root of the ledger and of the checkpoints, a folder or a URL.
        data: dataset to train on. test_data: dataset to evaluate on; None = a split of `data`.
        publish: reference to publish the model under. home: registry folder; None = the user's own.
        sharded: train with FSDP instead of DDP.
        at_once: examples per forward pass of a worker.
        compile: compile the network with `torch.compile`.
        gradient_checkpointing: recompute activations in the backward pass.
        loader_workers: processes per worker that decode clips.
        save_every, validate_every: steps between two checkpoints, and between two validation images.
        test_clips: number of clips to evaluate on.
        quality: least rating of the clips to train on, of `factory.dataset.ratings.QUALITIES`.
    """

    recipe: MVVDMRecipe
    seed: int
    parts: dict[str, str]
    key: str
    name: str
    out: str
    data: str
    test_data: str | None
    publish: str
    home: str | None
    sharded: bool
    at_once: int
    compile: bool
    gradient_checkpointing: bool
    loader_workers: int
    save_every: int
    validate_every: int
    test_clips: int
    quality: str = "ok"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MVVDMTrainingJob:
        return cls(**{**data, "recipe": MVVDMRecipe.from_json(data["recipe"])})


def job_of(args: argparse.Namespace, recipe: MVVDMRecipe) -> MVVDMTrainingJob:
    """The training job of the command's arguments. Opens the datasets, so that mistakes are reported before any work.

    Raises:
        ValueError: the clips do not fit the recipe.
        FileNotFoundError: a dataset does not exist or has no clips to train on.
    """
    clips = load_clips(args.data, "train")
    test_clips = load_clips(args.test_data) if args.test_data else None
    for dataset in filter(None, (clips, test_clips)):
        _check_clips(dataset, recipe)
    if (args.publish or "").startswith("hub:"):
        _check_shareable(args.data, args.publish)
    _check_batches(clips, recipe, args.quality)
    if test_clips is None:
        _check_clips(unseen_clips(args.data)[0], recipe)
    parts = {name: getattr(args, name) for name in PARTS if getattr(args, name) is not None}
    _check_parts(parts, recipe)
    content = json.dumps({"recipe": recipe.key_content(), "seed": args.seed, "parts": parts}, sort_keys=True)
    rated = selected_clips(clips, args.quality)
    clip_ids = clips.table(["clip_id"])["clip_id"].filter(pa.array(rated)).to_pylist()
    if test_clips is not None:
        _check_disjoint(clip_ids, test_clips)
    name = args.name or args.preset
    return MVVDMTrainingJob(
        recipe=recipe,
        seed=args.seed,
        parts=parts,
        key=task_key("mvvdm", TRAINING_VERSION, content, *clip_ids),
        name=name,
        out=Ledger(args.out).root,
        data=_absolute(clips),
        test_data=_absolute(test_clips) if test_clips else None,
        publish=args.publish or f"local:mvvdm/{name}",
        home=home_of(args.out),
        sharded=args.sharded,
        at_once=args.at_once,
        compile=args.compile,
        gradient_checkpointing=args.gradient_checkpointing,
        loader_workers=args.loader_workers,
        save_every=args.save_every,
        validate_every=args.validate_every,
        test_clips=args.test_clips,
        quality=args.quality,
    )


def _absolute(clips: ClipDataset) -> str:
    """The dataset's URL, or its absolute path: workers may run in another folder."""
    return clips.url if "://" in clips.url else os.path.abspath(clips.url)


def unseen_clips(data: str) -> tuple[ClipDataset, str]:
    """The clips of a dataset to evaluate a model on that is trained on it, and their split.

    It is the first of `UNSEEN` that has clips, or the training split if neither has.
    """
    splits = set(load_clips(data).table(["split"])["split"].to_pylist())
    split = next((split for split in UNSEEN if split in splits), "train")
    return load_clips(data, split), split


def _check_batches(clips: ClipDataset, recipe: MVVDMRecipe, quality: str) -> None:
    """Raise ValueError if the clips do not fill one batch, or differ in shape."""
    from factory.dataset.loader import TrainingClips  # imports torch

    for name, plan in (("plan", recipe.plan), ("autoencoder", recipe.autoencoder)):
        if plan is None:
            continue
        try:
            TrainingClips(
                clips,
                views=recipe.views,
                frames=recipe.frames,
                batch_size=plan.batch,
                quality=quality,
                rank=0,
                world_size=1,
            )
        except ValueError as error:
            text = str(error).removeprefix("TrainingClips: ")
            advice = f"; --set {name}.batch=… sets it" if "batch" in text else ""
            raise ValueError(f"{clips.url}: {text}{advice}") from None


def _check_parts(parts: Mapping[str, str], recipe: MVVDMRecipe) -> None:
    """Check the published parts that a recipe starts from, as far as that takes no download, or its text encoder.

    Raises:
        OptionError, ValueError: one cannot be loaded.
    """
    from zoo.text_encoder import MINILM, check_text_encoder

    if recipe.autoencoder is not None:
        if parts:
            option = f"--{next(iter(parts)).replace('_', '-')}"
            raise ValueError(
                f"{option}: this preset trains from scratch; only preset paper starts from published parts"
            )
        check_text_encoder(MINILM, "text encoder of the prompts")
        return
    for name, source in parts.items():
        if not Path(source).exists() and not _HUB_NAME.fullmatch(source):
            raise ValueError(
                f"--{name.replace('_', '-')} {source}: no such file or folder, and not the name of a repository"
            )


def _check_clips(clips: ClipDataset, recipe: MVVDMRecipe) -> None:
    for row in _shapes(clips):
        _check_shape(clips, row, recipe)


def _shapes(clips: ClipDataset) -> list[dict[str, int]]:
    """The shapes that clips of a dataset have."""
    rows = clips.table(["num_views", "num_frames", "width", "height"]).to_pylist()
    return [dict(shape) for shape in sorted({tuple(row.items()) for row in rows})]


def _check_shape(clips: ClipDataset, row: Mapping[str, int], recipe: MVVDMRecipe) -> None:
    if row["num_frames"] < recipe.frames or row["num_views"] % recipe.views:
        raise ValueError(
            f"{clips.url}: the recipe needs {recipe.views} evenly spaced views and {recipe.frames} frames, the clips "
            f"have {row['num_views']} and {row['num_frames']}: choose others with --set views=… --set frames=…"
        )
    if row["width"] < recipe.resolution or row["width"] != row["height"]:
        raise ValueError(
            f"{clips.url}: the recipe needs square clips of at least {recipe.resolution} px, these are "
            f"{row['width']}x{row['height']} px: render them with --resolution {recipe.resolution}"
        )


def _check_shareable(data: str, target: str) -> None:
    """Refuse to train a model for the hub on clips that may not be published."""
    from factory.dataset.release import PublishError, check_publishable

    try:
        check_publishable(data)
    except PublishError as error:
        raise ValueError(
            f"--publish {target}: a model trained on {data} may not be published: {error}; or leave --publish out, "
            f"which keeps the model below --out"
        ) from error


def _check_disjoint(trained_on: list[str], test_clips: ClipDataset) -> None:
    """Refuse to measure a model on the clips that it is trained on."""
    common = sorted(set(trained_on) & set(test_clips.table(["clip_id"])["clip_id"].to_pylist()))
    if common:
        raise ValueError(
            f"{test_clips.url}: {len(common)} of its {len(test_clips)} clips, such as {common[0]}, are also in the "
            f"training data; give --test-data other clips, or leave it out to use the test split of --data"
        )


def check_workers(workers: int | tuple[int, int], recipe: MVVDMRecipe) -> None:
    """Raise ValueError if a batch has fewer examples than there may be workers."""
    most = workers if isinstance(workers, int) else workers[1]
    for stage, plan in (("plan", recipe.plan), ("autoencoder", recipe.autoencoder)):
        if plan is not None and plan.batch < most:
            raise ValueError(
                f"a batch of {plan.batch} cannot be split over {most} workers: use fewer workers, or "
                f"--set {stage}.batch={most}"
            )


def home_of(out: str) -> str | None:
    """The registry in a local output folder; None, the user's own registry, for a remote output."""
    return None if "://" in out else str(Path(out).resolve())
