"""One raw and one MNI-space session of real patients, end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from program import IMAGES, participant, validator_errors

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import EXIT_OK

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


@pytest.mark.parametrize(("dataset", "label"), [("ms-raw", "lg04"), ("ms-mni", "cs26")])
def test_a_real_session(realdata: Path, model_dir: Path, tmp_path: Path, dataset: str, label: str) -> None:
    bids_dir, out = realdata / dataset, tmp_path / "out"
    if not bids_dir.is_dir():
        pytest.skip(f"no {bids_dir}")
    ran = participant(bids_dir, out, model_dir, "--participant-label", label, "-w", tmp_path / "work")
    assert ran.code == EXIT_OK, ran.log
    (session,), _ = find_sessions(bids_dir, Selection(participant_label=(label,)))
    flair = nib.load(session.flair)
    for name in IMAGES:
        image = nib.load(derivatives.output_path(out, session, name))
        assert image.shape == flair.shape[:3]
        np.testing.assert_array_equal(image.affine, flair.affine)
    summary = derivatives.read_summary(derivatives.output_path(out, session, "summary"))
    assert 800 < summary["icv_ml"] < 2200
    assert summary["registration_overlap"] > 0.9
    assert validator_errors(out) == []
