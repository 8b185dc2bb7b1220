"""What tests/container and tests/hpc share: the built image and SIF, phantoms, and a native run to compare with.

``tests/container/build.sh`` builds; here nothing is built. Data lie in ``build/containers``, because the
Apptainer of the tests sees the repository only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nibabel as nib
import pytest

ROOT = Path(__file__).parents[2]
STATE = ROOT / "build" / "containers"
IMAGE = "bids/bids-wmh-uad:0.1.0"
SUBJECTS = ("01", "02", "03", "04")
ENVIRONMENT = {
    **os.environ,
    "CONTAINERS_CONF": str(Path(__file__).parent / "containers.conf"),
    "PATH": os.pathsep.join(
        [str(STATE / "bin"), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", str(STATE / "venv" / "bin")]
    ),
}  # fmt: skip
"""The environment of every command: ``apptainer``, ``singularity`` and ``docker`` of the tests come first."""


def run(
    *command: str | Path,
    code: int | None = 0,
    variables: Mapping[str, str | Path] | None = None,
    **more: object,
) -> subprocess.CompletedProcess[str]:
    """Run a command; what it said is in the failure if it ends with another code than `code`.

    `variables` are set in the environment, which `env` replaces.
    """
    env = {**ENVIRONMENT, **{name: str(value) for name, value in (variables or {}).items()}}
    options: dict[str, object] = {"env": env, "timeout": 1200, **more}
    ran = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in command], text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip
    assert code is None or ran.returncode == code, f"{command} ended with {ran.returncode}:\n{ran.stdout}"
    return ran


def documented(page: str, words: str, **replaced: str) -> list[str]:
    """The command of a documentation page: its one bash block with these words, ready for :func:`run`.

    `replaced` are pieces that a test cannot use as they stand, by a name that says why, as ``old=>new``.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if words in block)
    for piece in replaced.values():
        old, new = piece.split("=>")
        assert old in block
        block = block.replace(old, new)
    return ["bash", "-euc", block]


def require(what: str, path: Path | None = None) -> None:
    """Skip, with the reason, what build.sh could not build here; fail where it was not run."""
    reason = STATE / "missing" / what
    if reason.is_file():
        pytest.skip(f"{what}: {reason.read_text().strip()}")
    if not (STATE / "missing").is_dir() or (path is not None and not path.exists()):
        pytest.fail(f"{what} was not built: run 'make test-containers'")


def results(output_dir: Path, subject: str) -> dict[str, bytes]:
    """Everything a participant's directory holds, by name, but for the interpreter's own version: images have Debian's."""
    root = output_dir / f"sub-{subject}"
    found = {
        str(path.relative_to(root)): re.sub(rb'"python": "3[.]11[.][0-9]+"', b"", path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }
    assert found, f"no results in {root}"
    return found


def differences(one: Path, other: Path, subject: str) -> list[str]:
    """Names of the files that are not the same, byte for byte, in both output directories."""
    first, second = results(one, subject), results(other, subject)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


@pytest.fixture(scope="session")
def image() -> str:
    """The image's name."""
    require("image")
    return IMAGE


@pytest.fixture(scope="session")
def sif() -> Path:
    """The Apptainer image."""
    path = STATE / "bids-wmh-uad.sif"
    require("sif", path)
    return path


@pytest.fixture(scope="session")
def tools() -> Path:
    """Where ``bosh`` and ``hadolint`` are."""
    require("bosh", STATE / "venv" / "bin" / "bosh")
    return STATE / "venv" / "bin"


@pytest.fixture(scope="session")
def share() -> Iterator[Path]:
    """A directory that every container of the tests can see; any user may write there."""
    STATE.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="run-", dir=STATE))
    path.chmod(0o1777)  # sticky, or munge refuses to live below it
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def bids_dir(share: Path) -> Path:
    """Four participants with coarse skull-stripped scans: quick to process."""
    from bids_wmh_uad.phantom import PhantomSpec, make_subject

    root = share / "bids"
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "phantoms", "BIDSVersion": "1.10.0"}')
    for seed, label in enumerate(SUBJECTS, start=1):
        spec = PhantomSpec(
            seed=seed, lesion_volume_ml=8, head=False, flair_zooms=(1.5, 1.5, 5.0), t1w_zooms=(2.5, 2.5, 2.5)
        )
        anat = root / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        subject = make_subject(spec)
        nib.save(subject.flair, anat / f"sub-{label}_FLAIR.nii.gz")
        nib.save(subject.t1w, anat / f"sub-{label}_T1w.nii.gz")
    return root


@pytest.fixture(scope="session")
def native(share: Path, bids_dir: Path) -> Path:
    """The output directory of a run of participants 01 and 02 without any container."""
    out = share / "native"
    run(sys.executable, "-m", "bids_wmh_uad", bids_dir, out, "participant", "-w", share / "native-work",
        "--participant-label", "01", "02")  # fmt: skip
    return out
