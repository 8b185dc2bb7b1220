"""Model directories: round trip, identity, and refusals."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.errors import BAD_MODEL, CannotCreateError, ModelError
from bids_wmh_uad.models import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    load_model,
    model_digest,
    model_directory,
    save_model,
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
