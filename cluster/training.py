"""One model, many workers: Ray Train holds a group of processes together, and all state is in the storage.

A group that loses a worker is of no use to the others: they wait for its part of a sum. So it ends, another one
begins, and the work goes on from the checkpoint that it finds. How many workers the new group has does not matter to
us, only to the work.
"""

from __future__ import annotations

import concurrent.futures
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

from cluster.dispatch import _sigterm_interrupts
from cluster.session import Session, connect
from cluster.stage import StageError
from cluster.storage import Storage

MAX_FAILURES = 3  # in a row, without progress
TICK_S = 1.0
RAY_FILES = "_factory/ray"  # Ray's own, where every worker sees them

Work = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class Group:
    """Who trains together.

    Attributes:
        workers: how many; (least, most) for as many as there is room for, now and later.
        num_cpus, num_gpus: what each takes of a machine.
    """

    workers: int | tuple[int, int] = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    @property
    def least(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
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
    """Call `work(job, device)` on every worker of a torch process group until it has come to its end on all of them.

    Runs on the cluster of RAY_ADDRESS or on an embedded Ray. Whatever dies, a new group begins the work again, with
    as many workers as there are by then.

    Args:
        work: defined in an importable module. It begins at its newest checkpoint, and what it finds out goes to the
            storage. `device`: "cpu" or "cuda:0" and so on. Rank and number of workers are torch.distributed's.
        job: plain values. name: of this run; one at a time.
        progress: how far the work is, a number that grows, read from the storage in this process.
        on_tick: called about once a second.
    Raises:
        StageError: there is no room here for the least group, or the groups failed `MAX_FAILURES` times without
            progress. KeyboardInterrupt: Ctrl-C or SIGTERM. After each of them the same call goes on.
    """
    if not storage.is_shared:
        raise ValueError(f"{storage.url} exists in this process only, and workers are others: use a folder")
    # A minute is Ray's own patience, which is not much for workers that import torch on a busy machine.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    with _sigterm_interrupts(), connect(math.ceil(group.most * group.num_cpus)) as session:
        _check_room(group, session)
        failures, reached = 0, progress()
        while True:
            try:
                return _fit(_trainer(work, job, storage, group, name), on_tick or (lambda: None))
            except (WorkerGroupError, PreemptionError) as error:
                before, reached = reached, progress()
                failures = 1 if reached > before else failures + 1
                if failures >= MAX_FAILURES:
                    raise StageError(
                        f"{name}: its workers failed {failures} times in a row without getting further than "
                        f"{reached}:\n{_causes(error)}"
                    ) from None
            except (TrainingFailedError, RayError) as error:
                # Whatever this was, Ray may still hold the room of the group that it could not begin.
                raise StageError(f"{name}: Ray Train could not hold its workers together: {error}") from None


def _check_room(group: Group, session: Session) -> None:
    """An embedded Ray never grows; a cluster may, so there it is worth waiting."""
    needed, there = group.least * group.num_gpus, ray.cluster_resources().get("GPU", 0.0)
    if session.embedded and needed > there:
        raise StageError(
            f"{group.least} workers with {group.num_gpus:g} GPUs each need {needed:g}, and this machine has {there:g}: "
            f"take fewer or none, or run it on a cluster (RAY_ADDRESS)"
        )


def _trainer(work: Work, job: dict[str, Any], storage: Storage, group: Group, name: str) -> TorchTrainer:
    return TorchTrainer(
        _OnWorker.of(work),
        train_loop_config=job,
        torch_config=_Torch(),
        scaling_config=ScalingConfig(
            num_workers=group.workers,
            use_gpu=group.num_gpus > 0,
            resources_per_worker={"CPU": group.num_cpus, "GPU": group.num_gpus},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.path(RAY_FILES),
            storage_filesystem=_filesystem(storage),
            failure_config=FailureConfig(max_failures=0),  # counted here, where progress is known
        ),
    )


def _filesystem(storage: Storage) -> Any:
    if storage.is_local:
        return None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage._fs))


@dataclass(frozen=True)
class _OnWorker:
    """The work, ready to be sent to processes that do not yet look where this one does for modules."""

    work: bytes
    sys_path: tuple[str, ...]

    @classmethod
    def of(cls, work: Work) -> _OnWorker:
        if work.__module__ == "__main__":
            raise StageError(
                f"{work.__qualname__} is defined in the script that is being run, so no other process can import it: "
                f"move it into a module"
            )
        return cls(pickle.dumps(work), tuple(path or os.getcwd() for path in sys.path))

    def __call__(self, job: dict[str, Any]) -> None:
        sys.path += [path for path in self.sys_path if path not in sys.path]
        pickle.loads(self.work)(job, str(get_device()))


def _fit(trainer: TorchTrainer, on_tick: Callable[[], object]) -> None:
    """In a thread, since Ray Train would put its own signal handler into the main one and swallow Ctrl-C."""
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
    """What happened on each worker; those that only lost the others say so too."""
    if isinstance(error, PreemptionError):
        return str(error)
    return "\n".join(f"worker {rank}: {cause}" for rank, cause in sorted(error.worker_failures.items()))


# --- the process group --------------------------------------------------------------------------------


@dataclass
class _Torch(TorchConfig):
    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    """Ray's, except on a Ray that keeps to the loopback address: torch's own store would listen on all of them."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        address = worker_group.execute_single(0, ray.util.get_node_ip_address)
        if not address.startswith("127."):
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        file = os.path.join(tempfile.gettempdir(), f"menagerie-{uuid.uuid4().hex}")  # all are on one machine
        size, kind, timeout = len(worker_group), backend_config.backend, backend_config.timeout_s
        joining = [
            worker_group.execute_single_async(rank, _join, file, rank, size, kind, timeout)
            for rank in range(size)
        ]
        ray.get(joining)


def _join(file: str, rank: int, size: int, kind: str, timeout_s: float) -> None:
    import torch.distributed

    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group(
        kind, init_method=f"file://{file}", rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s)
    )
