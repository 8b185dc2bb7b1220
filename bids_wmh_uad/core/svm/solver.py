r"""The One-Class SVM's dual problem, solved for one model or for thousands side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = \nu n, \qquad
          K_{ij} = \exp(-\gamma |x_i - x_j|^2)

The problem of Schoelkopf et al. (2001), in libsvm's scale (Chang and Lin 2011). Small models are
solved by conjugate gradients with a changing active set (`core.svm.active_set`), a cache's worth of
kernel matrices at a time, and the few that are not by sequential minimal optimisation
(`core.svm.smo`). The kernel matrix of a large model is never held: a round takes the working set of
samples that violate the optimality conditions most (decomposition; Joachims 1999), solves the
problem restricted to them, again by sequential minimal optimisation, and updates the gradient of
all samples. Every step is one tensor operation on all the models of the batch.

References
----------
* B. Schoelkopf, J. C. Platt, J. Shawe-Taylor, A. J. Smola and R. C. Williamson, "Estimating the
  support of a high-dimensional distribution", Neural Computation 13 (2001) 1443-1471.
* C.-C. Chang and C.-J. Lin, "LIBSVM: a library for support vector machines", ACM TIST 2 (2011).
* T. Joachims, "Making large-scale SVM learning practical", in Advances in Kernel Methods (1999).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bids_wmh_uad.core.svm.active_set import multiply, solve_active_set
from bids_wmh_uad.core.svm.smo import solve_smo

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG2_E = 1.4426950408889634
"""Binary logarithm of e: the factor from natural exponents to those of base 2, the fast exponential."""
PRODUCT_ELEMENTS = 2**18
"""Kernel values computed at a time in a product: 1 MB in float32, which stays in a core's cache."""
MATRIX_ELEMENTS = 3 * 2**19
"""Kernel values held at a time where models are small: 6 MB in float32, which stay in the
last-level cache."""
MATRIX_ELEMENTS_ON_GPU = 2**28
"""The same on another device, which wants large batches."""
BISECTIONS = 40
"""Halvings of an interval of length 2: down to float64's rounding of sums."""
ROUNDING = 16
"""Units of the floating point's epsilon, relative to the score, below which violations are noise."""
SMALL_NU = 0.05
"""Largest nu of the active-set method: hardly a coefficient is at its upper bound, and it is the faster one."""
CENTRAL_DISTANCE = 0.7
"""Distance from the mean, in mean squared distances, up to which samples start without weight: it saves
a step or two."""
MAX_ROUNDS = 1000
"""Largest number of working sets: a stop that convergence should never need."""
WORKING_SET = 512
"""Samples optimised at a time, and the most of a model whose kernel matrix is held."""
MAX_UNSOLVED = 0.05
"""Largest fraction of a batch's models that are left to the end, when those of all batches are solved side by side."""
TENSORS = ("alpha", "gradient", "offset", "gap")
"""Of a `DualSolution`: what its models have each."""


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
    rows = max(1, PRODUCT_ELEMENTS // right.shape[1])
    at_once = max(1, rows // count)
    for model in range(0, models, at_once):
        batch = slice(model, model + at_once)
        for start in range(0, count, rows):
            part = left[batch, start : start + rows]
            block = kernel_block(part, right[batch])
            result[batch, start : start + rows] = torch.matmul(block, weights[batch, :, None])[..., 0]
    return result


def solve_dual(
    features: Tensor, total: float, *, tol: float = 1e-6, working_set: int = WORKING_SET
) -> DualSolution:
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
    if features.shape[1] <= working_set:
        models = models_at_once(features.shape[1], features.device)
        return solve_batches(torch.split(features, models), total, tol=tol)
    tol = _least_tolerance(features, total, tol)
    alpha = _initial_alpha(features, total)
    gradient = _gradient(features, alpha)
    rounds = updates = 0
    while rounds < MAX_ROUNDS:
        gaining, losing = _extremes(alpha, gradient)
        unsolved = (losing - gaining > tol).nonzero()[:, 0]
        if not len(unsolved):
            break
        batch = features[unsolved], alpha[unsolved], gradient[unsolved]
        count = _optimise_working_set(*batch, _working_set(*batch[1:], working_set), tol)
        if not count:
            break  # what violation is left is the rounding of the gradient
        alpha[unsolved], gradient[unsolved] = batch[1:]
        rounds, updates = rounds + 1, updates + count
    return _solution(alpha, _gradient(features, alpha), rounds, updates)


def models_at_once(count: int, device: torch.device | str) -> int:
    """Models of `count` samples in a batch of `solve_batches`: their kernel matrices are held at a time."""
    elements = MATRIX_ELEMENTS if torch.device(device).type == "cpu" else MATRIX_ELEMENTS_ON_GPU
    return max(1, elements // count**2)


def solve_batches(batches: Iterable[Tensor], total: float, *, tol: float) -> DualSolution:
    """Solve many small duals with their kernel matrices at hand: by active sets, what that leaves by SMO.

    Parameters
    ----------
    batches : iterable of (m, n, d) tensors
        Features as `solve_dual` takes them, at most `models_at_once` models in each, and the first
        is the largest. Made when they are asked for, they are in the core's cache.
    total, tol : float
        See `solve_dual`.

    Returns
    -------
    DualSolution
        Of all batches' models.
    """
    parts: list[DualSolution] = []
    rest: list[tuple[Tensor, Tensor]] = []  # which models are not solved, and their features
    buffer = None
    for features in batches:
        models, count, _ = features.shape
        limit = _least_tolerance(features, total, tol)
        if total <= SMALL_NU * count:
            buffer = features.new_empty(models, count, count) if buffer is None else buffer
            parts.append(_by_active_sets(features, None, total, limit, buffer, MAX_UNSOLVED))
        else:
            nothing = features.new_full((models, count), torch.nan)
            parts.append(_solution(nothing, nothing.clone(), 1, 0))
        unsolved = _unsolved(parts[-1], total, limit)
        rest.append((unsolved, features[unsolved]))
    unsolved = torch.cat([rows for rows, _ in rest]).nonzero()[:, 0]
    features = torch.cat([rows for _, rows in rest])
    whole = _concatenate(parts)
    for method in (_by_active_sets, _by_smo) if buffer is not None else (_by_smo,):
        if not len(features):
            break
        found = method(features, whole.alpha[unsolved], total, limit)
        for name in TENSORS:
            getattr(whole, name)[unsolved] = getattr(found, name)
        whole = replace(whole, updates=whole.updates + found.updates)
        again = _unsolved(found, total, limit)
        unsolved, features = unsolved[again], features[again]
    return whole


def _least_tolerance(features: Tensor, total: float, tol: float) -> float:
    """Tolerance that the features' type can keep: scores are of the order of the total."""
    return max(tol, ROUNDING * torch.finfo(features.dtype).eps * total)


def _unsolved(solution: DualSolution, total: float, tol: float) -> Tensor:
    """Models that violate the optimality conditions, or are NaN: (m,) bool."""
    rounding = ROUNDING * torch.finfo(solution.alpha.dtype).eps
    feasible = (solution.alpha.sum(1) - total).abs() <= rounding * (1 + total)
    return ~((solution.gap <= tol) & feasible)


def _by_active_sets(
    features: Tensor,
    guess: Tensor | None,
    total: float,
    tol: float,
    buffer: Tensor | None = None,
    unsolved: float = 0.0,
) -> DualSolution:
    """Solutions that begin with a guess, or with the outlying samples; see `solve_active_set`."""
    squares = _squares(features)
    kernel = _kernel_matrices(features, squares, buffer)
    start = _outlier_weights(squares, total) if guess is None else _project(guess, total)
    alpha, steps = solve_active_set(kernel, start, total, 0.5 * tol, unsolved)
    gradient = torch.empty_like(alpha)
    multiply(alpha, kernel, gradient)
    return _solution(alpha, gradient, 1, steps)


def _by_smo(features: Tensor, guess: Tensor, total: float, tol: float) -> DualSolution:
    """Solutions that begin with a guess, or, where that is NaN throughout, with the outlying samples."""
    kernel = _kernel_matrices(features, _squares(features))
    alpha = _initial_alpha(features, total) if guess.isnan().all() else _project(guess, total)
    gradient = torch.matmul(alpha[:, None], kernel)[:, 0]
    alpha, updates = solve_smo(kernel, alpha, gradient, tol)
    return _solution(alpha, torch.matmul(alpha[:, None], kernel)[:, 0], 1, updates)


def _solution(alpha: Tensor, gradient: Tensor, rounds: int, updates: int) -> DualSolution:
    extremes = _extremes(alpha, gradient)
    offset = _offset(alpha, gradient, *extremes)
    return DualSolution(alpha, gradient, offset, extremes[1] - extremes[0], rounds, updates)


def _concatenate(parts: list[DualSolution]) -> DualSolution:
    alpha, gradient, offset, gap = (torch.cat([getattr(part, name) for part in parts]) for name in TENSORS)
    return DualSolution(alpha, gradient, offset, gap, 1, max(part.updates for part in parts))


def _squares(features: Tensor) -> Tensor:
    """Squared lengths, (m, n, d) -> (m, n); a product with ones is the fastest sum."""
    flat = features.reshape(-1, features.shape[-1])
    return torch.mv(flat.square(), flat.new_ones(flat.shape[1])).reshape(features.shape[:-1])


def _outlier_weights(squares: Tensor, total: float) -> Tensor:
    """Coefficients that grow with the distance from the mean, from `CENTRAL_DISTANCE` on; NaN where all are equal."""
    weights = (squares - CENTRAL_DISTANCE * squares.mean(1, keepdim=True)).clamp_(min=0)
    return weights.mul_(total / weights.sum(1, keepdim=True))


def _project(alpha: Tensor, total: float) -> Tensor:
    """Project onto the feasible set: the nearest coefficients in [0, 1] that sum to the total, by bisection."""
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
    at_once = max(1, PRODUCT_ELEMENTS // count**2)
    for start in range(0, models, at_once):
        batch = slice(start, start + at_once)
        block = kernel[batch]
        torch.add(squares[batch, :, None], squares[batch, None, :], out=block)
        block.baddbmm_(features[batch], features[batch].transpose(-1, -2), beta=-1, alpha=2)
        block.clamp_(max=0).exp2_()
    return kernel


def _initial_alpha(features: Tensor, total: float) -> Tensor:
    """Start from the samples farthest from the mean: support vectors are the outlying ones."""
    models, count = features.shape[:2]
    full = min(int(total), count)
    weighted = min(full + 1, count)
    farthest = features.square().sum(-1).topk(weighted).indices
    weights = torch.ones(weighted, dtype=features.dtype, device=features.device)
    if weighted > full:
        weights[full] = total - full
    alpha = torch.zeros(models, count, dtype=features.dtype, device=features.device)
    return alpha.scatter_(1, farthest, weights.expand(models, weighted))


def _gradient(features: Tensor, alpha: Tensor) -> Tensor:
    """``K alpha`` from the support vectors alone, padded to the largest model's number of them."""
    largest = max(1, int((alpha > 0).sum(1).max()))
    weights, support = alpha.topk(largest)
    return kernel_product(features, _take(features, support), weights)


def _take(features: Tensor, rows: Tensor) -> Tensor:
    """Rows of every model: (m, n, d) and (m, q) -> (m, q, d)."""
    models, count, width = features.shape
    flat = rows + torch.arange(models, device=rows.device)[:, None] * count
    return features.reshape(-1, width).index_select(0, flat.reshape(-1)).reshape(*rows.shape, width)


def _extremes(alpha: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest score of a sample that may gain weight and highest of one that may lose some: (m,), (m,).

    Over libsvm's sets I_up and I_low: a model is solved where the first is no less than the second.
    """
    gaining = torch.where(alpha < 1, gradient, inf).amin(1)
    losing = torch.where(alpha > 0, gradient, -inf).amax(1)
    return gaining, losing


def _offset(alpha: Tensor, gradient: Tensor, gaining: Tensor, losing: Tensor) -> Tensor:
    """Mean score of the samples strictly between the bounds; without any, the middle of what is allowed."""
    free = ((alpha > 0) & (alpha < 1)).to(gradient.dtype)
    count = free.sum(1)
    middle = torch.where(gaining < inf, 0.5 * (gaining + losing), losing)  # nu = 1: all at the bound
    return torch.where(count > 0, (free * gradient).sum(1) / count.clamp(min=1), middle)


def _working_set(alpha: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Pick the samples that violate the optimality conditions most, on either side: (m, size) indices."""
    gaining, losing = _extremes(alpha, gradient)
    signed = gradient - (0.5 * (gaining + losing))[:, None]  # > 0: should lose weight
    violation = torch.maximum(torch.where(alpha > 0, signed, -inf), torch.where(alpha < 1, -signed, -inf))
    for extreme in (
        torch.where(alpha < 1, gradient, inf).argmin(1),
        torch.where(alpha > 0, gradient, -inf).argmax(1),
    ):
        violation.scatter_(1, extreme[:, None], inf)  # among ties, a working pair that can move
    return violation.topk(size).indices


def _optimise_working_set(
    features: Tensor, alpha: Tensor, gradient: Tensor, working: Tensor, tol: float
) -> int:
    """Optimise over one working set per model, (m, q) indices, in place; returns the updates it took."""
    part = _take(features, working)
    before = alpha.gather(1, working)
    kernel = _kernel_matrices(part, _squares(part))
    after, updates = solve_smo(kernel, before, gradient.gather(1, working), tol)
    change = after - before
    moved = change.any(0)
    if not moved.any():
        return 0
    gradient += kernel_product(features, part[:, moved], change[:, moved])
    alpha.scatter_(1, working, after)
    return updates
