"""``participants.tsv`` as people's programs write it: sites are kept, or the log says why not."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

import pytest

from bids_wmh_uad.bids.participants import read_participants, read_sessions
from bids_wmh_uad.errors import (
    BAD_PARTICIPANTS,
    PARTICIPANTS_DIFFER,
    PARTICIPANTS_FORMAT,
    PARTICIPANTS_MISSING,
)
from bids_wmh_uad.group import run as group
from tests.unit.group.cohorts import config, summary, write_summary

KNOWN = ("sub-01", "sub-02")
SITES = {
    "sub-01": {"age": "70", "Site": "Zürich", "manufacturer": "n/a"},
    "sub-02": {"age": "71", "Site": "Køln"},
}
REFUSED = BAD_PARTICIPANTS.partition("{reason}")[0]
TEXT = "participant_id\tage\tSite\tmanufacturer\nsub-01\t70\tZürich\tn/a\nsub-02\t71\tKøln\n"


def table(directory: Path, content: bytes | str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "participants.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        ("\n" + TEXT + "\n\n").encode(),
        TEXT.replace("sub-", "").encode(),
        TEXT.replace("sub-", "SUB-").encode(),
        TEXT.replace("participant_id", "Participant_ID ").replace("sub-01\t", " sub-01 \t").encode(),
        TEXT.replace("participant_id", '"participant_id"').replace("Zürich", '"Zürich"').encode(),
    ],
)
def test_sites_are_read_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    table(tmp_path, content)
    assert read_participants([tmp_path / "none", tmp_path], KNOWN) == SITES
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "encoding", "delimiter"),
    [
        (TEXT.encode("latin-1"), "Windows-1252", "tabs"),
        (TEXT.encode("utf-16"), "UTF-16", "tabs"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16", "tabs"),
        (TEXT.encode("utf-16-le"), "UTF-16-LE", "tabs"),
        (TEXT.encode("utf-16-be"), "UTF-16-BE", "tabs"),
        (TEXT.encode("utf-32"), "UTF-32", "tabs"),
        (TEXT.replace("\t", ",").replace("sub-", "").encode(), "UTF-8", "commas"),
        (TEXT.replace("\t", ";").encode("utf-8-sig"), "UTF-8", "semicolons"),
        (TEXT.replace("\t", "|").encode(), "UTF-8", "bars"),
        (TEXT.replace("\t", "   ").encode(), "UTF-8", "spaces"),
        (TEXT.replace("\t", ";").replace("\n", "\r\n").encode("latin-1"), "Windows-1252", "semicolons"),
    ],
)
def test_other_encodings_and_delimiters_are_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, encoding: str, delimiter: str
) -> None:
    path = table(tmp_path, content)
    assert read_participants([tmp_path], KNOWN) == SITES
    said = PARTICIPANTS_FORMAT.format(path=path, encoding=encoding, delimiter=delimiter)
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"subject\tsite\nsub-01\tA\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        codecs.BOM_UTF16_LE + b"p",
        b"/annex/objects/MD5E-s5--0.tsv\n",
        b'participant_id\tsite\nsub-01\t"' + b"x" * 200_000,
    ],
)
def test_what_is_no_table_is_said_and_the_next_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = table(tmp_path / "raw", content)
    table(tmp_path / "out", TEXT)
    assert read_participants([tmp_path / "raw", tmp_path / "out"], KNOWN) == SITES
    assert caplog.messages[0].startswith(REFUSED.format(path=path))


def test_what_cannot_be_opened_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_participants([tmp_path], KNOWN) == {}
    assert caplog.text == ""  # none is no fault
    path = tmp_path / "participants.tsv"
    path.symlink_to(".git/annex/objects/none")
    assert read_participants([tmp_path], KNOWN) == {}
    path.unlink()
    path.mkdir()
    assert read_participants([tmp_path], KNOWN) == {}
    assert len(caplog.messages) == 2
    assert all(text.startswith(REFUSED.format(path=path)) for text in caplog.messages)


def test_participants_without_a_line_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, "participant_id\tsite\n1\tA\n02\tB\n")  # a spreadsheet ate one zero
    assert read_participants([tmp_path], KNOWN)["sub-02"] == {"site": "B"}
    assert caplog.messages == [PARTICIPANTS_MISSING.format(path=path, labels="sub-01")]
    caplog.clear()
    read_participants([tmp_path], [f"sub-9{number:02d}" for number in range(30)])
    assert "sub-909 and 20 more: their columns" in caplog.text
    table(tmp_path, "participant_id\tage\n02\t\n")  # nothing is lost
    caplog.clear()
    assert read_participants([tmp_path], KNOWN) == {"sub-02": {}}
    assert caplog.text == ""


def test_a_quote_without_its_fellow_swallows_no_line(tmp_path: Path) -> None:
    table(tmp_path, 'participant_id\tnote\tage\nsub-01\t"better\t70\nsub-02\t5" taller\t71\n')
    assert [row["age"] for row in read_participants([tmp_path], KNOWN).values()] == ["70", "71"]


def test_the_sessions_of_each_participant_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for root, subject, content in (
        (raw, "sub-01", "session_id\tage\nses-1\t70\nB\t72\n"),
        (out, "sub-01", "session_id\tage\nses-1\t1\n"),  # the first dataset's counts
        (out, "sub-02", "session_id;age\nSES-1;50\n"),
        (raw, "sub-03", "visit\tage\n1\t50\n"),
        (raw, "sub-04", "session_id\tage\nses-1\t9\n"),  # without results
    ):
        (root / subject).mkdir(parents=True, exist_ok=True)
        (root / subject / f"{subject}_sessions.tsv").write_text(content)
    found = read_sessions([raw, out], ("sub-01", "sub-02", "sub-03", "../sub-04"))
    assert found == {
        ("sub-01", "ses-1"): {"age": "70"},
        ("sub-01", "ses-B"): {"age": "72"},
        ("sub-02", "ses-1"): {"age": "50"},
    }
    assert [text.split(":")[0] for text in caplog.messages] == [
        str(out / "sub-02" / "sub-02_sessions.tsv"),
        str(raw / "sub-03" / "sub-03_sessions.tsv"),
    ]
    assert "session_id" in caplog.messages[1]


def test_lines_that_differ_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, "participant_id\tsite\n01\tA\nsub-01\tB\n02\tC\n02\tC\n")
    assert read_participants([tmp_path], KNOWN) == {"sub-01": {"site": "B"}, "sub-02": {"site": "C"}}
    assert caplog.messages == [PARTICIPANTS_DIFFER.format(path=path, labels="sub-01")]


def test_the_group_table_has_the_site_whatever_the_table_looked_like(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_summary(tmp_path / "out", summary("01"))
    path = table(tmp_path / "raw", "participant_id;site\r\n01;Zürich\r\n".encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        group.run_group(config(tmp_path / "out", tmp_path / "raw"))
    header, row = (tmp_path / "out" / "group_wmh.tsv").read_text().splitlines()
    assert dict(zip(header.split("\t"), row.split("\t"), strict=True))["site"] == "Zürich"
    assert str(path) in caplog.text
