"""Adam over named tensors whose rows can be removed and added during training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq")


class NamedAdam:
    """`torch.optim.Adam` with one named parameter group per name; rates, row edits and checkpoints use the names."""

    def __init__(self, groups: dict[str, list[nn.Parameter]]) -> None:
        listed = [{"name": name, "params": parameters, "lr": 0.0} for name, parameters in groups.items()]
        self._adam = torch.optim.Adam(listed, eps=1e-15, fused=True)
        self._groups = {group["name"]: group for group in self._adam.param_groups}

    def step(self, rates: dict[str, float]) -> None:
        """Take one step with a learning rate per name, then reset the gradients."""
        for name, group in self._groups.items():
            group["lr"] = rates[name]
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def select(self, name: str, rows: Tensor) -> nn.Parameter:
        """Keep the given rows of a tensor and of its Adam moments, in this order; return the new parameter."""
        return self._replace(name, lambda tensor: tensor[rows])

    def append(self, name: str, values: Tensor) -> nn.Parameter:
        """Append rows with zero Adam moments; return the new parameter."""
        (old,) = self._groups[name]["params"]
        parameter = self._replace(name, lambda t: torch.cat([t, torch.zeros_like(values)]))
        with torch.no_grad():
            parameter[len(old) :] = values
        return parameter

    def state(self) -> dict[str, Tensor]:
        """Adam moments and step counts as tensors, keyed "<name>.<index>.<moment>"."""
        return {
            f"{name}.{i}.{key}": value
            for name, group in self._groups.items()
            for i, parameter in enumerate(group["params"])
            for key, value in self._adam.state[parameter].items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
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
