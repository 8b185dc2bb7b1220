r"""Sequential minimal optimisation of small One-Class SVM duals side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = t

Every update moves weight between the two coefficients of each model's working pair (Platt 1999), which is
chosen by second-order information (Fan et al. 2005).

References
----------
* J. C. Platt, "Fast training of support vector machines using sequential minimal optimization",
  in Advances in Kernel Methods (1999) 185-208.
* R.-E. Fan, P.-H. Chen and C.-J. Lin, "Working set selection using second order information for
  training support vector machines", JMLR 6 (2005) 1889-1918.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

CHECK_EVERY = 4
"""Updates between two looks at which models have converged: a look costs a pass over the batch."""
RETIRE_BELOW = 0.85
"""Fraction of a batch still unsolved below which the solved models are taken out: it costs a copy of the rest."""
MAX_UPDATES = 1_000_000
"""Largest number of updates: a stop that convergence should never need."""


def solve_smo(kernel: Tensor, alpha: Tensor, gradient: Tensor, tol: float) -> tuple[Tensor, int]:
    """Solve small duals side by side, one working pair of coefficients at a time.

    Parameters
    ----------
    kernel : (m, q, q) tensor
    alpha, gradient : (m, q) tensors
        Feasible start and its gradient.
    tol : float
        Largest violation of the optimality conditions, in units of the score.

    Returns
    -------
    alpha : (m, q) tensor
    updates : int
        Updates of the model that took most.
    """
    state = _WorkingPairs(kernel, alpha.clone(), gradient)
    result = alpha.clone()
    for update in range(MAX_UPDATES):
        state.select_first()
        if update % CHECK_EVERY == 0 and state.retire(result, tol):
            if state.done:
                break
            continue
        state.update_working_pair()
    return result, update


class _WorkingPairs:
    """State of the updates: the models still unsolved, and buffers for them.

    ``gaining`` and ``losing`` are 0 where a coefficient may grow or shrink (libsvm's sets I_up and
    I_low) and +-infinity where it may not: adding them to the gradient masks it.
    """

    def __init__(self, kernel: Tensor, alpha: Tensor, gradient: Tensor) -> None:
        models, size, _ = kernel.shape
        self.rows = kernel.view(models * size, size)
        self.models = torch.arange(models, device=kernel.device)
        self.alpha, self.gradient = alpha, gradient
        self.gaining = torch.where(alpha < 1, 0.0, inf).to(kernel.dtype)
        self.losing = torch.where(alpha > 0, 0.0, -inf).to(kernel.dtype)
        self.diagonal = kernel.new_tensor(1 + 4 * torch.finfo(kernel.dtype).eps)
        self.signs = kernel.new_tensor([[1.0], [-1.0]])
        self.zero, self.infinity = kernel.new_tensor(0.0), kernel.new_tensor(inf)
        self.buffers = [torch.empty_like(gradient) for _ in range(4)]
        self._lay_out()

    def _lay_out(self) -> None:
        count, size = self.alpha.shape
        self.in_kernel = self.models * size
        self.in_state = torch.arange(count, device=self.models.device) * size
        self.low, self.excess, self.first_row, self.second_row = (buffer[:count] for buffer in self.buffers)
        self.done = count == 0

    def select_first(self) -> None:
        """Find each model's lowest score that may gain weight, and how far the others lie above it."""
        torch.add(self.gradient, self.gaining, out=self.low)
        self.first = _argmin(self.low)
        lowest = self.low.view(-1).index_select(0, self.in_state + self.first)
        torch.add(self.gradient, self.losing, out=self.excess)
        self.excess.sub_(lowest[:, None])

    def retire(self, result: Tensor, tol: float) -> bool:
        """Put solved models away when they are many; True when any were."""
        unsolved = _maximum(self.excess) > tol
        count = int(unsolved.sum())
        if count > RETIRE_BELOW * len(unsolved):
            return False
        solved = ~unsolved
        result[self.models[solved]] = self.alpha[solved]
        keep = unsolved.nonzero()[:, 0]
        self.models, self.alpha, self.gradient, self.gaining, self.losing = (
            kept[keep] for kept in (self.models, self.alpha, self.gradient, self.gaining, self.losing)
        )
        self._lay_out()
        return True

    def update_working_pair(self) -> None:
        """Move weight to the pair's first coefficient from the one that lowers the objective most."""
        first = self.in_state + self.first
        torch.index_select(self.rows, 0, self.in_kernel + self.first, out=self.first_row)
        self.excess.clamp_(min=0)
        torch.sub(
            self.diagonal, self.first_row, out=self.second_row
        )  # half the curvature along each possible pair
        torch.mul(self.excess, self.excess, out=self.low).div_(self.second_row)
        partner = _argmax(self.low)
        second = self.in_state + partner
        step = self.excess.view(-1).index_select(0, second)
        step.div_(self.second_row.view(-1).index_select(0, second)).mul_(0.5)
        pair = torch.cat([first, second])
        weights = self.alpha.view(-1).index_select(0, pair).view(2, -1)
        step = torch.minimum(step, torch.minimum(1 - weights[0], weights[1]))
        weights = torch.addcmul(weights, step, self.signs).view(-1)
        self.alpha.view(-1).index_copy_(0, pair, weights)
        self.gaining.view(-1).index_copy_(0, pair, torch.where(weights < 1, self.zero, self.infinity))
        self.losing.view(-1).index_copy_(0, pair, torch.where(weights > 0, self.zero, -self.infinity))
        torch.index_select(self.rows, 0, self.in_kernel + partner, out=self.second_row)
        self.gradient.addcmul_(self.first_row.sub_(self.second_row), step[:, None])


def _argmin(values: Tensor) -> Tensor:
    """Index of each row's smallest value; numpy's is vectorised, torch's is not."""
    return torch.from_numpy(values.numpy().argmin(1)) if values.device.type == "cpu" else values.argmin(1)


def _argmax(values: Tensor) -> Tensor:
    """Index of each row's largest value."""
    return torch.from_numpy(values.numpy().argmax(1)) if values.device.type == "cpu" else values.argmax(1)


def _maximum(values: Tensor) -> Tensor:
    """Each row's largest value."""
    return torch.from_numpy(values.numpy().max(1)) if values.device.type == "cpu" else values.amax(1)
