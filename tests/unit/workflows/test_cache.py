"""What nipype keeps of steps: signed results that it can read without us too, and hashes taken once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_wmh_uad.errors import UntrustedDirectoryError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "step"
    path.mkdir()
    return path


def test_a_signed_pickle_is_read_back_here_and_by_nipype_alone(directory: Path) -> None:
    from nipype.pipeline.engine import nodes, utils
    from nipype.utils.filemanip import loadpkl

    from bids_wmh_uad.workflows.cache import kept

    path = directory / "result_step.pklz"
    before = nodes.savepkl
    with kept({directory: "key"}):
        nodes.savepkl(str(path), {"a": 1})
        assert utils.loadpkl(path) == {"a": 1}
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(UntrustedDirectoryError):
            utils.loadpkl(path)
        nodes.savepkl(str(path), {"a": 2})
    assert nodes.savepkl is before
    assert loadpkl(path) == {"a": 2}  # as with --use-plugin
    with kept({directory: "another key"}):
        assert not path.exists()


def test_what_nothing_reads_is_not_written(directory: Path) -> None:
    from nipype.pipeline.engine import nodes

    from bids_wmh_uad.workflows.cache import NEVER_READ, kept

    with kept({directory: "key"}):
        for name in NEVER_READ:
            nodes.savepkl(str(directory / name), {"a": 1})
    assert not list(directory.iterdir())


def test_a_file_is_hashed_again_when_it_changed_and_only_then(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from nipype.interfaces.base import specs

    from bids_wmh_uad.workflows.cache import kept

    taken, original = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: taken.append(1) or original(*given))
    path = directory / "image.nii"
    path.write_bytes(b"one")
    with kept({}):
        first = specs.hash_infile(str(path))
        assert specs.hash_infile(str(path)) == first
        assert len(taken) == 1
        status = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time say nothing
        second = specs.hash_infile(str(path))
        assert second != first
        path.write_bytes(b"one")
        assert specs.hash_infile(str(path)) == first
        assert specs.hash_infile(str(directory)) is None
        assert specs.hash_infile("no file") is None
    assert len(taken) == 3
