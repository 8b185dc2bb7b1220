r"""Conjugate gradients with a changing active set: thousands of small One-Class SVM duals side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = t

The active set holds the coefficients that are at a bound, 0 or 1; the others are free. Every step
chooses each model's active set anew (primal-dual active set; Hintermueller et al. 2002) and moves
the free coefficients once (conjugate gradients; Hestenes and Stiefel 1952); one product with the
kernel matrix serves both. Most models are solved in a dozen steps, but nothing guarantees it: the
caller has to look at the optimality conditions. That the two methods are interleaved step by step
is a choice of this program.

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

FIRST_STEPS = 2
"""Steps with all samples: then most of those that will have no weight are known, and left out."""
LEAST_SAVING = 0.8
"""Fraction of the samples above which none are left out: what it saves is less than the copy costs."""
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
    models, count, _ = kernel.shape
    direction, kernel_direction = (kernel.new_zeros(models, count) for _ in range(2))
    correction, kernel_correction = (torch.empty_like(direction) for _ in range(2))
    alpha, residual = start.clone(), torch.empty_like(direction)
    multiply(alpha, kernel, residual)
    residual.neg_()  # minus the gradient, but for a constant
    target, projected, free = torch.empty_like(alpha), torch.empty_like(alpha), torch.ones_like(alpha)
    ones, free_count = free.new_ones(count), free.sum(1)  # a product with ones is the fastest sum
    curvature, totals = torch.ones_like(free_count), torch.full_like(free_count, total)
    for step in range(max_steps + 1):
        residual.sub_(_dot(residual, free).div_(free_count)[:, None])
        torch.add(alpha, residual, out=target)
        torch.clamp(target, 0, 1, out=projected)
        if step == max_steps:
            break
        if step >= FIRST_CHECK:
            error = torch.sub(projected, alpha, out=correction).abs_().amax(1)
            if int((error <= tol).sum()) >= enough:
                break
        # The new active set: what a gradient step would leave between the bounds is free. The rest
        # goes to its bound, and the free coefficients make up for the sum.
        torch.eq(target, projected, out=free)
        free_count = torch.mv(free, ones).clamp_(min=1)
        torch.lerp(projected, alpha, free, out=target)
        deficit = torch.addmv(totals, target, ones, alpha=-1)
        target.addcmul_(free, deficit.div_(free_count)[:, None])
        torch.sub(target, alpha, out=correction)
        alpha, target = target, alpha
        # The new direction: of free coefficients, of sum 0, conjugate to the last one.
        torch.mul(residual, free, out=projected)
        beta = _dot(projected, kernel_direction).div_(curvature).clamp_(-MAX_STEP, 0)
        torch.addcmul(residual, direction, beta[:, None], value=-1, out=direction).mul_(free)
        direction.addcmul_(free, torch.mv(direction, ones).div_(free_count)[:, None], value=-1)
        multiply(direction, kernel, kernel_direction)
        multiply(correction, kernel, kernel_correction)
        residual.sub_(kernel_correction)
        curvature = _dot(direction, kernel_direction).clamp_(min=torch.finfo(kernel.dtype).tiny)
        step_length = _dot(direction, residual).div_(curvature).clamp_(-MAX_STEP, MAX_STEP)[:, None]
        alpha.addcmul_(direction, step_length)
        residual.addcmul_(kernel_direction, step_length, value=-1)
    torch.eq(target, projected, out=free)
    free_count = torch.mv(free, ones).clamp_(min=1)
    deficit = torch.addmv(totals, projected, ones, alpha=-1)
    projected.addcmul_(free, deficit.div_(free_count)[:, None])
    return projected.clamp_(0, 1), target, step


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


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of rows: (m, n), (m, n) -> (m,); numpy makes no intermediate."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))
    product: Tensor = torch.linalg.vecdot(left, right)
    return product
