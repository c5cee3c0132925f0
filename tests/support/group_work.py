"""A training function for the tests of `cluster.training`: a sum over all workers at each step, with checkpoints."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import torch
import torch.distributed
from process_tree import listening_addresses

from cluster.storage import Storage

STATE = "state.json"


def read_state(storage: Storage) -> dict[str, Any]:
    """Return the latest checkpoint, or the initial state."""
    return json.loads(storage.read(STATE) or b'{"step": 0, "value": 1.0, "sizes": []}')


def add_up(job: dict[str, Any], device: str) -> None:
    """Set `value` to a tenth of itself plus the sum of the ranks' shares of the step, `steps` times."""
    storage = Storage(job["out"], "tmp")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    state = read_state(storage)
    first = state["step"]
    if rank == 0:
        addresses = sorted(listening_addresses([os.getpid()]))
        storage.write("addresses.json", json.dumps(addresses).encode())
    for step in range(first, job["steps"]):
        time.sleep(job.get("seconds", 0.0))
        if step == job.get("raises_at"):
            raise ValueError(f"no sum at step {step}")
        if rank == size - 1 and step == job.get("dies_at") and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        shares = [k for k in range(job["batch"]) if k % size == rank]
        total = torch.tensor(sum(step + k for k in shares), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        state["value"] = state["value"] / 10 + total.item()
        state["step"] = step + 1
        state["sizes"] = [*state["sizes"], size]
        if rank == 0 and state["step"] % job["save_every"] == 0:
            storage.write(STATE, json.dumps(state).encode())


def expected(steps: int, batch: int) -> float:
    """Return the final value, computed in one process."""
    value = 1.0
    for step in range(steps):
        value = value / 10 + sum(step + k for k in range(batch))
    return value
