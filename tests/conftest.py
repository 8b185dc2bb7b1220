"""Shared fixtures: small BIDS trees, phantoms, a model that nobody trained, and the real scans' place."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bids_wmh_uad.phantom import PhantomSubject

os.environ.setdefault("NO_ET", "1")  # nipype asks a server for its newest version
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")  # registration repeats itself bit for bit
# A busy machine is no error; CI draws the same examples every time, and people new ones.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")
# a batch system or "nohup ... &" may have told pytest, and so the programs that it starts, to ignore Ctrl-C and a lost terminal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _environment_comes_back() -> Iterator[None]:
    """A run sets thread counts in the environment, and phantoms made with other counts differ in their last bits."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _log_comes_back() -> Iterator[None]:
    """A run in this process gives the program's logger its own handlers, which keep records from pytest's."""
    logger = logging.getLogger("bids_wmh_uad")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    for handler in set(logger.handlers) - set(before[0]):
        logger.removeHandler(handler)
        handler.close()
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own current directory: a run makes its work directory there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """A builder of BIDS datasets whose images are a few voxels small."""

    def make(root: Path, *names: str, links: Mapping[str, str] | None = None, described: bool = True) -> Path:
        root.mkdir(parents=True)
        if described:
            description = {"Name": "test", "BIDSVersion": "1.10.0"}
            (root / "dataset_description.json").write_text(json.dumps(description))
        image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 1.0, 4.0, 1.0]))
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.to_bytes()) if name.endswith(".nii") else nib.save(image, path)
        for name, target in (links or {}).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        return root

    return make


@pytest.fixture(scope="session")
def phantom() -> PhantomSubject:
    """A coarse skull-stripped subject: quick to make, quick to process."""
    from bids_wmh_uad.phantom import PhantomSpec, make_subject

    return make_subject(
        PhantomSpec(
            seed=1, lesion_volume_ml=8, head=False, flair_zooms=(1.5, 1.5, 5.0), t1w_zooms=(2.5, 2.5, 2.5)
        )
    )


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with untrained weights: tests of the program do not depend on the shipped ones."""
    from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    from bids_wmh_uad.models import save_model

    return save_model(
        build_autoencoder(0), tmp_path_factory.mktemp("models") / "untrained", {"name": "untrained"}
    )


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Where real scans are: ``BIDS_WMH_UAD_TEST_DATA``, else ``shared/data`` beside the repository."""
    path = Path(os.environ.get("BIDS_WMH_UAD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real scans in {path} (set BIDS_WMH_UAD_TEST_DATA)")
    return path
