"""Every output comes where `derivatives` says it is, whatever the scans are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import nipype.pipeline.engine as pe
import numpy as np
import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import Method
from bids_wmh_uad.workflows.sinks import publish_node, stage_node

DIGEST = "0" * 64
FILES = {".gz": ".nii", ".tsv": ".tsv", ".txt": ".txt", ".json": ".json"}


def write_outputs(inputs: Any, folder: Path, session: Session) -> None:
    """Give the node a file for each output, as the steps before would."""
    folder.mkdir()
    for name, ending in derivatives.OUTPUTS.items():
        path = folder / f"{name}{FILES[Path(ending).suffix]}"
        if name in derivatives.IMAGE_TYPES:
            data = np.zeros((3, 4, 5), derivatives.IMAGE_TYPES[name])
            nib.save(nib.Nifti1Image(data, np.eye(4)), path)
        elif name == "summary":
            path.write_text(f'{{"signature": "{derivatives.signature(session, Method(), DIGEST)}"}}')
        else:
            path.write_text("x")
        setattr(inputs, name, str(path))
    described = (*derivatives.IMAGE_TYPES, *derivatives.TRANSFORMS)
    inputs.sidecars = {name: {"Sources": [name]} for name in described}
    figure = folder / "a.svg"
    figure.write_text("<svg/>")
    inputs.figures, inputs.figure_names = [str(figure)], ["brain"]


@pytest.mark.parametrize(
    ("flair", "session", "prefix"),
    [
        ("sub-x/anat/sub-x_FLAIR.nii.gz", None, "sub-x"),
        ("sub-x/anat/sub-x_acq-FLAIR_T2w.nii.gz", None, "sub-x_acq-FLAIR"),
        ("sub-x/anat/sub-x_UNIT1.nii", None, "sub-x"),
        ("sub-x/anat/sub-x_run-1_acq-3D_FLAIR.nii.gz", None, "sub-x_acq-3D_run-1"),
        ("sub-x/ses-1/anat/sub-x_FLAIR.nii.gz", "1", "sub-x_ses-1"),
        ("sub-x/ses-1/anat/sub-x_run-02_FLAIR.nii.gz", "1", "sub-x_ses-1_run-02"),
        ("sub-x/anat/sub-x_ses-1_FLAIR.nii.gz", "1", "sub-x_ses-1"),
        ("sub-x/anat/sub-x_inv-2_mod-T1w_desc-raw_space-T1w_FLAIR.nii.gz", None, "sub-x"),
        ("sub-x/anat/sub-x_old_acq-ax.2d_FLAIR.nii.gz", None, "sub-x"),
        ("sub-x/anat/sub-x_part-mag_echo-2_ce-gd_FLAIR.nii.gz", None, "sub-x_ce-gd_echo-2_part-mag"),
    ],
)
def test_what_the_sinks_wrote_is_what_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flair: str, session: str | None, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scan = tmp_path / "ds" / flair
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"scan")
    found = Session("x", session, scan, scan)
    assert found.prefix == prefix
    stage = stage_node(found, tmp_path / "staging")
    write_outputs(stage.inputs, tmp_path / "made", found)
    graph = pe.Workflow(name="end", base_dir=str(tmp_path / "work"))
    graph.connect(stage, "files", publish_node(tmp_path / "staging", tmp_path / "out"), "files")
    assert not derivatives.is_finished(tmp_path / "out", found, Method(), DIGEST)
    graph.run()
    assert derivatives.is_finished(tmp_path / "out", found, Method(), DIGEST)
    assert derivatives.figure_path(tmp_path / "out", found, "brain").is_file()
    expected = {derivatives.output_path(tmp_path / "out", found, name) for name in derivatives.OUTPUTS}
    expected |= {derivatives.sidecar_path(path) for path in expected if path.suffix in (".gz", ".txt")}
    expected.add(derivatives.figure_path(tmp_path / "out", found, "brain"))
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == expected
    for name in (*derivatives.IMAGE_TYPES, *derivatives.TRANSFORMS):
        path = derivatives.output_path(tmp_path / "out", found, name)
        assert derivatives.read_summary(derivatives.sidecar_path(path)) == {"Sources": [name]}
        if name in derivatives.IMAGE_TYPES:
            assert nib.load(path).get_data_dtype() == derivatives.IMAGE_TYPES[name]
