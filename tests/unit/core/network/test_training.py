"""The training loop: it learns, it repeats itself, it goes on where it was, it stops when it should."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_wmh_uad.config import ENCODERS
from bids_wmh_uad.core.network import autoencoder
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.plan import OBJECTIVES, Plan
from bids_wmh_uad.core.network.training import Trainer
from bids_wmh_uad.errors import TRAINING_DIVERGED, TrainingError


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def stripes(step, n=32):
    """Two noisy views of patches that two numbers describe."""
    rng = np.random.default_rng([7, step])
    x = np.linspace(0, 2 * np.pi, 15)
    phase, level = rng.uniform(0, 6, (n, 1, 1, 1)), rng.uniform(0.2, 0.5, (n, 1, 1, 1))
    clean = level * (1 + np.sin(x[:, None] + phase)) * np.ones((n, 2, 15, 15))
    views = [np.clip(clean + 0.02 * rng.normal(size=clean.shape), 0, 1).astype(np.float32) for _ in "ab"]
    return views[0], views[1]


PLAN = Plan(epochs=3, steps=20, lr=1e-2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(plan=PLAN, seed=0, batches=stripes, held_out=None, encoder="compact", half=None):
    model = build_autoencoder(seed, encoder=encoder)
    return model, Trainer(model, plan, batches, held_out, half).run()


def test_names_of_the_command_line_are_those_of_the_core():
    assert set(ENCODERS) == set(autoencoder.ENCODERS)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_training_learns_and_reports(encoder):
    model, history = fit(replace(PLAN, epochs=5), encoder=encoder, held_out=stripes(99))
    assert [entry.epoch for entry in history] == [1, 2, 3, 4, 5]
    first, last = history[0].training, history[-1].training
    assert last.error < 0.5 * first.error
    assert last.loss == pytest.approx(last.error - 0.005 * last.similarity, abs=1e-6)
    assert history[-1].held_out.error < history[0].held_out.error
    assert not model.training


def test_the_rate_falls_to_zero_along_a_half_cosine():
    assert PLAN.rate(0) == PLAN.lr
    assert PLAN.rate(30) == pytest.approx(PLAN.lr / 2)
    assert PLAN.rate(60) == pytest.approx(0.0, abs=1e-12)


def test_training_is_deterministic():
    assert torch.equal(weights(fit()[0]), weights(fit()[0]))
    assert not torch.equal(weights(fit()[0]), weights(fit(seed=1)[0]))


def test_alpha_pulls_pairs_together_and_zero_is_a_plain_auto_encoder():
    def strangers(step):
        return stripes(step)[0], np.random.default_rng([8, step]).random((32, 2, 15, 15), dtype=np.float32)

    pulled, free = (
        fit(replace(PLAN, alpha=alpha), batches=strangers)[1][-1].training for alpha in (50.0, 0.0)
    )
    assert pulled.similarity > free.similarity + 0.1
    assert free.loss == free.error


def test_focus_spends_the_latent_space_on_the_centre_of_the_patch():
    def noise(step):
        patches = np.random.default_rng([8, step]).random((64, 2, 15, 15), dtype=np.float32)
        return patches, patches

    def error_at_centre(focus):
        model, _ = fit(replace(PLAN, focus=focus, epochs=10), batches=noise)
        patches = torch.from_numpy(noise(99)[0])
        with torch.no_grad():
            return (model(patches)[0] - patches)[:, :, 6:9, 6:9].square().mean().item()

    assert error_at_centre(1.0) < 0.8 * error_at_centre(0.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("stop", [1, 20, 33])
def test_a_restored_state_ends_in_the_same_weights(objective, stop):
    """Also in the middle of an epoch, and by way of JSON."""
    plan, held_out = replace(PLAN, objective=objective, epochs=2), stripes(99)
    expected, history = fit(plan, held_out=held_out)
    kept = []
    model = build_autoencoder(0)
    first = Trainer(model, plan, stripes, held_out)
    first.run(lambda _: kept.append(first.state()) if first.step == stop else None)
    tensors, numbers = kept[0]
    assert numbers["step"] == stop
    other = build_autoencoder(5)
    second = Trainer(other, plan, stripes, held_out)
    second.restore((tensors, json.loads(json.dumps(numbers))))
    assert second.run() == history
    assert torch.equal(weights(other), weights(expected))


def test_a_finished_state_has_nothing_left_to_do():
    trainer = Trainer(build_autoencoder(0), PLAN, stripes)
    trainer.run()
    other = build_autoencoder(5)
    again = Trainer(other, PLAN, stripes)
    again.restore(trainer.state())
    assert again.finished
    assert again.run() == trainer.history
    assert torch.equal(weights(other), weights(fit()[0]))


def test_held_out_pairs_choose_the_epoch_and_stop():
    """The held-out patches are white: the better stripes are learnt, the worse they become."""
    white = np.ones((64, 2, 15, 15), dtype=np.float32)
    plan = replace(PLAN, epochs=12, patience=2, lr=3e-2, focus=0.0)
    model, history = fit(plan, held_out=(white, white))
    losses = [entry.held_out.loss for entry in history]
    best = int(np.argmin(losses))
    assert len(history) == best + 3 < 12
    with torch.no_grad():
        guess, _ = model(torch.from_numpy(white))
    error = (guess - 1).square().sum((1, 2, 3)).mean().item()
    assert error == pytest.approx(history[best].held_out.error, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_divergence_is_a_typed_error_after_the_last_good_state(bad):
    def broken(step):
        first, second = stripes(step)
        if step == 25:
            first[0] = bad
        return first, second

    trainer = Trainer(build_autoencoder(0), PLAN, broken)
    kept = []
    with pytest.raises(TrainingError) as caught:
        trainer.run(lambda _: kept.append(trainer.state()[1]["step"]))
    assert str(caught.value) == TRAINING_DIVERGED.format(epoch=2, loss="nan")
    assert kept[-1] == 25


def test_a_state_with_broken_weights_is_refused():
    model = build_autoencoder(0)
    trainer = Trainer(model, PLAN, stripes)
    with torch.no_grad():
        model.encoder[0].weight[0, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match="Training diverged in epoch 1"):
        trainer.state()


def test_half_precision_is_the_same_training_roughly():
    """On the CPU, where it is off otherwise: the arithmetic that a GPU would use."""
    full, half = fit()[1][-1].training, fit(half=torch.bfloat16)[1][-1].training
    assert half.error == pytest.approx(full.error, rel=0.2)
    assert half.error != full.error


def test_examples_are_held_out_patches_and_what_the_network_makes_of_them():
    trainer = Trainer(build_autoencoder(0), PLAN, stripes, stripes(99))
    patches, guesses = trainer.examples(5)
    assert patches.shape == guesses.shape == (5, 2, 15, 15)
    np.testing.assert_array_equal(patches, stripes(99)[0][:5])
    assert Trainer(build_autoencoder(0), PLAN, stripes).examples() is None
