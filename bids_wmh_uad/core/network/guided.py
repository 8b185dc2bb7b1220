r"""Representation learning guided by a One-Class SVM that is solved inside the training step.

Half of a batch's latents train a One-Class SVM, and a hinge asks that the other half lies inside
its boundary:

.. math:: L_\mathrm{guide} = \frac{1}{|B|} \sum_{b \in B} \max\Bigl(0,
          1 - \frac{1}{\rho} \sum_{a \in A} \alpha_a k(z_a, z_b)\Bigr), \qquad
          k(x, y) = \exp(-\gamma |x - y|^2), \quad \gamma = \frac{1}{d \operatorname{Var} z_A}

Following the idea of Pinon and Lartizien (2025): the abstract and an account of its public
pseudo-code were read, the paper's equations and code were not. The division by rho, which makes the
hinge a share of the boundary's score, and gamma's dependence on the batch, without which latents
would only have to shrink, are choices of this program.

References
----------
* N. Pinon and C. Lartizien, "OCSVM-guided representation learning for unsupervised anomaly detection",
  arXiv:2507.21164 (2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bids_wmh_uad.core.svm.solver import scale_features, solve_dual

TOLERANCE = 1e-10
"""Largest violation of the dual, in units of the score, in float64: coefficients off the optimum would be
gradients off theirs."""
RIDGE = 1e-9
"""Constant added to the kernel's diagonal of 1: the same patch may be drawn twice, and only its two
coefficients' sum is determined."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """A One-Class SVM as a function of the latents it was fitted to.

    Parameters
    ----------
    alpha : (n,) float64 tensor
        In [0, 1], sum nu n.
    offset : () float64 tensor
        Score on the boundary, libsvm's rho.
    gamma : () float64 tensor
    """

    alpha: Tensor
    offset: Tensor
    gamma: Tensor


def rbf_kernel(left: Tensor, right: Tensor, gamma: Tensor) -> Tensor:
    """Kernel values of (p, d) and (q, d) latents: (p, q), differentiable."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T
    return torch.exp(-gamma * squares.clamp(min=0))


def fit_boundary(latents: Tensor, nu: float) -> Boundary:
    r"""Fit a One-Class SVM whose coefficients and offset are differentiable functions of the latents.

    The dual is solved without gradients; at its optimum every coefficient is 0, 1 or free.
    The free ones and rho solve the linear equations of the optimality conditions,

    .. math:: K_{FF} \alpha_F - \rho 1 = -K_{F1} 1, \qquad 1^T \alpha_F = \nu n - |\{i: \alpha_i = 1\}|,

    which are solved once more with gradients. As long as a change of the latents moves no
    coefficient onto or off a bound, this *is* the solution, and its derivative the total one. To
    hold the coefficients constant would only be right, by the envelope theorem, for the
    dual's own optimal value, which the hinge on other samples is not.

    Parameters
    ----------
    latents : (n, d) tensor
    nu : float
        Bound on the fraction of training outliers, in (0, 1].

    Returns
    -------
    Boundary
    """
    samples = latents.double()
    gamma = 1.0 / (samples.shape[1] * samples.var(correction=0).clamp(min=1e-12))
    with torch.no_grad():
        features = scale_features(samples[None], gamma)
        solution = solve_dual(features, nu * len(samples), tol=TOLERANCE)
    alpha = solution.alpha[0]
    free = ((alpha > 0) & (alpha < 1)).nonzero()[:, 0]
    full = (alpha == 1).nonzero()[:, 0]
    if not len(free):
        kernel = rbf_kernel(samples, samples[full], gamma)
        return Boundary(alpha, kernel.sum(1)[full].max(), gamma)
    kernel = rbf_kernel(samples[free], samples[torch.cat([free, full])], gamma)
    inner, outer = kernel[:, : len(free)], kernel[:, len(free) :]
    inner = inner + RIDGE * torch.eye(len(free), dtype=inner.dtype, device=inner.device)
    ones = torch.ones_like(inner[:, :1])
    matrix = torch.cat([torch.cat([inner, -ones], 1), torch.cat([ones.T, ones.new_zeros(1, 1)], 1)])
    target = torch.cat([-outer.sum(1), ones.new_tensor([nu * len(samples) - len(full)])])
    solved = torch.linalg.solve(matrix, target)
    return Boundary(alpha.index_put((free,), solved[:-1]), solved[-1], gamma)


def guidance(latents: tuple[Tensor, Tensor], nu: float) -> Tensor:
    """Hinge of the second half of a batch against the One-Class SVM of its first half.

    Both members of a pair lie in the same half: co-located patches would tell of each other.

    Parameters
    ----------
    latents : pair of (n, d) tensors
        The two branches' latents; n at least 2.
    nu : float
        In (0, 1].

    Returns
    -------
    Scalar tensor, >= 0.
    """
    first, second = latents
    half = len(first) // 2
    training = torch.cat([first[:half], second[:half]]).double()
    test = torch.cat([first[half:], second[half:]]).double()
    boundary = fit_boundary(training, nu)
    score = rbf_kernel(test, training, boundary.gamma) @ boundary.alpha
    return torch.relu(1.0 - score / boundary.offset.clamp(min=1e-12)).mean()
