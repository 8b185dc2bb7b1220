"""Names that are not UTF-8 are left out and said; the other participants go on."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.bids.layout import shown
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import BAD_NAME, UsageError
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.reading import read_object

SELECTION = Selection(skip_bids_validation=True)


def make(root: bytes, *names: bytes) -> Path:
    for name in names:
        path = os.path.join(root, name)  # noqa: PTH118 (bytes)
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        Path(os.fsdecode(path)).touch()
    return Path(os.fsdecode(root))


def pair(label: bytes, session: bytes = b"") -> list[bytes]:
    return [b"sub-%b/%banat/sub-%b_%b.nii.gz" % (label, session, label, s) for s in (b"FLAIR", b"T1w")]


@pytest.mark.parametrize(
    "odd",
    [
        b"sub-1/anat/sub-1_acq-\xe9_FLAIR.nii.gz",
        b"sub-1/anat/\xff\xfe.nii",
        b"sub-1/anat/\xe9/sub-1_FLAIR.nii.gz",
        b"sub-1/ses-\xe9/anat/sub-1_FLAIR.nii.gz",
        b"sub-1\xe9/anat/sub-1_T1w.nii.gz",
        b"sub-\xff/ses-1/anat/sub-1_T1w.nii.gz",
    ],
)
def test_an_odd_name_costs_nothing_but_itself(
    tmp_path: Path, odd: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(os.fsencode(tmp_path / "ds"), *pair(b"1"), *pair(b"2"), odd)
    sessions, failed = find_sessions(root, SELECTION)
    assert [session.subject for session in sessions] == ["1", "2"]
    assert not failed
    (said,) = caplog.messages
    first = next(
        part
        for part in (Path(os.fsdecode(odd)), *Path(os.fsdecode(odd)).parents)
        if _odd_only_at_its_end(part)
    )
    assert said == BAD_NAME.format(path=shown(root / first))
    said.encode()


def _odd_only_at_its_end(path: Path) -> bool:
    own, above = os.fsencode(path.name), os.fsencode(path.parent)
    return not own.isascii() and above.isascii()


def test_ordinary_foreign_names_are_not_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(os.fsencode(tmp_path / "дані"), *pair(b"1"), "sub-1/anat/é.nii".encode())
    assert len(find_sessions(root, SELECTION)[0]) == 1
    assert not caplog.messages


def test_a_dataset_below_an_odd_name_is_a_usage_error(tmp_path: Path) -> None:
    root = make(os.path.join(os.fsencode(tmp_path), b"\xe9", b"ds"), *pair(b"1"))  # noqa: PTH118
    with pytest.raises(UsageError) as raised:
        find_sessions(root, SELECTION)
    assert str(raised.value) == BAD_NAME.format(path=f"{tmp_path}/\\xe9/ds")


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """Numbers of a check may be NaN; JSON has none."""
    value = {"checks": {"a": math.nan, "b": 0.1234567891, "c": [math.inf, 1]}, "text": "é"}
    path = tmp_path / "x.json"
    path.write_bytes(dump_json(value))
    assert read_object(path) == {"checks": {"a": None, "b": 0.123457, "c": [None, 1]}, "text": "é"}
    del value["checks"]["a"], value["checks"]["c"]
    assert dump_json(value) == (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
