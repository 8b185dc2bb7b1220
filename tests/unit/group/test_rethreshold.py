"""New masks at another threshold, and the cohort's prevalence map."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohorts import AFFINE, SHAPE, VOXEL_ML, config, reference_path, save, truth_mask, write_session

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.config import Method
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.errors import EXIT_OK, EXIT_SESSION_FAILED, HIGH_LOAD, BadDataError, UsageError
from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.prevalence import RESOLUTION, lesion_voxels
from bids_wmh_uad.group.rethreshold import MASK, threshold_label
from bids_wmh_uad.group.scans import read_lobes, read_tissue
from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.registration import read_transform


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def tree(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("rule", "label"),
    [("tail=2.5", "tail2p5"), ("tail", "tail3p5"), ("value=-1.25", "valuem1p25"), ("quantile=0.995", "quantile0p995"), ("value=1e-9", "value1em09")],
)  # fmt: skip
def test_labels_are_what_bids_allows(rule: str, label: str) -> None:
    assert threshold_label(rule) == label
    assert label.isalnum()


def test_new_masks_and_tables_beside_the_old(tmp_path: Path) -> None:
    out, references = tmp_path / "out", tmp_path / "ref"
    path = write_session(out, "1", "1", mask=np.zeros(SHAPE, np.uint8))
    score = truth_mask() * 2.0
    score[10, 10, 1] = 3.0  # 3 mm3: dropped
    score[12:14, 10, 1] = 1.0
    save(result_path(path, "anomaly"), score.astype(np.float32))
    save(reference_path(references, "1", "1"), truth_mask())
    group.run_group(config(out))
    before = tree(out)
    assert group.run_group(config(out, reference=references, threshold="value=1.5")) == EXIT_OK
    assert {path: content for path, content in tree(out).items() if path in before} == before
    new = Path(str(path).replace(derivatives.OUTPUTS["summary"], MASK.format(desc="value1p5")))
    mask = nib.load(new)
    np.testing.assert_array_equal(mask.dataobj, truth_mask())
    np.testing.assert_array_equal(mask.affine, AFFINE)
    assert mask.get_data_dtype() == np.uint8
    threshold = {"name": "value", "parameter": 1.5, "value": 1.5}
    assert json.loads(derivatives.sidecar_path(new).read_text())["Threshold"] == threshold
    row = table(out / "group_desc-value1p5_wmh.tsv").iloc[0]
    volume = truth_mask().sum() * VOXEL_ML
    assert float(row["wmh_volume_ml"]) == pytest.approx(volume)
    assert float(row["wmh_percent_icv"]) == pytest.approx(100 * volume / 1.2)
    assert (row["threshold"], row["threshold_rule"], row["lesion_count"]) == ("1.5", "value=1.5", "1")
    assert table(out / "group_desc-value1p5_evaluation.tsv")["dice"][0] == "1"
    assert (out / "group_desc-value1p5.html").is_file()
    less = config(out, method=Method(min_lesion_volume=0.0), threshold="value=0.5")
    group.run_group(less)
    assert table(out / "group_desc-value0p5_wmh.tsv")["lesion_count"][0] == "3"


WEIGHTS = LesionDecision(intercept=-1.5, peak=1.5, white=1.0, fluid=-1.5, contrast=0.2, latent=(1.0, -1.0))
"""By which some of the candidates below are lesions; their evidence has a say."""


def judged_session(out: Path, rule: str) -> tuple[Path, dict[str, Any]]:
    """A session of random scores whose mask the participant level's step made; its measures."""
    from bids_wmh_uad.interfaces.lesions import SegmentLesions

    path, rng = write_session(out, "1"), np.random.default_rng(3)
    save(result_path(path, "anomaly"), rng.gamma(1, 1, SHAPE).astype(np.float32))
    save(result_path(path, "evidence"), rng.normal(0, 2, SHAPE).astype(np.float32))
    tissue, _ = read_tissue(path)
    regions = np.asanyarray(nib.load(result_path(path, "regions")).dataobj)
    lobes = read_lobes(path, regions, tissue.mask, AFFINE)
    made = {"flair": tissue.flair_z, "t1w": tissue.t1w_z, "gm": tissue.grey, "lobes": lobes}
    parameters = Method(threshold=rule, min_lesion_volume=3.0, accept=0.4).parameters
    step = SegmentLesions(
        **{name: str(save(out / "z" / f"{name}.nii", data.astype(np.float32))) for name, data in made.items()},
        **{name: str(result_path(path, name)) for name in ("anomaly", "regions", "evidence")},
        brain_mask=str(result_path(path, "brain")), parameters=parameters.of_mask(), decision=asdict(WEIGHTS),
    ).run(cwd=str(out / "z")).outputs  # fmt: skip
    labels = np.asanyarray(nib.load(step.lesions).dataobj)
    save(result_path(path, "mask"), (labels > 0).astype(np.uint8))
    result_path(path, "table").write_bytes(Path(step.table).read_bytes())
    sidecar = derivatives.sidecar_path(result_path(path, "evidence"))
    sidecar.write_text(json.dumps({"LesionDecision": asdict(WEIGHTS)}))
    return path, step.measures


def test_the_sessions_own_rule_gives_its_own_mask_and_numbers(tmp_path: Path) -> None:
    rule = "tail=1.5"
    path, measures = judged_session(tmp_path, rule)
    assert measures["lesion_count"] > 1
    assert measures["rejected_count"] > 1
    method = Method(min_lesion_volume=3.0, accept=0.4)
    label = threshold_label(rule, method.accept)
    assert label == "tail1p5accept0p4"
    new = Path(str(path).replace(derivatives.OUTPUTS["summary"], MASK.format(desc=label)))

    def again(**changes: Any) -> pd.Series:
        chosen = replace(method, **changes)
        assert group.run_group(config(tmp_path, method=chosen, threshold=rule)) == EXIT_OK
        return table(tmp_path / f"group_desc-{threshold_label(rule, chosen.accept)}_wmh.tsv").iloc[0]

    row, own = again(), np.asanyarray(nib.load(result_path(path, "mask")).dataobj)
    np.testing.assert_array_equal(nib.load(new).dataobj, own)
    for name in ("wmh_volume_ml", "lesion_count", "rejected_count", "volume_ml_lower", "volume_ml_upper",
                 "volume_ml_threshold_minus20", "volume_ml_threshold_plus20", "unstable_volume",
                 *(name for name in measures if name.startswith(("wmh_volume_ml_", "lesion_count_", "fazekas_")))):  # fmt: skip
        assert float(row[name]) == pytest.approx(measures[name], rel=1e-5)
    lobes = [
        measures[name] for name in measures if name.startswith(("wmh_volume_ml_left", "wmh_volume_ml_right"))
    ]
    assert sum(lobes) + measures["wmh_volume_ml_other"] == pytest.approx(measures["wmh_volume_ml"], abs=1e-3)
    assert sum(lobes) > 0
    group.run_group(config(tmp_path))
    lesions = [(tmp_path / f"group_{start}lesions.tsv").read_bytes() for start in ("", f"desc-{label}_")]
    assert lesions[0] == lesions[1]
    assert int(again(accept=0.0)["lesion_count"]) > measures["lesion_count"]
    assert again(accept=1.0)["lesion_count"] == "0"
    # the evidence and the weights are the session's
    save(result_path(path, "evidence"), np.full(SHAPE, -50, np.float32))
    assert again()["lesion_count"] == "0"
    save(result_path(path, "evidence"), np.full(SHAPE, 50, np.float32))
    assert int(again()["lesion_count"]) > measures["lesion_count"]
    derivatives.sidecar_path(result_path(path, "evidence")).write_text(
        json.dumps({"LesionDecision": asdict(LesionDecision(intercept=-99))})
    )
    assert again()["lesion_count"] == "0"


@pytest.mark.parametrize("recorded", [{"bias": 1}, {"peak": "x"}, [1]])
def test_a_decision_that_cannot_be_read_is_said(tmp_path: Path, recorded: Any) -> None:
    path = write_session(tmp_path, "1")
    derivatives.sidecar_path(result_path(path, "evidence")).write_text(
        json.dumps({"LesionDecision": recorded})
    )
    assert group.run_group(config(tmp_path, threshold="tail=2")) == EXIT_SESSION_FAILED
    reason = table(tmp_path / "group_desc-tail2_wmh.tsv")["reason"][0]
    assert derivatives.sidecar_path(result_path(path, "evidence")).name in reason


def test_results_that_cannot_be_used_fail_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, _ = write_session(tmp_path, "1"), write_session(tmp_path, "2")
    result_path(first, "anomaly").write_bytes(b"")
    assert group.run_group(config(tmp_path, threshold="value=0.9")) == EXIT_SESSION_FAILED
    rows = table(tmp_path / "group_desc-value0p9_wmh.tsv")
    assert list(rows["status"]) == ["failed", "done"]
    assert result_path(first, "anomaly").name in rows["reason"][0]
    assert result_path(first, "anomaly").name in caplog.text
    assert list(rows["wmh_volume_ml"]) == ["n/a", "0.12"]


def test_the_warning_about_the_load_is_the_new_masks_own(tmp_path: Path) -> None:
    path = write_session(tmp_path, "1")
    summary = json.loads(path.read_text())
    kept = {"code": "POOR_ALIGNMENT", "text": "The scans are misaligned."}
    summary["warnings"] = [kept, "of an older version", asdict(HIGH_LOAD.format(percent=5.2))]
    path.write_text(json.dumps(summary))
    for rule, warnings in (("value=0.01", "3"), ("value=5", "2")):
        group.run_group(config(tmp_path, threshold=rule))
        desc = threshold_label(rule)
        assert table(tmp_path / f"group_desc-{desc}_wmh.tsv")["warnings"][0] == warnings


def test_a_bad_rule_is_a_usage_error(tmp_path: Path) -> None:
    write_session(tmp_path, "1")
    with pytest.raises(UsageError, match="--threshold"):
        group.run_group(config(tmp_path, threshold="best"))


# ------------------------------------------------------------------ transforms and prevalence


def test_transforms_are_read_as_they_were_written(tmp_path: Path) -> None:
    matrix = np.eye(4)
    matrix[:3] += np.random.default_rng(0).normal(size=(3, 4)) * [0.1, 0.1, 0.1, 20]
    path = tmp_path / "xfm.txt"
    path.write_text(registration.itk_text(matrix))
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-9)
    for wrong in ("", "Parameters: 1 2 3\n", "Parameters: " + "0 " * 12):
        path.write_text(wrong)
        with pytest.raises(BadDataError, match=r"xfm\.txt"):
            read_transform(path)
    with pytest.raises(BadDataError, match="none"):
        read_transform(tmp_path / "none")


@pytest.mark.parametrize("zooms", [(1, 1, 1), (1, 1, 6), (0.7, 3, 0.7)])
def test_lesions_keep_their_volume_and_place_in_the_template(
    tmp_path: Path, zooms: tuple[float, ...]
) -> None:
    """A ball moved, turned and stretched: its voxels in the template are where the transform takes it."""
    shape = tuple(int(70 / zoom) for zoom in zooms)
    affine = np.diag([*zooms, 1.0])
    world = np.moveaxis(np.indices(shape), 0, -1) * zooms
    ball = ((world - 35) ** 2).sum(-1) < 20**2
    matrix = np.array([[0, -1.1, 0, 60], [1, 0, 0, -40], [0, 0, 0.9, 5], [0, 0, 0, 1.0]])
    mask = save(tmp_path / "mask.nii.gz", ball.astype(np.uint8), affine)
    (tmp_path / "xfm.txt").write_text(registration.itk_text(matrix))
    grid = np.diag([2.0, 2, 2, 1])
    grid[:3, 3] = [-40, -60, -20]
    found = np.zeros((60, 60, 60), dtype=bool)
    found.ravel()[lesion_voxels((mask, tmp_path / "xfm.txt"), grid, found.shape)] = True
    centre = (matrix @ [35, 35, 35, 1])[:3]
    at = np.argwhere(found).mean(axis=0) * 2 + grid[:3, 3]
    np.testing.assert_allclose(at, centre, atol=0.8)
    assert found.sum() * 8 == pytest.approx(ball.sum() * np.prod(zooms) * 0.99, rel=0.05)


def test_prevalence_gives_every_participant_one_vote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    big = np.zeros(SHAPE, np.uint8)
    big[2:12, 2:12, 1:5] = 1
    for subject, session, mask in (
        ("1", "1", big),
        ("1", "2", 0 * big),
        ("2", "1", big),
        ("3", "1", 0 * big),
    ):
        write_session(tmp_path, subject, session, mask=mask)
    broken = write_session(tmp_path, "4", "1", mask=big)
    result_path(broken, "flair_to_template").unlink()
    assert group.run_group(config(tmp_path)) == EXIT_OK
    path = next(tmp_path.glob("group_*prevalence_map.nii.gz"))
    image = nib.load(path)
    data = image.get_fdata()
    assert data.max() == pytest.approx((0.5 + 1 + 0) / 3, abs=1e-6)
    assert (data > 0).sum() * RESOLUTION**3 == pytest.approx(big.sum() * 3, rel=0.25)
    meta = json.loads(derivatives.sidecar_path(path).read_text())
    assert (meta["Participants"], meta["Sessions"]) == (3, 4)
    assert result_path(broken, "flair_to_template").name in caplog.text
