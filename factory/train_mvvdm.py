"""A dataset in, an MV-VDM out: `python -m factory.train mvvdm --data FOLDER --out OUT` (docs/training.md).

One model, many workers: Ray Train keeps them together (cluster/training.py), what each of them does stands in
factory/mvvdm_work.py. Below `--out`:

    _factory/training/<key>/    checkpoints, progress.json, validation/<step>.png, result.json
    models/mvvdm/<name>/        the model: `zoo.load("mvvdm/<name>", home=OUT)` loads it

The same command resumes, whatever was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster import Ledger, Outcome, StageError, StorageError, Task
from cluster.storage import Storage
from factory.stages import digest
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.plan import PREDICTIONS, TrainingPlan

if TYPE_CHECKING:
    from factory.dataset import ClipDataset

TRAINING_VERSION = "3"  # raise it when the same clips and recipe would give another model
PROGRESS, RESULT = "progress.json", "result.json"
PARTS = ("mvdream", "motion_adapter", "ip_adapter", "base", "image_encoder")
LINES_EVERY_S = 30.0


@dataclass(frozen=True)
class Recipe:
    """What is trained, and on what size of clips.

    Attributes:
        network: its sizes. plan: how it is learnt.
        autoencoder: how a small one is learnt first; None begins with published parts instead, which stay as they are
            but for those that the paper trains.
        views, frames, resolution: of a clip as the network sees it.
        prediction_type, timestep_power, mirrored: what the network predicts, how noisy its frames are, and whether
            it also sees mirrored examples; see `zoo.mvvdm.denoising`.
        guidance, temperature, sampling_steps: when it samples.
    """

    network: MVVDMConfig
    plan: TrainingPlan
    autoencoder: TrainingPlan | None = None
    views: int = 4
    frames: int = 16
    resolution: int = 256
    prediction_type: str = "epsilon"
    timestep_power: float = 1.0
    mirrored: bool = False
    guidance: float = 7.5
    temperature: float = 1.0
    sampling_steps: int = 25

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTIONS:
            raise ValueError(
                f"Recipe.prediction_type: expected one of {', '.join(PREDICTIONS)}, got {self.prediction_type!r}"
            )
        if self.network.from_first and self.prediction_type != "sample":
            raise ValueError(
                "Recipe.prediction_type: a network with from_first finds latents, expected 'sample', got "
                f"{self.prediction_type!r}"
            )

    @staticmethod
    def tiny() -> Recipe:
        """All of it from nothing, on creatures, in an hour of two CPU cores."""
        return Recipe(
            network=MVVDMConfig.tiny(),
            plan=TrainingPlan(
                steps=7_000,
                batch=2,
                learning_rate=4e-4,
                warmup=200,
                cooldown=2_500,
                precision="fp32",
                ema=0.999,
            ),
            autoencoder=TrainingPlan(
                steps=1_500,
                batch=2,
                learning_rate=2e-3,
                warmup=50,
                weight_decay=1e-4,
                precision="fp32",
                ema=0.995,
            ),
            frames=8,
            resolution=64,
            prediction_type="sample",
            timestep_power=0.5,
            mirrored=True,
            guidance=1.0,
            temperature=0.5,
        )

    @staticmethod
    def bundled() -> Recipe:
        """What the package carries: the small one, in nine minutes of an H200 (docs/training.md)."""
        tiny = Recipe.tiny()
        plan = replace(
            tiny.plan, steps=2_000, batch=64, learning_rate=1e-3, warmup=300, cooldown=800, precision="bf16"
        )
        return replace(tiny, plan=plan)

    @staticmethod
    def paper() -> Recipe:
        """As published: MVDream, AnimateDiff and IP-Adapter to begin with, 32 GPUs for three days."""
        return Recipe(MVVDMConfig.base(), TrainingPlan.paper())

    @staticmethod
    def from_json(told: dict[str, Any]) -> Recipe:
        autoencoder = told["autoencoder"]
        return Recipe(
            **{
                **told,
                "network": MVVDMConfig(**told["network"]),
                "plan": TrainingPlan(**told["plan"]),
                "autoencoder": autoencoder and TrainingPlan(**autoencoder),
            }
        )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": Recipe.tiny,
    "bundled": Recipe.bundled,
    "paper": Recipe.paper,
}


def work_folder(key: str) -> str:
    return f"_factory/training/{key}"


# --- the run ------------------------------------------------------------------------------------------


def train_model(
    job: dict[str, Any], workers: int | tuple[int, int], cpus: float, gpus: float
) -> dict[str, Any]:
    """Train and publish what a job says, once; where it is, and the figures of its metrics.

    Args:
        job: of `job_of`. workers: how many, (least, most), or 0 for this process, without Ray. cpus, gpus: of each.
    Raises:
        StageError: it cannot be trained here. StorageError: the output cannot be written. KeyboardInterrupt.
        The same call resumes.
    """
    ledger = Ledger(job["out"])
    task = Task(job["key"], {"name": job["name"]}, f"mvvdm/{job['name']}")
    if (record := ledger.record(task.key)) is not None:
        return record.summary
    folder, started = work_folder(job["key"]), time.monotonic()
    teller = _Teller(ledger.storage, f"{folder}/{PROGRESS}")
    if workers == 0:
        from factory.mvvdm_work import work

        work(job, "cuda" if gpus else "cpu")
    else:
        from cluster.training import Group, train_together
        from factory.mvvdm_work import work

        train_together(
            work,
            job,
            ledger.storage,
            Group(workers, cpus, gpus),
            name=job["key"],
            progress=teller.progress,
            on_tick=teller.tick,
        )
    result = json.loads(ledger.storage.read(f"{folder}/{RESULT}"))
    return ledger.commit(task, Outcome("done", result), time.monotonic() - started).summary


def job_of(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """What workers are told, plain values; opens the dataset, so that what is wrong with it is said at once.

    Raises:
        ValueError: the clips do not fit the recipe. FileNotFoundError: there are none.
    """
    from factory.dataset import load_clips
    from factory.mvvdm_work import home_of

    clips = load_clips(args.data, "train")
    unseen = load_clips(args.test_data) if args.test_data else None
    for dataset in filter(None, (clips, unseen)):
        _check_clips(dataset, recipe)
    job = {
        "recipe": asdict(recipe),
        "seed": args.seed,
        "parts": {name: getattr(args, name) for name in PARTS if getattr(args, name) is not None},
    }
    content = clips.table(["clip_id"])["clip_id"].to_pylist()
    key = digest("mvvdm", TRAINING_VERSION, json.dumps(job, sort_keys=True), *content)
    name = args.name or args.preset
    return {
        **job,
        "key": key,
        "name": name,
        "out": Ledger(args.out).root,
        "data": _everywhere(clips),
        "test_data": _everywhere(unseen) if unseen else None,
        "publish": args.publish or f"local:mvvdm/{name}",
        "home": home_of(args.out),
        "sharded": args.sharded,
        "at_once": args.at_once,
        "compile": args.compile,
        "gradient_checkpointing": args.gradient_checkpointing,
        "loader_workers": args.loader_workers,
        "save_every": args.save_every,
        "validate_every": args.validate_every,
        "test_clips": args.test_clips,
    }


def _everywhere(clips: ClipDataset) -> str:
    """The dataset's address, as it is called from any folder."""
    return clips.url if "://" in clips.url else os.path.abspath(clips.url)


def _check_clips(clips: ClipDataset, recipe: Recipe) -> None:
    known = clips[0].metadata
    if known["num_frames"] < recipe.frames or known["num_views"] % recipe.views:
        raise ValueError(
            f"{clips.url}: this recipe wants {recipe.views} even views and {recipe.frames} frames, the clips have "
            f"{known['num_views']} and {known['num_frames']}: take others with --set views=… --set frames=…"
        )
    if known["width"] < recipe.resolution or known["width"] != known["height"]:
        raise ValueError(
            f"{clips.url}: clips are {known['width']}x{known['height']} px, this recipe wants squares of at least "
            f"{recipe.resolution} px: render them with --resolution {recipe.resolution}"
        )


def _check_workers(workers: int | tuple[int, int], recipe: Recipe) -> None:
    most = workers if isinstance(workers, int) else workers[1]
    for stage, plan in (("plan", recipe.plan), ("autoencoder", recipe.autoencoder)):
        if plan is not None and plan.batch < most:
            raise ValueError(
                f"a batch of {plan.batch} cannot be shared by {most} workers: take fewer, or --set {stage}.batch={most}"
            )


class _Teller:
    """Tells how far the workers are, by what the first of them has left in the storage."""

    def __init__(self, storage: Storage, file: str) -> None:
        self._storage, self._file = storage, file
        self._next = 0.0

    def _read(self) -> dict[str, Any]:
        return json.loads(self._storage.read(self._file) or b"{}")

    def progress(self) -> int:
        """A number that grows with the work."""
        told = self._read()
        stages = ("", "autoencoder", "network", "measuring")
        return stages.index(told.get("stage", "")) * 10**9 + told.get("step", 0)

    def tick(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES_EVERY_S
            print(progress_line(self._read()), file=sys.stderr, flush=True)


def progress_line(told: dict[str, Any]) -> str:
    """One line: stage, steps, loss, where a step's time goes, and what is left."""
    if "step" not in told:
        return told.get("stage", "starting")
    left = told["seconds"] / told["step"] * (told["steps"] - told["step"])
    shares = ", ".join(f"{part} {told[part]:.0%}" for part in ("loader", "forward", "backward", "optimiser"))
    return (
        f"{told['stage']}  {told['step']}/{told['steps']}  loss {told['loss']:.4g}  {told['workers']} workers  "
        f"{told['seconds'] / told['step']:.2f} s a step: {shares}; {left / 60:.0f} min left"
    )


# --- the command --------------------------------------------------------------------------------------


def add_parser(families: Any) -> argparse.ArgumentParser:
    """`python -m factory.train mvvdm`."""
    parser = families.add_parser(
        "mvvdm",
        help="a multi-view video diffusion model",
        description="Train a multi-view video diffusion model on a dataset. The same command resumes.",
    )
    parser.add_argument(
        "--data", required=True, help="an MV-Video dataset: a folder that every machine sees, or a URL"
    )
    parser.add_argument(
        "--test-data", help="a dataset whose clips it is measured on (default: the test split of --data)"
    )
    parser.add_argument("--out", required=True, help="a folder that every machine sees, or a URL")
    parser.add_argument(
        "--preset", choices=RECIPES, default="tiny", help="what is trained (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value, such as plan.steps=100",
    )
    parser.add_argument("--name", help="of the model (default: the preset's)")
    parser.add_argument(
        "--publish", help="local:mvvdm/NAME or hub:org/NAME (default: into the registry at --out)"
    )
    parser.add_argument("--seed", type=int, default=0)
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--workers",
        type=_workers,
        default=1,
        help="how many; LEAST-MOST for as many as there is room for; 0: this process, without Ray (default: 1)",
    )
    group.add_argument("--cpus", type=float, default=1.0, help="of each")
    group.add_argument("--gpus", type=float, default=0.0, help="of each")
    group.add_argument("--sharded", action="store_true", help="FSDP instead of DDP")
    group.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="examples that a worker computes together: many on a GPU (default: 1)",
    )
    group.add_argument(
        "--compile", action="store_true", help="by torch.compile: some minutes at first, faster then"
    )
    group.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    group.add_argument(
        "--loader-workers", type=int, default=2, help="processes that decode clips, of each worker"
    )
    group.add_argument("--save-every", type=int, default=500, help="steps between two checkpoints")
    group.add_argument(
        "--validate-every", type=int, default=500, help="steps between two validation pictures"
    )
    group.add_argument("--test-clips", type=int, default=16, help="unseen clips that it is measured on")
    group = parser.add_argument_group(
        "parts", "what preset paper begins with: hub repositories, folders or files"
    )
    for name in PARTS:
        group.add_argument(f"--{name.replace('_', '-')}")
    return parser


def run(args: argparse.Namespace, parser: argparse.ArgumentParser, configured: Callable[..., Any]) -> int:
    """Run the command; 0 if there is a model now.

    Args:
        configured: gives a preset with the changes of `--set`.
    """
    for name in ("cpus", "at_once", "save_every", "test_clips"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name):g}")
    try:
        recipe = configured(RECIPES[args.preset](), args.set)
        _check_workers(args.workers, recipe)
        job = job_of(args, recipe)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        result = train_model(job, args.workers, args.cpus, args.gpus)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    except (StageError, StorageError) as error:
        print(f"factory.train: {error}", file=sys.stderr)
        return 1
    for name, value in result.items():
        print(f"{name:18} {value}")
    return 0


def _workers(text: str) -> int | tuple[int, int]:
    try:
        numbers = [int(part) for part in text.split("-")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] >= 0:
        return numbers[0]
    if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise argparse.ArgumentTypeError(f"expected a number or LEAST-MOST, got {text!r}")
