"""A disk that is full from the start, or in the middle: see `stub`."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stub import start, started, wait_for

from bids_wmh_uad.errors import CannotCreateError, StorageError
from bids_wmh_uad.files import TEMPORARY

pytestmark = pytest.mark.slow
Maker = Callable[..., Path]
CODES = {StorageError.exit_code, CannotCreateError.exit_code}


@pytest.fixture
def dataset(tmp_path: Path, make_dataset: Maker) -> Path:
    return make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("disks cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path) -> None:
    with (disk / "full").open("wb", buffering=0) as handle:
        for size in (4096, 1):
            try:
                while handle.write(b"x" * size):
                    pass
            except OSError:
                pass


def check(run: subprocess.Popen[str], out: Path) -> None:
    """One line, a code, and nothing half written."""
    said = run.communicate(timeout=300)[0]
    assert run.returncode in CODES, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("bids-wmh-uad: error: ")]
    assert len(lines) == 1, said
    assert said.splitlines()[-1] == lines[0]
    assert "space" in lines[0]
    assert not list(out.rglob(f"{TEMPORARY}*"))
    assert not [path for path in out.rglob("config.toml") if not path.stat().st_size]


@pytest.mark.parametrize("level", ["participant", "group", "train"])
def test_a_disk_that_takes_no_byte_is_said_in_one_line(tmp_path: Path, dataset: Path, level: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    options = ["--output-model", tmp_path / "model"] if level == "train" else []
    check(start(tmp_path, dataset, tmp_path / "out", level, *options, preexec_fn=limit), tmp_path / "out")


@pytest.mark.parametrize("own_work", [False, True])
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, dataset: Path, disk: Path, own_work: bool) -> None:
    fill(disk)
    options = ["--work-dir", tmp_path / "work"] if own_work else []
    check(start(tmp_path, dataset, disk / "out", "participant", *options), disk / "out")


@pytest.mark.parametrize("own_work", [False, True])
def test_a_disk_that_fills_up_loses_nothing(
    tmp_path: Path, dataset: Path, disk: Path, own_work: bool
) -> None:
    options = ["--score", "brightness", *(["--work-dir", tmp_path / "work"] if own_work else [])]
    run = start(tmp_path, dataset, disk / "out", "participant", *options)
    wait_for(lambda: started(tmp_path), "nobody began")
    fill(disk)
    (tmp_path / "go").touch()
    check(run, disk / "out")
    (disk / "full").unlink()
    again = start(tmp_path, dataset, disk / "out", "participant", *options)
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert not list(disk.rglob("*.lock"))
