"""Measure how the time of a training step is divided between its parts."""

from __future__ import annotations

import time

import torch

PARTS = ("loader", "forward", "backward", "optimiser", "other")  # of a step's time


class Stopwatch:
    """Time per part of a step: the time up to a mark, from the one before, counts for the part that it names.

    On a GPU, marks are CUDA events, so that the CPU does not wait for the GPU until the watch is read.

    Args:
        device: where the training runs.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []
        self._parts: list[str] = []
        self.mark("other")

    def mark(self, part: str) -> None:
        """End a period of `part`, one of `PARTS`, and begin the next one."""
        self._parts.append(part)
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.perf_counter())

    def read(self) -> tuple[dict[str, float], float]:
        """Return each part's share of the time since the last reading, 0-1, and that time in seconds."""
        self.mark("other")
        spent = dict.fromkeys(PARTS, 0.0)
        for part, seconds in zip(self._parts[1:], self._intervals(), strict=True):
            spent[part] += seconds
        for marks in (self._parts, self._times, self._events):
            del marks[:-1]
        total = sum(spent.values())
        return {part: seconds / max(total, 1e-9) for part, seconds in spent.items()}, total

    def _intervals(self) -> list[float]:
        """Seconds between successive marks."""
        if not self._cuda:
            return [now - before for before, now in zip(self._times, self._times[1:], strict=False)]
        torch.cuda.synchronize()
        return [
            before.elapsed_time(now) / 1e3
            for before, now in zip(self._events, self._events[1:], strict=False)
        ]
