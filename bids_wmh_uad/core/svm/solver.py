r"""The One-Class SVM's dual problem, solved for one model or for thousands side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = \nu n, \qquad
          K_{ij} = \exp(-\gamma |x_i - x_j|^2)

libsvm's problem in libsvm's scale (Schoelkopf et al., Neural Computation 2001; Chang and
Lin, ACM TIST 2011). Small models are solved by conjugate gradients on a changing face
(`core.faces`), a cache's worth of kernel matrices at a time, and the few that are not by
pair updates (`core.pairs`). The kernel matrix of a large model is never held: a round takes
the samples that violate the optimality conditions most (decomposition, Joachims 1999),
solves the problem restricted to them, again by pairs, and updates the gradient of all
samples. Every step is one tensor operation on all the models of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from bids_wmh_uad.core.svm.active_set import descend, multiply
from bids_wmh_uad.core.svm.smo import update_pairs

LOG2_E = 1.4426950408889634
BLOCK_ELEMENTS = 2**18
"""Kernel values computed at a time: 1 MB in float32, so that they stay in a core's cache."""
TOGETHER_ELEMENTS = 3 * 2**19
"""Kernel values held at a time where models are small: 6 MB in float32, so that they stay in the
last-level cache; another device, which wants large batches, has 2 ** 28."""
BISECTIONS = 40
ROUNDING = 16
"""Units of the floating point's epsilon, relative to the score, below which violations are noise."""
FEW = 0.05
"""Up to this nu hardly any coefficient meets its upper bound, and faces are faster than pairs."""
NEARBY = 0.7
"""Samples nearer to the mean than this many mean squared distances start without weight: it saves
a step or two."""
MAX_ROUNDS = 1000


@dataclass(frozen=True, eq=False)
class DualSolution:
    """Solutions of a batch of duals.

    Attributes
    ----------
    alpha : (m, n) tensor
        In [0, 1], at a bound exactly or not at all; rows sum to nu n.
    gradient : (m, n) tensor
        ``K alpha``: the score of every training sample.
    offset : (m,) tensor
        The sum's multiplier, libsvm's rho: decision value = score - offset.
    gap : (m,) tensor
        Violation of the optimality conditions that is left.
    rounds, updates : int
        Working sets, and steps within them, it took.
    """

    alpha: Tensor
    gradient: Tensor
    offset: Tensor
    gap: Tensor
    rounds: int
    updates: int


def scale_features(samples: Tensor, gamma: Tensor | float) -> Tensor:
    """Centre and scale samples so that ``k(x, y) = 2 ** -|x - y|^2``: base 2 is the fast exponential.

    Parameters
    ----------
    samples : (..., n, d) tensor
        Centred on their mean: small numbers keep the expansion of squared distances accurate.
    gamma : float or (...) tensor

    Returns
    -------
    (..., n, d) tensor.
    """
    width = torch.as_tensor(gamma, dtype=samples.dtype, device=samples.device) * LOG2_E
    return (samples - samples.mean(-2, keepdim=True)) * width.sqrt()[..., None, None]


def kernel_block(left: Tensor, right: Tensor) -> Tensor:
    """Kernel values ``2 ** -|x - y|^2`` of (..., p, d) and (..., q, d) scaled features: (..., p, q).

    Squared distances are expanded, so that the work is one matrix product.
    """
    ones = torch.ones_like(left[..., :1]), torch.ones_like(right[..., :1])
    squares = [side.square().sum(-1, keepdim=True) for side in (left, right)]
    first = torch.cat([left + left, -squares[0], ones[0]], -1)
    second = torch.cat([right, ones[1], -squares[1]], -1)
    block = torch.matmul(first, second.transpose(-1, -2))
    return block.clamp_(max=0).exp2_()


def kernel_product(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """``K(left, right) @ weights`` without holding K: (m, p, d), (m, q, d), (m, q) -> (m, p)."""
    models, count = left.shape[:2]
    result = torch.empty(models, count, dtype=left.dtype, device=left.device)
    rows = max(1, BLOCK_ELEMENTS // right.shape[1])
    together = max(1, rows // count)
    for model in range(0, models, together):
        some = slice(model, model + together)
        for start in range(0, count, rows):
            part = left[some, start : start + rows]
            block = kernel_block(part, right[some])
            result[some, start : start + rows] = torch.matmul(block, weights[some, :, None])[..., 0]
    return result


def solve_dual(features: Tensor, total: float, *, tol: float = 1e-6, working_set: int = 512) -> DualSolution:
    """Solve a batch of One-Class SVM duals of one size.

    Parameters
    ----------
    features : (m, n, d) tensor
        One model's samples per row; see `scale_features`.
    total : float
        ``nu n``: the sum of each model's coefficients.
    tol : float
        Largest violation of the optimality conditions, in units of the score; no less than
        `ROUNDING` times the floating point's epsilon times `total`.
    working_set : int
        Samples optimised at a time. Changes the time, not the solution.

    Returns
    -------
    DualSolution
    """
    tol = max(tol, ROUNDING * torch.finfo(features.dtype).eps * total)  # scores are of the order of total
    if features.shape[1] <= working_set:
        return _solve_small(features, total, tol)
    alpha = _initial_alpha(features, total)
    gradient = _gradient(features, alpha)
    rounds = updates = 0
    while rounds < MAX_ROUNDS:
        gaining, losing = _extremes(alpha, gradient)
        left = (losing - gaining > tol).nonzero()[:, 0]
        if not len(left):
            break
        some = features[left], alpha[left], gradient[left]
        moves = _improve(*some, _working_set(*some[1:], working_set), tol)
        if not moves:
            break  # what violation is left is the rounding of the gradient
        alpha[left], gradient[left] = some[1:]
        rounds, updates = rounds + 1, updates + moves
    return _solution(alpha, _gradient(features, alpha), rounds, updates)


def _solution(alpha: Tensor, gradient: Tensor, rounds: int, updates: int) -> DualSolution:
    gaining, losing = _extremes(alpha, gradient)
    return DualSolution(alpha, gradient, _offset(alpha, gradient), losing - gaining, rounds, updates)


def _solve_small(features: Tensor, total: float, tol: float) -> DualSolution:
    """Solve a batch of models with their kernel matrices at hand: by faces, what that leaves by pairs."""
    models, count, _ = features.shape
    alpha = features.new_full((models, count), torch.nan)  # NaN is not solved
    gradient = alpha.clone()
    steps = 0
    if total <= FEW * count:
        elements = TOGETHER_ELEMENTS if features.device.type == "cpu" else 2**28
        together = max(1, elements // count**2)
        buffer = features.new_empty(min(together, models), count, count)
        for start in range(0, models, together):
            some = slice(start, start + together)
            squares = _squares(features[some])
            kernel = _kernel_matrices(features[some], squares, buffer)
            alpha[some], taken = descend(kernel, _outlying(squares, total), total, 0.5 * tol)
            multiply(alpha[some, None], kernel, gradient[some, None])
            steps = max(steps, taken)
    gaining, losing = _extremes(alpha, gradient)
    rounding = ROUNDING * torch.finfo(features.dtype).eps
    feasible = (alpha.sum(1) - total).abs() <= rounding * (1 + total)
    left = (~((losing - gaining <= tol) & feasible)).nonzero()[:, 0]
    if len(left):
        kernel = _kernel_matrices(features[left], _squares(features[left]))
        begin = _feasible(alpha[left], total) if steps else _initial_alpha(features, total)
        alpha[left], taken = update_pairs(kernel, begin, torch.matmul(begin[:, None], kernel)[:, 0], tol)
        gradient[left] = torch.matmul(alpha[left, None], kernel)[:, 0]
        steps += taken
    return _solution(alpha, gradient, 1, steps)


def _squares(features: Tensor) -> Tensor:
    """Squared lengths, (m, n, d) -> (m, n); a product with ones is the fastest sum."""
    flat = features.reshape(-1, features.shape[-1])
    return torch.mv(flat.square(), flat.new_ones(flat.shape[1])).reshape(features.shape[:-1])


def _outlying(squares: Tensor, total: float) -> Tensor:
    """Coefficients that grow with the distance from the mean, from `NEARBY` on; NaN where all are equal."""
    weights = (squares - NEARBY * squares.mean(1, keepdim=True)).clamp_(min=0)
    return weights.mul_(total / weights.sum(1, keepdim=True))


def _feasible(alpha: Tensor, total: float) -> Tensor:
    """Nearest coefficients in [0, 1] that sum to the total, by bisection for the shift between them."""
    alpha = alpha.nan_to_num(0.5).clamp_(0, 1)
    low, high = -torch.ones_like(alpha[:, :1]), torch.ones_like(alpha[:, :1])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        above = (alpha + middle).clamp_(0, 1).sum(1, keepdim=True) > total
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (alpha + high).clamp_(0, 1)


def _kernel_matrices(features: Tensor, squares: Tensor, buffer: Tensor | None = None) -> Tensor:
    """Kernel matrices, (m, n, d) and `_squares` -> (m, n, n), a cache's worth of models at a time."""
    models, count, _ = features.shape
    kernel = features.new_empty(models, count, count) if buffer is None else buffer[:models]
    together = max(1, BLOCK_ELEMENTS // count**2)
    for start in range(0, models, together):
        some = slice(start, start + together)
        block = kernel[some]
        torch.add(squares[some, :, None], squares[some, None, :], out=block)
        block.baddbmm_(features[some], features[some].transpose(-1, -2), beta=-1, alpha=2)
        block.clamp_(max=0).exp2_()
    return kernel


def _initial_alpha(features: Tensor, total: float) -> Tensor:
    """Start from the samples farthest from the mean: support vectors are the outlying ones."""
    models, count = features.shape[:2]
    full = min(int(total), count)
    chosen = min(full + 1, count)
    outlying = features.square().sum(-1).topk(chosen).indices
    weights = torch.ones(chosen, dtype=features.dtype, device=features.device)
    if chosen > full:
        weights[full] = total - full
    alpha = torch.zeros(models, count, dtype=features.dtype, device=features.device)
    return alpha.scatter_(1, outlying, weights.expand(models, chosen))


def _gradient(features: Tensor, alpha: Tensor) -> Tensor:
    """``K alpha`` from the support vectors alone, padded to the model that has most."""
    most = max(1, int((alpha > 0).sum(1).max()))
    weights, chosen = alpha.topk(most)
    return kernel_product(features, _take(features, chosen), weights)


def _take(features: Tensor, rows: Tensor) -> Tensor:
    """Rows of every model: (m, n, d) and (m, q) -> (m, q, d)."""
    models, count, width = features.shape
    flat = rows + torch.arange(models, device=rows.device)[:, None] * count
    return features.reshape(-1, width).index_select(0, flat.reshape(-1)).reshape(*rows.shape, width)


def _extremes(alpha: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest score of a sample that may gain weight and highest of one that may lose some: (m,), (m,)."""
    gaining = torch.where(alpha < 1, gradient, inf).amin(1)
    losing = torch.where(alpha > 0, gradient, -inf).amax(1)
    return gaining, losing


def _offset(alpha: Tensor, gradient: Tensor) -> Tensor:
    """Mean score of the samples strictly between the bounds; without any, the middle of what is allowed."""
    free = ((alpha > 0) & (alpha < 1)).to(gradient.dtype)
    count = free.sum(1)
    gaining, losing = _extremes(alpha, gradient)
    middle = torch.where(gaining < inf, 0.5 * (gaining + losing), losing)  # nu = 1: all at the bound
    return torch.where(count > 0, (free * gradient).sum(1) / count.clamp(min=1), middle)


def _working_set(alpha: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Pick the samples that violate the optimality conditions most, on either side: (m, size) indices."""
    gaining, losing = _extremes(alpha, gradient)
    signed = gradient - (0.5 * (gaining + losing))[:, None]  # > 0: should lose weight
    violation = torch.maximum(torch.where(alpha > 0, signed, -inf), torch.where(alpha < 1, -signed, -inf))
    for most in (
        torch.where(alpha < 1, gradient, inf).argmin(1),
        torch.where(alpha > 0, gradient, -inf).argmax(1),
    ):
        violation.scatter_(1, most[:, None], inf)  # among ties, a pair that can move
    return violation.topk(size).indices


def _improve(features: Tensor, alpha: Tensor, gradient: Tensor, chosen: Tensor, tol: float) -> int:
    """Optimise over one working set per model, (m, q) indices, in place; returns the pair updates."""
    part = _take(features, chosen)
    before = alpha.gather(1, chosen)
    kernel = _kernel_matrices(part, _squares(part))
    after, updates = update_pairs(kernel, before, gradient.gather(1, chosen), tol)
    change = after - before
    moved = change.any(0)
    if not moved.any():
        return 0
    gradient += kernel_product(features, part[:, moved], change[:, moved])
    alpha.scatter_(1, chosen, after)
    return updates
