r"""The One-Class SVM's dual problem, solved for one model or for thousands side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = \nu n, \qquad
          K_{ij} = \exp(-\gamma |x_i - x_j|^2)

libsvm's problem in libsvm's scale (Schoelkopf et al., Neural Computation 2001; Chang and
Lin, ACM TIST 2011). Small models are solved by conjugate gradients on a changing face
(`core.faces`), a cache's worth of kernel matrices at a time, and the few that are not by
sequential minimal optimisation with second-order pair selection (Fan, Chen and Lin, JMLR
2005). The kernel matrix of a large model is never held: a round takes the samples that
violate the optimality conditions most (decomposition, Joachims 1999), solves the problem
restricted to them, again by pairs, and updates the gradient of all samples. Every step is
one tensor operation on all the models of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from bids_wmh_uad.core.faces import descend

LOG2_E = 1.4426950408889634
CHECK_EVERY = 4
"""Pair updates between two looks at which models have converged."""
BLOCK_ELEMENTS = 2**18
"""Kernel values computed at a time: 1 MB in float32, so that they stay in a core's cache."""
TOGETHER_ELEMENTS = 3 * 2**19
"""Kernel values held at a time where models are small: 6 MB in float32, so that they stay in the
last-level cache; another device, which wants large batches, has 2 ** 28."""
RETIRE_BELOW = 0.85
"""Fraction of a batch still unsolved below which the solved models are taken out of it."""
BISECTIONS = 40
ROUNDING = 16
"""Units of the floating point's epsilon, relative to the score, below which violations are noise."""
FEW = 0.05
"""Up to this nu hardly any coefficient meets its upper bound, and faces are faster than pairs."""
MAX_ROUNDS = 1000
MAX_UPDATES = 1_000_000


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
    alpha = _initial_alpha(features, total)
    gradient = torch.full_like(alpha, torch.nan)  # NaN is not solved
    steps = 0
    if total <= FEW * count:
        elements = TOGETHER_ELEMENTS if features.device.type == "cpu" else 2**28
        together = max(1, elements // count**2)
        buffer = features.new_empty(min(together, models), count, count)
        for start in range(0, models, together):
            some = slice(start, start + together)
            kernel = _kernel_matrices(features[some], buffer)
            alpha[some], taken = descend(kernel, total, 0.5 * tol)
            gradient[some] = torch.matmul(alpha[some, None], kernel)[:, 0]
            steps = max(steps, taken)
    gaining, losing = _extremes(alpha, gradient)
    rounding = ROUNDING * torch.finfo(features.dtype).eps
    feasible = (alpha.sum(1) - total).abs() <= rounding * (1 + total)
    left = (~((losing - gaining <= tol) & feasible)).nonzero()[:, 0]
    if len(left):
        kernel = _kernel_matrices(features[left])
        begin = alpha[left] if not steps else _feasible(alpha[left], total)
        alpha[left], taken = _pair_updates(kernel, begin, torch.matmul(begin[:, None], kernel)[:, 0], tol)
        gradient[left] = torch.matmul(alpha[left, None], kernel)[:, 0]
        steps += taken
    return _solution(alpha, gradient, 1, steps)


def _feasible(alpha: Tensor, total: float) -> Tensor:
    """Nearest coefficients in [0, 1] that sum to the total, by bisection for the shift between them."""
    alpha = alpha.nan_to_num(0.5).clamp_(0, 1)
    low, high = -torch.ones_like(alpha[:, :1]), torch.ones_like(alpha[:, :1])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        above = (alpha + middle).clamp_(0, 1).sum(1, keepdim=True) > total
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (alpha + high).clamp_(0, 1)


def _kernel_matrices(features: Tensor, buffer: Tensor | None = None) -> Tensor:
    """Kernel matrices of a batch, (m, n, d) -> (m, n, n), a cache's worth of models at a time."""
    models, count, _ = features.shape
    kernel = features.new_empty(models, count, count) if buffer is None else buffer[:models]
    squares = features.square().sum(-1)
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
    after, updates = _pair_updates(_kernel_matrices(part), before, gradient.gather(1, chosen), tol)
    change = after - before
    moved = change.any(0)
    if not moved.any():
        return 0
    gradient += kernel_product(features, part[:, moved], change[:, moved])
    alpha.scatter_(1, chosen, after)
    return updates


def _pair_updates(kernel: Tensor, alpha: Tensor, gradient: Tensor, tol: float) -> tuple[Tensor, int]:
    """Sequential minimal optimisation of small problems side by side.

    Parameters
    ----------
    kernel : (m, q, q) tensor
    alpha, gradient : (m, q) tensors
        Feasible start and its gradient.
    tol : float

    Returns
    -------
    alpha : (m, q) tensor
    updates : int
    """
    state = _Pairs(kernel, alpha.clone(), gradient)
    result = alpha.clone()
    for update in range(MAX_UPDATES):
        state.select_first()
        if update % CHECK_EVERY == 0 and state.retire(result, tol):
            if state.done:
                break
            continue
        state.move_pair()
    return result, update


class _Pairs:
    """State of the pair updates: the models still open, and buffers for them.

    ``gaining`` and ``losing`` are 0 where a coefficient may grow or shrink and
    +-infinity where it may not: adding them to the gradient masks it.
    """

    def __init__(self, kernel: Tensor, alpha: Tensor, gradient: Tensor) -> None:
        models, size, _ = kernel.shape
        self.rows = kernel.view(models * size, size)
        self.open = torch.arange(models, device=kernel.device)
        self.alpha, self.gradient = alpha, gradient
        self.gaining = torch.where(alpha < 1, 0.0, inf).to(kernel.dtype)
        self.losing = torch.where(alpha > 0, 0.0, -inf).to(kernel.dtype)
        self.near = kernel.new_tensor(1 + 4 * torch.finfo(kernel.dtype).eps)
        self.signs = kernel.new_tensor([[1.0], [-1.0]])
        self.zero, self.infinity = kernel.new_tensor(0.0), kernel.new_tensor(inf)
        self.buffers = [torch.empty_like(gradient) for _ in range(4)]
        self._lay_out()

    def _lay_out(self) -> None:
        count, size = self.alpha.shape
        self.in_kernel = self.open * size
        self.in_state = torch.arange(count, device=self.open.device) * size
        self.low, self.excess, self.row, self.other = (buffer[:count] for buffer in self.buffers)
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
        result[self.open[solved]] = self.alpha[solved]
        keep = unsolved.nonzero()[:, 0]
        self.open, self.alpha, self.gradient, self.gaining, self.losing = (
            kept[keep] for kept in (self.open, self.alpha, self.gradient, self.gaining, self.losing)
        )
        self._lay_out()
        return True

    def move_pair(self) -> None:
        """Move weight to the first sample from the one that lowers the objective most."""
        first = self.in_state + self.first
        torch.index_select(self.rows, 0, self.in_kernel + self.first, out=self.row)
        self.excess.clamp_(min=0)
        torch.sub(self.near, self.row, out=self.other)  # half the curvature along each pair
        torch.mul(self.excess, self.excess, out=self.low).div_(self.other)
        partner = _argmax(self.low)
        second = self.in_state + partner
        step = self.excess.view(-1).index_select(0, second)
        step.div_(self.other.view(-1).index_select(0, second)).mul_(0.5)
        pair = torch.cat([first, second])
        weights = self.alpha.view(-1).index_select(0, pair).view(2, -1)
        step = torch.minimum(step, torch.minimum(1 - weights[0], weights[1]))
        weights = torch.addcmul(weights, step, self.signs).view(-1)
        self.alpha.view(-1).index_copy_(0, pair, weights)
        self.gaining.view(-1).index_copy_(0, pair, torch.where(weights < 1, self.zero, self.infinity))
        self.losing.view(-1).index_copy_(0, pair, torch.where(weights > 0, self.zero, -self.infinity))
        torch.index_select(self.rows, 0, self.in_kernel + partner, out=self.other)
        self.gradient.addcmul_(self.row.sub_(self.other), step[:, None])


def _argmin(values: Tensor) -> Tensor:
    """Index of each row's smallest value; numpy's is vectorised, torch's is not."""
    return torch.from_numpy(values.numpy().argmin(1)) if values.device.type == "cpu" else values.argmin(1)


def _argmax(values: Tensor) -> Tensor:
    """Index of each row's largest value."""
    return torch.from_numpy(values.numpy().argmax(1)) if values.device.type == "cpu" else values.argmax(1)


def _maximum(values: Tensor) -> Tensor:
    """Each row's largest value."""
    return torch.from_numpy(values.numpy().max(1)) if values.device.type == "cpu" else values.amax(1)
