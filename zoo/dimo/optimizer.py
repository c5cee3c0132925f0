"""Adam over named tensors whose rows can be removed and added during training, and Muon for matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq")
_MOMENTUM = 0.95  # of Muon
_RMS = 0.2  # of an entry of Muon's step at a rate of 1, as of Adam's (Liu et al. 2025)
_QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # a x + b x³ + c x⁵, five times, takes singular values near 1 (Jordan et al. 2024)


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


class Muon:
    """Steps whose matrices have singular values near 1, along the momentum of the gradients (Jordan et al. 2024).

    As `torch.optim.Muon(weight_decay=0, adjust_lr_fn="match_rms_adamw")`, but in float32 on the CPU: there, torch
    multiplies matrices of bfloat16, and without instructions for these, as on most laptops, a matrix of 256 × 256 takes
    30 times as long.

    Args:
        parameters: matrices.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._momenta = [torch.zeros_like(each.detach()) for each in self._parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step, then reset the gradients."""
        for parameter, momentum in zip(self._parameters, self._momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.lerp_(parameter.grad, 1 - _MOMENTUM)
            update = orthogonalised(parameter.grad.lerp(momentum, _MOMENTUM))  # Nesterov's
            parameter.add_(update, alpha=-rate * _RMS * max(parameter.shape) ** 0.5)
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """The momenta, keyed by index."""
        return {str(i): momentum for i, momentum in enumerate(self._momenta)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for i, momentum in enumerate(self._momenta):
            momentum.copy_(state[str(i)])


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with its singular values taken to between 0.7 and 1.2, by five Newton-Schulz iterations."""
    a, b, c = _QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.mT).to(torch.bfloat16 if matrix.is_cuda else matrix.dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrix.dtype)
