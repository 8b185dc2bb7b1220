"""The methods text in its forms: the same words and works in each, references without litter, markup of nobody else's."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.config import Method
from bids_wmh_uad.core.parameters import SCORES
from bids_wmh_uad.reports.methods import (
    METHODS_FILES,
    REFERENCES,
    bibliography,
    describe_method,
    methods_html,
    methods_latex,
    methods_page,
    methods_text,
)
from bids_wmh_uad.reports.subject import write_subject_report

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "We did *this & that* [@n4;\n@ants] for 50 % of #1_x [@mni; name: A_B].\n\nAnd again [@n4]."


def words(html: str) -> str:
    body = html.rsplit("</head>", maxsplit=1)[-1]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_every_form_says_the_same_and_cites_the_same_works() -> None:
    markdown, page, latex, bib = (write(TEXT) for write in METHODS_FILES.values())
    cited = ["bidsapps", "nipype", "niworkflows", "n4", "ants", "mni"]
    assert "We did *this & that* [4; 5] for 50 % of #1_x [6; name: A_B]." in markdown
    assert "We did this & that [4; 5] for 50 % of #1_x [6; name: A_B]." in words(page).replace(
        "this & that  [", "this & that ["
    )
    assert r"We did \emph{this \& that} \cite{n4,ants} for 50 \% of \#1\_x \cite{mni} (name: A\_B)." in latex
    assert list(dict.fromkeys(",".join(re.findall(r"\\cite\{([^}]+)\}", latex)).split(","))) == cited
    assert re.findall(r"@\w+\{(\w+),", bib) == cited
    listed = re.findall(r"<li>(.*?)</li>", page, re.DOTALL)
    assert [words(item) for item in listed] == [REFERENCES[key].text for key in cited]
    assert [line.partition(". ")[2] for line in markdown.splitlines() if re.match(r"\d+\. ", line)] == [
        REFERENCES[key].text for key in cited
    ]


@pytest.mark.parametrize("score", SCORES)
def test_nothing_is_left_unrendered(score: str) -> None:
    text = describe_method(Method(score=score))
    assert not re.search(r"[\\$@*{}]", words(methods_page(text)))
    latex = methods_latex(text)
    assert "@" not in latex
    assert "*" not in latex.replace("section*", "")
    assert latex.count("{") == latex.count("}")
    assert not re.search(r"(?<!\\)[%&#$]", latex)
    assert set(re.findall(r"@\w+\{(\w+),", bibliography(text))) == set(
        ",".join(re.findall(r"\\cite\{([^}]+)\}", latex)).split(",")
    )
    assert (
        max(len(line.split("\n")) for line in methods_text(text).split("\n\n")[2:-1]) == 1
    )  # no hard line breaks


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no pdflatex: Debian has it in texlive-latex-base"
)
@pytest.mark.parametrize("description", ["real", "odd"])
def test_the_latex_form_compiles_and_knows_every_work(tmp_path: Path, description: str) -> None:
    from bids_wmh_uad.config import SPACES
    from bids_wmh_uad.workflows.preprocess import DESCRIPTION

    everything = " ".join(f"[@{key}]" for key in REFERENCES)
    real = DESCRIPTION + describe_method(Method(), SPACES[1:]) + everything
    text = real if description == "real" else f'100 % of #1 & $x_2^3$ {{~}} \\ <b> "ü" {everything}'
    for name in ("CITATION.tex", "CITATION.bib"):
        (tmp_path / name).write_text(METHODS_FILES[name](text), encoding="utf-8")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "CITATION.tex"]
    for command in (latex, ["bibtex", "CITATION"], latex, latex):
        ran = subprocess.run(
            command, cwd=tmp_path, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert ran.returncode == 0, ran.stdout.decode("utf-8", "replace")[-2000:]
        assert "Warning--" not in ran.stdout.decode("utf-8", "replace")  # bibtex's
    log = (tmp_path / "CITATION.log").read_text(encoding="utf-8", errors="replace")
    assert "Warning:" not in log  # a citation without its work, an unknown sign
    assert (tmp_path / "CITATION.pdf").stat().st_size > 10_000
    listed = (tmp_path / "CITATION.bbl").read_text(encoding="utf-8")
    for work in REFERENCES.values():
        assert (work.doi or work.url) in listed


def test_references_are_clean() -> None:
    for work in REFERENCES.values():
        assert ".." not in work.text
        assert re.search(r" \d{4}\. https://\S+$", work.text), work.text
        assert not re.search(r"[{}\\]", work.text)


def test_a_work_that_nobody_knows_is_an_error_in_every_form() -> None:
    for write in METHODS_FILES.values():
        with pytest.raises(KeyError):
            write("[@nobody]")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>&\"'*#1. \nhtps:/x[]()!-`", max_size=60))
def test_whatever_is_written_there_only_our_markup_comes_out(text: str) -> None:
    html = methods_html(text)
    tags = re.findall(r"<[^>]*>", html)
    allowed = r"</?(p|h3|h4|ol|li|em|a)>|<a href=\"https://[^\"<>]*\" rel=\"noreferrer\">"
    assert all(re.fullmatch(allowed, tag) for tag in tags)
    assert "<" not in re.sub(r"<[^>]*>", "", html)


def test_the_page_shows_each_form_and_escapes_what_another_wrote(tmp_path: Path) -> None:
    for name, write in METHODS_FILES.items():
        (tmp_path / name).write_text(write(TEXT))
    (tmp_path / "CITATION.tex").write_text("<script>alert(1)</script>")
    page = write_subject_report(tmp_path, "01").read_text(encoding="utf-8")
    assert re.findall(r'<label for="methods-\d">(\w+)</label>', page) == [
        "Text",
        "Markdown",
        "LaTeX",
        "BibTeX",
    ]
    assert "<em>this &amp; that</em>" in page
    assert "We did *this &amp; that*" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert (
        "<title>Methods" not in page
    )  # the page of the text is not taken in, which another hand may have written
