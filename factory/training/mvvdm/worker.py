"""One worker of an MV-VDM training: it trains on its share of the clips; rank 0 also evaluates and publishes."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

import zoo
from cluster import Ledger
from cluster.storage import Storage
from factory.dataset.loader import ClipLoader
from factory.dataset.ratings import selected_clips
from factory.dataset.reader import ClipDataset, load_clips
from factory.training.mvvdm.clips import ClipShare, true_clip
from factory.training.mvvdm.job import MVVDMTrainingJob, unseen_clips
from factory.training.mvvdm.recipe import PROGRESS, RESULT, MVVDMRecipe, work_folder
from zoo.metrics.images import reconstruction_psnr
from zoo.mvvdm.autoencoder import PatchAutoencoder, Reconstruction
from zoo.mvvdm.denoising import Denoising, encoder_of
from zoo.mvvdm.evaluation import TrueClip, comparison_sheet, evaluate, sampler
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import StepReport, averages_of, levels, train
from zoo.mvvdm.unet import MVVDMUNet
from zoo.text_encoder import MINILM

FITTED_CLIPS = 128  # clips whose patches the autoencoder's principal components are computed from
CURVE = 20  # points of the published loss curve


def work(job: dict[str, Any], device: str) -> None:
    """Train on this worker, from the newest checkpoint if there is one; rank 0 also evaluates and publishes.

    Args:
        job: JSON of an `MVVDMTrainingJob`.
        device: "cpu", "cuda", "cuda:0", …
    """
    training = WorkerTraining.start(MVVDMTrainingJob.from_json(job), device)
    vae = training.autoencoder() if training.recipe.autoencoder else None
    pipeline = training.pipeline(vae)
    training.network(pipeline)
    if training.rank == 0:
        training.publish(pipeline)


def _rank_and_size() -> tuple[int, int]:
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if grouped else (0, 1)


@dataclass
class WorkerTraining:
    """The training as one worker sees it.

    Attributes:
        job: the same on all workers.
        storage: of the job's output. folder: of the training in it.
        device: of this worker.
        rank, size: of this worker and of the group.
    """

    job: MVVDMTrainingJob
    storage: Storage
    folder: str
    device: str
    rank: int
    size: int

    @classmethod
    def start(cls, job: MVVDMTrainingJob, device: str) -> WorkerTraining:
        return cls(job, Ledger(job.out).storage, work_folder(job.key), device, *_rank_and_size())

    @property
    def recipe(self) -> MVVDMRecipe:
        return self.job.recipe

    def autoencoder(self) -> PatchAutoencoder:
        """Train the small autoencoder of the recipe, and freeze it."""
        if self.recipe.autoencoder is None:
            raise ValueError(
                "MVVDMRecipe.autoencoder is None: this recipe starts from a published autoencoder"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.job.seed)
            vae = PatchAutoencoder()
        examples = self._batches(1, shared=False)(0)  # the same clips on all workers, so the same components
        vae.fit(torch.cat([levels(next(examples)["frames"]).flatten(0, 2) for _ in range(FITTED_CLIPS)]))
        self._train("autoencoder", Reconstruction(vae), self.recipe.autoencoder)
        return vae.requires_grad_(False)

    def pipeline(self, vae: PatchAutoencoder | None) -> MVVDMPipeline:
        """The whole model before training.

        Args:
            vae: the trained autoencoder of the recipe. The network is then initialised at random; None loads all parts
                from published files instead and freezes all but the MV2V-Adapters and the motion modules.
        """
        recipe = self.recipe
        defaults: dict[str, Any] = {
            "num_frames": recipe.frames,
            "resolution": recipe.resolution,
            "guidance_scale": recipe.guidance,
            "temperature": recipe.temperature,
        }
        if vae is None:
            parts: dict[str, Any] = {**self.job.parts}
            pipeline = MVVDMPipeline.from_pretrained_parts(**parts, released=None, config=recipe.network)
            pipeline.scheduler = mvvdm_scheduler(recipe.prediction_type)
            pipeline.register_to_config(**defaults)
            pipeline.unet.freeze_backbone()
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.job.seed)
                unet = MVVDMUNet(recipe.network)
            pipeline = MVVDMPipeline(
                vae,
                unet,
                mvvdm_scheduler(recipe.prediction_type, "trailing"),
                sentence_encoder=MINILM,
                **defaults,
            )
            if recipe.network.sentence:
                captions = set(load_clips(self.job.data, "train").table(["caption"])["caption"].to_pylist())
                embeddings = pipeline.encode_prompt(sorted(captions)).flatten(0, 1)
                unet.whitening.fit(embeddings[embeddings.any(-1)])  # without the zeros of padding
        pipeline.set_progress_bar_config(disable=True)
        if self.job.gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        return pipeline.to(self.device)

    def network(self, pipeline: MVVDMPipeline) -> None:
        """Train the network; every `validate_every` steps, write a sample for an unseen clip beside its true video."""
        (clip,) = self._true_clips(1)
        sample = self._sampler(pipeline)

        def validate(step: int) -> None:
            sheet = comparison_sheet(sample(clip), clip.frames)  # on all workers: they hold the shards
            if self.rank == 0:
                self.storage.write(f"{self.folder}/validation/{step:07d}.png", _png(sheet))

        objective = Denoising(
            pipeline.unet,
            encoder_of(pipeline),
            prediction_type=self.recipe.prediction_type,
            timestep_power=self.recipe.timestep_power,
            mirrored=self.recipe.mirrored,
        )
        if self.job.compile:
            pipeline.unet.compile()
        self._train("network", objective, self.recipe.plan, validate)

    def publish(self, pipeline: MVVDMPipeline) -> None:
        """Evaluate the network with its averaged weights, publish it and write `result.json`."""
        job, recipe = self.job, self.recipe
        self._write_progress({"stage": "measuring"})
        if job.sharded:  # the other workers, and their shards of this network, are no longer there
            pipeline = self.pipeline(pipeline.vae if recipe.autoencoder else None)
        self._load_averages(pipeline)
        clips = list(self._true_clips(job.test_clips))
        dataset, split = self._unseen()
        metrics = evaluate(self._sampler(pipeline), clips, trained_on=split == "train")
        name = dataset.url.rstrip("/").rpartition("/")[2]
        metrics["dataset"] = {"name": name, "type": "mv-video", "split": split}
        metrics["training"] = {
            "steps": recipe.plan.steps,
            "batch": recipe.plan.batch,
            "clips": int(selected_clips(load_clips(job.data, "train"), job.quality).sum()),
            "loss": self._curve(),
        }
        if recipe.autoencoder:
            frames = (
                torch.from_numpy(np.concatenate([clip.frames for clip in clips]))
                .movedim(-1, 2)
                .to(self.device)
            )
            metrics["autoencoder"] = {"psnr": reconstruction_psnr(pipeline.vae, frames / 127.5 - 1)}
        pipeline.metrics = metrics
        pipeline.card = model_card(job.name, load_clips(job.data), recipe, metrics["training"]["loss"])
        if recipe.autoencoder:  # a small network, measured to lose nothing visible (docs/mvvdm.md)
            pipeline.storage = "int8"
        pipeline.example = {"images": clips[0].frames[:, 0], "prompt": clips[0].caption}
        own_use = job.publish.startswith(
            "local:"
        )  # the user's own output, whatever the licences of the clips
        # On the device of the training, because the preview is sampled; without compiling for its shapes.
        with torch.compiler.set_stance("force_eager"):
            reference = zoo.publish(pipeline, job.publish, home=job.home, own_use=own_use)
        result = {"model": reference, **{name: round(value, 5) for name, value in metrics["mean"].items()}}
        self.storage.write(f"{self.folder}/{RESULT}", json.dumps(result).encode())

    def _train(
        self,
        stage: str,
        objective: torch.nn.Module,
        plan: TrainingPlan,
        validate: Callable[[int], None] | None = None,
    ) -> None:
        train(
            objective,
            self._batches(plan.batch),
            plan,
            checkpoint=StoredCheckpoint(self.storage, f"{self.folder}/{stage}.safetensors"),
            save_every=self.job.save_every,
            seed=self.job.seed,
            device=self.device,
            at_once=self.job.at_once,
            sharded=self.job.sharded,
            validate=validate,
            validate_every=self.job.validate_every,
            on_step=lambda progress: self._report(stage, progress),
        )

    def _batches(self, batch: int, shared: bool = True) -> Callable[[int], Iterator[dict[str, Any]]]:
        """A function of a step that yields this worker's examples from that step on, epoch after epoch.

        Args:
            batch: examples per step, over all workers.
            shared: split each batch over the workers, instead of giving all of it to each.
        """
        clips = ClipShare(
            load_clips(self.job.data, "train"),
            self.recipe.resolution,
            part=slice(self.rank, None, self.size) if shared else slice(None),
            views=self.recipe.views,
            frames=self.recipe.frames,
            batch_size=batch,
            seed=self.job.seed,
            quality=self.job.quality,
        )
        loader = ClipLoader(
            clips, num_workers=self.job.loader_workers, pin_memory=torch.device(self.device).type == "cuda"
        )

        def batches(first: int) -> Iterator[dict[str, Any]]:
            clips.set_epoch(*divmod(first, len(clips)))
            loader.load_state_dict(clips.state_dict())
            while True:
                for examples in loader:
                    yield {name: examples[name] for name in ("frames", "caption", "camera")}

        return batches

    def _unseen(self) -> tuple[ClipDataset, str]:
        """The clips to evaluate on and the name of their split, which the metrics report.

        All clips of `test_data` if it is given; otherwise the first split of `UNSEEN` that `data` has, or the training
        clips if it has neither.
        """
        if self.job.test_data:
            return load_clips(self.job.test_data), "test"
        return unseen_clips(self.job.data)

    def _sampler(self, pipeline: MVVDMPipeline) -> Callable[[TrueClip], np.ndarray]:
        sample_clip = sampler(pipeline, steps=self.recipe.sampling_steps, guidance_scale=self.recipe.guidance)

        def sample(clip: TrueClip) -> np.ndarray:
            with torch.compiler.set_stance(
                "force_eager"
            ):  # compiling for other shapes costs more than it saves
                return sample_clip(clip)

        return sample

    def _true_clips(self, count: int) -> Iterator[TrueClip]:
        dataset, _ = self._unseen()
        for index in range(min(count, len(dataset))):
            yield true_clip(dataset, dataset[index], self.recipe)

    def _load_averages(self, pipeline: MVVDMPipeline) -> None:
        """Load the averaged weights of the last checkpoint into the network. Frozen weights are not in it."""
        data = self.storage.read(f"{self.folder}/network.safetensors")
        if data is None:
            raise FileNotFoundError(f"{self.folder}/network.safetensors: the training has left no checkpoint")
        state = {name.removeprefix("unet."): tensor for name, tensor in averages_of(data).items()}
        pipeline.unet.load_state_dict(state, strict=False)
        pipeline.unet.eval()

    def _report(self, stage: str, progress: StepReport) -> None:
        """Write the progress of a step, and its loss for the curve."""
        self._write_progress({"stage": stage, **progress})
        losses = self._losses(stage) | {str(progress["step"]): progress["loss"]}
        self.storage.write(f"{self.folder}/{stage}-loss.json", json.dumps(losses).encode())

    def _losses(self, stage: str) -> dict[str, float]:
        """Step → reported loss.

        A resumed run reports the steps after its checkpoint again, which replaces their losses.
        """
        losses = json.loads(self.storage.read(f"{self.folder}/{stage}-loss.json") or b"{}")
        # Version 0.1 stored the sum and the number of losses of each part of the curve.
        return {step: loss for step, loss in losses.items() if isinstance(loss, int | float)}

    def _curve(self) -> list[dict[str, float]]:
        """The network's mean loss over each part of its training; "step" is the last of the part."""
        steps = self.recipe.plan.steps
        parts: dict[int, list[float]] = {}
        for step, loss in sorted((int(step), loss) for step, loss in self._losses("network").items()):
            parts.setdefault((step - 1) * CURVE // steps, []).append(loss)
        return [
            {
                "step": math.ceil((part + 1) * steps / CURVE),
                "loss": float(f"{sum(losses) / len(losses):.3g}"),
            }
            for part, losses in parts.items()
        ]

    def _write_progress(self, progress: Mapping[str, Any]) -> None:
        if self.rank == 0:
            content = json.dumps({**progress, "at": time.time()})
            self.storage.write(f"{self.folder}/{PROGRESS}", content.encode())


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint (`zoo.mvvdm.training.Checkpoint`) in any storage.

    Attributes:
        name: of the file, relative to the storage.
    """

    storage: Storage
    name: str

    def read(self) -> bytes | None:
        return self.storage.read(self.name)

    def write(self, data: bytes) -> None:
        self.storage.write(self.name, data)


def model_card(
    name: str, dataset: ClipDataset, recipe: MVVDMRecipe, curve: list[dict[str, float]]
) -> dict[str, Any]:
    """Content of the model card besides the metrics.

    Args:
        name: of the model.
        dataset: that it was trained on; its licences are the model's.
        recipe: listed in the section "Training".
        curve: listed in the section "Loss".
    """
    licences = sorted(set(dataset.table(["licence"])["licence"].to_pylist()))
    settings = asdict(recipe)
    settings = {**settings.pop("plan"), **settings.pop("network"), **settings}
    rows = [{"what": key, "value": str(value)} for key, value in settings.items() if key != "autoencoder"]
    return {
        "title": f"MV-VDM {name}: four views of a still object in, four videos out",
        "summary": (
            f"A multi-view video diffusion model (Animate3D, Jiang et al., NeurIPS 2024) of {recipe.views} views and "
            f"{recipe.frames} frames at {recipe.resolution} px, which sets an object in motion as a sentence says."
        ),
        "license": " AND ".join(licences),
        "pipeline_tag": "image-to-video",
        "tags": ["mv-vdm", "multi-view", "video-diffusion", "animation"],
        "sections": {"Training": rows, "Loss": curve},
        "provenance": training_data(dataset),
    }


def training_data(dataset: ClipDataset) -> list[dict[str, Any]]:
    """Records of the assets in a dataset (`zoo.provenance`): one per combination of source, licence and NoAI status.

    An asset without attribution is listed apart, since its clips may not be published.
    """
    columns = ["source", "licence", "noai", "attribution", "asset_uid"]
    groups: dict[tuple[str, ...], set[str]] = {}
    for row in dataset.table(columns).to_pylist():
        source, licence, noai = (str(row[name] or "").strip() for name in columns[:3])
        credited = "in ATTRIBUTION.md of the dataset" if str(row["attribution"] or "").strip() else ""
        groups.setdefault((source, licence, noai, credited), set()).add(str(row["asset_uid"]))
    return [
        {**dict(zip(columns, group, strict=False)), "uid": min(uids), "assets": len(uids)}
        for group, uids in sorted(groups.items())
    ]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
