"""Scans that are broken on purpose: each is doubted aloud, and the intact pair is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from broken import BROKEN
from program import participant

from bids_wmh_uad import errors
from bids_wmh_uad.bids import derivatives

if TYPE_CHECKING:
    from pathlib import Path

    from program import Run

    from bids_wmh_uad.phantom import PhantomSubject

pytestmark = pytest.mark.slow

EXPECTED = {
    "intact": None,
    "constant": errors.EMPTY_IMAGE,
    "dropped": errors.EMPTY_BRAIN,
    "duplicate": errors.SAME_CONTRAST,
    "halfbrain": errors.ODD_VOLUME,
    "halft1w": errors.POOR_ALIGNMENT,
    "invertedflair": errors.FLUID_CONTRAST,
    "invertedt1w": errors.POOR_TEMPLATE,
    "noisy": errors.NOISY,
    "scrambled": errors.NO_VENTRICLES,
    "slab": errors.CUT_BRAIN,
    "swapped": errors.FLAIR_CONTRAST,
    "thick": errors.THICK_SLICES,
    "turned": errors.POOR_TEMPLATE,
    "upsidedown": errors.POOR_ALIGNMENT,
    "voxelsize": errors.ODD_VOLUME,
}


@pytest.fixture(scope="module")
def run(phantom: PhantomSubject, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("broken")
    bids = root / "bids"
    for label, spoil in BROKEN.items():
        anat = bids / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        for suffix, image in zip(("FLAIR", "T1w"), spoil((phantom.flair, phantom.t1w)), strict=True):
            image.to_filename(anat / f"sub-{label}_{suffix}.nii.gz")
    (bids / "dataset_description.json").write_text(json.dumps({"Name": "broken", "BIDSVersion": "1.10.0"}))
    # what is wrong is found before anything is scored
    return participant(bids, root / "out", model_dir, "--score", "brightness")


def test_every_kind_is_expected() -> None:
    assert set(EXPECTED) == set(BROKEN)


@pytest.mark.parametrize("label", BROKEN)
def test_the_summary_and_the_page_say_what_is_wrong(run: Run, label: str) -> None:
    page = (run.output_dir / f"sub-{label}.html").read_text(encoding="utf-8")
    found = sorted((run.output_dir / f"sub-{label}" / "anat").glob("*_summary.json"))
    summary = derivatives.read_summary(found[0])
    warnings, expected = summary.get("warnings", []), EXPECTED[label]
    if expected is None:
        assert (warnings, summary.get("reason")) == ([], None)
        assert "No warnings." in page
        return
    template = expected.template if isinstance(expected, errors.WarningText) else expected
    part = max(template.replace("{", "}").split("}")[::2], key=len)  # its longest part without numbers
    if isinstance(expected, errors.WarningText):
        assert expected.code in [warning["code"] for warning in warnings]
    else:
        assert part in summary["reason"]
    assert part.replace("'", "&#39;") in page
