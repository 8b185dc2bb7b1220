"""The Apptainer image, built from Singularity.def by a real Apptainer."""

from __future__ import annotations

from pathlib import Path

from container.fixtures import ENVIRONMENT, differences, run

from bids_wmh_uad import __version__


def test_its_own_test_and_help(sif: Path) -> None:
    assert __version__ in run("apptainer", "test", sif).stdout
    assert "apptainer run --cleanenv" in run("apptainer", "run-help", sif).stdout


def test_a_participant_equals_the_native_run(sif: Path, share: Path, bids_dir: Path, native: Path) -> None:
    out, work = share / "sif", share / "sif-work"
    out.mkdir()
    work.mkdir()
    run(
        "apptainer", "run", "--cleanenv", "--no-home", "--bind", f"{bids_dir}:/data:ro", "--bind", f"{out}:/out",
        "--bind", f"{work}:/work", sif, "/data", "/out", "participant", "--participant-label", "02", "--work-dir", "/work",
        env={**ENVIRONMENT, "APPTAINERENV_PYTHONPATH": "/nowhere"},
    )  # fmt: skip
    assert differences(native, out, "02") == []
