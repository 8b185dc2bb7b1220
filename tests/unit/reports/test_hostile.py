"""Pages made of files that somebody else wrote: what is text stays text, and only drawings are inlined."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from bids_wmh_uad.bids.dataset import FailedSession
from bids_wmh_uad.config import RunConfig, Running
from bids_wmh_uad.errors import EXIT_OK, SessionError
from bids_wmh_uad.participant.reports import rebuild_reports, write_reports
from bids_wmh_uad.reports.figures.charts import plot_score_histogram
from bids_wmh_uad.reports.group import write_group_report
from bids_wmh_uad.reports.inlining import MAX_FIGURE_BYTES, UnsafeDrawing, drawing_of
from bids_wmh_uad.reports.pages import content_policy
from bids_wmh_uad.reports.subject import MAX_SESSIONS_PER_PAGE, write_subject_report

if TYPE_CHECKING:
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject

MARKUP = ['<img src=x onerror="alert(1)">', "</title><script>alert(1)</script>", "'\"><svg onload=alert(1)>"]
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{}</svg>'
SCRIPTS = {"script", "iframe", "object", "embed", "foreignobject", "animate", "set", "link", "base", "form"}


class Elements(HTMLParser):
    """The elements of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}))


def assert_harmless(page: Path, scripts: int = 0) -> str:
    """No element that runs or embeds anything, no event handler, and a policy that forbids both."""
    text = page.read_text(encoding="utf-8")
    elements = Elements(text).found
    names = [name for name, _ in elements if name in SCRIPTS - {"link"}]
    assert names == ["script"] * scripts
    handlers = [key for _, attributes in elements for key in attributes if key.startswith("on")]
    assert handlers == []
    links = [attributes.get("href", "") for name, attributes in elements if name == "a"]
    assert [link for link in links if not re.match(r"#|sub-|[\w.%-]+\.html$", link)] == []
    policies = [attrs["content"] for name, attrs in elements if attrs.get("http-equiv")]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-" if scripts else content_policy())
    return text


def write_summary(root: Path, subject: str, prefix: str, **content: Any) -> None:
    anat = root / subject / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    summary = {"participant_id": subject, "session_id": "n/a", "status": "done", "wmh_volume_ml": 1.0}
    (anat / f"{prefix}_desc-wmh_summary.json").write_text(json.dumps(summary | content))


def config(root: Path) -> RunConfig:
    return RunConfig(root / "bids", root, "participant", running=Running(work_dir=root / "work"))


@pytest.mark.parametrize("name", [mark.replace("/", "") for mark in MARKUP] + ["a b", "é", "..", "x.y"])
def test_a_directory_of_any_name(name: str, tmp_path: Path) -> None:
    subject = f"sub-{name}"
    write_summary(tmp_path, subject, f"{subject}_acq-{name}")
    figures = tmp_path / subject / "figures"
    figures.mkdir()
    (figures / f"{subject}_acq-{name}_desc-lesions_FLAIR.svg").write_text(DRAWING.format("<g/>"))
    assert rebuild_reports(config(tmp_path)) == EXIT_OK
    text = assert_harmless(tmp_path / f"{subject}.html")
    assert text.count('class="figure"') == 1
    assert "<td><strong>1.00</strong>" in text.replace(' class="number"', "")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    subject = os.fsdecode(b"sub-\xff\xfe")
    write_summary(tmp_path, subject, subject)
    write_subject_report(tmp_path, subject)
    assert_harmless(tmp_path / f"{subject}.html")
    write_group_report(tmp_path, [{"participant_id": subject, "session_id": "n/a", "wmh_volume_ml": 1.0}])
    assert_harmless(tmp_path / "group.html", scripts=2)


@pytest.mark.parametrize("markup", MARKUP)
def test_what_summaries_tables_and_errors_say(markup: str, tmp_path: Path) -> None:
    write_summary(
        tmp_path, "sub-01", "sub-01", warnings=[{"code": markup, "text": markup}, markup], model={markup: markup, "name": markup},
        threshold={"name": markup, "value": markup}, icv_ml=markup, lesion_count={markup: [markup]}, score=markup,
        versions={"python": markup}, Sources=[markup],
        inputs={markup: {"file": markup, "matrix": [markup], "voxel_size_mm": markup, "Manufacturer": markup}},
    )  # fmt: skip
    table = f"index\tregion\tvolume_mm3\n{markup}\t{markup}\t{markup}\n"
    (tmp_path / "sub-01" / "anat" / "sub-01_space-FLAIR_desc-lesions_dseg.tsv").write_text(table)
    (tmp_path / "CITATION.md").write_text(markup)
    failed = [
        FailedSession("01", markup, SessionError(markup)),
        FailedSession("01", None, SessionError(markup)),
    ]
    write_reports(config(tmp_path), ["01"], failed)
    text = assert_harmless(tmp_path / "sub-01.html")
    assert text.count("alert(1)") > 10


@pytest.mark.parametrize("markup", MARKUP)
def test_the_group_page_of_any_table(markup: str, tmp_path: Path) -> None:
    rows = [
        {"participant_id": markup, "session_id": markup, "wmh_volume_ml": 1.0, "reason": markup, markup: markup},
        {"participant_id": "sub-02", "session_id": None, "wmh_volume_ml": None, "reason": markup, markup: 3},
    ]  # fmt: skip
    write_group_report(tmp_path, rows, evaluation=[{"participant_id": markup, "dice": 0.5, markup: markup}])
    assert_harmless(tmp_path / "group.html", scripts=2)


def test_a_summary_cannot_name_a_page_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_summary(out, "sub-01", "sub-01", participant_id="sub-x/../../outside")
    assert rebuild_reports(config(out)) == EXIT_OK
    assert (out / "sub-01.html").is_file()
    assert not (tmp_path / "outside.html").exists()


def test_links_to_the_pages_of_sessions_are_addresses_of_files(tmp_path: Path) -> None:
    names = ["javascript:alert(1)", "a?b#c", "<b>", "x y"]
    assert len(names) > MAX_SESSIONS_PER_PAGE
    for name in names:
        write_summary(tmp_path, "sub-01", name)
    text = assert_harmless(write_subject_report(tmp_path, "01"))
    assert 'href="javascript%3Aalert%281%29.html"' in text
    for name in names:
        assert_harmless(tmp_path / f"{name}.html")


UNSAFE = {
    "script": "<script>alert(1)</script>",
    "handler": '<g onclick="alert(1)"/>',
    "upper case": "<SCRIPT/>",
    "foreign": "<foreignObject><p/></foreignObject>",
    "link": '<a href="https://example.com"><path d=""/></a>',
    "animation": '<set attributeName="href" to="javascript:alert(1)"/>',
    "image": '<image href="https://example.com/x.png"/>',
    "svg in an image": '<image href="data:image/svg+xml;base64,AAAA"/>',
    "use": '<use href="other.svg#a"/>',
    "style": "<style>@import 'https://example.com/x.css';</style>",
    "style in pieces": "<style>@im<!-- x -->port 'https://example.com/x.css';</style>",
    "hidden style": r"<style>g{background:u\72l(https://example.com)}</style>",
    "style attribute": '<g style="background: URL(https://example.com)"/>',
    "fill": '<path fill="url(https://example.com/x.svg#a)"/>',
    "comment": "<!--><script>alert(1)</script>-->",
    "cdata": "<g><![CDATA[</svg><script>alert(1)</script>]]></g>",
    "instruction": "<?xml-stylesheet href='https://example.com'?>",
    "not closed": "<g>",
    "namespace": '<x:script xmlns:x="http://www.w3.org/2000/svg">alert(1)</x:script>',
    "entity": "&nbsp;",
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_only_drawings_are_inlined(content: str) -> None:
    with pytest.raises(UnsafeDrawing):
        drawing_of(DRAWING.format(content))
    assert drawing_of(DRAWING.format("<g/>")) == DRAWING.format("<g/>")


@pytest.mark.parametrize(
    "text", ["", "<html>", "<svg", DRAWING.format("") + "<script>alert(1)</script>", "\x00<svg/>\x00"]
)
def test_files_that_are_no_drawing(text: str) -> None:
    with pytest.raises(UnsafeDrawing):
        drawing_of(text)


def test_definitions_before_the_drawing_do_not_count() -> None:
    bomb = '<!DOCTYPE svg [<!ENTITY a "<script/>">]>' + DRAWING.format("&a;")
    with pytest.raises(UnsafeDrawing):
        drawing_of(bomb)


def test_a_chart_of_ours_is_a_drawing(tmp_path: Path, phantom: PhantomSubject) -> None:
    out = plot_score_histogram(phantom.flair, phantom.brain, 0.4, tmp_path / "histogram.svg")
    text = out.read_text(encoding="utf-8")
    assert drawing_of(text) == text[text.index("<svg") :].strip()


def test_a_refused_figure_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    write_summary(tmp_path, "sub-01", "sub-01")
    figures = tmp_path / "sub-01" / "figures"
    figures.mkdir()
    names = {name: figures / f"sub-01_desc-{name}_FLAIR.svg" for name in ("lesions", "anomaly", "histogram", "brain", "coreg", "norm")}  # fmt: skip
    names["lesions"].write_text(DRAWING.format(UNSAFE["script"]))
    names["anomaly"].write_text(DRAWING.format("<g/>"))
    names["histogram"].write_bytes(b"\xff\xfe no text")
    os.mkfifo(names["brain"])
    names["coreg"].symlink_to("nowhere")
    with names["norm"].open("wb") as handle:
        handle.truncate(MAX_FIGURE_BYTES + 1)
    text = assert_harmless(write_subject_report(tmp_path, "01"))
    assert re.findall(r'data-figure="([^"]+)"', text) == [names["anomaly"].name]
    refused = re.findall(r"The figure (\S+) is not shown", text)
    assert refused == [names[name].name for name in ("lesions", "histogram", "norm")]
