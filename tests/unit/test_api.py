"""The functions for notebooks: what is exported and when, what is refused by which error, and the group level's measures."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bids_wmh_uad
from bids_wmh_uad import errors
from bids_wmh_uad.api import detect as detecting
from bids_wmh_uad.api.detect import detect
from bids_wmh_uad.api.evaluate import evaluate
from bids_wmh_uad.bids.tables import TABLE_COLUMNS
from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.group.evaluation import EVALUATION_COLUMNS
from bids_wmh_uad.images import read_image
from bids_wmh_uad.imaging.scans import as_image

PACKAGE = Path(bids_wmh_uad.__file__).parent
HEAVY = {"torch", "nipype", "numpy", "nibabel", "pandas", "sklearn", "matplotlib", "ants"}
AFFINE = np.array([[-1.0, 0, 0, 40], [0, 1, 0, -40], [0, 0, 3, -20], [0, 0, 0, 1]])


def fresh(code):
    """What another Python process prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_the_package_imports_nothing_heavy_and_at_once():
    code = "import sys, time; t = time.perf_counter(); import bids_wmh_uad; dir(bids_wmh_uad)"
    seconds, *modules = fresh(f"{code}; print(time.perf_counter() - t, *sys.modules)")
    assert float(seconds) < 0.1
    assert not HEAVY & set(modules)


def test_what_detects_needs_neither_torch_nor_nipype_in_this_process():
    modules = fresh("import sys; from bids_wmh_uad import detect, evaluate, Detection; print(*sys.modules)")
    assert not {"torch", "nipype", "niworkflows", "ants", "matplotlib"} & set(modules)


def test_every_name_is_there_and_type_checkers_read_the_same_ones():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    typed = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname  # or it is not exported
    }
    assert typed == {f"bids_wmh_uad.{module}.{name}" for name, module in bids_wmh_uad._EXPORTS.items()}
    assert set(bids_wmh_uad.__all__) <= set(dir(bids_wmh_uad))
    for name in bids_wmh_uad.__all__:
        assert getattr(bids_wmh_uad, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bids_wmh_uad.no_such_name


def test_the_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"score": "magic"}, errors.UsageError),
        ({"threshold": "tail=-1"}, errors.UsageError),
        ({"accept": 2}, errors.UsageError),
        ({"device": "tpu"}, errors.UsageError),
        ({"n_threads": 0}, errors.UsageError),
        ({"model": "no-such-model"}, errors.ModelError),
        ({"paradigm": "pooled"}, errors.ModelError),  # the shipped model has no controls' One-Class SVM
    ],
)
def test_settings_are_refused_before_any_work(settings, error, monkeypatch):
    monkeypatch.setattr(detecting, "_run", lambda _: pytest.fail("the program was started"))
    with pytest.raises(error):
        detect("flair.nii", "t1w.nii", **settings)


def image_of(data, affine=AFFINE):
    return as_image(data, affine)


@pytest.mark.parametrize(
    ("scan", "error", "said"),
    [
        (np.zeros((20, 20, 10)), errors.UsageError, "ndarray"),
        (None, errors.UsageError, "NoneType"),
        ("absent.nii.gz", errors.BadImageError, "absent.nii.gz"),
        (Path("text.nii"), errors.BadImageError, "text.nii"),
        (Path("four.nii"), errors.BadImageError, "(20, 20, 10, 2)"),
    ],
)
def test_scans_are_refused_by_the_callers_name_of_them(scan, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "text.nii").write_text("no image")
    nib.save(nib.Nifti1Image(np.ones((20, 20, 10, 2), np.int16), AFFINE), tmp_path / "four.nii")
    good = image_of(np.ones((20, 20, 10), np.float32))
    for scans in ((scan, good), (good, scan)):
        with pytest.raises(error) as raised:
            detect(*scans)
        assert said in str(raised.value)
        assert "sub-01" not in str(raised.value)
    assert not list(tmp_path.glob("bids-wmh-uad-*"))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64", "int64", "float16", "bool"])
def test_images_in_memory_are_written_as_they_are(dtype, tmp_path):
    data = (np.random.default_rng(0).random((20, 18, 10)) * 100).astype(dtype)
    image = (
        nib.Nifti1Image(data, AFFINE, dtype=dtype if dtype == "int64" else None)
        if dtype not in ("float16", "bool")
        else None
    )
    if image is None:  # NIfTI has no such type, images in memory may
        image = nib.Nifti1Image(np.zeros(data.shape, np.float32), AFFINE)
        image._dataobj = data
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 4)
    image.header.set_xyzt_units("mm")
    session = detecting._stage(tmp_path / "scans", {"flair": image, "t1w": image})
    staged = read_image(session.flair)
    assert np.array_equal(np.asanyarray(staged.dataobj), data.astype(np.float64))
    assert np.array_equal(staged.affine, image.affine)
    assert (staged.header["qform_code"], staged.header["sform_code"]) == (1, 4)


def test_a_scaled_file_gives_the_same_values_by_path_and_in_memory(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).random((20, 18, 10)), AFFINE)
    image.set_data_dtype(np.int16)
    path = tmp_path / "scaled.nii.gz"
    nib.save(image, path)
    by_path = detecting._stage(tmp_path / "a", {"flair": path, "t1w": str(path)})
    in_memory = detecting._stage(tmp_path / "b", {"flair": nib.load(path), "t1w": nib.load(path)})
    values = [np.asanyarray(read_image(session.flair).dataobj) for session in (by_path, in_memory)]
    assert len(np.unique(values[0])) > 100
    assert np.array_equal(*values)


def test_errors_of_the_program_keep_their_class_and_get_the_callers_names(tmp_path, caplog):
    """An empty scan is refused by the first step, in the other process."""
    caplog.set_level(logging.INFO, "bids_wmh_uad")
    empty = image_of(np.zeros((20, 20, 10), np.float32))
    full = image_of(np.random.default_rng(0).random((20, 20, 10)).astype(np.float32))
    nib.save(full, tmp_path / "mine_T1w.nii")
    with pytest.raises(errors.BadImageError) as raised:
        detect(empty, tmp_path / "mine_T1w.nii", score="brightness", work_dir=tmp_path / "kept")
    assert str(raised.value) == errors.EMPTY_IMAGE.format(path="flair (an image in memory)", value="0.0")
    assert any("FAILED" in record.getMessage() for record in caplog.records)
    assert (tmp_path / "kept" / "derivatives" / "logs").is_dir()


def test_two_calls_do_not_share_a_directory(tmp_path):
    image = image_of(np.zeros((20, 20, 10), np.float32))
    with detecting._folder(tmp_path), pytest.raises(errors.BusyError):
        detect(image, image, score="brightness", work_dir=tmp_path)


def two_masks():
    rng = np.random.default_rng(0)
    truth, found = np.zeros((2, 16, 18, 8), np.uint8)
    truth[2:6, 2:6, 1:4], found[3:7, 2:6, 1:4] = 1, 1
    truth[10:12, 12:15, 5], found[13:15, 2:4, 6:8] = 1, 1
    scores = rng.random(truth.shape).astype(np.float32) + truth
    return truth, found, scores


def test_measures_are_those_of_the_group_table():
    truth, found, scores = two_masks()
    images = [image_of(data) for data in (truth, found, scores)]
    measures = evaluate(*images)
    assert measures.keys() <= EVALUATION_COLUMNS.keys()
    mask_only = evaluate(*images[:2])
    assert {"ap", "auroc", "aupro", "best_dice"} <= measures.keys() - mask_only.keys()
    assert mask_only == {name: measures[name] for name in mask_only}
    assert measures["dice"] == dice(found > 0, truth > 0)
    assert measures["reference_volume_ml"] == pytest.approx(truth.sum() * 3 / 1000)
    assert evaluate(images[0], images[0])["dice"] == 1


def test_measures_do_not_depend_on_how_the_image_is_stored(tmp_path):
    images = [image_of(data) for data in two_masks()]
    turned = [image.as_reoriented(nib.orientations.axcodes2ornt("PSR")) for image in images]
    paths = [tmp_path / f"{number}.nii.gz" for number in range(3)]
    for image, path in zip(turned, paths, strict=True):
        nib.save(image, path)
    assert evaluate(*paths) == pytest.approx(evaluate(*images), nan_ok=True)


def test_only_the_brain_counts_and_other_pathology_does_not():
    truth, found, _ = two_masks()
    brain = np.ones_like(truth)
    brain[13:15, 2:4, 6:8] = 0  # where the false lesion is
    other = np.where(found & ~truth & 1, 2, truth).astype(np.uint8)
    assert evaluate(image_of(truth), image_of(found))["lesion_precision"] == 0.5
    assert evaluate(image_of(truth), image_of(found), brain=image_of(brain))["lesion_precision"] == 1
    assert evaluate(image_of(other), image_of(found))["lesion_precision"] == 1


def test_nothing_to_compare_is_nan_and_other_grids_are_refused():
    empty = image_of(np.zeros((16, 18, 8), np.uint8))
    assert np.isnan(evaluate(empty, empty)["h95_mm"])
    moved = image_of(np.zeros((16, 18, 8), np.uint8), AFFINE + np.eye(4, k=3) * 5)
    small = image_of(np.zeros((16, 18, 7), np.uint8))
    for other in (moved, small):
        with pytest.raises(errors.GridMismatchError):
            evaluate(other, empty)
        with pytest.raises(errors.GridMismatchError):
            evaluate(empty, empty, brain=other)
    with pytest.raises(errors.UsageError, match="ndarray"):
        evaluate(np.zeros((16, 18, 8)), empty)


def test_a_notebooks_table_has_columns_that_there_are():
    from bids_wmh_uad.api.detection import SHOWN_COLUMNS

    assert set(SHOWN_COLUMNS) <= set(TABLE_COLUMNS)


def test_every_exported_name_has_a_page_and_an_example():
    page = (PACKAGE.parent / "docs" / "python.md").read_text()
    listed = page[page.index("autosummary") :].split()
    for name in bids_wmh_uad._EXPORTS:
        assert name in listed, name
        exported = getattr(bids_wmh_uad, name)
        error = isinstance(exported, type) and issubclass(exported, errors.WmhUadError)
        if not error or exported is errors.WmhUadError:  # its example shows how any of them is caught
            examples = [
                line for line in exported.__doc__.splitlines() if line.strip().startswith((">>>", "..."))
            ]
            assert any("from bids_wmh_uad import" in line for line in examples), name
            assert any(name in line for line in examples), name
