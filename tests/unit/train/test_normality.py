"""Models of controls: scikit-learn's on the same latents, bounded, stored whole, refused with a reason."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage
from sklearn.svm import OneClassSVM as Libsvm

from bids_wmh_uad.bids.sidecars import sidecar_one_class
from bids_wmh_uad.config import Method, Running, TrainConfig, Training
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.svm.paradigms import Standardiser
from bids_wmh_uad.core.svm.voxelwise import model_numbers
from bids_wmh_uad.errors import FEW_CONTROLS, ModelError
from bids_wmh_uad.imaging.controls import EXCLUDED, open_control, save_control
from bids_wmh_uad.models import (
    DESCRIPTION_FILE,
    ONE_CLASS_FILES,
    about_one_class,
    describe_one_class,
    load_one_class,
    model_digest,
    save_model,
    save_one_class,
)
from bids_wmh_uad.train import normality
from bids_wmh_uad.train.normality import (
    MINIMUM_CONTROLS,
    TemplateGrid,
    colocated_latents,
    fit_normality,
    fit_pooled_controls,
    fit_voxelwise_controls,
    nearest_voxels,
    next_with,
    plan_voxelwise,
    pooled_latents,
    template_grid,
)

SHAPE = (30, 34, 6)
AFFINE = np.array([[2.0, 0, 0, -30], [0, 2, 0, -34], [0, 0, 4, 0], [0, 0, 0, 1]])
"""Controls' voxels to template mm."""
GRID = TemplateGrid(3, np.ones((14, 15, 4), dtype=bool), AFFINE @ np.diag([2.0, 2.0, 1.0, 1.0]))


def prepare(root, count):
    """Controls of smooth noise: the common part first, so that they have something in common."""
    rng = np.random.default_rng(4)
    common = ndimage.gaussian_filter(rng.normal(size=(2, *SHAPE)), (0, 2, 2, 1))
    paths = []
    for number in range(count):
        own = ndimage.gaussian_filter(rng.normal(size=(2, *SHAPE)), (0, 1, 1, 0))
        image = 1 / (1 + np.exp(-4 * common - 2 * own))
        mask = np.ones(SHAPE, dtype=bool)
        mask[14 + 2 * number :] = number > 4  # five of them lack part of the brain
        path = save_control(root / f"control-{number}", image * mask, mask, np.linalg.inv(AFFINE))
        (path / EXCLUDED).write_text("none" if number % 2 else "reference masks")
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("controls"), 12)


@pytest.fixture(scope="module")
def encoder():
    torch.set_num_threads(1)
    return build_autoencoder(0).eval()


def config_of(directory, **method):
    return TrainConfig(
        directory / "bids", directory / "out", "train",
        method=Method(**method), running=Running(work_dir=directory),
        training=Training(output_model=directory / "model"), run_uuid="test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(controls, encoder, tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("fitted"), nu=0.1)
    save_model(encoder, config.training.output_model, {"training": {"sessions": len(controls)}})
    fit_normality(controls, config)
    return config


def test_the_pooled_model_is_libsvms_of_as_many_patches_of_each_control(controls, encoder, monkeypatch):
    monkeypatch.setattr(normality, "POOLED_LATENTS", 1200)
    model, per_control = fit_pooled_controls(encoder, controls, Method(nu=0.1), np.random.default_rng(7))
    assert per_control == 100
    latents = pooled_latents(encoder, controls, 100, np.random.default_rng(7))
    assert latents.shape == (1200, 16)
    standardise = Standardiser.fit(latents)
    peer = Libsvm(nu=0.1, tol=1e-8).fit(standardise(latents).astype(float))
    new = latents + np.random.default_rng(8).normal(size=latents.shape).astype(np.float32)
    expected = peer.decision_function(standardise(new).astype(float))
    np.testing.assert_allclose(model.decision_function(new), expected, atol=3e-3)  # the score is about 30


def test_pooled_patches_are_of_their_control_and_inside_its_mask(controls, encoder):
    first = pooled_latents(encoder, controls[:1], 50, np.random.default_rng(1))
    subject = open_control(controls[0])
    every = embed_patches(encoder, extract_patches(subject.image, np.argwhere(subject.mask)))
    nearest = np.abs(every[None] - first[:, None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-5


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_next_that_has_stands_in(density):
    has = np.random.default_rng(3).random((7, 40)) < density
    has[:, 0], has[:, 1] = False, True
    donors = next_with(has)
    for row, column in np.ndindex(has.shape):
        around = [k % 7 for k in range(row, row + 7) if has[k % 7, column]]
        assert donors[row, column] == (around[0] if around else -1)


def test_colocated_latents_are_those_of_the_controls_own_patches(controls, encoder, tmp_path):
    latents, mask = colocated_latents(encoder, controls, GRID, tmp_path / "table.npy")
    coordinates = replace(GRID, mask=mask).coordinates
    subjects = [open_control(path) for path in controls]
    inside = np.stack([nearest_voxels(subject, coordinates)[1] for subject in subjects])
    everywhere = np.stack([nearest_voxels(subject, GRID.coordinates)[1] for subject in subjects])
    assert (inside.sum(axis=0) >= MINIMUM_CONTROLS).all()
    assert mask.sum() == (everywhere.sum(axis=0) >= MINIMUM_CONTROLS).sum() < GRID.mask.sum()
    assert not inside.all()  # somebody had to stand in
    donors = next_with(inside)
    for number in (0, 5, 11):
        for place in range(0, len(coordinates), 17):
            subject = subjects[donors[number, place]]
            voxel = nearest_voxels(subject, coordinates[place : place + 1])[0]
            expected = embed_patches(encoder, extract_patches(subject.image, voxel))[0]
            np.testing.assert_allclose(latents[number, place], expected, atol=1e-5)


def test_every_place_has_libsvms_model(controls, encoder, tmp_path):
    method = Method(nu=0.2)
    model = fit_voxelwise_controls(encoder, controls, GRID, method, tmp_path / "table.npy")
    latents, mask = colocated_latents(encoder, controls, GRID, tmp_path / "again.npy")
    np.testing.assert_array_equal(model.mask.numpy(), mask)
    standardise = Standardiser(model.centre.double().numpy(), model.scale.double().numpy())
    for place in range(0, latents.shape[1], 23):
        peer = Libsvm(nu=0.2, tol=1e-10).fit(standardise(latents[:, place]).astype(float))
        sample = latents[:1, place] + np.float32(0.3)
        found = model.on().decision_function(torch.from_numpy(sample), torch.tensor([place]))
        expected = peer.decision_function(standardise(sample).astype(float))
        assert float(found[0]) == pytest.approx(expected[0], abs=5e-4)


@pytest.mark.parametrize(
    ("count", "width", "step_mm"), [(20, 16, 3), (200, 16, 3), (500, 16, 5), (20, 400, 5), (500, 400, 6)]
)
def test_the_table_of_latents_is_bounded(count, width, step_mm):
    grid, chosen = plan_voxelwise(count, width, np.random.default_rng(0))
    assert grid.step_mm == step_mm
    assert len(chosen) * int(grid.mask.sum()) * width * 4 <= normality.TABLE_BYTES
    assert len(np.unique(chosen)) == len(chosen) >= MINIMUM_CONTROLS
    assert len(chosen) == count or width == 400
    assert (np.diff(chosen) > 0).all()


def test_the_grid_covers_the_templates_brain():
    grid = template_grid(3)
    extent = np.ptp(grid.coordinates, axis=0)
    assert (extent > (130, 170, 140)).all()
    assert (extent < (165, 205, 185)).all()


def test_the_model_says_what_was_fitted_and_to_what(fitted):
    about = json.loads((fitted.training.output_model / DESCRIPTION_FILE).read_text())
    pooled, voxel = about["one_class"]["pooled"], about["one_class"]["voxel"]
    assert pooled["controls"] == voxel["controls"] == 12
    assert (pooled["nu"], voxel["gamma"], voxel["step_mm"]) == (0.1, "scale", 3)
    assert about["training"] == {"sessions": 12, "lesions_left_out": {"none": 6, "reference masks": 6}}
    assert len(load_one_class(fitted.training.output_model, "voxel").gamma) == voxel["models"] > 100
    assert [path.name for path in fitted.running.work_dir.glob("*.npy")] == []
    method = Method(model=str(fitted.training.output_model), paradigm="voxel", nu=0.5)
    assert sidecar_one_class(method)["Nu"] == 0.1  # the model's, not the command line's


def test_the_same_controls_and_seed_give_the_same_files(fitted, controls, encoder, tmp_path):
    config = config_of(tmp_path, nu=0.1)
    save_model(encoder, config.training.output_model, {})
    fit_normality(controls, config)
    for name in ONE_CLASS_FILES.values():
        first, second = (each.training.output_model / name for each in (fitted, config))
        assert first.read_bytes() == second.read_bytes()


def test_each_paradigm_is_another_model_and_another_fit_is_too(fitted, controls, encoder, tmp_path):
    directory = fitted.training.output_model
    digests = [model_digest(directory, paradigm) for paradigm in ("patient", "pooled", "voxel")]
    config = config_of(tmp_path, nu=0.3)
    save_model(encoder, config.training.output_model, {})
    fit_normality(controls, config)
    digests += [model_digest(config.training.output_model, name) for name in ("pooled", "voxel")]
    assert len(set(digests)) == 5
    assert model_digest(config.training.output_model) == digests[0]


def test_too_few_controls_have_no_voxelwise_model_and_the_reason_is_said(controls, encoder, tmp_path, caplog):
    config = config_of(tmp_path)
    save_model(encoder, config.training.output_model, {})
    fit_normality(controls[: MINIMUM_CONTROLS - 1], config)
    reason = FEW_CONTROLS.format(n=MINIMUM_CONTROLS - 1, needed=MINIMUM_CONTROLS)
    assert reason in caplog.text
    with pytest.raises(ModelError) as caught:
        model_digest(config.training.output_model, "voxel")
    assert reason in str(caught.value)
    model_digest(config.training.output_model, "pooled")


def test_a_model_trained_again_has_no_more_the_old_controls(fitted, encoder, tmp_path):
    directory = shutil.copytree(fitted.training.output_model, tmp_path / "model")
    save_model(encoder, directory, {})
    for paradigm in ("pooled", "voxel"):
        assert (directory / ONE_CLASS_FILES[paradigm]).is_file()
        with pytest.raises(ModelError, match=f"no {paradigm}"):
            load_one_class(directory, paradigm)


@pytest.mark.parametrize("paradigm", ["pooled", "voxel"])
def test_what_is_loaded_is_what_was_fitted(fitted, paradigm):
    model = load_one_class(fitted.training.output_model, paradigm)
    model.check()
    path = fitted.training.output_model / ONE_CLASS_FILES[paradigm]
    stored = load_file(path)
    assert set(stored) == set(vars(model))
    for name, value in vars(model).items():
        np.testing.assert_array_equal(np.asarray(value), stored[name].numpy())
    if paradigm == "voxel":
        assert str(path) in open("/proc/self/maps").read()  # noqa: PTH123, SIM115


@pytest.mark.parametrize("paradigm", ["pooled", "voxel"])
@pytest.mark.parametrize("harm", ["cut", "remove", "exchange"])
def test_files_that_are_not_the_described_ones_are_typed_errors(fitted, tmp_path, paradigm, harm):
    directory = shutil.copytree(fitted.training.output_model, tmp_path / "model")
    path = directory / ONE_CLASS_FILES[paradigm]
    content = path.read_bytes()
    path.unlink()
    if harm != "remove":
        path.write_bytes(content[:-9] if harm == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    for use in (model_digest, load_one_class):
        with pytest.raises(ModelError, match=path.name):
            use(directory, paradigm)


@pytest.mark.parametrize(("paradigm", "spoil"), [
    ("pooled", {"dual_coef": lambda t: t[:-1]}),
    ("pooled", {"support_vectors": lambda t: t[:, 1:]}),
    ("pooled", {"gamma": lambda t: -t}),
    ("pooled", {"centre": lambda t: t * float("nan")}),
    ("pooled", {"offset": None}),
    ("voxel", {"starts": lambda t: t[1:]}),
    ("voxel", {"starts": lambda t: t.flip(0)}),
    ("voxel", {"mask": lambda t: ~t}),
    ("voxel", {"scale": lambda t: t * 0}),
    ("voxel", {"affine": lambda t: t[:3]}),
    ("voxel", {"gamma": None}),
], ids=range(11))  # fmt: skip
def test_arrays_that_do_not_fit_are_typed_errors(fitted, tmp_path, paradigm, spoil):
    """Of a file that is the described one: somebody else's program wrote both."""
    directory = shutil.copytree(fitted.training.output_model, tmp_path / "model")
    path = directory / ONE_CLASS_FILES[paradigm]
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, change in spoil.items():
        tensors.pop(name) if change is None else tensors.update({name: change(tensors[name]).contiguous()})
    path.unlink()
    save_file(tensors, path)
    about = about_one_class(directory, paradigm) | {
        "sha256": __import__("hashlib").sha256(path.read_bytes()).hexdigest()
    }
    describe_one_class(directory, {paradigm: about}, {})
    with pytest.raises(ModelError, match=path.name):
        load_one_class(directory, paradigm)


def test_saving_is_streamed(fitted, tmp_path):
    """The file is written from the arrays themselves: what is stored is never there twice."""
    model = load_one_class(fitted.training.output_model, "voxel")
    large = replace(model, support_vectors=torch.zeros(40_000_000, 2))
    before = peak_mb()
    save_one_class(large, tmp_path)
    assert peak_mb() - before < 150  # of 320
    assert [path.name for path in tmp_path.iterdir()] == [ONE_CLASS_FILES["voxel"]]


def peak_mb():
    lines = open("/proc/self/status").read().splitlines()  # noqa: PTH123, SIM115
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def test_voxels_find_the_model_of_their_place(fitted):
    model = load_one_class(fitted.training.output_model, "voxel")
    mask = np.ones((5, 5, 3), dtype=bool)
    mask[0, 0, 0] = False
    to_template = np.array([[3.0, 0, 0, -6], [0, 3, 0, -6], [0, 0, 3, 9], [0, 0, 0, 1]])
    numbers = model_numbers(model, mask, to_template)
    assert numbers[0, 0, 0] == -1
    for voxel in ((1, 2, 0), (4, 4, 2)):
        point = to_template[:3, :3] @ voxel + to_template[:3, 3]
        assert numbers[voxel] == model.locate(point[None])[0]
    assert (numbers[mask] >= 0).any()
    assert model_numbers(load_one_class(fitted.training.output_model, "pooled"), mask, to_template) is None
    assert model_numbers(None, mask, to_template) is None


def test_only_the_paradigm_that_is_asked_for_is_fitted(fitted, controls, encoder, tmp_path):
    config = config_of(tmp_path, nu=0.1)
    shutil.copytree(fitted.training.output_model, config.training.output_model)
    save_model(encoder, config.training.output_model, {})
    only = replace(config, training=replace(config.training, paradigm="pooled"))
    fit_normality(controls, only)
    assert model_digest(config.training.output_model, "pooled") == model_digest(
        fitted.training.output_model, "pooled"
    )
    assert not (config.training.output_model / ONE_CLASS_FILES["voxel"]).exists()
    with pytest.raises(ModelError, match=re.escape(normality.NOT_WANTED)):
        model_digest(config.training.output_model, "voxel")
