"""Distributed training of one model: a torch process group managed by Ray Train, with all state in the storage.

When a worker is lost, the others block in their next collective operation. The whole group is therefore ended and a
new one started, which continues from the latest checkpoint. The new group may have a different number of workers; the
training function must handle that.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import os
import pickle
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.util
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from ray.train.v2.api.exceptions import PreemptionError, TrainingFailedError, WorkerGroupError

from cluster.arguments import function, instance, integer, number, task_key_text
from cluster.session import Session, connect
from cluster.signals import sigterm_as_interrupt
from cluster.stage import StageError
from cluster.storage import Storage

MAX_FAILURES = 3  # in a row, without progress
TICK_S = 1.0
RAY_FILES = "_factory/ray"  # Ray Train's own files, in the shared storage

Work = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class Group:
    """Size of a process group and the resources of its workers.

    Attributes:
        workers: number of workers, or (minimum, maximum) to use as many as fit on the cluster, adjusted as it changes.
        num_cpus, num_gpus: resources reserved for each worker.
    """

    workers: int | tuple[int, int] = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.workers, tuple):
            if len(self.workers) != 2:
                raise ValueError(f"Group.workers: expected (minimum, maximum), got {self.workers}")
            least = integer(self.workers[0], "Group.workers", 1)
            workers: int | tuple[int, int] = least, integer(self.workers[1], "Group.workers", least)
        else:
            workers = integer(self.workers, "Group.workers", 1)
        object.__setattr__(self, "workers", workers)
        number(self.num_cpus, "Group.num_cpus", above=True)
        number(self.num_gpus, "Group.num_gpus")

    @property
    def min_workers(self) -> int:
        """Smallest number of workers with which the group starts."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """Largest number of workers of the group."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def train_together(
    work: Work,
    job: dict[str, Any],
    storage: Storage,
    group: Group,
    *,
    name: str,
    progress: Callable[[], int],
    on_tick: Callable[[], object] | None = None,
) -> None:
    """Call `work(job, device)` on every worker of a torch process group until it has returned on all of them.

    Runs on the cluster of RAY_ADDRESS or on an embedded Ray. After a failure, a new group starts the work again, with
    as many workers as are then available.

    Args:
        work: function in an importable module. It resumes from its latest checkpoint and writes its results to the
            storage. `device` is "cpu" or "cuda:<index>". Rank and world size come from `torch.distributed`.
        job: argument of `work`; JSON-like values.
        storage: where Ray Train keeps its own files; must be visible to all machines.
        group: number of workers and their resources.
        name: identifier of this training; only one may run at a time.
        progress: returns how far the work has got, as a number that never decreases. It is called in this process and
            should read the latest checkpoint.
        on_tick: called about once per second.

    Raises:
        ValueError: the storage is `memory://`, which worker processes cannot see.
        StageError: there are not enough GPUs for the smallest group, or the group failed `MAX_FAILURES` times without
            progress.
        KeyboardInterrupt: Ctrl-C or SIGTERM. After either of the last two, the same call resumes the training.
    """
    _check_arguments(work, job, storage, group, name, progress)
    if not storage.is_shared:
        raise ValueError(
            f"{storage.url} is visible to this process only, not to workers: use a folder or an object store"
        )
    # Ray's default of one minute is too short for workers that import torch on a busy machine.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    with sigterm_as_interrupt(), connect(math.ceil(group.max_workers * group.num_cpus)) as session:
        _check_gpus(group, session)
        failures, reached = 0, progress()
        while True:
            try:
                return _fit(_trainer(work, job, storage, group, name), on_tick or (lambda: None))
            except (WorkerGroupError, PreemptionError) as error:
                previous, reached = reached, progress()
                failures = 1 if reached > previous else failures + 1
                if failures >= MAX_FAILURES:
                    raise StageError(
                        f"{name}: the workers failed {failures} times in a row without progress beyond "
                        f"{reached}; remove the cause and run the same command again to resume:\n{_causes(error)}"
                    ) from None
            except (TrainingFailedError, RayError) as error:
                # Not retried: Ray may still hold the resources of the group that it failed to start.
                raise StageError(
                    f"{name}: Ray Train could not start or manage the workers: {error}. Run the same command again to "
                    f"resume"
                ) from None


def _check_arguments(
    work: Work, job: dict[str, Any], storage: Storage, group: Group, name: str, progress: Callable[[], int]
) -> None:
    """Raise TypeError or ValueError for arguments of `train_together` that it cannot use."""
    function(work, "train_together: work", optional=False)
    instance(storage, Storage, "train_together: storage")
    instance(group, Group, "train_together: group")
    task_key_text(name, "train_together: name")
    function(progress, "train_together: progress", optional=False)
    instance(job, dict, "train_together: job")
    try:
        json.dumps(job)
    except (TypeError, ValueError) as error:
        raise TypeError(f"train_together: job: expected JSON-like values ({error})") from None


def _check_gpus(group: Group, session: Session) -> None:
    """Raise StageError if an embedded Ray has too few GPUs. A cluster may still grow, so there Ray Train waits."""
    needed, available = group.min_workers * group.num_gpus, ray.cluster_resources().get("GPU", 0.0)
    if session.embedded and needed > available:
        raise StageError(
            f"{group.min_workers} workers with {group.num_gpus:g} GPUs each need {needed:g}, and this machine has "
            f"{available:g}: use fewer workers or GPUs, or run on a cluster (set RAY_ADDRESS)"
        )


def _trainer(work: Work, job: dict[str, Any], storage: Storage, group: Group, name: str) -> TorchTrainer:
    return TorchTrainer(
        _PickledWork.of(work),
        train_loop_config=job,
        torch_config=_LoopbackTorchConfig(),
        scaling_config=ScalingConfig(
            num_workers=group.workers,  # type: ignore[arg-type]  # an undocumented type that Ray accepts
            use_gpu=group.num_gpus > 0,
            resources_per_worker={"CPU": group.num_cpus, "GPU": group.num_gpus},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.path(RAY_FILES),
            storage_filesystem=_filesystem(storage),
            failure_config=FailureConfig(max_failures=0),  # train_together counts failures without progress
        ),
    )


def _filesystem(storage: Storage) -> Any:
    if storage.is_local:
        return None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage.filesystem))


@dataclass(frozen=True)
class _PickledWork:
    """The pickled training function, together with the module search path from which workers import it."""

    work: bytes
    sys_path: tuple[str, ...]

    @classmethod
    def of(cls, work: Work) -> _PickledWork:
        if work.__module__ == "__main__":
            raise StageError(
                f"{work.__qualname__} is defined in the main script, so workers cannot import it: move it into a module"
            )
        return cls(pickle.dumps(work), tuple(path or os.getcwd() for path in sys.path))

    def __call__(self, job: dict[str, Any]) -> None:
        sys.path += [path for path in self.sys_path if path not in sys.path]
        pickle.loads(self.work)(job, str(get_device()))


def _fit(trainer: TorchTrainer, on_tick: Callable[[], object]) -> None:
    """Run the trainer in a thread: in the main thread, Ray Train would install a signal handler that ignores Ctrl-C."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def fit() -> None:
        try:
            trainer.fit()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    while not concurrent.futures.wait([done], TICK_S).done:
        on_tick()
    done.result()


def _causes(error: WorkerGroupError | PreemptionError) -> str:
    """List the error of each worker, including those that failed only because another worker did."""
    if isinstance(error, PreemptionError):
        return str(error)
    return "\n".join(f"worker {rank}: {cause}" for rank, cause in sorted(error.worker_failures.items()))


# --- Process group --------------------------------------------------------------------------------


@dataclass
class _LoopbackTorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    """Ray's torch backend, except on a loopback-only Ray, where workers find each other through a file.

    torch's TCP store, the default, would listen on all network interfaces.
    """

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        address = worker_group.execute_single(0, ray.util.get_node_ip_address)
        if not address.startswith("127."):
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        # A local file is sufficient: a loopback-only Ray is a single machine.
        file = os.path.join(tempfile.gettempdir(), f"menagerie-{uuid.uuid4().hex}")
        world_size, backend, timeout = len(worker_group), backend_config.backend, backend_config.timeout_s
        joining = [
            worker_group.execute_single_async(rank, _join, file, rank, world_size, backend, timeout)
            for rank in range(world_size)
        ]
        ray.get(joining)


def _join(file: str, rank: int, world_size: int, backend: str, timeout_s: float) -> None:
    """Join the process group through a shared file, with all traffic on the loopback interface."""
    import torch.distributed

    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group(
        backend,
        init_method=f"file://{file}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )
