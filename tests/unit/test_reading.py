"""Files that are none, or not what they should be: every reader says so, and none waits or grows without end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bids_wmh_uad import reading
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import check_dataset, find_sessions, read_filters
from bids_wmh_uad.config import Selection
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.errors import NOT_A_FILE, WmhUadError
from bids_wmh_uad.group.scans import read_decision, read_parameters, read_scaling
from bids_wmh_uad.images import read_grid, read_image
from bids_wmh_uad.imaging.controls import EXCLUDED, IMAGE_FILE, MASK_FILE, MATRIX_FILE, open_control
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import read_scan, read_volume
from bids_wmh_uad.models import (
    DECISION_FILE,
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    load_decision,
    load_model,
    model_digest,
    save_model,
)
from bids_wmh_uad.reports.readers import read_table
from bids_wmh_uad.reports.subject import read_sessions
from bids_wmh_uad.train.checkpoints import load_checkpoint
from bids_wmh_uad.train.normality import read_excluded
from bids_wmh_uad.workflows.engine import _read_plugin_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Whoever waits is woken, and fails."""
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    signal.alarm(60)
    yield
    signal.alarm(0)


# ------------------------------------------------------- what is no file


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # its name must be short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(before)


def _circle(path: Path) -> None:
    path.with_name("other").symlink_to(path)
    path.symlink_to(path.with_name("other"))


NO_FILES: dict[str, Callable[[Path], None]] = {
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "fifo": os.mkfifo,
    "link to a fifo": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe"))[1],
    "socket": _socket,
    "directory": lambda path: path.mkdir(),
    "circle": _circle,
    "broken link": lambda path: path.symlink_to("../.git/annex/objects/a/b/MD5E-s1--0"),
}


def _in_model(name: str, load: Callable[[Path], object]) -> Callable[[Path, Callable[[Path], None]], object]:
    def read(root: Path, make: Callable[[Path], None]) -> object:
        directory = save_model(build_autoencoder(0), root / "model", {})
        (directory / name).unlink(missing_ok=True)
        make(directory / name)
        return load(directory)

    return read


def _at(name: str, load: Callable[[Path], object]) -> Callable[[Path, Callable[[Path], None]], object]:
    def read(root: Path, make: Callable[[Path], None]) -> object:
        make(root / name)
        return load(root / name)

    return read


def _in_control(name: str) -> Callable[[Path, Callable[[Path], None]], object]:
    def read(root: Path, make: Callable[[Path], None]) -> object:
        np.save(root / IMAGE_FILE, np.zeros((3, 2, 4, 5), np.float16))
        np.save(root / MASK_FILE, np.ones((3, 4, 5), bool))
        np.save(root / MATRIX_FILE, np.eye(4))
        open_control(root)
        (root / name).unlink()
        make(root / name)
        return open_control(root)

    return read


READERS = {
    "image": _at("x.nii", read_image),
    "compressed image": _at("x.nii.gz", read_image),
    "grid": _at("x.nii.gz", read_grid),
    "scan": _at("x.nii.gz", read_scan),
    "mask": _at("x.nii.gz", read_volume),
    "filter file": _at("filter.json", read_filters),
    "description": _at("dataset_description.json", lambda path: check_dataset(path.parent)),
    "unvalidated description": _at(
        "dataset_description.json", lambda path: check_dataset(path.parent, skip_validation=True)
    ),
    "transform": _at("xfm.txt", read_transform),
    "sidecar": _at("x.json", lambda path: read_scaling(path.with_suffix(".nii.gz"))),
    "checkpoint": _at("checkpoint.safetensors", lambda path: load_checkpoint(path, {})),
    "plugin file": _at("plugin.yml", _read_plugin_file),
    "excluded lesions": _at(EXCLUDED, lambda path: read_excluded([path.parent])),
    "weights": _in_model(WEIGHTS_FILE, load_model),
    "model": _in_model(DESCRIPTION_FILE, load_model),
    "decision": _in_model(DECISION_FILE, load_decision),
    "digest of the weights": _in_model(WEIGHTS_FILE, model_digest),
    "digest of the decision": _in_model(DECISION_FILE, model_digest),
    **{f"control's {name}": _in_control(name) for name in (IMAGE_FILE, MASK_FILE, MATRIX_FILE)},
}
MAY_BE_ABSENT = {
    (reader, kind)
    for reader in ("unvalidated description", "excluded lesions")
    for kind in ("broken link", "circle")
}
"""What reads as not there: pybids, too, sees no description behind a broken link."""


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused(tmp_path: Path, reader: str, kind: str) -> None:
    if (reader, kind) in MAY_BE_ABSENT:
        READERS[reader](tmp_path, NO_FILES[kind])
        return
    with pytest.raises(WmhUadError) as raised:
        READERS[reader](tmp_path, NO_FILES[kind])
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_no_result(tmp_path: Path, kind: str) -> None:
    anat = tmp_path / "sub-1" / "anat"
    anat.mkdir(parents=True)
    path = anat / "sub-1_desc-wmh_summary.json"
    NO_FILES[kind](path)
    assert derivatives.read_summary(path) == {}
    assert read_table(path) == []
    assert all(not session.summary for session in read_sessions(tmp_path, "1"))
    assert read_parameters(path) is not None
    assert read_decision(path) is not None


@pytest.mark.parametrize("kind", ["zero", "fifo", "socket", "broken link", "circle"])
@pytest.mark.parametrize("suffix", ["FLAIR", "T1w"])
def test_a_scan_that_is_no_file_costs_its_session_only(tmp_path: Path, kind: str, suffix: str) -> None:
    for label in ("1", "2"):
        anat = tmp_path / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        for name in ("FLAIR", "T1w"):
            path = anat / f"sub-{label}_{name}.nii.gz"
            (NO_FILES[kind] if (label, name) == ("1", suffix) else Path.touch)(path)
    selection = Selection(skip_bids_validation=True)
    sessions, failed = find_sessions(tmp_path, selection)
    assert [session.subject for session in sessions] == ["2"]
    assert [entry.subject for entry in failed] == ["1"]
    if kind in ("zero", "fifo", "socket"):
        path = tmp_path / "sub-1" / "anat" / f"sub-1_{suffix}.nii.gz"
        assert str(failed[0].error) == NOT_A_FILE.format(path=path)


# ------------------------------------------------------------------ JSON

NO_JSON = {
    "nested": b"[" * 100_000,
    "nested and whole": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "NaN": b'{"a": [NaN]}',
    "overflow": b'{"a": 1e999}',
    "half a pair": rb'{"a": "\ud800"}',
    "half a pair as a key": rb'{"\udfff": 1}',
    "Latin-1": b'{"a": "\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
    "cut off": b'{"a": 1',
    "long digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "too long": b'{"a": "' + b"x" * reading.MAX_TEXT_BYTES + b'"}',
    "two": b"{}{}",
    "NUL": b'{"a": "\x00"}',
}
NO_OBJECTS = {"list": b"[1]", "null": b"null", "number": b"1", "text": b'"a"', "list of lists": b"[[[]]]"}


@pytest.mark.parametrize("kind", NO_JSON)
def test_what_is_no_json_is_a_value_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(NO_JSON[kind])
    with pytest.raises((ValueError, OSError)):
        reading.read_json(path)


@pytest.mark.parametrize(
    "content", ['{"é": "日本", "n": [1, 2.5, -1e30, null, true]}', '{"pair": "\\ud83d\\ude00"}']
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_is_read_whatever_the_locale(tmp_path: Path, content: str, mark: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(mark + content.encode())
    assert reading.read_object(path) == json.loads(content)


def _writes(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(content), None)[1]


@pytest.mark.parametrize("kind", [*NO_JSON, *NO_OBJECTS])
@pytest.mark.parametrize("reader", ["filter file", "description", "sidecar", "model", "decision"])
def test_readers_of_json_say_what_is_none(tmp_path: Path, reader: str, kind: str) -> None:
    content = {**NO_JSON, **NO_OBJECTS}[kind]
    with pytest.raises(WmhUadError) as raised:
        READERS[reader](tmp_path, _writes(content))
    assert str(tmp_path) in str(raised.value)
    str(raised.value).encode()


@pytest.mark.parametrize("kind", ["nested", "infinity", "list", "nested objects", "too long"])
def test_pybids_never_sees_a_description_it_would_fall_over(tmp_path: Path, kind: str) -> None:
    """It reads the file even where validation is skipped."""
    with pytest.raises(WmhUadError):
        READERS["unvalidated description"](tmp_path, _writes({**NO_JSON, **NO_OBJECTS}[kind]))


@pytest.mark.parametrize("kind", ["nothing", "cut off", "Latin-1"])
def test_a_description_that_pybids_does_without_is_skipped(tmp_path: Path, kind: str) -> None:
    READERS["unvalidated description"](tmp_path, _writes(NO_JSON[kind]))


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as stream:
        stream.truncate(2**40)  # a hole
    tracemalloc.start()
    with pytest.raises(OSError, match="larger than"):
        reading.read_json(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * reading.MAX_TEXT_BYTES


@pytest.mark.parametrize(
    "content",
    [
        {"WhiteMatter": [1, 2]},
        {"WhiteMatter": {"mode": "x", "scale": 1}},
        {"WhiteMatter": {"mode": [1], "scale": 1}},
        {"WhiteMatter": None},
        {},
    ],
)
def test_lists_where_objects_belong_are_said(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(WmhUadError):
        READERS["sidecar"](tmp_path, _writes(json.dumps(content).encode()))


@pytest.mark.parametrize("claim", [(10**6, 10**6), (2**40, 4, 4), (-1, 4)])
@pytest.mark.parametrize("name", [IMAGE_FILE, MASK_FILE, MATRIX_FILE])
def test_an_array_that_claims_more_than_it_holds_costs_no_memory(
    tmp_path: Path, name: str, claim: tuple[int, ...]
) -> None:
    def lie(path: Path) -> None:
        with path.open("wb") as stream:
            about = {"descr": "<f8", "fortran_order": False, "shape": claim}
            np.lib.format.write_array_header_1_0(stream, about)

    tracemalloc.start()
    with pytest.raises(WmhUadError, match="not a prepared control"):
        _in_control(name)(tmp_path, lie)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_an_object_array_is_not_unpickled(tmp_path: Path) -> None:
    def pickled(path: Path) -> None:
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)

    with pytest.raises(WmhUadError, match="not a prepared control"):
        _in_control(MATRIX_FILE)(tmp_path, pickled)


def test_the_files_of_a_model_are_found_through_links(tmp_path: Path) -> None:
    """As DataLad and Nextflow place them."""
    directory = save_model(build_autoencoder(0), tmp_path / "model", {})
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in (WEIGHTS_FILE, DESCRIPTION_FILE):
        shutil.move(directory / name, tmp_path / name)
        (linked / name).symlink_to(f"../{name}")
    load_model(linked)
