"""Shapes, seeds and loss identities of the auto-encoder."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from bids_wmh_uad.core.network.autoencoder import (
    ENCODERS,
    autoencoder_for,
    build_autoencoder,
    focus_window,
    siamese_loss,
)


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize(("encoder", "latent", "weights"), [("compact", 16, 5000), ("wide", 400, 5000)])
def test_networks_are_those_of_the_table(encoder, latent, weights):
    model = build_autoencoder(0, encoder=encoder)
    assert sum(p.numel() for p in model.parameters()) == weights
    reconstruction, latents = model(torch.rand(6, 2, 15, 15))
    assert latents.shape == (6, latent) == (6, model.latent_size)
    assert reconstruction.shape == (6, 2, 15, 15)
    assert 0 < reconstruction.min() < reconstruction.max() < 1
    assert torch.equal(model.decode(latents), reconstruction) or model.training  # BatchNorm has moved on


def test_the_wide_variant_normalises_before_it_bends():
    kinds = [type(layer).__name__ for layer in build_autoencoder(0, encoder="wide").encoder]
    assert kinds == ["Conv2d", "BatchNorm2d", "GELU"] * 4
    assert [type(layer).__name__ for layer in build_autoencoder(0).encoder] == [
        "Conv2d",
        "GELU",
        "BatchNorm2d",
    ] * 4


@pytest.mark.parametrize("encoder", ENCODERS)
def test_descriptions_make_the_network_again(encoder):
    model = build_autoencoder(3, encoder=encoder)
    again = autoencoder_for(model.architecture())
    again.load_state_dict(model.state_dict())
    assert again.architecture() == model.architecture()
    assert torch.equal(weights(model), weights(again))


@pytest.mark.parametrize("change", [{"name": "other"}, {"in_channels": "many"}, {"depth": 3}])
def test_unknown_descriptions_are_refused(change):
    with pytest.raises(ValueError, match=r"many|unknown architecture"):
        autoencoder_for(build_autoencoder(0).architecture() | change)


def test_seeds_decide_the_weights_and_torch_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = build_autoencoder(1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights(first), weights(build_autoencoder(1)))
    assert not torch.equal(weights(first), weights(build_autoencoder(2)))


def test_loss_identities():
    x, y = torch.rand(4, 2, 15, 15), torch.rand(4, 2, 15, 15)
    z = torch.randn(4, 16)
    assert siamese_loss((x, y), (x, y), (z, 3 * z), 0.005).item() == pytest.approx(-0.005)
    assert siamese_loss((x, y), (x, y), (z, -z), 0.005).item() == pytest.approx(0.005)
    off = siamese_loss((x, y), (x + 0.1, y), (z, z), 0.0).item()
    assert off == pytest.approx(0.5 * 450 * 0.01, rel=1e-4)
    swapped = siamese_loss((y, x), (y, x + 0.1), (z, z), 0.0).item()
    assert off == pytest.approx(swapped, rel=1e-5)


def test_the_window_weighs_the_error_by_its_distance_from_the_centre():
    truth, z = torch.zeros(1, 2, 15, 15), torch.ones(1, 16)
    here = stats.norm(7, 1.5).pdf
    for sigma, row, weight in (
        (0.0, 0, 1.0),
        (1.5, 7, 225 * here(7) ** 2),
        (1.5, 10, 225 * here(10) * here(7)),
    ):
        guess = truth.clone()
        guess[0, 0, row, 7] = 2.0
        loss = siamese_loss((truth, truth), (guess, truth), (z, z), 0.0, focus_window(sigma)).item()
        assert loss == pytest.approx(0.5 * 4 * weight, rel=1e-3)


@pytest.mark.parametrize("sigma", [0.0, 1e-200, 0.3, 1.5, 4.0, 1e200])
def test_every_window_has_a_mean_of_one(sigma):
    window = focus_window(sigma)
    assert window.mean().item() == pytest.approx(1.0, rel=1e-5)
    assert window[7, 7] == window.max()
    assert torch.equal(window, window.T)
    assert torch.equal(window, window.flip(0))
