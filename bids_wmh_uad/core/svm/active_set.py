r"""Conjugate gradients with a changing active set: thousands of small One-Class SVM duals side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = t

The active set holds the coefficients that are at a bound, 0 or 1; the others are free. Every step
moves the free coefficients once (conjugate gradients; Hestenes and Stiefel 1952), and every second
one chooses each model's active set anew before (primal-dual active set; Hintermueller et al. 2002).
After a few steps with all samples most of those without weight are known and left out: the rest of
the steps has smaller matrices. Most models are solved in a dozen steps, but nothing guarantees it:
the caller has to look at the optimality conditions. How the two methods are interleaved is a choice
of this program.

References
----------
* M. Hintermueller, K. Ito and K. Kunisch, "The primal-dual active set strategy as a semismooth
  Newton method", SIAM J. Optim. 13 (2002) 865-888.
* M. R. Hestenes and E. Stiefel, "Methods of conjugate gradients for solving linear systems",
  J. Res. Natl. Bur. Stand. 49 (1952) 409-436.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FIRST_STEPS = 3
"""Steps with all samples: then most of those that will have no weight are known."""
LEAST_SAVING = 0.8
"""Fraction of the samples above which none are left out: what it saves is less than the copy costs."""
CHOOSE_EVERY = 2
"""Steps from one choice of the active set to the next: a choice costs as much as a step."""
FIRST_CHECK = 4
"""Further steps before the first look at how many models are solved."""
MAX_STEPS = 40
"""Further steps after which the unsolved models are left to the caller: nothing guarantees convergence."""
MAX_STEP = 1e4
"""Longest step along a direction, and largest weight of the last direction: a singular kernel sets no bound."""


def solve_active_set(
    kernel: Tensor, start: Tensor, total: float, tol: float, unsolved: float = 0.0
) -> tuple[Tensor, int]:
    """Solve the models of a batch, but for a fraction that would keep the others waiting.

    Parameters
    ----------
    kernel : (m, n, n) tensor
    start : (m, n) tensor
        Coefficients to begin with, not negative; rows sum to the total.
    total : float
        Sum of each model's coefficients, at most n.
    tol : float
        Largest error of the fixed-point equation ``alpha = clip(alpha - (K alpha - rho), 0, 1)``
        of a model that counts as solved.
    unsolved : float
        Fraction of the models that may be left unsolved: a step costs the same for one as for all.

    Returns
    -------
    alpha : (m, n) tensor
        In [0, 1]; rows of solved models sum to the total. Unsolved ones may hold anything, NaN
        included.
    steps : int
    """
    enough = math.ceil((1 - unsolved) * len(kernel))
    alpha, target, _ = _descend(kernel, start, total, tol, enough, FIRST_STEPS)
    kept = _promising(target, enough)
    if kept is None:
        alpha, _, steps = _descend(kernel, alpha, total, tol, enough, MAX_STEPS)
    else:
        part = _submatrices(kernel, kept)
        found, _, steps = _descend(part, alpha.gather(1, kept), total, tol, enough, MAX_STEPS)
        alpha.zero_().scatter_(1, kept, found)
    return alpha, FIRST_STEPS + steps


def _descend(
    kernel: Tensor, start: Tensor, total: float, tol: float, enough: int, max_steps: int
) -> tuple[Tensor, Tensor, int]:
    """Coefficients, where a gradient step would lead from them, and the steps until enough models are solved."""
    state = _Descent(kernel, start, total)
    for step in range(max_steps + 1):
        if step % CHOOSE_EVERY == 0 or step == max_steps:
            state.look()
            if step == max_steps or (step >= FIRST_CHECK and state.solved(tol) >= enough):
                break
            state.choose_active_set()
        state.move()
    return state.feasible(), state.target, step


class _Descent:
    """Coefficients of a batch's models, the negative gradient (but for a constant), and buffers."""

    def __init__(self, kernel: Tensor, start: Tensor, total: float) -> None:
        self.kernel, self.alpha = kernel, start.clone()
        self.residual, self.target, self.projected, self.scratch = (torch.empty_like(start) for _ in range(4))
        self.direction, self.kernel_direction = torch.zeros_like(start), torch.zeros_like(start)
        self.free, self.ones = torch.ones_like(start), start.new_ones(start.shape[1])
        self.free_count = self._sum(self.free)
        self.curvature, self.totals = (
            torch.ones_like(self.free_count),
            torch.full_like(self.free_count, total),
        )
        multiply(self.alpha, kernel, self.residual)
        self.residual.neg_()

    def look(self) -> None:
        """Find where a gradient step would lead, and what the bounds leave of it."""
        self._centre()
        torch.add(self.alpha, self.residual, out=self.target)
        torch.clamp(self.target, 0, 1, out=self.projected)

    def solved(self, tol: float) -> int:
        """Models that a gradient step would leave where they are."""
        error = torch.sub(self.projected, self.alpha, out=self.scratch).abs_().amax(1)
        return int((error <= tol).sum())

    def choose_active_set(self) -> None:
        """Free what a gradient step would leave between the bounds.

        The rest goes to its bound, and the free coefficients make up for the sum.
        """
        torch.eq(self.target, self.projected, out=self.free)
        self.free_count = self._sum(self.free).clamp_(min=1)
        torch.lerp(self.projected, self.alpha, self.free, out=self.target)
        self._fill_up(self.target)
        correction = torch.sub(self.target, self.alpha, out=self.scratch)
        self.alpha, self.target = self.target, self.alpha
        multiply(correction, self.kernel, self.projected)
        self.residual.sub_(self.projected)
        self.direction.mul_(self.free)
        mean = self._sum(self.direction).div_(self.free_count)
        self.direction.addcmul_(self.free, mean[:, None], value=-1)

    def move(self) -> None:
        """Make a step along a direction of free coefficients, of sum 0, conjugate to the last one."""
        self._centre()
        descent = torch.mul(self.residual, self.free, out=self.projected)
        beta = self._dot(descent, self.kernel_direction).div_(self.curvature).clamp_(-MAX_STEP, 0)
        torch.addcmul(descent, self.direction, beta[:, None], value=-1, out=self.direction)
        multiply(self.direction, self.kernel, self.kernel_direction)
        tiny = torch.finfo(self.alpha.dtype).tiny
        self.curvature = self._dot(self.direction, self.kernel_direction).clamp_(min=tiny)
        length = self._dot(self.direction, self.residual).div_(self.curvature).clamp_(-MAX_STEP, MAX_STEP)
        self.alpha.addcmul_(self.direction, length[:, None])
        self.residual.addcmul_(self.kernel_direction, length[:, None], value=-1)

    def feasible(self) -> Tensor:
        """Coefficients within their bounds, with the right sum, after a look."""
        torch.eq(self.target, self.projected, out=self.free)
        self.free_count = self._sum(self.free).clamp_(min=1)
        self._fill_up(self.projected)
        return self.projected.clamp_(0, 1)

    def _centre(self) -> None:
        """Add the constant that makes the free coefficients' residuals 0 on average."""
        self.residual.sub_(self._dot(self.residual, self.free).div_(self.free_count)[:, None])

    def _fill_up(self, alpha: Tensor) -> None:
        """Spread what the sum lacks over the free coefficients."""
        deficit = torch.addmv(self.totals, alpha, self.ones, alpha=-1)
        alpha.addcmul_(self.free, deficit.div_(self.free_count)[:, None])

    def _sum(self, values: Tensor) -> Tensor:
        return torch.mv(values, self.ones)  # the fastest sum of rows

    def _dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner products of rows: (m, n), (m, n) -> (m,)."""
        return self._sum(torch.mul(left, right, out=self.scratch))


def _promising(target: Tensor, enough: int) -> Tensor | None:
    """Samples that have weight or are nearest to it, as many in each model: (m, q) indices; None: nearly all.

    Enough models keep all that have weight.
    """
    count = target.shape[1]
    weighted = (target > 0).sum(1)
    most = int(weighted.kthvalue(enough).values)
    kept = max(1, math.ceil(most / 8)) * 8  # a round number is fast
    if kept > LEAST_SAVING * count:
        return None
    if target.device.type == "cpu":  # numpy's is four times as fast
        return torch.from_numpy(np.argpartition(target.numpy(), count - kept, axis=1)[:, count - kept :])
    return target.topk(kept, sorted=False).indices


def _submatrices(kernel: Tensor, kept: Tensor) -> Tensor:
    """Rows and columns `kept` of each matrix, (m, q) indices: (m, q, q)."""
    models, count, _ = kernel.shape
    rows = kept + torch.arange(models, device=kept.device)[:, None] * count
    part = kernel.view(-1, count).index_select(0, rows.view(-1)).view(models, -1, count)
    return part.gather(2, kept[:, None].expand(-1, kept.shape[1], -1))


def multiply(vectors: Tensor, kernel: Tensor, out: Tensor) -> None:
    """``out[m] = kernel[m] @ vectors[m]``, vectors (m, n); on the CPU numpy's, one BLAS call a model.

    Of one vector, not of several: OpenBLAS's products of thin matrices are slow on some machines.
    """
    if kernel.device.type == "cpu":
        np.matmul(vectors.numpy()[:, None], kernel.numpy(), out=out.numpy()[:, None])
    else:
        out.copy_(torch.matmul(vectors[:, None], kernel)[:, 0])
