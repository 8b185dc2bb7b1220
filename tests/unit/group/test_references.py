"""References as people have them: other names, other programs' affines and values, other spaces."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import AFFINE, SHAPE, evaluate, measures_of, save, truth_mask, write_session

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.references import Reference, find_reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.core.image.volume import Volume
from bids_wmh_uad.errors import (
    ODD_REFERENCE,
    ONE_VALUE,
    OTHER_SPACE,
    ROUNDED_AFFINE,
    BadDataError,
    GridMismatchError,
)
from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.masks import read_lesions, read_reference

NAME = "sub-1_label-WMH_mask.nii.gz"


def first_words(text: str) -> str:
    """What a message says before its first number."""
    return text.split("{path}")[1].split("{", maxsplit=1)[0]


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("label-lesion_mask.nii.gz", None),
        ("label-WMH_mask.nii", None),
        ("label-wmh_desc-expert_mask.nii.gz", None),
        ("label-L_dseg.nii.gz", None),
        ("desc-manual_mask.nii.gz", None),
        ("space-FLAIR_desc-manualRater2_dseg.nii", "FLAIR"),
        ("space-orig_label-lesion_roi.nii.gz", "orig"),
        ("space-T1w_label-lesion_mask.nii.gz", "T1w"),
        ("label-WMH_probseg.nii.gz", None),
        ("space-MNI152NLin6Asym_label-WMH_mask.nii.gz", "MNI152NLin6Asym"),
    ],
)
def test_names_that_are_lesion_masks(tmp_path: Path, name: str, space: str | None) -> None:
    path = save(tmp_path / "sub-1" / "anat" / f"sub-1_{name}", truth_mask())
    assert find_reference(tmp_path, "sub-1", "n/a") == Reference(path, space)


@pytest.mark.parametrize(
    "name",
    [
        "desc-brain_mask.nii.gz", "label-GM_desc-manual_probseg.nii.gz", "label-WMH_FLAIR.nii.gz", "T1w.nii.gz",
        "desc-lesions_dseg.nii.gz", "label-WMH_mask.nii.gz.part", "label-WMH_mask.json", "label-WMH.nii.gz",
    ],
)  # fmt: skip
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sub-1" / "anat" / f"sub-1_{name}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert find_reference(tmp_path, "sub-1", "n/a") is None


def test_masks_come_before_probabilities_and_the_flairs_space_before_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["label-WMH_mask", "label-WMH_probseg", "space-T1w_desc-manual_mask", "space-MNI_label-L_mask"]
    paths = [save(tmp_path / "sub-1" / "anat" / f"sub-1_{name}.nii.gz", truth_mask()) for name in names]
    for path in paths:
        found = find_reference(tmp_path, "sub-1", "n/a")
        assert found is not None
        assert found.path == path
        path.unlink()
    assert caplog.messages == []  # each is another thing: nobody has to choose


# ------------------------------------------------------------------ affines


def tilted(millimetres: float) -> np.ndarray:
    """The FLAIR's affine, turned and shifted a little, so that the farthest corner moves by about so much."""
    angle = millimetres / np.linalg.norm(AFFINE[:3, :3] @ SHAPE)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


def shifted(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += millimetres
    return affine


@pytest.mark.parametrize("affine", [shifted(0.03), tilted(0.09), AFFINE @ np.diag([1.003, 1.003, 1, 1])])
def test_a_rounded_affine_is_accepted_and_said(tmp_path: Path, affine: np.ndarray) -> None:
    path = write_session(tmp_path / "out", "1")
    found = evaluate(path, save(tmp_path / NAME, truth_mask(), affine))
    assert found.row["dice"] == 1.0
    (note,) = found.warnings
    assert first_words(ROUNDED_AFFINE) in note
    assert " mm (" in note


@pytest.mark.parametrize("axis", range(3))
def test_a_tenth_of_a_voxel_is_the_limit(tmp_path: Path, axis: int) -> None:
    """In voxels, not mm: 0.25 mm is nothing across a slice of 3 mm, and too much within it."""
    path = write_session(tmp_path / "out", "1")
    size = AFFINE[axis, axis]
    for share, fits in ((0.09, True), (0.11, False)):
        affine = AFFINE.copy()
        affine[axis, 3] = share * size
        reference = save(tmp_path / f"{share}_{NAME}", truth_mask(), affine)
        if fits:
            assert measures_of(path, reference)["dice"] == 1.0
        else:
            with pytest.raises(GridMismatchError, match=rf"{share * size:.3g} mm, {share:.2g} voxels"):
                evaluate(path, reference)


def test_scaling_that_adds_up_over_the_image_is_refused(tmp_path: Path) -> None:
    """Voxels of 1.008 mm: nothing at the first voxel, more than a tenth at the last."""
    affine = AFFINE @ np.diag([1.008, 1, 1, 1])
    path = write_session(tmp_path / "out", "1")
    with pytest.raises(GridMismatchError):
        evaluate(path, save(tmp_path / NAME, truth_mask(), affine))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SPL", "AIR"])
def test_another_storage_order_is_the_same_grid(tmp_path: Path, axes: str) -> None:
    path = write_session(tmp_path / "out", "1")
    image = nib.Nifti1Image(truth_mask(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    turned = image.as_reoriented(turn)
    found = evaluate(path, save(tmp_path / NAME, np.asanyarray(turned.dataobj), turned.affine))
    assert (found.row["dice"], found.warnings) == (1.0, ())


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("value", [255, 3, 1000])
def test_a_single_other_value_is_lesion(tmp_path: Path, value: int) -> None:
    path = write_session(tmp_path / "out", "1")
    found = evaluate(path, save(tmp_path / NAME, truth_mask().astype(np.int16) * value))
    assert found.row["dice"] == 1.0
    assert found.warnings == (ONE_VALUE.format(path=tmp_path / NAME, value=value),)


def test_scaled_integers_and_nan_are_a_mask(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    data = truth_mask() * np.float32(0.99999)
    data[0] = np.nan
    found = evaluate(path, save(tmp_path / NAME, data))
    assert (found.row["dice"], found.warnings) == (1.0, ())


def test_probabilities_are_lesion_from_a_half_on(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    data = np.where(truth_mask() > 0, 0.5, 0.45).astype(np.float32)
    data[0, 0, 0] = 0.0
    assert measures_of(path, save(tmp_path / "sub-1_label-WMH_probseg.nii.gz", data))["dice"] == 1.0


@pytest.mark.parametrize(
    "values", [[0, 1, 2, 3], [0, 7, 9], [-1, 0, 1], [0.0, 0.5, 1.5], [-0.5, 0.0, 0.5], [0, 1, 255]]
)
def test_values_that_are_neither_are_refused(tmp_path: Path, values: list[float]) -> None:
    path = write_session(tmp_path / "out", "1")
    data = np.resize(np.array(values, np.float32), SHAPE)
    with pytest.raises(BadDataError) as raised:
        evaluate(path, save(tmp_path / NAME, data))
    assert str(tmp_path / NAME) in str(raised.value)
    assert first_words(ODD_REFERENCE) in str(raised.value)


# ------------------------------------------------------------------ spaces


def moved_session(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A session whose T1w lay elsewhere, and the transform that brought it to the FLAIR."""
    path = write_session(tmp_path / "out", "1")
    matrix = np.eye(4)
    matrix[:3, 3] = [2.0, -3.0, 6.0]
    result_path(path, "t1w_to_flair").write_text(registration.itk_text(matrix))
    return path, matrix


def test_a_mask_in_the_t1ws_space_comes_by_the_sessions_transform(tmp_path: Path) -> None:
    path, matrix = moved_session(tmp_path)
    fine = np.repeat(truth_mask(), 3, axis=2)  # 1 mm slices
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[2, 3] = -1.0
    name = "sub-1_space-T1w_label-lesion_mask.nii.gz"
    assert measures_of(path, save(tmp_path / name, fine, np.linalg.inv(matrix) @ affine))["dice"] == 1.0
    assert measures_of(path, save(tmp_path / name, fine, affine))["dice"] < 0.5


def test_a_mask_in_a_templates_space_is_never_resampled(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    name = "sub-1_space-MNI152NLin6Asym_label-WMH_mask.nii.gz"
    moved = AFFINE.copy()
    moved[0, 3] = 5
    with pytest.raises(GridMismatchError, match=OTHER_SPACE.split("{")[0]):
        evaluate(path, save(tmp_path / name, truth_mask(), moved), resample=True)
    assert measures_of(path, save(tmp_path / name, truth_mask()))["dice"] == 1.0  # scans may be in that space


def test_training_leaves_out_the_same_lesions(tmp_path: Path) -> None:
    """Another storage order, rounding, 255 and the T1w's space: what the evaluation takes, training takes."""
    scan = save(tmp_path / "flair.nii.gz", np.ones(SHAPE, np.float32))
    plain, _ = read_lesions(save(tmp_path / NAME, truth_mask()), scan)
    rounded = AFFINE.copy()
    rounded[0, 3] = 0.03
    other = nib.as_closest_canonical(nib.Nifti1Image(truth_mask() * np.uint8(255), rounded))
    flipped = other.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
    found, notes = read_lesions(
        save(tmp_path / "b.nii", np.asanyarray(flipped.dataobj), flipped.affine), scan
    )
    np.testing.assert_array_equal(found, plain)
    assert len(notes) == 2
    matrix = np.eye(4)
    matrix[1, 3] = 4.0
    there = save(tmp_path / "c.nii", truth_mask(), np.linalg.inv(matrix) @ AFFINE)
    np.testing.assert_array_equal(read_lesions(there, scan, matrix=matrix)[0], plain)


def test_other_pathology_stays_the_other_label(tmp_path: Path) -> None:
    data = truth_mask()
    data[0] = 2
    labels, notes = read_reference(save(tmp_path / NAME, data), Volume(data, AFFINE), Path("scan"))
    np.testing.assert_array_equal(labels, data)
    assert notes == ()


def test_a_whole_result_of_ours_is_a_reference(tmp_path: Path) -> None:
    """Two runs may be compared: the mask is found beside all other outputs, without a warning."""
    path = write_session(tmp_path / "out", "1")
    found = find_reference(tmp_path / "out", "sub-1", "n/a")
    assert found == Reference(result_path(path, "mask"), "FLAIR")
    assert derivatives.OUTPUTS["mask"] in str(found.path)
