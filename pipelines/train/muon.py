"""Muon: the matrices of a model move by their momentum made orthogonal, everything else by AdamW.

Runs on: ranks.
Takes:   the matrices, the other parameters in groups, recipe section ``optimizer``.
Gives:   ``MatrixOptimizer``, a torch optimizer.

A matrix is updated from its own gradient alone, so that neither replicas nor segments need anything of each other. It is computed
in float32 throughout: rounded to bfloat16, as elsewhere, the last bits of a gradient, which differ from layout to layout, would
decide how whole values are rounded.

Source: Jordan et al. 2024 (Muon: the momentum, the polynomial and its coefficients); Liu et al. 2025 (Moonlight: weight decay,
and a scale at which one learning rate serves both).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.config.optimizers import Muon

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
ADAMW_SCALE = 0.2  # about the root mean square of AdamW's updates
SMALLEST_NORM = 1e-7  # added, so that no gradient stays none


class MatrixOptimizer(torch.optim.Optimizer):
    """Its state and groups are one optimizer's, AdamW's included."""

    def __init__(self, matrices: Mapping[nn.Parameter, int], others: list[dict[str, Any]], settings: Muon) -> None:
        """
        Args:
            matrices: each with the number of equal ones that lie upon another in it. others: AdamW's groups.
        """
        super().__init__([{"params": list(matrices)}] if matrices else others, {"lr": settings.learning_rate})
        self._matrices, self._settings = matrices, settings
        self._adamw = torch.optim.AdamW(others, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                                        eps=settings.epsilon, fused=True) if others else None
        if self._adamw is not None:
            self._adamw.state = self.state
            self.param_groups = [*(self.param_groups if matrices else ()), *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self._adamw is not None:
            self._adamw.step()
        if not self._matrices:
            return
        momentum, decay, learning_rate = self._settings.momentum, self._settings.weight_decay, self.param_groups[0]["lr"]
        for weight, count in self._matrices.items():
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].mul_(momentum).add_(weight.grad)
            ahead_MRC = weight.grad.add(state["momentum"], alpha=momentum).unflatten(0, (count, -1))
            scale = ADAMW_SCALE * max(ahead_MRC.shape[1:]) ** 0.5
            weight.mul_(1.0 - learning_rate * decay)
            weight.add_(orthogonal(ahead_MRC).flatten(0, 1), alpha=-learning_rate * scale)


def orthogonal(values_MRC: Tensor) -> Tensor:
    """Of each matrix, one with the same singular vectors whose singular values are about 1 (0.7 to 1.2); those of less than about
    a thousandth of the norm stay smaller.

    A Newton-Schulz iteration: of singular values it is a polynomial, which makes nearly all of them about 1.
    """
    tall = values_MRC.shape[1] > values_MRC.shape[2]
    turned_MSL = values_MRC.mT if tall else values_MRC
    turned_MSL = turned_MSL / (torch.linalg.matrix_norm(turned_MSL, keepdim=True) + SMALLEST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        squares_MSS = turned_MSL @ turned_MSL.mT
        polynomial_MSS = torch.baddbmm(squares_MSS, squares_MSS, squares_MSS, beta=b, alpha=c)
        turned_MSL = torch.baddbmm(turned_MSL, polynomial_MSS, turned_MSL, beta=a)
    return turned_MSL.mT if tall else turned_MSL
