"""DataLad and git-annex trees, as OpenNeuro has them: links into .git/annex, files that were not fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import BROKEN_LINK, MissingInputError

Maker = Callable[..., Path]
T1W, FLAIR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"
DESCRIPTION = "dataset_description.json"


def annex(root: Path, *names: str, fetched: bool = True) -> None:
    """Turn files into what git-annex makes of them: a link to a read-only object below .git/annex."""
    for number, name in enumerate(names):
        path = root / name
        key = f"MD5E-s{path.stat().st_size}--{number:032x}.nii.gz"
        store = root / ".git" / "annex" / "objects" / "Xy" / "7k" / key
        store.mkdir(parents=True)
        path.rename(store / key)
        (store / key).chmod(0o444)
        path.symlink_to(os.path.relpath(store / key, path.parent))
        if not fetched:
            (store / key).unlink()


def test_fetched_files_are_read_through_their_links(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    annex(root, T1W, FLAIR, DESCRIPTION)
    (found,), unusable = find_sessions(root, Selection())
    assert (found.flair, found.t1w) == (root / FLAIR, root / T1W)
    assert not unusable


@pytest.mark.parametrize("name", [T1W, FLAIR])
def test_a_file_that_was_not_fetched_is_named_as_datalad_wants_it(
    tmp_path: Path, make_dataset: Maker, name: str
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    annex(root, name, fetched=False)
    _, (entry,) = find_sessions(root, Selection())
    assert isinstance(entry.error, MissingInputError)
    assert str(entry.error) == BROKEN_LINK.format(path=root / name, name=name)
    assert f"'datalad get {name}'" in str(entry.error)


def test_the_placeholder_of_an_unlocked_file_counts_as_not_fetched(
    tmp_path: Path, make_dataset: Maker
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    (root / FLAIR).write_text("/annex/objects/MD5E-s5--d41d8cd98f00b204e9800998ecf8427e.nii.gz\n")
    _, (entry,) = find_sessions(root, Selection())
    assert str(entry.error) == BROKEN_LINK.format(path=root / FLAIR, name=FLAIR)


def test_a_description_that_was_not_fetched_is_no_invalid_dataset(
    tmp_path: Path, make_dataset: Maker
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    annex(root, DESCRIPTION, fetched=False)
    with pytest.raises(MissingInputError, match=f"datalad get {DESCRIPTION}"):
        find_sessions(root, Selection())


@pytest.mark.slow
@pytest.mark.usefixtures("own_directory")
def test_a_run_on_a_read_only_tree_ends_with_66_and_changes_nothing(
    tmp_path: Path, make_dataset: Maker
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    annex(root, T1W, DESCRIPTION)
    (root / FLAIR).unlink()
    (root / FLAIR).symlink_to("../../.git/annex/objects/none")
    before = sorted((str(path), os.lstat(path).st_mtime_ns) for path in root.rglob("*"))
    ran = subprocess.run(
        [sys.executable, "-m", "bids_wmh_uad", root, tmp_path / "out", "participant"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == MissingInputError.exit_code
    assert f"'datalad get {FLAIR}'" in ran.stderr
    assert sorted((str(path), os.lstat(path).st_mtime_ns) for path in root.rglob("*")) == before
