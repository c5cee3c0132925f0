"""Whether a training can run here: checked before the motion videos or clips that it needs are rendered or read."""

from __future__ import annotations

import importlib.util
import math
import os
import socket
from pathlib import Path

from zoo.errors import OptionError

_LPIPS_WEIGHTS, _LPIPS_HOST = "vgg16-397923af.pth", "download.pytorch.org"
_TIMEOUT_S = 5.0


def runs_here(workers: int | tuple[int, int] | None) -> bool:
    """Whether all workers run on this machine: in this process, or on an embedded Ray."""
    return workers == 0 or os.environ.get("RAY_ADDRESS", "").strip() in ("", "local")


def check_resources(cpus: float, gpus: float, workers: int | tuple[int, int] | None) -> None:
    """Check that one worker, or the least number of them, fits on this machine. A cluster may grow, so there it may.

    Args:
        cpus, gpus: of each worker.
        workers: as given to the command.

    Raises:
        OptionError: the machine has fewer CPUs or GPUs.
    """
    if not runs_here(workers):
        return
    least = 1 if workers is None else max(1, workers if isinstance(workers, int) else workers[0])
    if gpus > 0:
        import torch

        needed, present = math.ceil(gpus * least), torch.cuda.device_count()
        if present < needed:
            raise OptionError(
                f"--gpus {gpus:g}: {_workers(least)} need{'s' * (least == 1)} {needed}, torch can use {present} on "
                f"this machine: choose fewer (0: on the CPU), or run on a cluster (set RAY_ADDRESS)"
            )
    if workers is None and cpus > (present := os.cpu_count() or 1):
        raise OptionError(
            f"--cpus {cpus:g}: this machine has {present}: choose fewer, or run on a cluster (set RAY_ADDRESS)"
        )


def check_lpips() -> None:
    """Check that the LPIPS loss can be computed: the package, and the weights here or within reach.

    Raises:
        OptionError: it cannot.
    """
    import torch

    without = "or train without it: --set losses.lpips=0"
    if importlib.util.find_spec("lpips") is None:
        raise OptionError(
            f"the LPIPS loss of this preset needs the package lpips: pip install lpips, {without}"
        )
    folder = Path(torch.hub.get_dir(), "checkpoints")
    if (folder / _LPIPS_WEIGHTS).is_file():
        return
    try:
        socket.create_connection((_LPIPS_HOST, 443), timeout=_TIMEOUT_S).close()
    except OSError:
        raise OptionError(
            f"the LPIPS loss of this preset needs the weights {_LPIPS_WEIGHTS}, which are not in {folder} and cannot "
            f"be downloaded from {_LPIPS_HOST}: put the file there, {without}"
        ) from None


def _workers(count: int) -> str:
    return "a worker" if count == 1 else f"{count} workers"
