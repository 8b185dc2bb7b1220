"""Work directories: nothing is unpickled that another could have written, and nothing that was not made here."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import pytest

from bids_wmh_uad.errors import FOREIGN_DIRECTORY, LINK_OUTSIDE, OPEN_DIRECTORY, UntrustedDirectoryError
from bids_wmh_uad.files import TEMPORARY
from bids_wmh_uad.workflows.workdir import SEAL, open_directory, open_private

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
NODE = "step"


def _double(x):
    return 2 * x


class Malicious:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def tree(work: Path) -> Path:
    """A session's directory in a work directory, as the engine makes it."""
    open_directory(work)
    open_directory(work / "level_wf")
    session = work / "level_wf" / "sub_01_wf"
    open_private(session, work)
    return session


def graph(work: Path) -> int:
    """Run one nipype step below the session's directory; its result."""
    import nipype.pipeline.engine as pe
    from nipype.interfaces.utility import Function

    workflow = pe.Workflow(name="sub_01_wf", base_dir=str(work / "level_wf"))
    node = pe.Node(Function(input_names=["x"], output_names=["out"], function=_double), name=NODE)
    node.inputs.x = 21
    workflow.config["execution"] = {"crashdump_dir": str(work)}
    workflow.add_nodes([node])
    (ran,) = workflow.run().nodes()
    return int(ran.result.outputs.out)


def plant(session: Path, marker: Path) -> None:
    """Put a malicious pickle wherever nipype looks for one, beside the hash files that make it look."""
    node = session / NODE
    node.mkdir(parents=True, exist_ok=True)
    content = gzip.compress(pickle.dumps(Malicious(marker)))
    for name in (f"result_{NODE}.pklz", "_inputs.pklz", "_node.pklz"):
        (node / name).write_bytes(content)


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A work directory whose cached step an attacker replaced, and the file that shows that it was run."""
    work, marker = tmp_path / "work", tmp_path / "run by a pickle"
    session = tree(work)
    assert graph(work) == 42
    plant(session, marker)
    return work, marker


def test_the_planted_pickle_is_run_where_nobody_looks(planted: tuple[Path, Path]) -> None:
    work, marker = planted  # nipype alone, without the program's plugin (see `test_plugins`)
    with pytest.raises(ValueError, match="resulted in None"):
        graph(work)
    assert marker.exists()


def test_a_tree_that_was_unpacked_or_copied_here_is_made_anew(planted: tuple[Path, Path]) -> None:
    work, marker = planted
    brought = work.with_name("brought")
    shutil.copytree(work, brought, symlinks=True)  # with the seal's files
    tree(brought)
    assert graph(brought) == 42
    archived = work.with_name("archived")
    (work / "level_wf" / "sub_01_wf" / SEAL).unlink()
    work.rename(archived)
    tree(archived)
    assert graph(archived) == 42
    assert not marker.exists()


def test_a_tree_whose_modes_were_opened_meanwhile_is_made_anew(planted: tuple[Path, Path]) -> None:
    work, marker = planted
    session = work / "level_wf" / "sub_01_wf"
    (session / SEAL).chmod(0o660)
    (session / SEAL).chmod(0o600)
    tree(work)
    assert graph(work) == 42
    before = os.umask(0o022)
    try:
        plant(session, marker)
        (session / NODE).chmod(0o775)
        tree(work)
    finally:
        os.umask(before)
    assert graph(work) == 42
    assert not marker.exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
@pytest.mark.parametrize("place", ["", "level_wf", "level_wf/sub_01_wf"])
def test_what_others_may_write_to_is_refused(planted: tuple[Path, Path], place: str, mode: int) -> None:
    work, marker = planted
    (work / place).chmod(mode)
    with pytest.raises(UntrustedDirectoryError) as raised:
        tree(work)
    assert str(raised.value) == OPEN_DIRECTORY.format(path=work / place, mode=f"{mode:o}")
    assert not marker.exists()


@ROOT_ONLY
@pytest.mark.parametrize(
    "place",
    [
        "",
        "level_wf",
        "level_wf/sub_01_wf",
        f"level_wf/sub_01_wf/{NODE}",
        f"level_wf/sub_01_wf/{NODE}/_node.pklz",
    ],
)
def test_what_belongs_to_another_user_is_refused(planted: tuple[Path, Path], place: str) -> None:
    work, marker = planted
    os.chown(work / place, 1234, 1234)
    with pytest.raises(UntrustedDirectoryError) as raised:
        tree(work)
    assert str(raised.value) == FOREIGN_DIRECTORY.format(path=work / place, owner=1234)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["level_wf", "level_wf/sub_01_wf", f"level_wf/sub_01_wf/{NODE}"])
def test_links_that_lead_out_are_refused(planted: tuple[Path, Path], tmp_path: Path, place: str) -> None:
    work, marker = planted
    outside = tmp_path / "outside"
    (work / place).rename(outside)
    (work / place).symlink_to(outside)
    with pytest.raises(UntrustedDirectoryError) as raised:
        tree(work)
    assert str(raised.value) == LINK_OUTSIDE.format(path=work / place, target=outside)
    assert not marker.exists()


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_directories_are_private_whatever_the_umask_and_stay_usable(tmp_path: Path, umask: int) -> None:
    project = tmp_path / "project"
    project.mkdir()
    project.chmod(0o2775)
    before = os.umask(umask)
    try:
        session = tree(project / "work")
        assert graph(project / "work") == 42
        done = (session / NODE / f"result_{NODE}.pklz").stat().st_mtime_ns
        tree(project / "work")  # the next run
        assert graph(project / "work") == 42
    finally:
        os.umask(before)
    for path in (project / "work", session.parent, session):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (session / NODE / f"result_{NODE}.pklz").stat().st_mtime_ns == done  # taken from the cache


def test_a_sticky_parent_is_no_harm(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    tree(tmp_path / "work")
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))
