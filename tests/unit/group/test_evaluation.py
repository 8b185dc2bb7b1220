"""One session against its reference mask, and what a cohort adds up to."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohorts import (
    AFFINE,
    SHAPE,
    VOXEL_ML,
    config,
    reference_path,
    save,
    truth_mask,
    write_failure,
    write_session,
)

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.references import find_reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.core.evaluation.overlap import h95_mm
from bids_wmh_uad.core.evaluation.ranking import average_precision, best_dice
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map
from bids_wmh_uad.errors import (
    EXIT_SESSION_FAILED,
    NO_BRIGHTNESS,
    NO_REFERENCE,
    NO_SUCH_DIRECTORY,
    RESAMPLE_HINT,
    SEVERAL_REFERENCES,
    BadDataError,
    BadImageError,
    GridMismatchError,
    MissingInputError,
)
from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.evaluation import EVALUATION_COLUMNS, MAPS, evaluate_session, ratio_grid, score_grid
from bids_wmh_uad.group.scans import brightness_map, read_scan
from bids_wmh_uad.group.statistics import PAIRED, summarise

THRESHOLD = 0.9  # the made-up maps are above 1 in lesions and below 0.5 elsewhere


def evaluate(path, reference, **options):
    return evaluate_session(path, reference, result_path(path, "mask"), THRESHOLD, **options)


def measures_of(path, reference):
    return evaluate(path, reference).row


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


def make_visible(path: Path) -> None:
    """Lesions on the session's FLAIR."""
    flair = np.asanyarray(nib.load(result_path(path, "flair")).dataobj)
    save(result_path(path, "flair"), (flair + 150 * truth_mask()).astype(np.float32))


def test_brightness_is_the_default_scores_without_its_network(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    make_visible(path)
    reference = save(reference_path(tmp_path, "1"), truth_mask())
    found = evaluate(path, reference)
    assert found.warnings == ()
    assert found.row["brightness_ap"] > 0.9
    scan, grid = read_scan(path)
    params = DetectionParameters(score="brightness")
    expected = grid.backward(anomaly_map(None, scan, params, np.random.default_rng(0)).scores)
    np.testing.assert_array_equal(brightness_map(path), expected)
    assert set(found.curves) == set(MAPS)


def test_brightness_follows_the_parameters_that_the_session_records(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    make_visible(path)
    plain, sidecar = brightness_map(path), derivatives.sidecar_path(result_path(path, "anomaly"))
    for recorded, same in (({}, True), ({"tail": 9.0, "unknown": 1}, True), ({"sigma_mm": 3.0}, False)):
        sidecar.write_text(json.dumps({"Parameters": recorded}))
        assert np.array_equal(brightness_map(path), plain) is same, recorded
    sidecar.write_text(json.dumps({"Parameters": {"score": "brightness"}}))
    np.testing.assert_array_equal(brightness_map(path), nib.load(result_path(path, "anomaly")).dataobj)
    row = measures_of(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert all(row[f"brightness_{name}"] == row[name] for name in PAIRED)  # the map itself
    for bad in ({"sigma_mm": -1}, {"sigma_mm": "wide"}, {"score": "other"}, [1]):
        sidecar.write_text(json.dumps({"Parameters": bad}))
        with pytest.raises(BadDataError, match=r"anomaly_map\.json"):
            brightness_map(path)


@pytest.mark.parametrize("kind", ["no T1w", "no T1w sidecar", "another grid", "no transform"])
def test_without_brightness_the_other_measures_stay(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    reference = save(reference_path(tmp_path, "1"), truth_mask())
    whole = evaluate(path, reference)
    t1w = result_path(path, "t1w")
    if kind == "another grid":
        save(t1w, truth_mask()[:-1].astype(np.float32))
    else:
        gone = {
            "no T1w": t1w,
            "no T1w sidecar": derivatives.sidecar_path(t1w),
            "no transform": result_path(path, "flair_to_template"),
        }
        gone[kind].unlink()
    found = evaluate(path, reference)
    (warning,) = found.warnings
    assert warning.startswith(NO_BRIGHTNESS.format(where=path.name, reason="")[:-1])
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
    for name in ("brain", "mask", "anomaly", "flair", "t1w"):
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
    assert find_reference(tmp_path, "sub-1", f"ses-{session}" if session else "n/a") == expected
    assert find_reference(tmp_path, "sub-1", "ses-9") is None


def test_of_several_references_the_plain_one_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = save(reference_path(tmp_path, "1"), truth_mask())
    other = plain.with_name(plain.name.replace("_label-", "_desc-tail2_label-"))
    save(other, truth_mask())
    assert find_reference(tmp_path, "sub-1", "n/a") == plain
    assert caplog.messages == [SEVERAL_REFERENCES.format(path=plain, n=2)]


# ------------------------------------------------------------------ the cohort


def cohort(root: Path, count: int = 6) -> tuple[Path, Path]:
    """Results and references of participants, two sessions each; maps differ in how good they are."""
    out, references = root / "out", root / "ref"
    for k in range(count):
        for session in ("1", "2"):
            path = write_session(out, str(k), session)
            rng = np.random.default_rng([k, int(session)])
            noisy = truth_mask() + (0.2 + 0.2 * k) * rng.normal(size=SHAPE)
            save(result_path(path, "anomaly"), noisy.astype(np.float32))
            save(result_path(path, "mask"), (noisy > 0.7).astype(np.uint8))
            save(reference_path(references, str(k), session), truth_mask())
    return out, references


def test_a_cohort_is_summarised_by_participant_and_site(tmp_path: Path) -> None:
    out, references = cohort(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = ["participant_id\tage\tScanner", *(f"sub-{k}\t60\t{'AB'[k % 2]}" for k in range(6))]
    (raw / "participants.tsv").write_text("\n".join(lines) + "\n")
    group.run_group(config(out, raw, reference=references))
    content = json.loads((out / "group_summary.json").read_text())
    table = pd.read_csv(out / "group_evaluation.tsv", sep="\t")
    assert (content["sessions"], content["participants"]) == (12, 6)
    for name in ("dice", "ap", "aupro", "lesion_f1"):
        found = content["measures"][name]
        assert found["mean"] == pytest.approx(table[name].mean(), rel=1e-4)
        assert found["low"] < found["mean"] < found["high"]
        assert (found["n"], found["clusters"]) == (12, 6)
    gain = content["differences"]["baseline"]["ap"]
    assert gain["mean"] == pytest.approx((table["ap"] - table["baseline_ap"]).mean(), rel=1e-4)
    assert gain["low"] > 0
    assert gain["better"] == 12
    by = content["by"]["Scanner"]
    first = table[table["participant_id"].isin(["sub-0", "sub-2", "sub-4"])]
    assert by["A"]["measures"]["dice"]["mean"] == pytest.approx(first["dice"].mean(), rel=1e-4)
    assert (by["A"]["sessions"], by["B"]["participants"]) == (6, 3)
    wmh = pd.read_csv(out / "group_wmh.tsv", sep="\t")
    assert list(wmh["Scanner"]) == ["A", "A", "B", "B"] * 3
    assert "age" not in wmh
    assert "Scanner" in json.loads((out / "group_wmh.json").read_text())


def test_a_session_without_brightness_is_n_a_and_the_cohort_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("bids_wmh_uad").propagate = True
    out, references = cohort(tmp_path, count=3)
    for path in sorted(out.rglob("*desc-preproc_T1w.nii.gz"))[:2]:
        path.unlink()
    assert group.run_group(config(out, reference=references)) == 0
    said = {
        message for message in caplog.messages if "brightness cannot be computed beside the model" in message
    }
    assert len(said) == 2  # a handler that another test left may write each twice
    text = (out / "group_evaluation.tsv").read_text()
    table = pd.read_csv(out / "group_evaluation.tsv", sep="\t")
    assert text.count("n/a") == 2 * len(PAIRED)
    assert table["brightness_ap"].isna().tolist() == [True] * 2 + [False] * 4
    content = json.loads((out / "group_summary.json").read_text())
    assert content["measures"]["brightness_ap"]["n"] == content["differences"]["brightness"]["ap"]["n"] == 4
    gains = (table["ap"] - table["brightness_ap"]).dropna()
    assert content["differences"]["brightness"]["ap"]["mean"] == pytest.approx(gains.mean(), rel=1e-4)
    assert content["differences"]["baseline"]["ap"]["n"] == 6
    paired = table[table["brightness_ap"].notna()]  # means stand side by side: they are of the same sessions
    for side, column in (("model", "ap"), ("rival", "brightness_ap")):
        found = content["differences"]["brightness"]["ap"][side]
        assert (found["n"], found["mean"]) == (4, pytest.approx(paired[column].mean(), rel=1e-4))
    for curve in ("roc", "pro", "precision"):
        assert content["curves"][curve].keys() == MAPS.keys()
    assert content["curves"]["dice"].keys() == {"model"}
    assert "brightness" in (out / "group.html").read_text()
    for path in out.rglob("*desc-preproc_T1w.nii.gz"):
        path.unlink()
    assert group.run_group(config(out, reference=references)) == 0
    content = json.loads((out / "group_summary.json").read_text())
    assert content["curves"]["roc"].keys() == {"model", "baseline"}
    assert (content["differences"]["brightness"], "brightness_best_dice" in content["pooled"]) == ({}, False)


def test_pooled_numbers_are_those_of_all_voxels_together(tmp_path: Path) -> None:
    out, references = cohort(tmp_path, count=3)
    group.run_group(config(out, reference=references))
    content = json.loads((out / "group_summary.json").read_text())
    maps = [np.asanyarray(nib.load(path).dataobj) for path in sorted(out.rglob("*desc-anomaly_map.nii.gz"))]
    exact, at = best_dice(np.stack(maps), np.stack([truth_mask() > 0] * 6))
    step = score_grid()[-1] / score_grid()[-2]
    assert content["pooled"]["best_dice"] == pytest.approx(exact, abs=0.01)
    assert content["pooled"]["best_dice"] <= exact + 1e-6
    assert 1 / step**3 < content["pooled"]["threshold"] / at < step**3
    bands = content["lesion_recall_by_size"]
    assert sum(band["lesions"] for band in bands) == 6  # one lesion each
    assert [
        band["lesions"] for band in bands if band["from_ml"] <= 0.12 and (band["to_ml"] or 9e9) > 0.12
    ] == [6]
    table = pd.read_csv(out / "group_evaluation.tsv", sep="\t")
    differences = table["wmh_volume_ml"] - table["reference_volume_ml"]
    assert content["volume_agreement"]["bias"] == pytest.approx(differences.mean(), rel=1e-4)
    curves = content["curves"]
    assert curves["roc"]["model"]["mean"][-1] == 1.0
    assert np.all(np.diff(curves["pro"]["model"]["mean"]) >= 0)
    middle = len(curves["ratio"]) // 2
    assert curves["ratio"][middle] == 1.0
    assert curves["dice"]["model"]["low"][middle] <= curves["dice"]["model"]["mean"][middle]


def test_the_summary_repeats_itself_and_one_participant_has_no_interval(tmp_path: Path) -> None:
    out, references = cohort(tmp_path, count=1)
    texts = []
    for _ in range(2):
        group.run_group(config(out, reference=references))
        texts.append((out / "group_summary.json").read_text())
    assert texts[0] == texts[1]
    found = json.loads(texts[0])["measures"]["dice"]
    assert (found["low"], found["high"], found["n"]) == (None, None, 2)


def test_nothing_to_evaluate_is_no_crash() -> None:
    content = summarise([], [], {}, 0)
    assert (content["sessions"], content["measures"]) == (0, {})
    assert content["differences"] == {"brightness": {}, "baseline": {}}
    assert content["volume_agreement"]["bias"] is None


def test_what_cannot_be_evaluated_does_not_stop_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("bids_wmh_uad").propagate = True
    out, references = tmp_path / "out", tmp_path / "ref"
    paths = {subject: write_session(out, subject, "1") for subject in ("good", "none", "other")}
    write_failure(out, "failed", "1", "it broke")
    save(reference_path(references, "good", "1"), truth_mask())
    save(reference_path(references, "other", "1"), truth_mask()[:-1])
    save(reference_path(references, "failed", "1"), truth_mask())
    assert group.run_group(config(out, reference=references)) == EXIT_SESSION_FAILED
    table = pd.read_csv(out / "group_evaluation.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table["participant_id"]) == ["sub-good", "sub-other"]
    assert list(table["dice"]) == ["1", "n/a"]
    assert list(table["wmh_volume_ml"]) == ["0.12", "0.12"]
    assert NO_REFERENCE.format(where=paths["none"].name, path=references) in caplog.text
    content = json.loads((out / "group_summary.json").read_text())
    assert (content["sessions"], content["measures"]["dice"]["n"]) == (2, 1)


def test_a_missing_reference_dataset_is_said(tmp_path: Path) -> None:
    write_session(tmp_path / "out", "1")
    with pytest.raises(MissingInputError) as raised:
        group.run_group(config(tmp_path / "out", reference=tmp_path / "none"))
    assert str(raised.value) == NO_SUCH_DIRECTORY.format(path=tmp_path / "none")


def test_ap_is_that_of_the_voxels_in_the_brain(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    rng = np.random.default_rng(5)
    score = rng.normal(size=SHAPE).astype(np.float32)
    brain = rng.random(SHAPE) < 0.7
    save(result_path(path, "anomaly"), score)
    save(result_path(path, "brain"), brain.astype(np.uint8))
    row = measures_of(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert row["ap"] == pytest.approx(average_precision(score[brain], truth_mask()[brain] > 0))
