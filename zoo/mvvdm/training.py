"""The training loop of MV-VDM and its autoencoder, on one process or several.

    train(Denoising(unet, encode), batches, TrainingPlan(steps=1000), checkpoint=CheckpointFile("run.safetensors"))

The module that is trained returns its loss from forward(). A step processes `plan.batch` examples. With W workers,
worker r processes examples r, r + W, …, `at_once` at a time, and all random numbers follow from (seed, step, example).
The number of workers and `at_once` therefore change only the order in which floating-point sums are rounded: a run can
continue with fewer workers. With both unchanged, a run that is killed and resumed gives the same bits as an undisturbed
one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, TypedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from zoo.mvvdm.checkpoint import (
    AVERAGE,
    FORMAT,
    WEIGHT,
    Checkpoint,
    CheckpointFile,
    averages_of,
    decode_state,
    encode_state,
)
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.stopwatch import PARTS, Stopwatch
from zoo.mvvdm.training_arguments import check_training

__all__ = [
    "PARTS",
    "Checkpoint",
    "CheckpointFile",
    "Example",
    "StepReport",
    "Stopwatch",
    "TrainingRun",
    "averages_of",
    "levels",
    "train",
]

REPORT_EVERY = 10  # steps between reports; each report waits for the GPU once
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's state, by torch's names
_COUNTERS = ("step", "updates", "seconds", "scale", "since_overflow")
# Loss scaling of fp16, the defaults of torch.amp.GradScaler: initial scale, and steps without overflow to double it.
_SCALE, _GROW_AFTER = 2.0**16, 2000

Example = Mapping[str, Any]


class StepReport(TypedDict):
    """Progress of a training.

    Attributes:
        step, steps: completed steps, and all steps of the plan.
        loss: mean over the steps since the last report.
        rate: learning rate of the next step.
        workers: number of processes.
        seconds: training time so far, earlier attempts included.
        loader, forward, backward, optimiser, other: share of each part of the time since the last report, 0-1.
    """

    step: int
    steps: int
    loss: float
    rate: float
    workers: int
    seconds: float
    loader: float
    forward: float
    backward: float
    optimiser: float
    other: float


def train(
    objective: nn.Module,
    batches: Callable[[int], Iterable[Example]],
    plan: TrainingPlan,
    *,
    checkpoint: Checkpoint | None = None,
    save_every: int = 500,
    seed: int = 0,
    device: torch.device | str = "cpu",
    at_once: int = 1,
    sharded: bool = False,
    validate: Callable[[int], object] | None = None,
    validate_every: int = 0,
    on_step: Callable[[StepReport], object] | None = None,
) -> nn.Module:
    """Train the parameters of a module that require gradients.

    If torch.distributed is initialised, all processes must call this.

    Args:
        objective: `objective(examples, generators)` returns the mean loss of the examples, a scalar. The generators,
            one per example, on the CPU, are its only source of randomness.
        batches: maps a step to the batches from that step on, each this worker's examples of one step: a dict of
            tensors and lists with one entry per example. uint8 tensors are converted to floats in -1..1.
        plan: number of steps, batch size, learning rate and so on.
        checkpoint: where the state is saved; the run is resumed from it if there is one.
        save_every: steps between checkpoints.
        seed: of the random numbers.
        at_once: examples per forward pass; a GPU is faster with many, a CPU core with one.
        sharded: use FSDP instead of DDP, one unit per module of `objective.parts()`; the last must contain all.
        validate: called by all workers with the step, every `validate_every` steps and at the end (averaged weights).
        on_step: called by the first worker every `REPORT_EVERY` steps.

    Returns:
        The objective, in evaluation mode, with the averaged weights.

    Raises:
        TypeError, ValueError: an argument is invalid, the checkpoint is another run's, or the batch is too small.
        FloatingPointError: the loss is not finite.
    """
    seed, save_every, at_once, validate_every, sharded, where = check_training(
        objective, batches, plan, checkpoint, save_every, seed, device, at_once, sharded, validate_every
    )
    run = TrainingRun(objective, plan, seed, where, sharded, at_once)
    if checkpoint is not None:
        run.load(checkpoint)
    source = iter(batches(run.step)) if run.step < plan.steps else iter(())
    while run.step < plan.steps:
        run.advance(source)
        last = run.step == plan.steps
        if (run.step % REPORT_EVERY == 0 or run.step == 1 or last) and (report := run.report()):
            if on_step is not None:
                on_step(report)
        if checkpoint is not None and (run.step % save_every == 0 or last):
            run.save(checkpoint)
        if validate is not None and (last or (validate_every and run.step % validate_every == 0)):
            with run.averaged():
                validate(run.step)
    run.finish()
    return objective.eval()


class TrainingRun:
    """The state of a training on this worker; arguments as for `train`."""

    def __init__(
        self,
        objective: nn.Module,
        plan: TrainingPlan,
        seed: int,
        device: torch.device,
        sharded: bool,
        at_once: int,
    ) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        if plan.batch < self.size:
            raise ValueError(
                f"a batch of {plan.batch} examples cannot be divided between {self.size} workers: use a larger batch "
                f"or fewer workers"
            )
        self.objective, self.plan, self.seed, self.device = objective.to(device).train(), plan, seed, device
        self.sharded, self.at_once = sharded and grouped, at_once
        self.forward = self._distribute()
        trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        self.averages = [p.detach().clone() for p in self.parameters] if plan.ema else []
        self.adam = torch.optim.AdamW(
            self.parameters, plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self.step, self.updates, self.seconds = 0, 0, 0.0
        self.scale, self.since_overflow = _SCALE if plan.precision == "fp16" else 1.0, 0
        self.loss = torch.zeros((), device=device)  # sum over the steps since the last report
        self.losses, self.clock = 0, Stopwatch(device)

    def _units(self) -> list[Any]:
        """The FSDP units of the objective, the whole last."""
        parts: Any = self.objective.parts
        return list(parts())

    def _distribute(self) -> nn.Module:
        """Wrap the objective for FSDP or DDP, which sum the gradients of all workers."""
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            for unit in self._units():
                fully_shard(unit)
            return self.objective
        if self.size == 1:
            return self.objective
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(
            self.objective, devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    # --- a step ---

    def advance(self, source: Iterator[Example]) -> None:
        """Run one step of the optimiser on the next batch."""
        self.clock.mark("other")
        try:
            batch = next(source)
        except StopIteration:
            raise ValueError(
                f"no more examples at step {self.step} of {self.plan.steps}: expected `batches` to yield one batch per "
                f"step"
            ) from None
        self.clock.mark("loader")
        shares = self._shares()
        for turn, (places, numbers, weight) in enumerate(shares, 1):
            examples = {name: _moved(values[places], self.device) for name, values in batch.items()}
            with self._gradient_sync(last=turn == len(shares)):
                with self._autocast():
                    loss = self.forward(examples, [self._generator(number) for number in numbers])
                self.clock.mark("forward")
                # DDP and FSDP average gradients over the workers, so that each worker's sum is multiplied by their
                # number and divided by the whole batch. Workers may have different numbers of examples.
                (loss * (weight * self.scale * self.size / self.plan.batch)).backward()
                self.clock.mark("backward")
            self.loss += loss.detach() * (weight * self.size / self.plan.batch)
        self.losses += 1
        self._update()
        self.step += 1
        self.clock.mark("optimiser")

    def _shares(self) -> list[tuple[slice, Sequence[int], int]]:
        """Divide this worker's examples of a step into forward passes.

        Returns:
            For each pass: places in this worker's batch, numbers in the whole batch, and how many of these count.
        """
        numbers, at_once = range(self.rank, self.plan.batch, self.size), self.at_once
        places = [slice(start, start + at_once) for start in range(0, len(numbers), at_once)]
        shares: list[tuple[slice, Sequence[int], int]] = [
            (chunk, numbers[chunk], len(numbers[chunk])) for chunk in places
        ]
        if self.sharded:
            # FSDP gathers weights collectively: all workers need the same number of passes. A worker with fewer
            # examples repeats its first one with weight 0.
            most = math.ceil(math.ceil(self.plan.batch / self.size) / at_once)
            shares += [(slice(1), numbers[:1], 0)] * (most - len(shares))
        return shares

    @contextmanager
    def _gradient_sync(self, last: bool) -> Iterator[None]:
        """Exchange gradients in the last pass of a step only."""
        if self.sharded:
            self._units()[-1].set_requires_gradient_sync(last)
        elif isinstance(self.forward, DistributedDataParallel) and not last:
            with self.forward.no_sync():
                yield
            return
        yield

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _AUTOCAST.get(self.plan.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def _generator(self, number: int) -> torch.Generator:
        """The random generator of an example, given its number in the whole batch."""
        seed = np.random.SeedSequence([self.seed, self.step, number]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> 1))

    def _update(self) -> None:
        """Clip the gradients, step AdamW and update the averages; skip all that after an fp16 overflow."""
        plan, scaled = self.plan, self.plan.precision == "fp16"
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if scaled:
            torch._foreach_mul_(gradients, 1 / self.scale)
        norm = get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if scaled and not self._rescale(bool(norm.isfinite())):
            self.adam.zero_grad()
            return
        clip_grads_with_norm_(self.parameters, plan.clip, norm)
        self.adam.param_groups[0]["lr"] = self.rate()
        self.adam.step()
        self.adam.zero_grad()
        self.updates += 1
        if self.averages:
            # a ← d·a + (1 − d)·θ; d grows from 0.1, so that the average forgets the initial weights.
            decay = min(plan.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(_local(self.averages), _local(self.parameters), 1 - decay)

    def rate(self) -> float:
        """Learning rate of the next step: linear warm-up, constant, linear cool-down."""
        rising = (self.step + 1) / (self.plan.warmup + 1)
        falling = (self.plan.steps - self.step) / (self.plan.cooldown + 1)
        return self.plan.learning_rate * min(1.0, rising, falling)

    def _rescale(self, finite: bool) -> bool:
        """Adapt the fp16 loss scale to whether the gradients are finite, and return that."""
        self.since_overflow = self.since_overflow + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.since_overflow == _GROW_AFTER:
            self.scale, self.since_overflow = 2 * self.scale, 0
        return finite

    def report(self) -> StepReport | None:
        """Progress since the last report; None on workers other than the first.

        Raises:
            FloatingPointError: the loss is not finite; not with fp16, where occasional overflows are normal.
        """
        loss = self._summed_loss() / self.losses
        shares, seconds = self.clock.read()
        self.seconds += seconds
        self.loss.zero_()
        self.losses = 0
        if not math.isfinite(loss) and self.plan.precision != "fp16":
            raise FloatingPointError(f"the loss is {loss} at step {self.step}: use a lower learning rate")
        if self.rank:
            return None
        return StepReport(
            step=self.step,
            steps=self.plan.steps,
            loss=loss,
            rate=self.rate(),
            workers=self.size,
            seconds=self.seconds,
            loader=shares["loader"],
            forward=shares["forward"],
            backward=shares["backward"],
            optimiser=shares["optimiser"],
            other=shares["other"],
        )

    def _summed_loss(self) -> float:
        """The loss summed over the steps since the last report, on all workers."""
        loss = self.loss.clone()
        if self.size > 1:
            dist.all_reduce(loss)
        return float(loss) / self.size

    # --- averages ---

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Temporarily replace the weights by their averages and switch to evaluation mode."""
        last = [p.detach().clone() for p in self.parameters] if self.averages else []
        self._assign(self.averages)
        self.objective.eval()
        with torch.no_grad():
            yield
        self.objective.train()
        self._assign(last)

    def finish(self) -> None:
        """Replace the weights by their averages."""
        self._assign(self.averages)

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=False):  # no values: no averages are kept
            parameter.copy_(value)

    # --- checkpoints ---

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the state, unsharded, so that it can be resumed with any number of workers, sharded or not."""
        self.seconds += self.clock.read()[1]
        loss, tensors = self._summed_loss(), {}
        for name, tensor in self._tensors():
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.rank == 0:
                tensors[name] = tensor.detach().cpu().contiguous()
        if self.rank == 0:
            metadata = {name: getattr(self, name) for name in _COUNTERS}
            metadata |= {"format": FORMAT, "run": self._identity(), "loss": loss, "losses": self.losses}
            checkpoint.write(encode_state(tensors, metadata))
        self.clock.mark("other")

    def load(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint of this run, if there is one. The first worker reads and broadcasts it.

        Raises:
            ValueError: it is damaged, or another run's.
        """
        state = decode_state(checkpoint.read() if self.rank == 0 else None)
        # Other workers need the shapes to receive the tensors.
        header: list[Any] = [state.metadata, {name: (t.shape, t.dtype) for name, t in state.tensors.items()}]
        if self.size > 1:
            dist.broadcast_object_list(header)
        metadata, shapes = header
        if metadata is None:
            return
        if metadata.get("format") != FORMAT or metadata["run"] != self._identity():
            raise ValueError(
                "the checkpoint is of another training: expected the same plan, seed and trained parameters; use "
                "another path, or remove the checkpoint to start from the beginning"
            )
        for name in _COUNTERS:
            setattr(self, name, metadata[name])
        self.losses = metadata.get("losses", 0)  # version 0.1 did not store the sum
        self.loss.fill_(0.0 if self.rank else metadata.get("loss", 0.0) * self.size)
        for parameter in self.parameters if self.updates else ():  # AdamW creates its state in the first step
            moments = {moment: torch.zeros_like(parameter) for moment in _MOMENTS}
            self.adam.state[parameter] = moments | {
                "step": torch.tensor(float(self.updates), device=self.device)
            }
        for name, target in self._tensors():
            shape, dtype = shapes[name]
            value = state.tensors.get(name, torch.empty(shape, dtype=dtype)).to(self.device)
            if self.size > 1:
                dist.broadcast(value, 0)
            if isinstance(target, DTensor):
                value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
            with torch.no_grad():
                target.copy_(value)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of the state, in a fixed order."""
        for place, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            yield f"{WEIGHT}{name}", parameter
            if self.averages:
                yield f"{AVERAGE}{name}", self.averages[place]
            if self.updates:
                for moment in _MOMENTS:
                    yield f"{moment}.{name}", self.adam.state[parameter][moment]

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed."""
        trained = {name: list(p.shape) for name, p in zip(self.names, self.parameters, strict=True)}
        return json.loads(json.dumps({"plan": asdict(self.plan), "seed": self.seed, "learnt": trained}))


def _moved(values: Any, device: torch.device) -> Any:
    return levels(values.to(device, non_blocking=True)) if isinstance(values, Tensor) else values


def levels(values: Tensor) -> Tensor:
    """Convert uint8 values 0-255 to floats in -1..1; other types are returned unchanged."""
    return values.float().div_(127.5).sub_(1.0) if values.dtype == torch.uint8 else values


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This worker's shards."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
