"""Muon for the matrices of a network and AdamW for everything else, in one optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised matrices (Jordan et al. 2024, kellerjordan.github.io).

    The step of a matrix is scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv
    2502.16982), so that both kinds share learning rate and weight decay. Newton-Schulz runs in
    float32: torch.optim.Muon uses bfloat16, three times slower on a CPU without support for it.

    Args:
        groups: with ``params``, ``lr``, ``weight_decay`` and ``hidden_matrices``: whether they are
            orthogonalised; other groups use AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, with gradients from ``closure`` if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                (self._muon if group["hidden_matrices"] else self._adam)(parameters, group["lr"])
        return loss

    def _muon(self, parameters: list[torch.Tensor], lr: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = self._states(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
        nesterov = torch._foreach_lerp(gradients, momenta, _MOMENTUM)
        for parameter, update in zip(parameters, nesterov, strict=True):
            parameter.add_(orthogonalised(update), alpha=-0.2 * lr * max(parameter.shape) ** 0.5)

    def _adam(self, parameters: list[torch.Tensor], lr: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        first, second = (self._states(parameters, name) for name in ("first", "second"))
        steps = self._states(parameters, "steps", ())
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(first, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(second, _BETAS[1])
        torch._foreach_addcmul_(second, gradients, gradients, 1 - _BETAS[1])
        count = float(steps[0])
        scale = (1 - _BETAS[1] ** count) ** 0.5
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, _EPSILON * scale)
        torch._foreach_addcdiv_(
            parameters, first, denominators, -lr * scale / (1 - _BETAS[0] ** count)
        )

    def _states(
        self, parameters: list[torch.Tensor], name: str, shape: tuple[int, ...] | None = None
    ) -> list[torch.Tensor]:
        for parameter in parameters:
            state = self.state[parameter]
            if name not in state:
                state[name] = torch.zeros_like(parameter) if shape is None else torch.zeros(shape)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, approximately: all singular values are near 1.

    Args:
        matrix: float32 [M, N].

    Returns:
        float32 [M, N]; five Newton-Schulz iterations leave singular values between 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
