"""``group_change.tsv``: a row for each pair of sessions, and change per year where times are known."""

import csv
import json

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.core.change.tracking import STATUSES
from bids_wmh_uad.group.change import CHANGE_TABLE_COLUMNS, write_change


def compared(root, subject, *pairs):
    path = derivatives.longitudinal_path(root, subject)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"participant_id": f"sub-{subject}", "pairs": pairs}))


def pair(years, **values):
    counts = {f"{status}_count": 1 for status in STATUSES}
    known = {"session_before": "ses-1", "session_after": "ses-2", "kind": "consecutive", "years": years}
    change = {"change_ml": 0.5, "change_ml_lower": 0.2, "change_ml_upper": 0.8}
    return known | counts | change | {"warnings": [{"code": "OTHER_VOXELS", "text": "x"}]} | values


def read(path):
    with path.open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_a_row_for_each_pair_and_change_per_year(tmp_path):
    compared(tmp_path, "1", pair(2.0), pair(None), pair(0.0))
    compared(tmp_path, "2", pair(0.5, change_ml=None))
    assert write_change(tmp_path, ["sub-1", "sub-2", "sub-3"]) == 4
    rows = read(tmp_path / "group_change.tsv")
    assert list(rows[0]) == list(CHANGE_TABLE_COLUMNS)
    assert [row["participant_id"] for row in rows] == ["sub-1"] * 3 + ["sub-2"]
    assert [row["change_ml_per_year"] for row in rows] == ["0.25", "n/a", "n/a", "n/a"]
    assert [row["change_ml_upper_per_year"] for row in rows] == ["0.4", "n/a", "n/a", "1.6"]
    assert {row["warnings"] for row in rows} == {"1"}
    described = json.loads((tmp_path / "group_change.json").read_text())
    assert list(described) == sorted(CHANGE_TABLE_COLUMNS)


def test_without_comparisons_there_is_no_table(tmp_path):
    assert write_change(tmp_path, ["sub-1"]) == 0
    assert not (tmp_path / "group_change.tsv").exists()
