"""Model directories: round trip, identity, and refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch

from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.errors import BAD_MODEL, CannotCreateError, ModelError
from bids_wmh_uad.models import (
    DECISION_FILE,
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    load_decision,
    load_model,
    model_digest,
    model_directory,
    save_decision,
    save_model,
)

DECISION = LesionDecision(
    intercept=-1.25,
    peak=2.0,
    fluid=-0.1,
    latent=tuple(0.1 * k for k in range(16)),
    typical=(1, 2, 3, 4, 5),
)


@pytest.fixture
def saved(tmp_path):
    return save_model(build_autoencoder(3), tmp_path / "deep" / "model", {"seed": 3, "n_subjects": 12})


def change(directory, **entries):
    path = directory / DESCRIPTION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_round_trip(saved):
    model, metadata = load_model(saved)
    assert metadata["seed"] == 3
    assert metadata["n_subjects"] == 12
    assert not model.training
    expected = build_autoencoder(3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert sorted(path.name for path in saved.iterdir()) == [DESCRIPTION_FILE, WEIGHTS_FILE]


def test_digest_identifies_weights_only(saved, tmp_path):
    same = save_model(build_autoencoder(3), tmp_path / "same", {"note": "other metadata"})
    other = save_model(build_autoencoder(4), tmp_path / "other", {})
    assert model_digest(saved) == model_digest(same) != model_digest(other)
    assert (saved / WEIGHTS_FILE).read_bytes() == (same / WEIGHTS_FILE).read_bytes()


def test_saving_again_replaces(saved):
    before = model_digest(saved)
    save_model(build_autoencoder(5), saved, {})
    assert model_digest(saved) != before
    load_model(saved)


@pytest.mark.parametrize("name", ["nothing-of-this-name", "", ".", "../default"])
def test_unknown_models(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert str(caught.value).startswith(BAD_MODEL.format(path=name, reason="").split(" (")[0])


@pytest.mark.parametrize("spoil", [
    lambda d: (d / WEIGHTS_FILE).unlink(),
    lambda d: (d / DESCRIPTION_FILE).unlink(),
    lambda d: (d / DESCRIPTION_FILE).write_text("{"),
    lambda d: (d / DESCRIPTION_FILE).write_text("[]"),
    lambda d: (d / WEIGHTS_FILE).write_bytes((d / WEIGHTS_FILE).read_bytes()[:-4]),
    lambda d: (d / WEIGHTS_FILE).write_bytes(b"\x80\x04pickle?"),
    lambda d: change(d, format_version=99),
    lambda d: change(d, architecture={"name": "other", "in_channels": 2}),
    lambda d: change(d, architecture={"name": "siamese-patch-ae-15", "in_channels": 3}),
    lambda d: change(d, architecture={}),
    lambda d: change(d, input={}),
], ids=range(11))  # fmt: skip
def test_corrupt_models_are_typed_errors(saved, spoil):
    spoil(saved)
    with pytest.raises(ModelError):
        load_model(saved)


def test_weights_of_another_model_are_noticed(saved, tmp_path):
    other = save_model(build_autoencoder(4), tmp_path / "other", {})
    shutil.copy(other / WEIGHTS_FILE, saved / WEIGHTS_FILE)
    with pytest.raises(ModelError):
        load_model(saved)


def test_unwritable_target(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotCreateError):
        save_model(build_autoencoder(0), tmp_path / "file" / "model", {})


def test_default_is_a_shipped_directory():
    try:
        directory = model_directory("default")
    except ModelError:
        pytest.skip("the default model has not been trained yet")
    assert directory.name == "default"
    load_model("default")


# ------------------------------------------------------------- the lesion decision


def test_a_decision_is_read_as_it_was_saved(saved):
    save_decision(DECISION, saved, {"learnt_from": "phantoms"})
    assert load_decision(saved) == load_decision(saved, 16) == DECISION
    content = json.loads((saved / DECISION_FILE).read_text())
    assert content["about"] == {"learnt_from": "phantoms"}
    assert content["decision"] == json.loads(json.dumps(asdict(DECISION)))
    load_model(saved)  # the model is none the worse


def test_a_model_without_a_decision_has_the_one_without_a_network(saved):
    assert load_decision(saved) == LesionDecision()
    assert load_decision(saved, 16).latent == ()


def test_a_decision_of_other_weights_is_refused(saved, tmp_path):
    save_decision(DECISION, saved, {})
    other = save_model(build_autoencoder(4), tmp_path / "other", {})
    shutil.copy(saved / DECISION_FILE, other)
    with pytest.raises(ModelError, match="other weights"):
        load_decision(other)


def test_a_decision_for_other_latents_is_refused(saved):
    save_decision(DECISION, saved, {})
    with pytest.raises(ModelError, match="16 latents, not 400"):
        load_decision(saved, 400)
    save_decision(LesionDecision(), saved, {})
    assert load_decision(saved, 400) == LesionDecision()  # it looks at none


@pytest.mark.parametrize("content", [
    "", "{", "[]", "null", "{}", '{"decision": null}', '{"decision": {"bias": 1}}', '{"decision": {"peak": "x"}}',
    '{"decision": {}}', b"\xff\xfe",
], ids=range(10))  # fmt: skip
def test_a_broken_decision_is_a_typed_error(saved, content):
    path = saved / DECISION_FILE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError) as caught:
        load_decision(saved)
    assert DECISION_FILE in str(caught.value)
    assert str(saved) in str(caught.value)


def test_another_decision_is_another_model(saved):
    digests = {model_digest(saved)}
    for decision in (LesionDecision(), DECISION):
        save_decision(decision, saved, {})
        digests.add(model_digest(saved))
    assert len(digests) == 3
    save_decision(DECISION, saved, {})
    assert model_digest(saved) in digests


def test_the_shipped_models_decision_fits_it():
    model, _ = load_model("default")
    decision = load_decision("default", model.latent_size)
    assert len(decision.latent) in (0, model.latent_size)
    assert decision.peak > 0 > decision.fluid
