"""Shapes, seeds, loss identities and training of the auto-encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_wmh_uad.core.autoencoder import build_autoencoder, siamese_loss
from bids_wmh_uad.core.training import train
from bids_wmh_uad.errors import TRAINING_DIVERGED, TrainingError


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def stripes(n, rng):
    """Two noisy views of patches that two numbers describe."""
    x = np.linspace(0, 2 * np.pi, 15)
    phase, level = rng.uniform(0, 6, (n, 1, 1, 1)), rng.uniform(0.2, 0.5, (n, 1, 1, 1))
    clean = level * (1 + np.sin(x[:, None] + phase)) * np.ones((n, 2, 15, 15))
    views = [np.clip(clean + 0.02 * rng.normal(size=clean.shape), 0, 1).astype(np.float32) for _ in "ab"]
    return views[0], views[1]


def fit(seed=0, epochs=3, sampler=stripes, lr=1e-2, alpha=0.005):
    torch.set_num_threads(1)
    model = build_autoencoder(seed)
    history = train(
        model,
        sampler,
        epochs=epochs,
        steps=20,
        batch_size=32,
        lr=lr,
        alpha=alpha,
        generator=np.random.default_rng(seed),
    )
    return model, history


def test_network_is_the_one_of_the_table():
    model = build_autoencoder(0)
    assert sum(p.numel() for p in model.parameters()) == 5000
    reconstruction, latents = model(torch.rand(6, 2, 15, 15))
    assert latents.shape == (6, 16)
    assert reconstruction.shape == (6, 2, 15, 15)
    assert 0 < reconstruction.min() < reconstruction.max() < 1


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


def test_training_learns_and_reports():
    model, history = fit(epochs=5)
    assert [entry.epoch for entry in history] == [1, 2, 3, 4, 5]
    assert history[-1].error < 0.5 * history[0].error
    last = history[-1]
    assert last.loss == pytest.approx(last.error - 0.005 * last.similarity, abs=1e-6)
    assert not model.training


def test_training_is_deterministic():
    assert torch.equal(weights(fit()[0]), weights(fit()[0]))
    assert not torch.equal(weights(fit()[0]), weights(fit(seed=1)[0]))


def test_alpha_pulls_pairs_together():
    def strangers(n, rng):
        return stripes(n, rng)[0], rng.random((n, 2, 15, 15), dtype=np.float32)

    pulled, free = (fit(sampler=strangers, alpha=alpha)[1][-1].similarity for alpha in (50.0, 0.0))
    assert pulled > free + 0.1


def test_divergence_is_a_typed_error():
    def broken(n, rng):
        first, second = stripes(n, rng)
        first[0] = np.nan
        return first, second

    with pytest.raises(TrainingError) as caught:
        fit(sampler=broken)
    assert str(caught.value) == TRAINING_DIVERGED.format(epoch=1, loss="nan")
