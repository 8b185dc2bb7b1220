"""What the summary says of raw scans: the grid from the header, settings as BIDS inherits them, nothing from what cannot be read."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.bids.sidecars import LONGEST_SETTING, SCAN_SETTINGS, describe_scan
from bids_wmh_uad.reports.readers import list_inputs

if TYPE_CHECKING:
    from pathlib import Path

TIMES = "\N{MULTIPLICATION SIGN}"
PREFIX = "sub-01_ses-a_acq-3D_run-1"


def dataset(directory: Path, **sidecars: object) -> Path:
    """A scan, and sidecars by their place: ``root``, ``subject`` (no acq), ``own``, ``other`` (of another acquisition)."""
    anat = directory / "sub-01" / "ses-a" / "anat"
    anat.mkdir(parents=True)
    scan = anat / f"{PREFIX}_FLAIR.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 8), np.uint8), np.diag([1.0, 0.9375, 3.0, 1])), scan)
    places = {
        "root": directory / "FLAIR.json",
        "subject": directory / "sub-01" / "sub-01_FLAIR.json",
        "own": anat / f"{PREFIX}_FLAIR.json",
        "less": anat / "sub-01_ses-a_FLAIR.json",
        "other": anat / "sub-01_ses-a_acq-2D_FLAIR.json",
        "t1w": directory / "T1w.json",
    }
    for name, content in sidecars.items():
        places[name].write_text(content if isinstance(content, str) else json.dumps(content))
    return scan


def test_the_grid_is_the_header_s(tmp_path: Path) -> None:
    assert describe_scan(dataset(tmp_path), tmp_path) == {
        "file": f"bids:raw:sub-01/ses-a/anat/{PREFIX}_FLAIR.nii.gz",
        "voxel_size_mm": [1.0, 0.9375, 3.0],
        "matrix": [6, 7, 8],
    }


def test_nearer_and_more_special_sidecars_overrule(tmp_path: Path) -> None:
    scan = dataset(
        tmp_path,
        root={"EchoTime": 1, "RepetitionTime": 1, "InversionTime": 1, "FlipAngle": 1, "Manufacturer": "A"},
        subject={"RepetitionTime": 2, "InversionTime": 2, "FlipAngle": 2},
        less={"InversionTime": 3, "FlipAngle": 3},
        own={"FlipAngle": 4},
        other={"EchoTime": 9, "FlipAngle": 9},
        t1w={"MagneticFieldStrength": 9},
    )
    found = describe_scan(scan, tmp_path)
    assert {key: found[key] for key in SCAN_SETTINGS if key in found} == {
        "EchoTime": 1, "RepetitionTime": 2, "InversionTime": 3, "FlipAngle": 4, "Manufacturer": "A",
    }  # fmt: skip


@pytest.mark.parametrize("broken", ["", "[1]", "{", '{"EchoTime": NaN}', '{"EchoTime": ""}'])
def test_what_cannot_be_read_is_left_out(broken: str, tmp_path: Path) -> None:
    scan = dataset(tmp_path, root={"FlipAngle": 9}, own=broken)
    found = describe_scan(scan, tmp_path)
    assert found["FlipAngle"] == 9
    assert "EchoTime" not in found


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    scan = dataset(tmp_path, root={"FlipAngle": 9})
    os.mkfifo(scan.parent / f"{PREFIX}_FLAIR.json")
    assert describe_scan(scan, tmp_path)["FlipAngle"] == 9


@pytest.mark.parametrize("value", [None, True, [1, 2], {"a": 1}, "x" * (LONGEST_SETTING + 1)])
def test_only_short_texts_and_numbers_are_kept(value: Any, tmp_path: Path) -> None:
    scan = dataset(tmp_path, own={"Manufacturer": value, "EchoTime": 0.1})
    found = describe_scan(scan, tmp_path)
    assert "Manufacturer" not in found
    assert found["EchoTime"] == 0.1


def test_the_page_s_table_has_the_columns_that_a_scan_gives(tmp_path: Path) -> None:
    flair = describe_scan(dataset(tmp_path, own={"EchoTime": 0.125, "Manufacturer": "A & B"}), tmp_path)
    table = list_inputs(
        {"inputs": {"FLAIR": flair, "T1w": {"file": "bids:raw:x", "MagneticFieldStrength": 3}}}
    )
    assert table.titles == ("voxel size, mm", "matrix", "field, T", "manufacturer", "TE, s")
    assert table.rows == (
        (
            "FLAIR",
            f"sub-01/ses-a/anat/{PREFIX}_FLAIR.nii.gz",
            ("1 x 0.9375 x 3".replace("x", TIMES), "6 x 7 x 8".replace("x", TIMES), "n/a", "A & B", "0.125"),
        ),
        ("T1w", "x", ("n/a", "n/a", "3", "n/a", "n/a")),
    )
    for nothing in ({}, {"inputs": None}, {"inputs": {"FLAIR": "x"}}):
        assert list_inputs(nothing).rows == ()
