"""Names of scans: what they say, what is made of them, and what the official validator says to that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.names import LABEL, ignored_paths, read_name, read_place, result_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sub-1_FLAIR.nii.gz", ()),
        ("sub-1_ses-2_acq-3D_rec-nonorm_run-1_T1w.nii", ()),
        ("sub-1_part-mag_T1w.nii.gz", ()),
        ("sub-1_run-a_T1w.nii.gz", ()),
        ("sub-1_ce-gadolinium_T1w.nii.gz", ("ce-gadolinium",)),
        ("sub-1_inv-1_part-mag_T1w.nii.gz", ("inv-1",)),
        ("sub-1_echo-1_desc-preproc_T1w.nii.gz", ("echo-1", "desc-preproc")),
        ("sub-1_space-MNI_mod-T1w_T1w.nii.gz", ("space-MNI", "mod-T1w")),
        ("sub-1_orig_acq-a.b_T1w.nii.gz", ("orig", "acq-a.b")),
        ("sub-1_acq-a_acq-b_T1w.nii.gz", ("acq-b",)),
        ("sub-1_part-phase_T1w.nii.gz", ("part-phase",)),
    ],
)
def test_what_a_name_says_of_the_image(name: str, changes: Sequence[str]) -> None:
    assert read_name(name).changes == changes


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("sub-1/anat/x.nii", ("1", None)),
        ("sub-1/ses-a2/anat/x.nii", ("1", "a2")),
        ("sub-1/anat/.x.nii", None),
        ("sub-1/anat/more/x.nii", None),
        ("sub-1/extra/anat/x.nii", None),
        ("sub-1_old/anat/x.nii", None),
        ("sub-1.bak/anat/x.nii", None),
        ("sub-1/ses-1 (copy)/anat/x.nii", None),
        ("sub-1/ses-1/ses-2/anat/x.nii", None),
        ("fmriprep/sub-1/anat/x.nii", None),
        ("sub-1/sub-1/anat/x.nii", None),
        ("sub-1/x.nii", None),
        ("x.nii", None),
    ],
)
def test_only_one_place_holds_scans(path: str, place: tuple[str, str | None] | None) -> None:
    assert read_place(PurePath(path)) == place
    opened = path.endswith(".nii") and ignored_paths().search(f"/{path}") is None
    assert opened == (place is not None)


def test_an_index_of_some_participants_opens_theirs_only() -> None:
    pattern = ignored_paths(("1", "2+3"))
    opened = [
        "/sub-1", "/sub-1/", "/sub-1/anat", "/sub-2+3/ses-1", "/sub-2+3/ses-1/anat/sub-2+3_T1w.nii.gz",
    ]  # fmt: skip
    assert [path for path in opened if pattern.search(path)] == []
    closed = ["/sub-10", "/sub-2", "/sub-1/anat/more", "/sub-1/func", "/sub-1/anat/x.json", "/code", "/x.nii"]
    assert [path for path in closed if not pattern.search(path)] == []


@pytest.mark.parametrize(
    ("name", "belongs"),
    [
        ("sub-1_ses-2_T1w.nii", True),
        ("sub-1_T1w.nii", True),
        ("sub-1_acq-x_ses-2_T1w.nii", True),
        ("sub-1_ses-3_T1w.nii", False),
        ("sub-11_ses-2_T1w.nii", False),
        ("ses-2_T1w.nii", False),
        ("003_sub-1_ses-2_T1w.nii", False),
        ("acq-a_sub-1_T1w.nii", False),
    ],
)
def test_whose_scan_a_name_says_it_is(name: str, belongs: bool) -> None:
    assert read_name(name).belongs_to("1", "2") is belongs


@given(label=st.from_regex(LABEL, fullmatch=True), run=st.integers(0, 999), order=st.permutations(range(4)))
def test_the_order_of_entities_does_not_matter(label: str, run: int, order: list[int]) -> None:
    parts = [f"acq-{label}", f"run-{run}", f"rec-{label}", "ses-2"]
    scan = Path("_".join(["sub-1", *(parts[number] for number in order), "FLAIR.nii.gz"]))
    assert result_prefix("1", "2", scan) == f"sub-1_ses-2_acq-{label}_rec-{label}_run-{run}"


ODD = [
    "FLAIR", "run-1_acq-3D_FLAIR", "acq-FLAIR_T2w", "UNIT1", "acq-ax.2d_old_FLAIR", "inv-1_echo-1_FLAIR",
    "chunk-2_mt-on_ce-gd_FLAIR", "run-x_echo-a_FLAIR", "desc-preproc_space-T1w_FLAIR", "rec-a_rec-b_FLAIR",
    "part-mag_task-rest_acq-3D+x_run-02_FLAIR", "Acq-2D_sample-1_FLAIR",
]  # fmt: skip
"""Ends of FLAIRs' names, valid and not."""


@pytest.mark.parametrize("session", [None, "1"])
def test_names_of_results_are_valid_bids(tmp_path: Path, session: str | None) -> None:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = str(beside) if beside.is_file() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    derivatives.write_dataset_files(tmp_path, Path("/raw"))
    for number, end in enumerate(ODD):
        scan = Path(f"sub-{number}_{end}.nii.gz")  # without its session
        found = Session(str(number), session, scan, scan)
        for output in derivatives.OUTPUTS:
            path = derivatives.output_path(tmp_path, found, output)
            path.parent.mkdir(parents=True, exist_ok=True)
            if output in derivatives.IMAGE_TYPES:
                nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)
                about = {"Type": "Lesion", "SkullStripped": False, "Sources": [], "SpatialReference": "x"}
                derivatives.sidecar_path(path).write_text(json.dumps(about))
            else:
                path.write_text("{}" if output == "summary" else "index\tname\n1\tx\n")
    command = [validator, "--ignoreWarnings", "--format", "json", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    issues = json.loads(ran.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("location")) for issue in issues] == []
