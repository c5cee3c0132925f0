"""Training of a DIMO model: motion pre-training, then joint optimisation (paper §3.3), and two shorter stages.

    videos = MotionVideos.open("kangaroo").select("train")
    model = train(videos, DIMOConfig.laptop(), checkpoint=Path("run.safetensors"))

The last two are not in the paper: steps on tracks alone (`zoo.dimo.polish`) and steps that make a skin
(`zoo.dimo.surface`).

Random numbers depend on (seed, stage, step) only and a checkpoint stores all other state, so a run that is killed and
resumed gives the same bits as an uninterrupted one.

On a GPU, a step waits for the device when `render` checks the values of its arguments, in the SVD of the ARAP loss
"rotations" (`torch.linalg.svd` reads its error code), and when it densifies or prunes. The loss is read for reports
only.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from renderers.arguments import instance, integer
from renderers.files import atomic_path, file_path
from renderers.gaussians.checks import torch_device
from zoo.dimo import losses
from zoo.dimo.binding import settle_stretching
from zoo.dimo.config import DIMOConfig
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.fitting import fit_latent
from zoo.dimo.joint import JointStage
from zoo.dimo.model import DIMO
from zoo.dimo.objective import StepLoss, StepReport, excess_between
from zoo.dimo.polish import PolishStage
from zoo.dimo.pretraining import KeyPointStage
from zoo.dimo.prior import fit_prior
from zoo.dimo.stage import Stage
from zoo.dimo.strays import remove_strays
from zoo.dimo.surface import SkinStage

__all__ = ["REPORT_EVERY", "CheckpointError", "excess_between", "fit_latent", "train"]

FORMAT = "dimo-checkpoint-1"
REPORT_EVERY = 25  # steps between two reports, which read the loss from the device


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another training."""


def train(
    videos: MotionVideos,
    config: DIMOConfig,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[StepReport], object] | None = None,
    save_every: int = 500,
) -> DIMO:
    """Train one model on the training views of all motions in `videos`.

    Args:
        videos: the training motions, in the order of the model's latents.
        config: architecture and schedule.
        checkpoint: a .safetensors file. Training resumes from it if it exists; it is written every `save_every` steps
            and after the last step.
        seed: seed of the initialisation and of all batches.
        device: training device.
        on_step: called at steps 1, `REPORT_EVERY`, 2·`REPORT_EVERY`, … and at the last one with step, steps, stage,
            loss, psnr (dB, on the training batch; of alpha if the stage uses silhouettes only, None if it renders
            nothing) and seconds. If it returns a true value, a checkpoint is written immediately.
        save_every: steps between two checkpoints.

    Returns:
        The trained model in evaluation mode.

    Raises:
        ValueError: `videos` has no motion, or its silhouettes have no common hull.
        CheckpointError: the checkpoint is damaged or belongs to another training; a `ValueError`.
        OSError: the checkpoint cannot be written.
        RuntimeError: pruning removed all key points or all Gaussians.
        FloatingPointError: the loss is not finite.
    """
    instance(videos, MotionVideos, "train: videos")
    instance(config, DIMOConfig, "train: config")
    seed, save_every = integer(seed, "train: seed", 0), integer(save_every, "train: save_every", 1)
    checkpoint = None if checkpoint is None else file_path(checkpoint, "train: checkpoint")
    run = _Training(videos, config, seed, torch_device(device, "train: device"))
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    while (stage := run.stage()) is not None:
        for batch in stage.feed.batches(run.step - run.first, stage.steps):
            started = time.perf_counter()
            outcome = stage.advance(run.step - run.first, batch.to(run.device))
            run.step += 1
            if run.step % REPORT_EVERY == 0 or run.step in (1, run.steps):
                progress = run.progress(stage, outcome)
                save_now = on_step(progress) if on_step else False
            else:
                save_now = False
            run.seconds += time.perf_counter() - started
            if checkpoint is not None and (save_now or run.step % save_every == 0 or run.step == run.steps):
                run.save(checkpoint)
    run.finish()
    return run.model.eval()


class _Training(TrainingContext):
    """A training in progress: context, current stage, step count and checkpoints.

    Attributes:
        plan: name of a stage → its number of steps, in their order; without those that have none.
        steps: their sum.
        step: how many are done.
        first: how many were done when the current stage began.
        seconds: of training, including those before a resumption.
    """

    def __init__(self, videos: MotionVideos, config: DIMOConfig, seed: int, device: torch.device) -> None:
        if config.losses.lpips:
            losses.lpips_network(device)  # raises here, before training, if the network weights are missing
        super().__init__(videos, config, seed, device)
        if self.tracks is None:
            self.config = self.model.config = self.config.untracked()
        settle_stretching(self)
        self.first, self.step, self.seconds = 0, 0, 0.0
        joint = self.config.joint
        steps = {
            KeyPointStage.name: self.config.pretraining.steps,
            JointStage.name: joint.steps,
            PolishStage.name: 0 if self.tracks is None else joint.polish_steps,
            SkinStage.name: joint.surface_steps if self.config.factorised else 0,
        }
        self.plan = {name: count for name, count in steps.items() if count}
        self.steps = sum(self.plan.values())
        self._stage: Stage | None = None

    def stage(self) -> Stage | None:
        """The stage of the next step, created if necessary; None when training is complete."""
        first = 0
        for name, count in self.plan.items():
            if self.step < first + count:
                if self._stage is None or self._stage.name != name:
                    guide = None if self._stage is None else self._stage.finish()
                    self._stage = self._make(name, guide)
                self.first = first
                return self._stage
            first += count
        return None

    def _make(
        self, name: str, guide: Tensor | None = None, tensors: Mapping[str, Tensor] | None = None
    ) -> Stage:
        """The stage of a name, from the tensors of a checkpoint if there are any.

        Gaussians are discs from the stage that makes a skin of them on.
        """
        discs = self.config.discs and (name == SkinStage.name or SkinStage.name not in self.plan)
        self.model.config = replace(self.model.config, discs=discs)
        if name == KeyPointStage.name:
            return KeyPointStage(self, tensors)
        if name == JointStage.name:
            return JointStage(self, guide, tensors)
        last = PolishStage if name == PolishStage.name else SkinStage
        return last(self, self.plan[name], tensors)

    def finish(self) -> None:
        """What follows the last stage."""
        if self._stage is not None:
            self._stage.finish()
        config, joint = self.config, self.config.joint
        discs = joint.surface_steps and config.discs  # removing some would leave holes at the outline
        if joint.remove_strays and config.factorised and not discs:
            remove_strays(self.model, self.videos, self.views)
        if joint.prior_steps and config.factorised and config.latent_space:
            fit_prior(self.model, joint.prior_steps, self.seed)

    def progress(self, stage: Stage, outcome: StepLoss) -> StepReport:
        """Report for `on_step`; waits for the device.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        loss = float(outcome.loss.detach())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{self.videos.object}: the loss is {loss} at step {self.step}; lower the learning rates"
            )
        error = None if outcome.error is None else float(outcome.error.detach())
        return {
            "step": self.step, "steps": self.steps, "stage": stage.name, "loss": loss,
            "psnr": None if error is None else -10 * math.log10(max(error, 1e-10)), "seconds": self.seconds,
        }  # fmt: skip

    # --- checkpoints ---

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, atomically."""
        from safetensors.torch import save

        stage = self._stage
        if stage is None:
            raise RuntimeError(f"{path}: cannot save a checkpoint before the first step")
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"stage.{k}": v for k, v in stage.tensors().items()}
        tensors |= {f"adam.{k}": v for k, v in stage.adam.state().items()}
        about = {
            "format": FORMAT, "run": self._identity(), "step": self.step, "seconds": self.seconds,
            "stage": stage.name,
        }  # fmt: skip
        data = save(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"dimo": json.dumps(about)}
        )
        # Not save_file, which reports a full disk as an error that is no OSError.
        with atomic_path(path) as part:
            part.write_bytes(data)

    def load(self, path: Path) -> None:
        """Restore a checkpoint of the same training.

        Raises:
            CheckpointError: the file is damaged, or belongs to another training.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                about = json.loads((file.metadata() or {}).get("dimo", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{path}: not a checkpoint ({error}); delete it to restart the training"
            ) from error
        if about.get("format") != FORMAT or about["run"] != self._identity():
            raise CheckpointError(
                f"{path} belongs to another training: object, motions, configuration and seed must be the same; use "
                "another path, or delete the file to restart"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "stage": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.step, self.seconds = about["step"], about["seconds"]
        self.model = DIMO.from_state(self.config, parts["model"]).to(self.device)
        self._stage = self._make(about["stage"], tensors=parts["stage"])
        self._stage.adam.load(parts["adam"])

    def _identity(self) -> dict[str, object]:
        """Object, motions, seed and configuration, as they read back from JSON; a checkpoint must match them."""
        about = {"object": self.videos.object, "motions": self.videos.names, "seed": self.seed}
        return json.loads(json.dumps(about | {"config": asdict(self.config)}))
