"""Tables of lesions and of rejected candidates."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scenes import run, scene

from bids_wmh_uad.bids.tables import TABLE_COLUMNS, write_lesion_table

if TYPE_CHECKING:
    pass


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_both_tables_are_bids_lookup_tables(tmp_path: Path) -> None:
    found = scene(4).judged(8.0, accept=0.3, threshold="tail=1.5")
    for lesions in (found.lesions, found.rejected):
        rows = read(write_lesion_table(tmp_path / "lesions.tsv", lesions))
        assert tuple(rows[0]) == TABLE_COLUMNS
        assert tuple(rows[0])[:2] == ("index", "name")
        assert [int(row["index"]) for row in rows] == sorted(set(np.unique(lesions.labels)) - {0})
        assert len({row["name"] for row in rows}) == len(rows) > 1
        columns = (lesions.rows, lesions.candidates, lesions.probabilities, lesions.reasons, lesions.places)
        for row, lesion, candidate, probability, reason, place in zip(rows, *columns, strict=True):
            assert int(row["n_voxels"]) == (lesions.labels == lesion.index).sum()
            assert float(row["volume_mm3"]) == pytest.approx(lesion.volume_mm3, abs=1e-4)
            assert float(row["probability"]) == pytest.approx(probability, abs=1e-4)
            assert row["reason"] == (reason or "n/a")
            assert row["region"] == place.region
            for name in ("peak", "thickness_mm", "white", "fluid", "contrast", "latent"):
                assert float(row[name]) == pytest.approx(getattr(candidate, name), abs=1e-4)


def test_a_table_has_n_a_for_what_was_not_judged_or_is_endless(tmp_path: Path) -> None:
    found = scene(4, ventricles=False).segment("value=2.5", 8.0)
    rows = read(write_lesion_table(tmp_path / "t.tsv", found.lesions))
    assert rows
    judged = TABLE_COLUMNS[TABLE_COLUMNS.index("probability") :]
    assert {row["ventricle_distance_mm"] for row in rows} == {"n/a"}
    assert {row[name] for row in rows for name in judged} == {"n/a"}
    assert all(float(row["volume_mm3"]) > 0 for row in rows)
    lesions = scene(4).judged(8.0).lesions
    endless = replace(lesions, candidates=tuple(replace(x, peak=np.inf) for x in lesions.candidates))
    assert {row["peak"] for row in read(write_lesion_table(tmp_path / "t.tsv", endless))} == {"n/a"}


def test_a_table_without_lesions_has_its_header(tmp_path: Path) -> None:
    write_lesion_table(tmp_path / "t.tsv", run(0, "value=1e9").lesions)
    assert (tmp_path / "t.tsv").read_text() == "\t".join(TABLE_COLUMNS) + "\n"
