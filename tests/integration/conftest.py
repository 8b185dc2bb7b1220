"""One run of the program on phantoms that all integration tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from program import Run, participant, save, turned

if TYPE_CHECKING:
    from bids_wmh_uad.phantom import PhantomSubject


@pytest.fixture(scope="session")
def bids_dir(tmp_path_factory: pytest.TempPathFactory, phantom: PhantomSubject) -> Path:
    """Two good sessions and four bad ones, below a path that looks like another subject's."""
    root = tmp_path_factory.mktemp("run") / "sub-99" / "ses-7" / "anat" / "ds"
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        '{"Name": "test", "BIDSVersion": "1.10.0", "Authors": ["Ada", "Bea"]}'
    )
    save(phantom.flair, root / "sub-01" / "anat" / "sub-01_acq-2D_FLAIR.nii.gz")
    save(phantom.t1w, root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    for subject, flair in (
        ("02", turned(phantom.flair)),
        ("03", None),
        ("04", phantom.flair),
        ("05", nib.Nifti1Image(np.zeros(phantom.flair.shape, np.int16), phantom.flair.affine)),
        ("06", nib.concat_images([phantom.flair, phantom.flair])),
    ):
        anat = root / f"sub-{subject}" / "ses-1" / "anat"
        save(phantom.t1w, anat / f"sub-{subject}_ses-1_T1w.nii.gz")
        if flair is not None:
            save(flair, anat / f"sub-{subject}_ses-1_FLAIR.nii.gz")
    cut = root / "sub-04" / "ses-1" / "anat" / "sub-04_ses-1_FLAIR.nii.gz"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return root


@pytest.fixture(scope="session")
def first(bids_dir: Path, model_dir: Path) -> Run:
    return participant(bids_dir, bids_dir.parent / "out", model_dir)
