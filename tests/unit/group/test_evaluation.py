"""One session against its reference mask."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import (
    AFFINE,
    SHAPE,
    VOXEL_ML,
    evaluate,
    measures_of,
    reference_path,
    save,
    truth_mask,
    write_session,
)

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.references import Reference, find_reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.core.evaluation.overlap import h95_mm
from bids_wmh_uad.errors import (
    NO_BRIGHTNESS,
    RESAMPLE_HINT,
    SEVERAL_REFERENCES,
    BadDataError,
    BadImageError,
    GridMismatchError,
)
from bids_wmh_uad.group.evaluation import EVALUATION_COLUMNS, MAPS, ratio_grid
from bids_wmh_uad.group.statistics import PAIRED

# ------------------------------------------------------------------ one session


def test_a_perfect_mask_has_perfect_measures(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    found = evaluate(path, save(reference_path(tmp_path, "1"), truth_mask()))
    for name in ("dice", "lesion_recall", "lesion_precision", "lesion_f1", "ap", "auroc", "auroc30", "aupro", "aupro30", "best_dice"):  # fmt: skip
        assert found.row[name] == pytest.approx(1.0), name
    assert found.row["h95_mm"] == found.row["avd_percent"] == 0.0
    volume = truth_mask().sum() * VOXEL_ML
    assert found.row["reference_volume_ml"] == found.row["wmh_volume_ml"] == pytest.approx(volume)
    assert found.row["baseline_ap"] < 0.5  # its FLAIR is noise
    assert set(found.row) | {"participant_id", "session_id"} == set(EVALUATION_COLUMNS)
    assert found.curves["model"]["dice"][len(ratio_grid()) // 2] == 1.0  # at the session's own threshold
    assert found.sizes.sum(axis=1).tolist() == [1, 1]
    assert found.warnings == ()


def test_half_a_mask_has_the_measures_of_the_definitions(tmp_path: Path) -> None:
    mask = truth_mask()
    mask[:, :, 3] = 0
    path = write_session(tmp_path / "out", "1", mask=mask)
    row = measures_of(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert row["dice"] == pytest.approx(2 * 20 / (20 + 40))
    assert row["avd_percent"] == pytest.approx(50.0)
    assert row["lesion_f1"] == 1.0
    assert row["h95_mm"] == h95_mm(mask, truth_mask(), (1, 1, 3)) == 3.0


def test_the_baseline_is_the_smoothed_flair(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    save(result_path(path, "flair"), (100 + 80 * truth_mask()).astype(np.float32))
    assert measures_of(path, save(reference_path(tmp_path, "1"), truth_mask()))["baseline_ap"] > 0.9


def test_brightness_is_judged_beside_the_model_on_the_same_voxels(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    reference = save(reference_path(tmp_path, "1"), truth_mask())
    anomaly = np.asanyarray(nib.load(result_path(path, "anomaly")).dataobj)
    save(result_path(path, "brightness"), anomaly)
    found = evaluate(path, reference)
    assert found.warnings == ()
    assert set(found.curves) == set(MAPS)
    assert all(found.row[f"brightness_{name}"] == found.row[name] for name in PAIRED)
    save(result_path(path, "brightness"), anomaly.max() - anomaly)
    row = measures_of(path, reference)
    assert row["brightness_auroc"] == pytest.approx(1 - row["auroc"])


@pytest.mark.parametrize("kind", ["gone", "another grid", "cut off", "0 everywhere"])
def test_without_brightness_the_other_measures_stay(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    reference = save(reference_path(tmp_path, "1"), truth_mask())
    whole = evaluate(path, reference)
    image = result_path(path, "brightness")
    if kind == "gone":
        image.unlink()
    elif kind == "cut off":
        image.write_bytes(image.read_bytes()[:300])
    else:
        shown = truth_mask()[:-1] if kind == "another grid" else np.zeros_like(truth_mask())
        save(image, shown.astype(np.float32))
    found = evaluate(path, reference)
    (warning,) = found.warnings
    assert warning.startswith(NO_BRIGHTNESS.format(where=path.name, reason="")[:-1])
    assert "brightness_map" in warning
    missing = {f"brightness_{name}" for name in PAIRED}
    assert whole.row.keys() - found.row.keys() == missing
    assert all(whole.row[name] == value for name, value in found.row.items())
    assert set(found.curves) == {"model", "baseline"}


def test_other_pathology_and_air_do_not_count(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    truth = truth_mask()
    truth[4:8, 4:9, 3] = 2  # found, but neither right nor wrong
    row = measures_of(path, save(reference_path(tmp_path, "1"), truth))
    assert (row["dice"], row["lesion_precision"], row["avd_percent"]) == (1.0, 1.0, 0.0)
    brain = np.ones(SHAPE, np.uint8)
    brain[0] = 0
    save(result_path(path, "brain"), brain)
    truth = truth_mask()
    truth[0] = 1
    found = evaluate(path, save(reference_path(tmp_path, "2"), truth))
    assert found.row["dice"] == 1.0
    assert "lies outside the brain mask" in found.warnings[0]  # more than half of it


def test_an_empty_reference_gives_n_a_or_the_stated_value(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    found = evaluate(path, save(reference_path(tmp_path, "1"), np.zeros(SHAPE, np.uint8)))
    undefined = ("h95_mm", "avd_percent", "ap", "auroc", "aupro", "best_dice", "baseline_ap")
    assert all(np.isnan(found.row[name]) for name in undefined)
    assert (found.row["dice"], found.row["lesion_recall"], found.row["lesion_precision"]) == (0.0, 1.0, 0.0)
    assert found.warnings == ()


def test_a_trailing_axis_of_a_reference_does_not_matter(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    assert measures_of(path, save(reference_path(tmp_path, "1"), truth_mask()[..., None]))["dice"] == 1.0


def test_measures_do_not_depend_on_the_storage_order(tmp_path: Path) -> None:
    """The same session stored sagittal, back to front: every measure but for rounding."""
    mask = truth_mask()
    mask[4] = 0
    first = write_session(tmp_path / "a", "1", mask=mask)
    second = write_session(tmp_path / "b", "1", mask=mask)
    turn = np.array([[0, 0, 1, 0], [-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 0, 1]])  # to stored
    back = np.linalg.inv(turn)
    reference = save(reference_path(tmp_path / "r1", "1"), truth_mask())
    turned = save(
        reference_path(tmp_path / "r2", "1"),
        nib.apply_orientation(truth_mask(), nib.io_orientation(turn)),
        AFFINE @ back,
    )
    for name in ("brain", "mask", "anomaly", "brightness", "flair", "t1w"):
        image = nib.load(result_path(first, name))
        data = nib.apply_orientation(np.asanyarray(image.dataobj), nib.io_orientation(turn))
        save(result_path(second, name), data, AFFINE @ back)
    one, other = measures_of(first, reference), measures_of(second, turned)
    assert one["h95_mm"] > 0
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("kind", ["shape", "affine"])
def test_another_grid_names_both_files_and_the_remedy(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    data = truth_mask()[:-1] if kind == "shape" else truth_mask()
    affine = AFFINE if kind == "shape" else np.diag([1.0, 1, 3.1, 1])
    reference = save(reference_path(tmp_path, "1"), data, affine)
    with pytest.raises(GridMismatchError) as raised:
        evaluate(path, reference)
    for part in (str(reference), derivatives.OUTPUTS["mask"], RESAMPLE_HINT):
        assert part in str(raised.value)


def test_a_reference_on_another_grid_is_resampled_when_asked(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    fine = np.repeat(np.repeat(truth_mask(), 2, axis=0), 2, axis=1)
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[:2, 3] = -0.25  # the same outer edges
    reference = save(reference_path(tmp_path, "1"), fine, affine)
    with pytest.raises(GridMismatchError):
        evaluate(path, reference)
    assert evaluate(path, reference, resample=True).row["dice"] == 1.0


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "text", "4D"])
def test_an_unusable_reference_is_named(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    reference = save(reference_path(tmp_path, "1"), np.stack([noise] * 2, -1) if kind == "4D" else noise)
    whole = reference.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "corrupt": whole[:12] + b"\xff" * 400,
        "text": b"no image",
    }
    reference.write_bytes(broken.get(kind, whole))
    with pytest.raises(BadImageError, match=str(reference)):
        evaluate(path, reference)


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    derivatives.sidecar_path(result_path(path, "flair")).unlink()
    with pytest.raises(BadDataError, match=r"desc-preproc_FLAIR\.json"):
        evaluate(path, save(reference_path(tmp_path, "1"), truth_mask()))


@pytest.mark.parametrize("session", [None, "1"])
@pytest.mark.parametrize("label", ["WMH", "lesion"])
def test_references_are_found_by_entities(tmp_path: Path, session: str | None, label: str) -> None:
    expected = save(reference_path(tmp_path, "1", session, label), truth_mask())
    save(reference_path(tmp_path, "2", session), truth_mask())
    save(reference_path(tmp_path, "1", "2"), truth_mask())
    assert find_reference(tmp_path, "sub-1", f"ses-{session}" if session else "n/a") == Reference(
        expected, "FLAIR"
    )
    assert find_reference(tmp_path, "sub-1", "ses-9") is None


def test_of_several_references_the_plain_one_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = save(reference_path(tmp_path, "1"), truth_mask())
    other = plain.with_name(plain.name.replace("_label-", "_desc-tail2_label-"))
    save(other, truth_mask())
    assert find_reference(tmp_path, "sub-1", "n/a") == Reference(plain, "FLAIR")
    assert caplog.messages == [SEVERAL_REFERENCES.format(path=plain, n=2)]
