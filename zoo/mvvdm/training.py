"""The loop that MV-VDM and its autoencoder are learnt by, in one process or in many (methods §2.7).

    train(Denoising(unet, encode), batches, TrainingPlan(steps=1000), checkpoint=CheckpointFile("run.safetensors"))

What is learnt is a module whose forward gives its loss. A step looks at `plan.batch` examples, whoever holds them: of W
workers, worker r takes the examples r, r + W, … some at once, and noise follows from (seed, step, example). So neither
the number of workers nor how many examples they compute at once changes anything but the rounding of sums, and a run
may lose some workers and go on. With the same numbers, a run that was killed and resumed ends with the bits of an
undisturbed one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from zoo.mvvdm.plan import TrainingPlan

FORMAT = "mvvdm-checkpoint-1"
REPORT_EVERY = 10  # steps between two reports: each waits for the device once
PARTS = ("loader", "forward", "backward", "optimiser", "other")  # of a step's time
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOMENTS = ("exp_avg", "exp_avg_sq")
# Loss scaling of fp16, as torch.amp.GradScaler does it by default.
_SCALE, _GROW_AFTER = 2.0**16, 2000

Example = Mapping[str, Any]
Progress = dict[str, Any]


class Checkpoint(Protocol):
    """Where a run's state is kept, whole or not at all. With many workers, only the first one asks."""

    def read(self) -> bytes | None: ...

    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on a local disk."""

    path: str | os.PathLike[str]

    def read(self) -> bytes | None:
        return Path(self.path).read_bytes() if os.path.exists(self.path) else None

    def write(self, data: bytes) -> None:
        part = Path(f"{os.fspath(self.path)}.part")
        part.write_bytes(data)
        os.replace(part, self.path)


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
    on_step: Callable[[Progress], object] | None = None,
) -> nn.Module:
    """Learn those parameters of `objective` that require gradients; the objective, with their averages.

    Where torch.distributed is initialised, all of its processes call this together.

    Args:
        objective: `objective(examples, generators)` is the mean loss of some examples, a scalar. The generators, on the
            CPU, one an example, are the only sources of chance.
        batches: step → the batches from that step on, each this worker's examples of one step: a dict of tensors and
            lists with one entry an example. Bytes, 0-255, reach the objective as floats in -1..1.
        at_once: examples that are computed together. A GPU wants many, a CPU core one.
        checkpoint: where the state is kept; what is found there is gone on from. save_every: steps between two.
        sharded: FSDP instead of DDP: weights, gradients and moments are spread over the workers. What comes and
            goes as wholes is what `objective.parts()` gives, the last of them with all that is learnt inside.
        validate: called with the step by all workers, every so many steps and at the end, when the objective has the
            averages.
        on_step: called by the first worker every `REPORT_EVERY` steps with step, steps, loss (mean since the last),
            rate (learning), seconds, and the share of each of `PARTS` of the time since the last.
    Raises:
        ValueError: the checkpoint is of another run, or a batch is smaller than the group.
        FloatingPointError: the loss is not finite.
    """
    run = _Run(objective, plan, seed, torch.device(device), sharded, at_once)
    if checkpoint is not None:
        run.load(checkpoint)
    if run.step < plan.steps:
        source = iter(batches(run.step))
        while run.step < plan.steps:
            run.advance(source)
            if (run.step % REPORT_EVERY == 0 or run.step in (1, plan.steps)) and (told := run.report()):
                if on_step is not None:
                    on_step(told)
            if checkpoint is not None and (run.step % save_every == 0 or run.step == plan.steps):
                run.save(checkpoint)
            if validate is not None and (
                run.step == plan.steps or (validate_every and run.step % validate_every == 0)
            ):
                with run.averaged():
                    validate(run.step)
    run.finish()
    return objective.eval()


class _Run:
    """A training under way on this worker."""

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
                f"a batch of {plan.batch} examples cannot be shared by {self.size} workers: take a larger one"
            )
        self.objective, self.plan, self.seed, self.device = objective.to(device).train(), plan, seed, device
        self.sharded, self.at_once = sharded and grouped, at_once
        self.forward = self._share_out()
        learnt = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(learnt), list(learnt.values())
        self.averages = [p.detach().clone() for p in self.parameters] if plan.ema else []
        self.adam = torch.optim.AdamW(
            self.parameters, plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self.step, self.updates, self.seconds = 0, 0, 0.0
        self.scale, self.since_overflow = _SCALE if plan.precision == "fp16" else 1.0, 0
        self.loss = torch.zeros((), device=device)  # summed since the last report
        self.losses, self.clock = 0, Stopwatch(device)

    def _share_out(self) -> nn.Module:
        """What is called for a loss; it adds up the gradients of all workers."""
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            for part in self.objective.parts():
                fully_shard(part)
            return self.objective
        if self.size == 1:
            return self.objective
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(
            self.objective, devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    # --- a step ---

    def advance(self, source: Iterator[Example]) -> None:
        """One step of the optimiser."""
        self.clock.mark("other")
        try:
            batch = next(source)
        except StopIteration:
            raise ValueError(f"there are no more examples at step {self.step} of {self.plan.steps}") from None
        self.clock.mark("loader")
        shares = self._shares()
        for turn, (places, numbers, weight) in enumerate(shares, 1):
            examples = {name: _moved(values[places], self.device) for name, values in batch.items()}
            with self._summing(last=turn == len(shares)):
                with self._autocast():
                    loss = self.forward(examples, [self._generator(number) for number in numbers])
                self.clock.mark("forward")
                # Workers' gradients are averaged, and some may have more examples than others.
                (loss * (weight * self.scale * self.size / self.plan.batch)).backward()
                self.clock.mark("backward")
            self.loss += loss.detach() * (weight * self.size / self.plan.batch)
        self.losses += 1
        self._update()
        self.step += 1
        self.clock.mark("optimiser")

    def _shares(self) -> list[tuple[slice, Sequence[int], int]]:
        """This worker's part of a step, by what is computed at once: places in its batch, the examples' numbers in the
        whole one, and how many count.
        """
        numbers, at_once = range(self.rank, self.plan.batch, self.size), self.at_once
        places = [slice(start, start + at_once) for start in range(0, len(numbers), at_once)]
        shares = [(some, numbers[some], len(numbers[some])) for some in places]
        if self.sharded:  # all gather weights together: who has less to do computes an example for nothing
            most = math.ceil(math.ceil(self.plan.batch / self.size) / at_once)
            shares += [(slice(1), numbers[:1], 0)] * (most - len(shares))
        return shares

    @contextmanager
    def _summing(self, last: bool) -> Iterator[None]:
        """Workers wait for each other at the last examples of a step alone."""
        if self.sharded:
            *_, whole = self.objective.parts()
            whole.set_requires_gradient_sync(last)
        elif self.size > 1 and not last:
            with self.forward.no_sync():
                yield
            return
        yield

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _AUTOCAST.get(self.plan.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def _generator(self, number: int) -> torch.Generator:
        seed = np.random.SeedSequence([self.seed, self.step, number]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> 1))

    def _update(self) -> None:
        plan, halved = self.plan, self.plan.precision == "fp16"
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if halved:
            torch._foreach_mul_(gradients, 1 / self.scale)
        norm = get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if halved and not self._rescale(bool(norm.isfinite())):
            self.adam.zero_grad()
            return
        clip_grads_with_norm_(self.parameters, plan.clip, norm)
        self.adam.param_groups[0]["lr"] = self.rate()
        self.adam.step()
        self.adam.zero_grad()
        self.updates += 1
        if self.averages:
            decay = min(plan.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(_local(self.averages), _local(self.parameters), 1 - decay)

    def rate(self) -> float:
        rising = (self.step + 1) / (self.plan.warmup + 1)
        falling = (self.plan.steps - self.step) / (self.plan.cooldown + 1)
        return self.plan.learning_rate * min(1.0, rising, falling)

    def _rescale(self, finite: bool) -> bool:
        """Whether the gradients can be used; the loss is scaled as far as fp16 bears."""
        self.since_overflow = self.since_overflow + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.since_overflow == _GROW_AFTER:
            self.scale, self.since_overflow = 2 * self.scale, 0
        return finite

    def report(self) -> Progress | None:
        """How far it is; nothing on workers that are not the first."""
        if self.size > 1:
            dist.all_reduce(self.loss)
        loss = float(self.loss) / self.size / self.losses
        shares, seconds = self.clock.read()
        self.seconds += seconds
        self.loss.zero_()
        self.losses = 0
        if not math.isfinite(loss) and self.plan.precision != "fp16":
            raise FloatingPointError(f"the loss is {loss} at step {self.step}: take a lower learning rate")
        if self.rank:
            return None
        return {
            "step": self.step, "steps": self.plan.steps, "loss": loss, "rate": self.rate(), "workers": self.size,
            "seconds": self.seconds, **shares,
        }  # fmt: skip

    # --- averages ---

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The objective with the averages in place of the last step's values."""
        last = [p.detach().clone() for p in self.parameters] if self.averages else []
        self._put(self.averages)
        self.objective.eval()
        with torch.no_grad():
            yield
        self.objective.train()
        self._put(last)

    def finish(self) -> None:
        self._put(self.averages)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=False):
            parameter.copy_(value)

    # --- checkpoints ---

    def save(self, checkpoint: Checkpoint) -> None:
        """Write everything the next step depends on. It looks the same whoever trains together, and how."""
        from safetensors.torch import save

        self.seconds += self.clock.read()[1]
        whole = {}
        for name, tensor in self._tensors():
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.rank == 0:
                whole[name] = tensor.detach().cpu().contiguous()
        if self.rank == 0:
            about = {
                name: getattr(self, name)
                for name in ("step", "updates", "seconds", "scale", "since_overflow")
            }
            about |= {"format": FORMAT, "run": self._identity()}
            checkpoint.write(save(whole, {"mvvdm": json.dumps(about)}))
        self.clock.mark("other")

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this very run, if there is one. The first worker reads, so all have the same."""
        read = _opened(checkpoint.read() if self.rank == 0 else None)
        about, shapes = read.about, {name: (t.shape, t.dtype) for name, t in read.tensors.items()}
        if self.size > 1:
            told = [about, shapes]
            dist.broadcast_object_list(told)
            about, shapes = told
        if about is None:
            return
        if about.get("format") != FORMAT or about["run"] != self._identity():
            raise ValueError(
                "the checkpoint is of another training (plan, seed and what is learnt must be the same): give another "
                "place, or remove it to begin anew"
            )
        for name in ("step", "updates", "seconds", "scale", "since_overflow"):
            setattr(self, name, about[name])
        for parameter in self.parameters if self.updates else ():
            moments = {moment: torch.zeros_like(parameter) for moment in _MOMENTS}
            self.adam.state[parameter] = moments | {
                "step": torch.tensor(float(self.updates), device=self.device)
            }
        for name, target in self._tensors():
            shape, dtype = shapes[name]
            value = read.tensors.get(name, torch.empty(shape, dtype=dtype)).to(self.device)
            if self.size > 1:
                dist.broadcast(value, 0)
            if isinstance(target, DTensor):
                value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
            with torch.no_grad():
                target.copy_(value)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the state, by name, always in the same order."""
        for place, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            yield f"learnt.{name}", parameter
            if self.averages:
                yield f"average.{name}", self.averages[place]
            if self.updates:
                for moment in _MOMENTS:
                    yield f"{moment}.{name}", self.adam.state[parameter][moment]

    def _identity(self) -> dict[str, Any]:
        learnt = {name: list(p.shape) for name, p in zip(self.names, self.parameters, strict=True)}
        return json.loads(json.dumps({"plan": asdict(self.plan), "seed": self.seed, "learnt": learnt}))


class Stopwatch:
    """Where the time goes: what passes before a mark belongs to the part that the mark names.

    On a GPU the marks are the device's own events, so that nothing waits for it until the watch is read.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._marks = [("other", self._now())]

    def mark(self, part: str) -> None:
        self._marks.append((part, self._now()))

    def read(self) -> tuple[dict[str, float], float]:
        """Share of each of `PARTS` since the last reading, 0-1, and the seconds in all."""
        self.mark("other")
        if self._cuda:
            torch.cuda.synchronize()
        spent = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            spent[part] += before.elapsed_time(now) / 1e3 if self._cuda else now - before
        self._marks = self._marks[-1:]
        total = sum(spent.values())
        return {part: seconds / max(total, 1e-9) for part, seconds in spent.items()}, total

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass
class _Opened:
    about: dict[str, Any] | None
    tensors: dict[str, Tensor]


def _opened(data: bytes | None) -> _Opened:
    """A checkpoint's header and tensors; nothing of nothing."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if data is None:
        return _Opened(None, {})
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return _Opened(json.loads(header.get("__metadata__", {}).get("mvvdm", "{}")), tensors)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"not a checkpoint ({error}): remove it to begin anew") from error


def averages_of(data: bytes) -> dict[str, Tensor]:
    """What was learnt, by name, from the checkpoint of a finished run: the averages where they were kept."""
    tensors = _opened(data).tensors
    kind = "average." if any(name.startswith("average.") for name in tensors) else "learnt."
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}


def _moved(values: Any, device: torch.device) -> Any:
    return levels(values.to(device, non_blocking=True)) if isinstance(values, Tensor) else values


def levels(values: Tensor) -> Tensor:
    """Bytes, 0-255, as floats in -1..1; other numbers as they are."""
    return values.float().div_(127.5).sub_(1.0) if values.dtype == torch.uint8 else values


def _local(tensors: list[Tensor]) -> list[Tensor]:
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
