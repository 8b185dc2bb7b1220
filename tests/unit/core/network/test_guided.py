"""The One-Class SVM inside the loss: scikit-learn's solution, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from sklearn.svm import OneClassSVM as Libsvm

from bids_wmh_uad.core.network.guided import fit_boundary, guidance, rbf_kernel


def latents(n, d, seed):
    """Two clouds of unlike spread."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, d, dtype=torch.float64, generator=generator)
    drawn[: n // 3] = 0.5 * drawn[: n // 3] + 2
    return drawn


@pytest.mark.parametrize("nu", [0.03, 0.3, 0.8])
def test_the_boundary_is_libsvms(nu):
    samples, others = latents(150, 5, 0), latents(40, 5, 1)
    boundary = fit_boundary(samples, nu)
    peer = Libsvm(nu=nu, gamma="scale", tol=1e-10).fit(samples.numpy())
    score = rbf_kernel(others, samples, boundary.gamma) @ boundary.alpha
    assert boundary.gamma.item() == pytest.approx(peer._gamma)
    torch.testing.assert_close(
        score, torch.from_numpy(peer.score_samples(others.numpy())), rtol=1e-6, atol=1e-6
    )
    assert boundary.offset.item() == pytest.approx(peer.offset_[0], rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("d", "nu"), [(3, 0.1), (16, 0.03), (16, 0.5), (400, 0.1)])
def test_gradients_are_those_of_finite_differences_through_the_solver(d, nu, seed):
    """The differences solve the dual anew: the coefficients' own change counts, gamma's too."""
    first, second = latents(60, d, seed).requires_grad_(), latents(60, d, 50 + seed).requires_grad_()
    gradients = torch.autograd.grad(guidance((first, second), nu), (first, second))
    directions = [
        torch.randn(60, d, dtype=torch.float64, generator=torch.Generator().manual_seed(90 + seed + k))
        for k in (0, 1)
    ]
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (
            guidance((first + sign * step * directions[0], second + sign * step * directions[1]), nu)
            for sign in (1, -1)
        )
    difference = (ahead - behind).item() / (2 * step)
    exact = sum(
        (gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True)
    ).item()
    assert abs(difference) > 1e-5
    assert exact == pytest.approx(difference, rel=1e-4, abs=1e-8)


def test_constant_coefficients_would_not_do():
    """What the docstring says: the envelope theorem does not cover the hinge."""
    samples, others = latents(60, 4, 0).requires_grad_(), latents(60, 4, 1)

    def hinge(held):
        boundary = fit_boundary(samples, 0.2)
        alpha = boundary.alpha.detach() if held else boundary.alpha
        score = rbf_kernel(others, samples, boundary.gamma) @ alpha
        return torch.relu(1 - score / boundary.offset.detach()).mean()

    held, free = (torch.autograd.grad(hinge(held), samples)[0] for held in (True, False))
    assert (held - free).norm() > 0.05 * free.norm()


def test_the_hinge_knows_no_scale_and_cannot_be_had_by_shrinking():
    pair = latents(80, 16, 0), latents(80, 16, 1)
    assert guidance((0.01 * pair[0], 0.01 * pair[1]), 0.1).item() == pytest.approx(
        guidance(pair, 0.1).item(), rel=1e-6
    )


def test_strangers_in_the_second_half_cost_more():
    one, two = latents(80, 16, 0), latents(80, 16, 1)
    usual = guidance((one, two), 0.1)
    odd = one.clone()
    odd[40:] += 6
    assert guidance((odd, two), 0.1) > usual + 0.2
    assert 0 <= usual < 1


def test_a_patch_drawn_twice_is_no_trouble():
    base = latents(40, 16, 0)
    pair = base[torch.arange(80) % 40].requires_grad_(), base.flip(0)[torch.arange(80) % 40].clone()
    value = guidance(pair, 0.2)
    (gradient,) = torch.autograd.grad(value, pair[0])
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_a_step_along_the_gradient_lowers_the_hinge():
    first, second = latents(80, 16, 0).requires_grad_(), latents(80, 16, 1)
    value = guidance((first, second), 0.1)
    (gradient,) = torch.autograd.grad(value, first)
    assert guidance(((first - 1.0 * gradient).detach(), second), 0.1) < value
