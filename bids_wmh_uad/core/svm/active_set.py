r"""Conjugate gradients on a changing face: thousands of small One-Class SVM duals side by side.

.. math:: \min_\alpha \tfrac12 \alpha^T K \alpha \quad \text{s.t.} \quad
          0 \le \alpha_i \le 1, \ \textstyle\sum_i \alpha_i = t

A face of the feasible set says which coefficients are 0, which 1 and which free. Every step
chooses each model's face anew (primal-dual active set; Hintermueller, Ito and Kunisch, SIAM
J. Optim. 2002) and moves once along it (conjugate gradients; Hestenes and Stiefel 1952); one
product with the kernel matrix serves both. Most models are solved in a dozen steps, but
nothing guarantees it: the caller has to look at the optimality conditions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FIRST_CHECK = 8
"""Steps before the first look at how many models are solved."""
MAX_STEPS = 40
LEFT_OVER = 0.02
"""Fraction of the models that may be left unsolved: a step costs the same for one as for all."""
LARGEST = 1e4
"""Longest step, and largest weight of the last direction: a singular kernel sets no bound."""


def descend(kernel: Tensor, start: Tensor, total: float, tol: float) -> tuple[Tensor, int]:
    """Solve most models of a batch.

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

    Returns
    -------
    alpha : (m, n) tensor
        In [0, 1]; rows of solved models sum to the total. Unsolved ones may hold anything, NaN
        included.
    steps : int
    """
    models, count, _ = kernel.shape
    pair, products = kernel.new_zeros(2, models, count), kernel.new_empty(2, models, count)
    (direction, correction), (curved, moved) = pair, products  # and their products with the kernel
    alpha = start.clone()
    force = torch.matmul(alpha[:, None], kernel)[:, 0].neg_()  # minus the gradient, but for a constant
    curved.zero_()
    target, clipped, free = torch.empty_like(alpha), torch.empty_like(alpha), torch.ones_like(alpha)
    ones, size = free.new_ones(count), free.sum(1)  # a product with ones is the fastest sum
    curvature, totals = torch.ones_like(size), torch.full_like(size, total)
    for step in range(MAX_STEPS + 1):
        force.sub_(_dot(force, free).div_(size)[:, None])
        torch.add(alpha, force, out=target)
        torch.clamp(target, 0, 1, out=clipped)
        if step >= FIRST_CHECK:
            error = torch.sub(clipped, alpha, out=correction).abs_().amax(1)
            if step == MAX_STEPS or int((error <= tol).sum()) >= (1 - LEFT_OVER) * models:
                break
        # The new face: what a gradient step would leave between the bounds is free. The rest
        # goes to its bound, and the free coefficients make up for the sum.
        torch.eq(target, clipped, out=free)
        size = torch.mv(free, ones).clamp_(min=1)
        torch.lerp(clipped, alpha, free, out=target)
        missing = torch.addmv(totals, target, ones, alpha=-1)
        target.addcmul_(free, missing.div_(size)[:, None])
        torch.sub(target, alpha, out=correction)
        alpha, target = target, alpha
        # The new direction: on the face, of sum 0, conjugate to the last one.
        torch.mul(force, free, out=clipped)
        weight = _dot(clipped, curved).div_(curvature).clamp_(-LARGEST, 0)
        torch.addcmul(force, direction, weight[:, None], value=-1, out=direction).mul_(free)
        direction.addcmul_(free, torch.mv(direction, ones).div_(size)[:, None], value=-1)
        multiply(pair.transpose(0, 1), kernel, products.transpose(0, 1))
        force.sub_(moved)
        curvature = _dot(direction, curved).clamp_(min=torch.finfo(kernel.dtype).tiny)
        length = _dot(direction, force).div_(curvature).clamp_(-LARGEST, LARGEST)[:, None]
        alpha.addcmul_(direction, length)
        force.addcmul_(curved, length, value=-1)
    torch.eq(target, clipped, out=free)
    size = torch.mv(free, ones).clamp_(min=1)
    missing = torch.addmv(totals, clipped, ones, alpha=-1)
    clipped.addcmul_(free, missing.div_(size)[:, None])
    return clipped.clamp_(0, 1), step


def multiply(vectors: Tensor, kernel: Tensor, out: Tensor) -> None:
    """``out[m] = vectors[m] @ kernel[m]``; for a few rows numpy is five times as fast as torch."""
    if kernel.device.type == "cpu":
        np.matmul(vectors.numpy(), kernel.numpy(), out=out.numpy())
    else:
        out.copy_(torch.matmul(vectors, kernel))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of rows: (m, n), (m, n) -> (m,); numpy makes no intermediate."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))
    product: Tensor = torch.linalg.vecdot(left, right)
    return product
