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

FIRST_CHECK = 10
"""Steps before the first look at how many models are solved."""
MAX_STEPS = 40
LEFT_OVER = 0.02
"""Fraction of the models that may be left unsolved: a step costs the same for one as for all."""
LARGEST = 1e4
"""Longest step, and largest weight of the last direction: a singular kernel sets no bound."""


def descend(kernel: Tensor, total: float, tol: float) -> tuple[Tensor, int]:
    """Solve most models of a batch, from equal coefficients.

    Parameters
    ----------
    kernel : (m, n, n) tensor
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
    alpha = kernel.new_full((models, count), total / count)
    force = torch.matmul(alpha[:, None], kernel)[:, 0].neg_()  # minus the gradient, but for a constant
    curved.zero_()
    target, clipped, ones = torch.empty_like(alpha), torch.empty_like(alpha), torch.ones_like(alpha)
    free, size = ones.clone(), ones.sum(1)
    curvature = torch.ones_like(size)
    for step in range(MAX_STEPS + 1):
        force.sub_((_dot(force, free) / size)[:, None])
        torch.add(alpha, force, out=target)
        torch.clamp(target, 0, 1, out=clipped)
        if step >= FIRST_CHECK:
            error = torch.sub(clipped, alpha, out=correction).abs_().amax(1)
            if step == MAX_STEPS or int((error <= tol).sum()) >= (1 - LEFT_OVER) * models:
                break
        # The new face: what a gradient step would leave between the bounds is free. The rest
        # goes to its bound, and the free coefficients make up for the sum.
        torch.eq(target, clipped, out=free)
        size = _dot(free, free).clamp_(min=1)
        torch.lerp(clipped, alpha, free, out=target)
        target.addcmul_(free, ((total - _dot(target, ones)) / size)[:, None])
        torch.sub(target, alpha, out=correction)
        alpha, target = target, alpha
        # The new direction: on the face, of sum 0, conjugate to the last one.
        torch.mul(force, free, out=clipped)
        weight = _dot(clipped, curved).div_(curvature).neg_().clamp_(0, LARGEST)
        torch.addcmul(force, direction, weight[:, None], out=direction).mul_(free)
        direction.addcmul_(free, (_dot(direction, free) / size)[:, None], value=-1)
        _multiply(pair, kernel, products)
        force.sub_(moved)
        curvature = _dot(direction, curved).clamp_(min=torch.finfo(kernel.dtype).tiny)
        length = _dot(direction, force).div_(curvature).clamp_(-LARGEST, LARGEST)[:, None]
        alpha.addcmul_(direction, length)
        force.addcmul_(curved, length, value=-1)
    torch.eq(target, clipped, out=free)
    size = _dot(free, free).clamp_(min=1)
    clipped.addcmul_(free, ((total - _dot(clipped, ones)) / size)[:, None])
    return clipped.clamp_(0, 1), step


def _multiply(vectors: Tensor, kernel: Tensor, out: Tensor) -> None:
    """``out[k, m] = vectors[k, m] @ kernel[m]``; for two rows numpy is five times as fast as torch."""
    if kernel.device.type == "cpu":
        np.matmul(vectors.numpy().swapaxes(0, 1), kernel.numpy(), out=out.numpy().swapaxes(0, 1))
    else:
        out.copy_(torch.matmul(vectors.transpose(0, 1), kernel).transpose(0, 1))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of rows: (m, n), (m, n) -> (m,); numpy makes no intermediate."""
    if left.device.type == "cpu":
        return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))
    product: Tensor = torch.linalg.vecdot(left, right)
    return product
