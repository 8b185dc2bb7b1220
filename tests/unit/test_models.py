"""Model directories: round trip, identity, and refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.svm.kernel import KernelSum
from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM
from bids_wmh_uad.errors import BAD_MODEL, CannotCreateError, ModelError
from bids_wmh_uad.models import (
    DECISION_FILE,
    DESCRIPTION_FILE,
    ONE_CLASS_FILES,
    WEIGHTS_FILE,
    describe_one_class,
    load_decision,
    load_model,
    load_one_class,
    model_digest,
    model_directory,
    save_decision,
    save_model,
    save_one_class,
)

DECISION = LesionDecision(
    intercept=-1.25,
    peak=2.0,
    fluid=-0.1,
    latent=tuple(0.1 * k for k in range(16)),
    typical=(1, 2, 3, 4, 5, 6),
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


def test_a_decision_that_lacks_a_piece_of_evidence_says_what_to_do(saved):
    save_decision(DECISION, saved, {})
    path = saved / DECISION_FILE
    content = json.loads(path.read_text())
    del content["decision"]["contrast"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        ModelError, match=r"decision.json: .* Remove it: candidates are then judged without the network"
    ):
        load_decision(saved)
    path.unlink()
    assert load_decision(saved) == LesionDecision()


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


# ------------------------------------------------------------- weights of strangers


def rewrite(directory, spoil):
    """Change the weights as someone would who knows that the description has their SHA-256."""
    weights = load_file(directory / WEIGHTS_FILE)
    spoil(weights)
    save_file(weights, directory / WEIGHTS_FILE)
    replace_digest(directory)


def replace_digest(directory):
    content = (directory / WEIGHTS_FILE).read_bytes()
    change(directory, weights_sha256=hashlib.sha256(content).hexdigest())


def fill(name, value):
    return lambda weights: weights[name].view(-1)[:1].fill_(value)


KERNEL, VARIANCE = "encoder.0.weight", "encoder.2.running_var"


@pytest.mark.parametrize("spoil", [
    fill(KERNEL, float("nan")), fill(KERNEL, float("inf")), fill("decoder.0.bias", -float("inf")),
    fill(KERNEL, 3e38), fill(VARIANCE, -1.0), fill(VARIANCE, float("nan")),
    lambda w: w.update({KERNEL: w[KERNEL].half()}), lambda w: w.update({KERNEL: w[KERNEL].double()}),
    lambda w: w.update({KERNEL: w[KERNEL].to(torch.int32)}), lambda w: w.update({KERNEL: w[KERNEL].to(torch.bfloat16)}),
    lambda w: w.update({KERNEL: w[KERNEL][:1].clone()}), lambda w: w.update({KERNEL: torch.zeros(0)}),
    lambda w: w.pop(KERNEL), lambda w: w.update(more=torch.zeros(3)), lambda w: w.clear(),
], ids=range(15))  # fmt: skip
def test_weights_that_cannot_be_are_refused_and_blamed(saved, spoil):
    names = set(load_file(saved / WEIGHTS_FILE))
    assert {KERNEL, VARIANCE, "decoder.0.bias"} <= names
    rewrite(saved, spoil)
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    assert str(caught.value).startswith(f"{saved / WEIGHTS_FILE}: not a usable model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [2**63, 2**40, 5 * 2**20, 100])
def test_a_header_that_claims_too_much_is_refused(saved, size):
    (saved / WEIGHTS_FILE).write_bytes(size.to_bytes(8, "little") + b"{}")
    replace_digest(saved)
    with pytest.raises(ModelError):
        load_model(saved)


@pytest.mark.parametrize("entries", [
    {"architecture": {"name": "siamese-patch-ae-15", "in_channels": 10**9}},
    {"architecture": {"name": "siamese-patch-ae-15", "in_channels": -1}},
    {"architecture": {"name": "siamese-patch-ae-15", "in_channels": [2]}},
    {"architecture": {"name": ["siamese-patch-ae-15"], "in_channels": 2}},
    {"architecture": [1, 2]}, {"weights_sha256": ["x"]}, {"format_version": [1]}, {"input": [1]},
], ids=range(8))  # fmt: skip
def test_descriptions_that_cannot_be_are_refused(saved, entries):
    change(saved, **entries)
    with pytest.raises(ModelError):
        load_model(saved)


@pytest.mark.parametrize("one_class", [[1], "x", None, {"pooled": [1]}, {"pooled": {"sha256": ["x"]}}])
def test_descriptions_of_one_class_svms_that_cannot_be_are_refused(saved, one_class):
    change(saved, one_class=one_class)
    with pytest.raises(ModelError):
        load_one_class(saved, "pooled")


@pytest.mark.parametrize("weights", [
    {"intercept": "NaN"}, {"peak": "inf"}, {"peak": [1, 2]}, {"latent": 3}, {"latent": [[1]]}, {"latent": ["nan"]},
    {"typical": 1}, {"typical": [1, 2, 3, 4, "inf"]}, {"fluid": 1e300}, {"white": None}, {"intercept": {}},
], ids=range(11))  # fmt: skip
def test_a_decision_of_no_numbers_is_refused(saved, weights):
    save_decision(DECISION, saved, {})
    path = saved / DECISION_FILE
    content = json.loads(path.read_text())
    content["decision"] |= weights
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        load_decision(saved)
    assert DECISION_FILE in str(caught.value)


def pooled():
    centre = np.zeros(2)
    return KernelSum(np.zeros((3, 2)), np.full(3, 0.5), 1.0, 0.5, centre, centre + 1)


def voxelwise():
    single = torch.ones(1)
    return VoxelwiseOneClassSVM(
        torch.tensor([0, 2]), torch.zeros(2, 3), torch.full((2,), 0.5), single, single / 2,
        torch.zeros(3), torch.ones(3), torch.ones(1, 1, 1, dtype=torch.bool), torch.eye(4, dtype=torch.float64),
    )  # fmt: skip


SVMS = {"pooled": pooled, "voxel": voxelwise}
ARRAYS = [(paradigm, name) for paradigm, make in SVMS.items() for name in vars(make())]
OTHER_TYPES = [torch.float16, torch.bfloat16, torch.int32, torch.bool]


def load_type(paradigm, name):
    return torch.as_tensor(vars(SVMS[paradigm]())[name]).dtype


def fits(paradigm, name, kind):
    """A pooled SVM may be made of whatever floating-point numbers numpy has."""
    return load_type(paradigm, name) == kind or (paradigm == "pooled" and kind == torch.float16)


def with_svm(directory, paradigm, spoil=None):
    save_one_class(SVMS[paradigm](), directory)
    path = directory / ONE_CLASS_FILES[paradigm]
    if spoil is not None:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        spoil(tensors)
        save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    describe_one_class(directory, {paradigm: {"sha256": digest}}, {})
    return path


@pytest.mark.parametrize("paradigm", SVMS)
def test_svms_are_read_as_they_were_saved(saved, paradigm):
    with_svm(saved, paradigm)
    read = load_one_class(saved, paradigm)
    for name, value in vars(SVMS[paradigm]()).items():
        np.testing.assert_array_equal(getattr(read, name), value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("paradigm", "name"),
    [(paradigm, name) for paradigm, name in ARRAYS if load_type(paradigm, name).is_floating_point],
)
def test_svms_with_numbers_that_are_none_are_refused(saved, paradigm, name, value):
    path = with_svm(saved, paradigm, lambda tensors: tensors[name].view(-1)[-1:].fill_(value))
    with pytest.raises(ModelError) as caught:
        load_one_class(saved, paradigm)
    assert str(caught.value).startswith(f"{path}: not a usable model")


@pytest.mark.parametrize(
    ("paradigm", "name", "kind"),
    [(*array, kind) for array in ARRAYS for kind in OTHER_TYPES if not fits(*array, kind)],
)
def test_svms_of_other_types_or_shapes_are_refused(saved, paradigm, name, kind):
    with_svm(saved, paradigm, lambda tensors: tensors.update({name: tensors[name].to(kind)}))
    with pytest.raises(ModelError):
        load_one_class(saved, paradigm)
    with_svm(saved, paradigm, lambda tensors: tensors.update({name: tensors[name].new_zeros(0)}))
    with pytest.raises(ModelError):
        load_one_class(saved, paradigm)
    with_svm(saved, paradigm, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError):
        load_one_class(saved, paradigm)
