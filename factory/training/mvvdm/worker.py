"""What each worker does when an MV-VDM is trained: read its share of the clips, learn, measure, publish."""

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
from factory.dataset.reader import ClipDataset, load_clips
from factory.training.mvvdm.clips import ClipShare, true_clip
from factory.training.mvvdm.recipe import PROGRESS, RESULT, Recipe, work_folder
from zoo.metrics.images import reconstruction_psnr
from zoo.mvvdm.autoencoder import PatchAutoencoder, Reconstruction
from zoo.mvvdm.denoising import Denoising, encoder_of
from zoo.mvvdm.evaluation import TrueClip, comparison_sheet, evaluate, sampler
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import StepReport, levels, train
from zoo.mvvdm.unet import MVVDMUNet
from zoo.text_encoder import MINILM

FITTED_CLIPS = 128  # whose patches give the autoencoder's components
CURVE = 20  # parts of a training whose mean losses are kept
UNSEEN = ("test", "validation")  # splits to measure on; the first that has clips


def work(job: dict[str, Any], device: str) -> None:
    """Train, and on the first worker measure and publish. Goes on from whatever is in the storage.

    Args:
        job: see `factory.train_mvvdm.job_of`.
    """
    recipe, storage = Recipe.from_json(job["recipe"]), Ledger(job["out"]).storage
    rank, size = _place()
    run = _Run(job, recipe, storage, work_folder(job["key"]), device, rank, size)
    vae = run.autoencoder() if recipe.autoencoder else None
    pipeline = run.pipeline(vae)
    run.network(pipeline)
    if rank == 0:
        run.publish(pipeline)


def _place() -> tuple[int, int]:
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if grouped else (0, 1)


@dataclass
class _Run:
    """A training under way on this worker, below `folder` of the storage."""

    job: dict[str, Any]
    recipe: Recipe
    storage: Storage
    folder: str
    device: str
    rank: int
    size: int

    def autoencoder(self) -> PatchAutoencoder:
        """A small one, learnt from the same clips."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.job["seed"])
            vae = PatchAutoencoder()
        some = self._batches(1, shared=False)(0)
        vae.fit(torch.cat([levels(next(some)["frames"]).flatten(0, 2) for _ in range(FITTED_CLIPS)]))
        self._train("autoencoder", Reconstruction(vae), self.recipe.autoencoder)
        return vae.requires_grad_(False)

    def pipeline(self, vae: PatchAutoencoder | None) -> MVVDMPipeline:
        """All parts; the network untrained, or from published files and frozen but for what the paper trains."""
        recipe = self.recipe
        if vae is None:
            pipeline = MVVDMPipeline.from_pretrained_parts(
                **self.job["parts"], released=None, config=recipe.network
            )
            pipeline.scheduler = mvvdm_scheduler(recipe.prediction_type)
            pipeline.unet.freeze_backbone()
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.job["seed"])
                unet = MVVDMUNet(recipe.network)
            pipeline = MVVDMPipeline(
                vae,
                unet,
                mvvdm_scheduler(recipe.prediction_type, "trailing"),
                num_frames=recipe.frames,
                resolution=recipe.resolution,
                sentence_encoder=MINILM,
                guidance_scale=recipe.guidance,
                temperature=recipe.temperature,
            )
            if recipe.network.sentence:
                captions = set(
                    load_clips(self.job["data"], "train").table(["caption"])["caption"].to_pylist()
                )
                told = pipeline.encode_prompt(sorted(captions)).flatten(0, 1)
                unet.whitening.fit(told[told.any(-1)])
        pipeline.set_progress_bar_config(disable=True)
        if self.job["gradient_checkpointing"]:
            pipeline.unet.enable_gradient_checkpointing()
        return pipeline.to(self.device)

    def network(self, pipeline: MVVDMPipeline) -> None:
        """Learn the network, and draw now and then what it makes of an unseen clip."""
        (clip,) = self._true_clips(1)
        sample = self._sampler(pipeline)

        def validate(step: int) -> None:
            sheet = comparison_sheet(sample(clip), clip.frames)  # sharded, it takes all workers
            if self.rank == 0:
                self.storage.write(f"{self.folder}/validation/{step:07d}.png", _png(sheet))

        objective = Denoising(
            pipeline.unet,
            encoder_of(pipeline),
            prediction_type=self.recipe.prediction_type,
            timestep_power=self.recipe.timestep_power,
            mirrored=self.recipe.mirrored,
        )
        if self.job["compile"]:
            pipeline.unet.compile()
        self._train("network", objective, self.recipe.plan, validate)

    def publish(self, pipeline: MVVDMPipeline) -> None:
        """Measure the network with what was learnt, put it into the registry and leave word of it."""
        job, recipe = self.job, self.recipe
        self._tell({"stage": "measuring"})
        if job["sharded"]:  # the network at hand is spread over workers that have gone home
            pipeline = self.pipeline(pipeline.vae if recipe.autoencoder else None)
        self._put_learnt(pipeline)
        clips = list(self._true_clips(job["test_clips"]))
        found = evaluate(self._sampler(pipeline), clips)
        dataset, split = self._unseen()
        name = dataset.url.rstrip("/").rpartition("/")[2]
        found["dataset"] = {"name": name, "type": "mv-video", "split": split}
        found["training"] = {
            "steps": recipe.plan.steps,
            "batch": recipe.plan.batch,
            "clips": len(load_clips(job["data"], "train")),
            "loss": self._curve(),
        }
        if recipe.autoencoder:
            frames = (
                torch.from_numpy(np.concatenate([clip.frames for clip in clips]))
                .movedim(-1, 2)
                .to(self.device)
            )
            found["autoencoder"] = {"psnr": reconstruction_psnr(pipeline.vae, frames / 127.5 - 1)}
        pipeline.metrics = found
        pipeline.card = card(job["name"], load_clips(job["data"]), recipe, found["training"]["loss"])
        pipeline.example = {"images": clips[0].frames[:, 0], "prompt": clips[0].caption}
        reference = zoo.publish(pipeline.to("cpu"), job["publish"], home=job["home"])
        result = {"model": reference, **{name: round(value, 5) for name, value in found["mean"].items()}}
        self.storage.write(f"{self.folder}/{RESULT}", json.dumps(result).encode())

    # --- parts ---

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
            checkpoint=_Kept(self.storage, f"{self.folder}/{stage}.safetensors"),
            save_every=self.job["save_every"],
            seed=self.job["seed"],
            device=self.device,
            at_once=self.job["at_once"],
            sharded=self.job["sharded"],
            validate=validate,
            validate_every=self.job["validate_every"],
            on_step=lambda progress: self._tell_progress(stage, progress),
        )

    def _batches(self, batch: int, shared: bool = True) -> Callable[[int], Iterator[dict[str, Any]]]:
        """Step → this worker's examples from that step on, epoch after epoch."""
        clips = ClipShare(
            load_clips(self.job["data"], "train"),
            self.recipe.resolution,
            part=slice(self.rank, None, self.size) if shared else slice(None),
            views=self.recipe.views,
            frames=self.recipe.frames,
            batch_size=batch,
            seed=self.job["seed"],
        )
        loader = ClipLoader(
            clips, num_workers=self.job["loader_workers"], pin_memory=torch.device(self.device).type == "cuda"
        )

        def batches(first: int) -> Iterator[dict[str, Any]]:
            clips.set_epoch(*divmod(first, len(clips)))
            loader.load_state_dict(clips.state_dict())
            while True:
                for found in loader:
                    yield {name: found[name] for name in ("frames", "caption", "camera")}

        return batches

    def _unseen(self) -> tuple[ClipDataset, str]:
        """The clips to measure on and their split: all of the dataset that was named for it; else the test split, or
        what was trained on if there is no other, which the metrics then say.
        """
        if self.job["test_data"]:
            return load_clips(self.job["test_data"]), "test"
        there = set(load_clips(self.job["data"]).table(["split"])["split"].to_pylist())
        split = next((split for split in UNSEEN if split in there), "train")
        return load_clips(self.job["data"], split), split

    def _sampler(self, pipeline: MVVDMPipeline) -> Callable[[TrueClip], np.ndarray]:
        made = sampler(pipeline, steps=self.recipe.sampling_steps, guidance_scale=self.recipe.guidance)

        def sample(clip: TrueClip) -> np.ndarray:
            with torch.compiler.set_stance("force_eager"):  # nothing is compiled for a few samples
                return made(clip)

        return sample

    def _true_clips(self, count: int) -> Iterator[TrueClip]:
        dataset, _ = self._unseen()
        for index in range(min(count, len(dataset))):
            yield true_clip(dataset, dataset[index], self.recipe)

    def _put_learnt(self, pipeline: MVVDMPipeline) -> None:
        from zoo.mvvdm.training import averages_of

        learnt = averages_of(self.storage.read(f"{self.folder}/network.safetensors"))
        state = {name.removeprefix("unet."): tensor for name, tensor in learnt.items()}
        pipeline.unet.load_state_dict(state, strict=False)
        pipeline.unet.eval()

    def _tell_progress(self, stage: str, progress: StepReport) -> None:
        self._tell({"stage": stage, **progress})
        losses, part = self._losses(stage), (progress["step"] - 1) * CURVE // progress["steps"]
        total, count = losses.get(str(part), (0.0, 0))
        losses[str(part)] = (total + progress["loss"], count + 1)
        self.storage.write(f"{self.folder}/{stage}-loss.json", json.dumps(losses).encode())

    def _losses(self, stage: str) -> dict[str, tuple[float, int]]:
        """Sum and count of the losses told, by part of the training; a run that went on has told some of them twice."""
        return json.loads(self.storage.read(f"{self.folder}/{stage}-loss.json") or b"{}")

    def _curve(self) -> list[dict[str, float]]:
        """The network's mean loss over each part of its training, up to a step."""
        steps = self.recipe.plan.steps
        return [
            {"step": math.ceil((int(part) + 1) * steps / CURVE), "loss": float(f"{total / count:.3g}")}
            for part, (total, count) in sorted(self._losses("network").items(), key=lambda item: int(item[0]))
        ]

    def _tell(self, progress: Mapping[str, Any]) -> None:
        if self.rank == 0:
            self.storage.write(
                f"{self.folder}/{PROGRESS}", json.dumps({**progress, "at": time.time()}).encode()
            )


@dataclass(frozen=True)
class _Kept:
    """A checkpoint of `zoo.mvvdm.training` in the storage, wherever that is."""

    storage: Storage
    name: str

    def read(self) -> bytes | None:
        return self.storage.read(self.name)

    def write(self, data: bytes) -> None:
        self.storage.write(self.name, data)


def card(name: str, dataset: ClipDataset, recipe: Recipe, curve: list[dict[str, float]]) -> dict[str, Any]:
    """What a model card says beside the metrics."""
    licences = sorted(set(dataset.table(["licence"])["licence"].to_pylist()))
    told = asdict(recipe)
    told = {**told.pop("plan"), **told.pop("network"), **told}
    rows = [{"what": key, "value": str(value)} for key, value in told.items() if key != "autoencoder"]
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
    }


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
