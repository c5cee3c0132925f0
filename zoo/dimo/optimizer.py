"""Adam over named tensors that may lose and gain rows while they are learnt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq")


class NamedAdam:
    """`torch.optim.Adam` with one group a name, so that rates, rows and checkpoints go by name."""

    def __init__(self, groups: dict[str, list[nn.Parameter]]) -> None:
        listed = [{"name": name, "params": parameters, "lr": 0.0} for name, parameters in groups.items()]
        self._adam = torch.optim.Adam(listed, eps=1e-15, fused=True)
        self._groups = {group["name"]: group for group in self._adam.param_groups}

    def step(self, rates: dict[str, float]) -> None:
        """One step with a learning rate for each name; gradients are dropped after it."""
        for name, group in self._groups.items():
            group["lr"] = rates[name]
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def select(self, name: str, rows: Tensor) -> nn.Parameter:
        """Keep some rows of a tensor, in the order given, and the same rows of its moments; the new parameter."""
        return self._replace(name, lambda tensor: tensor[rows])

    def append(self, name: str, values: Tensor) -> nn.Parameter:
        """Add rows with moments 0; the new parameter."""
        (old,) = self._groups[name]["params"]
        parameter = self._replace(name, lambda t: torch.cat([t, torch.zeros_like(values)]))
        with torch.no_grad():
            parameter[len(old) :] = values
        return parameter

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, as tensors by name."""
        return {
            f"{name}.{i}.{key}": value
            for name, group in self._groups.items()
            for i, parameter in enumerate(group["params"])
            for key, value in self._adam.state[parameter].items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for key, value in state.items():
            name, index, kind = key.rsplit(".", 2)
            parameter = self._groups[name]["params"][int(index)]
            self._adam.state[parameter][kind] = value.to(parameter.device)

    def _replace(self, name: str, change: Callable[[Tensor], Tensor]) -> nn.Parameter:
        (old,) = self._groups[name]["params"]
        new = nn.Parameter(change(old.detach()).clone())
        state = self._adam.state.pop(old, {})
        if state:
            self._adam.state[new] = state | {key: change(state[key]).clone() for key in _MOMENTS}
        self._groups[name]["params"] = [new]
        return new
