"""The Apptainer image, built from Singularity.def by a real Apptainer."""

from __future__ import annotations

from pathlib import Path

from container.fixtures import differences, documented, run

from bids_wmh_uad import __version__


def test_its_own_test_and_help(sif: Path) -> None:
    assert __version__ in run("apptainer", "test", sif).stdout
    assert "apptainer run --cleanenv" in run("apptainer", "run-help", sif).stdout


def test_a_participant_equals_the_native_run(sif: Path, share: Path, bids_dir: Path, native: Path) -> None:
    out, work = share / "sif", share / "sif-work"
    out.mkdir()
    work.mkdir()
    variables = {"BIDS_DIR": bids_dir, "OUTPUT_DIR": out, "WORK_DIR": work, "PYTHONPATH": "/nowhere"}
    run(*documented("apptainer.md", "apptainer run"), cwd=sif.parent, variables=variables)
    assert differences(native, out, "02") == []
