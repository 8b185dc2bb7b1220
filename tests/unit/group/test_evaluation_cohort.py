"""What the evaluations of a cohort add up to."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohorts import (
    SHAPE,
    config,
    measures_of,
    reference_path,
    save,
    truth_mask,
    write_failure,
    write_session,
)

from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.core.evaluation.threshold_free import average_precision, best_dice
from bids_wmh_uad.errors import (
    EXIT_SESSION_FAILED,
    NO_REFERENCE,
    NO_SUCH_DIRECTORY,
    MissingInputError,
)
from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.evaluation import MAPS, score_grid
from bids_wmh_uad.group.statistics import PAIRED, summarise

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
    assert set(wmh["age"]) == {60}
    assert set(content["by"]) == {"Scanner"}
    assert "Scanner" in json.loads((out / "group_wmh.json").read_text())


def test_a_session_without_brightness_is_n_a_and_the_cohort_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, references = cohort(tmp_path, count=3)
    for path in sorted(out.rglob("*desc-brightness_map.nii.gz"))[:2]:
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
    for path in out.rglob("*desc-brightness_map.nii.gz"):
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
