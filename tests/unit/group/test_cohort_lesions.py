"""``group_lesions.tsv``: every lesion of the cohort, where it is in the template, and what is said of each column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import SHAPE, config, summary, write_failure, write_session, write_summary

from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.errors import EXIT_OK
from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.lesions import COHORT_LESION_COLUMNS
from bids_wmh_uad.imaging import registration

HEAD = "index\tname\tregion\tlobe\tvolume_mm3\tx\ty\tz\n"


def lesions(summary_path: Path, *rows: str) -> None:
    result_path(summary_path, "table").write_text(HEAD + "".join(f"{row}\n" for row in rows))


def table(out: Path, name: str = "group_lesions") -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.tsv", sep="\t", dtype=str, keep_default_na=False)


def test_one_row_a_lesion_with_its_place_in_the_template(tmp_path: Path) -> None:
    first, second = (write_session(tmp_path, "1", session) for session in ("1", "2"))
    lesions(first, "1\tlesion-1\tdeep\tleft_frontal\t30\t1\t2\t3", "2\tlesion-2\tdeep\tother\t9\t4\t5\t6")
    lesions(second, "1\tlesion-1\tperiventricular\tright_insula\t12\t-1\t0\t2.5")
    lesions(write_session(tmp_path, "2"))  # none
    write_failure(tmp_path, "3", None, "it broke")
    matrix = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]])
    result_path(second, "flair_to_template").write_text(registration.itk_text(matrix))
    assert group.run_group(config(tmp_path)) == EXIT_OK
    found = table(tmp_path)
    assert list(found.columns) == list(COHORT_LESION_COLUMNS)
    about = json.loads((tmp_path / "group_lesions.json").read_text())
    assert about == COHORT_LESION_COLUMNS
    assert all(entry["Description"] for entry in about.values())
    assert list(zip(found["session_id"], found["index"], strict=True)) == [
        ("ses-1", "1"),
        ("ses-1", "2"),
        ("ses-2", "1"),
    ]
    assert list(found["lobe"]) == ["left_frontal", "other", "right_insula"]
    assert list(found["probability"]) == ["n/a"] * 3  # these tables have no such column
    places = found[["mni_x", "mni_y", "mni_z"]].astype(float).to_numpy()
    np.testing.assert_allclose(places, [[1, 2, 3], [4, 5, 6], [10, 19, 35]])


def test_without_a_transform_there_is_no_place_and_without_a_table_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lesions(write_summary(tmp_path, summary("1")), "1\tlesion-1\tdeep\tother\t30\t1\t2\t3")
    broken = write_summary(tmp_path, summary("2"))
    result_path(broken, "table").write_bytes(b"\xff\xfe\0")
    assert group.run_group(config(tmp_path)) == EXIT_OK
    found = table(tmp_path)
    assert list(found["participant_id"]) == ["sub-1"]
    assert set(found[["mni_x", "mni_y", "mni_z"]].to_numpy().ravel()) == {"n/a"}
    assert str(result_path(broken, "table")) in caplog.text


def test_another_threshold_has_its_own_lesions(tmp_path: Path) -> None:
    path = write_session(tmp_path, "1", mask=np.zeros(SHAPE, np.uint8))
    lesions(path)
    group.run_group(config(tmp_path, threshold="quantile=0.99"))
    found = table(tmp_path, "group_desc-quantile0p99_lesions")
    count = table(tmp_path, "group_desc-quantile0p99_wmh")["lesion_count"][0]
    assert len(found) == int(count) > 0
    assert set(found["participant_id"]) == {"sub-1"}
    np.testing.assert_allclose(
        found[["mni_x", "mni_y", "mni_z"]].astype(float), found[["x", "y", "z"]].astype(float), atol=0.051
    )
