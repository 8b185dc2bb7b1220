"""The subject and the group page: everything in them, nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bids_wmh_uad.errors import CannotCreateError
from bids_wmh_uad.reports.figures.mosaic import Panel, write_mosaic
from bids_wmh_uad.reports.pages import show
from bids_wmh_uad.reports.subject import write_subject_report

if TYPE_CHECKING:
    from pathlib import Path

DESCS = ("brain", "coreg", "norm", "lesions", "anomaly", "histogram")
FETCHED = {"src", "data", "poster", "srcset", "action", "xlink:href"}


class Page(HTMLParser):
    """Elements of a page, and what a browser would fetch for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and all(attrs.get(key.replace("_", "-")) == value for key, value in wanted.items())
        ]

    def fetched(self) -> list[str]:
        links = [attrs["href"] for name, attrs in self.elements if "href" in attrs and name != "a"]
        links += [attrs[key] for _, attrs in self.elements for key in FETCHED if key in attrs]
        links += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", self.text)
        return [link for link in links if not link.startswith(("data:image/jpeg;base64,", "#"))]


def write_figure(path: Path) -> None:
    grey = np.tile(np.arange(32, dtype=np.uint8), (40, 1))
    mask = np.zeros((40, 32), dtype=bool)
    mask[10:20, 5:9] = True
    write_mosaic([[Panel((grey,), (64.0, 80.0), (("red", mask),), "z = 1 mm", ("L", "R"))]], path, path.stem)


def write_session(root: Path, subject: str, session: str | None, run: str = "", **changes: Any) -> str:
    """Write figures and summary of one session; return the file name prefix."""
    prefix = f"sub-{subject}" + (f"_ses-{session}" if session else "") + (f"_run-{run}" if run else "")
    for desc in DESCS:
        write_figure(root / f"sub-{subject}" / "figures" / f"{prefix}_desc-{desc}_FLAIR.svg")
    summary = {
        "wmh_volume_ml": 12.345,
        "lesion_count": 17,
        "icv_ml": 1432.1,
        "wmh_percent_icv": 0.86,
        "threshold": {"name": "tail", "value": 0.25},
        "volume_ml_threshold_minus20": 15.5,
        "volume_ml_threshold_plus20": 9.5,
        "model": {"name": "default", "digest": "abc"},
        "stages_seconds": {"brain": 3.21987},
        "warnings": [],
    } | changes
    anat = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    (anat / f"{prefix}_desc-wmh_summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return prefix


def figures_of(page: Page) -> list[str]:
    return [attrs["data-figure"] for attrs in page.all("div") if "data-figure" in attrs]


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ET", "1")


def test_page_has_every_session_and_figure_and_fetches_nothing(tmp_path: Path) -> None:
    prefixes = [write_session(tmp_path, "01", session) for session in ("a", "b")]
    write_session(tmp_path, "02", "z")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out = write_subject_report(tmp_path, "sub-01")
    assert out == tmp_path / "sub-01.html"
    page = Page(out)
    order = ("lesions", "anomaly", "histogram"), ("brain", "coreg", "norm")
    expected = [f"{prefix}_desc-{desc}_FLAIR.svg" for part in order for prefix in prefixes for desc in part]
    assert figures_of(page) == expected
    assert [attrs["data-session"] for attrs in page.all("tr") if "data-session" in attrs] == [
        "ses-a",
        "ses-b",
    ]
    assert page.fetched() == []
    assert "No warnings." in page.text
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != out}
    assert after == before  # the page is all that is written, and nireports leaves our figures alone


def test_inlined_figures_are_whole(tmp_path: Path) -> None:
    write_session(tmp_path, "01", "a")
    text = write_subject_report(tmp_path, "01").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == len(DESCS)
    for drawing in drawings:
        root = ET.fromstring(drawing)
        images = list(root.iter("{http://www.w3.org/2000/svg}image"))
        assert images
        assert all(image.get("width") and image.get("height") for image in images)
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets <= set(re.findall(r'\bid="([^"]+)"', text))
    assert len(targets) == 6  # four sections, and the session in two of them


@pytest.mark.parametrize("place", ["sub-99/ses-7", "anat", "job_run-3_desc-x", "it's {odd} #1"])
def test_paths_that_look_like_bids(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_session(tmp_path / place, "01", "a", run="2")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / place))  # as $TMPDIR of a batch job
    page = Page(write_subject_report(tmp_path / place, "01"))
    assert len(figures_of(page)) == len(DESCS)
    assert page.all("tr", data_session="ses-a run-2")
    assert 'session <span class="bids-entity">a</span>, run <span class="bids-entity">2</span>' in page.text


def test_subject_without_sessions(tmp_path: Path) -> None:
    write_session(tmp_path, "01", None)
    page = Page(write_subject_report(tmp_path, "01"))
    assert len(figures_of(page)) == len(DESCS)
    assert [attrs["data-session"] for attrs in page.all("tr") if "data-session" in attrs] == ["sub-01"]


def test_warnings_failures_and_methods_are_shown_escaped(tmp_path: Path) -> None:
    write_session(
        tmp_path,
        "01",
        "a",
        warnings=[{"code": "HIGH_LOAD", "text": "load <b>high</b> & rising"}],
        model={"name": "<i>m</i>"},
    )
    (tmp_path / "CITATION.md").write_text("# Methods\nWe used <script>x</script> {braces}.", encoding="utf-8")
    page = Page(write_subject_report(tmp_path, "01", failures={"ses-b": "/data/<FLAIR>: empty"}))
    assert "load &lt;b&gt;high&lt;/b&gt; &amp; rising" in page.text
    assert "We used &lt;script&gt;x&lt;/script&gt; {braces}." in page.text
    assert page.text.count("/data/&lt;FLAIR&gt;: empty") == 2
    assert "&lt;i&gt;m&lt;/i&gt;" in page.text
    assert not page.all("script")
    assert not page.all("b")
    assert page.all("tr", data_session="ses-b", **{"class": "failed"})
    assert "No warnings." not in page.text
    assert "No errors to report." not in page.text


def test_incomplete_and_broken_summaries(tmp_path: Path) -> None:
    prefix = write_session(tmp_path, "01", "a")
    anat = tmp_path / "sub-01" / "ses-a" / "anat"
    (anat / f"{prefix}_desc-wmh_summary.json").write_text("{", encoding="utf-8")
    write_session(tmp_path, "01", "b", threshold=None, wmh_volume_ml=None, icv_ml=None)
    page = Page(write_subject_report(tmp_path, "01"))
    assert len(page.all("tr", data_session="ses-a")) == len(page.all("tr", data_session="ses-b")) == 1
    assert "sub-01_ses-a_desc-wmh_summary.json cannot be read" in page.text
    row = page.text.split('data-session="ses-b"')[1].split("</tr>")[0]
    assert row.count("n/a") == 3


def test_subject_with_nothing_but_a_failure(tmp_path: Path) -> None:
    page = Page(write_subject_report(tmp_path, "01", failures={"": "no T1w"}))
    assert "1 session failed." in page.text
    assert page.all("tr", data_session="sub-01")
    assert figures_of(page) == []


def test_lobes_and_fazekas_estimates_are_shown_where_the_summary_has_them(tmp_path: Path) -> None:
    from bids_wmh_uad.core.lesion.lobes import LOBES, OTHER

    volumes = {f"wmh_volume_ml_{name}": 10 + number / 8 for number, name in enumerate((*LOBES, OTHER))}
    write_session(tmp_path, "01", "a")  # of an earlier version
    assert 'class="lobes"' not in Page(write_subject_report(tmp_path, "01")).text
    grades = {"fazekas_periventricular_estimate": None, "fazekas_deep_estimate": 2}
    write_session(tmp_path, "01", "b", **volumes, **grades)
    text = Page(write_subject_report(tmp_path, "01")).text
    table = text.split('class="lobes"')[1].split("</table>")[0]
    assert "estimate" in table
    assert "an estimate from" in text.split('class="lobes"')[1].split("</p>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
    left, right = (
        [f"{volumes[f'wmh_volume_ml_{name}']:.2f}" for name in LOBES if name.startswith(side)]
        for side in ("left", "right")
    )
    assert rows == [
        ["ses-b", "left", *left, f"{volumes['wmh_volume_ml_other']:.2f}", "n/a", "2"],
        ["right", *right],
    ]


def test_rejected_candidates_are_listed_with_what_speaks_against_them(tmp_path: Path) -> None:
    prefix = write_session(tmp_path, "01", "a")
    assert 'class="rejected"' not in Page(write_subject_report(tmp_path, "01")).text
    rows = [f"{number}\tdeep\t{9.5 * number}\t0.25\tfaint <b>" for number in range(1, 121)]
    table = tmp_path / "sub-01" / "ses-a" / "anat" / f"{prefix}_space-FLAIR_desc-rejected_dseg.tsv"
    table.write_text("\n".join(["index\tregion\tvolume_mm3\tprobability\treason", *rows]))
    figure = tmp_path / "sub-01" / "figures" / f"{prefix}_desc-lesions_FLAIR.svg"
    number = f'<g id="{prefix}-candidate-2"><a href="#{prefix}-rejected-2" aria-label="rejected candidate 2, slice 7, z">'
    figure.write_text(figure.read_text().replace("</svg>", f"{number}<text>2</text></a></g></svg>"))
    text = Page(write_subject_report(tmp_path, "01")).text
    assert "the 100 largest of 120" in text
    for number in (1, 2, 100):
        assert text.count(f'id="{prefix}-rejected-{number}"') == 1
    assert f'id="{prefix}-rejected-101"' not in text
    first, second = (text.split(f'id="{prefix}-rejected-{number}"')[1].split("</tr>")[0] for number in (1, 2))
    assert "no number" in first
    assert f'href="#{prefix}-candidate-2"' in second
    assert ">7</a>" in second
    assert "faint &lt;b&gt;" in second


def test_unwritable_output_is_a_typed_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(CannotCreateError, match=r"sub-01\.html: cannot be created"):
        write_subject_report(blocked, "01")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (float("nan"), "n/a"),
        ("n/a", "n/a"),
        (0, "0"),
        (0.0, "0.00"),
        (np.int64(3), "3"),
        (1.005e3, "1005.00"),
        ("x", "x"),
    ],
)
def test_numbers_in_tables(value: object, text: str) -> None:
    assert show(value) == text


def test_the_model_card_is_that_of_the_same_weights(tmp_path: Path) -> None:
    from bids_wmh_uad.models import model_digest
    from bids_wmh_uad.reports.readers import read_card

    shipped = {"name": "default", "digest": model_digest("default")}
    assert read_card(shipped, None).startswith("# Model card: default")
    assert read_card(shipped | {"digest": "other"}, None) == ""
    assert read_card({"name": "/none", "digest": "0"}, tmp_path) == ""
    assert read_card(None, None) == ""


def test_every_reference_has_text_and_bibtex() -> None:
    from bids_wmh_uad.reports.methods import REFERENCES, bibliography, methods_text

    for key, work in REFERENCES.items():
        assert work.doi or work.url
        entry = work.bibtex(key)
        assert entry.count("{") == entry.count("}")
        assert f"{{{key}," in entry
        assert str(work.year) in work.text
    text, bib = methods_text("We did [@n4; @ants], and again [@n4]."), bibliography("We did [@n4; @ants].")
    assert "We did [4; 5], and again [4]." in text
    assert re.findall(r"@\w+\{(\w+),", bib) == ["bidsapps", "nipype", "niworkflows", "n4", "ants"]
    with pytest.raises(KeyError):
        methods_text("[@nobody]")


def test_the_methods_text_says_of_each_score_what_took_part() -> None:
    from bids_wmh_uad.config import Method
    from bids_wmh_uad.core.parameters import SCORES
    from bids_wmh_uad.reports.methods import describe_method

    texts = {score: describe_method(Method(score=score)) for score in SCORES}
    assert len(set(texts.values())) == len(SCORES)
    for score, text in texts.items():
        learnt = score != "brightness"
        for word in ("@pinon", "auto-encoder", "@ocsvm", "patches", "latent space"):
            assert (word in text) is learnt, (score, word)
        assert ("brightest 10 % of" in text) is (score in {"directed", "latent"})
        assert ("against white matter" in text) is (score in {"directed", "brightness"})
    assert "{" not in "".join(texts.values())
    missing = Method(score="brightness", model="/no/such/model", paradigm="pooled")
    assert describe_method(missing) == texts["brightness"]  # no model is read


def test_the_methods_text_says_how_candidates_were_judged(tmp_path: Path) -> None:
    from bids_wmh_uad.config import Method
    from bids_wmh_uad.core.lesion.decision import LesionDecision
    from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    from bids_wmh_uad.core.parameters import SCORES
    from bids_wmh_uad.models import save_decision, save_model
    from bids_wmh_uad.reports.methods import KEPT_TEXT, LATENTS_TEXT, describe_method

    def said(**settings: Any) -> str:
        return " ".join(describe_method(Method(**settings)).split())

    for score in SCORES:
        for threshold in ("tail", "tail=2.5", "gm", "quantile=0.99", "value=3"):
            text, method = said(score=score, threshold=threshold), Method(score=score, threshold=threshold)
            judged = method.parameters.decides
            for words in (
                "judged one by one",
                "logistic regression",
                "filled ventricles",
                "within 2 mm around it",
            ):
                assert (words in text) is judged, (score, threshold, words)
            assert (f"mm3 were {KEPT_TEXT}." in text) is not judged
    assert "of a probability of at least 0.35 were taken" in said(accept=0.35)
    # the latents are named if they were looked at
    model = str(save_model(build_autoencoder(0), tmp_path / "model", {}))
    assert LATENTS_TEXT not in said(model=model)
    save_decision(LesionDecision(latent=(1.0,) * 16), model, {})
    assert LATENTS_TEXT in said(model=model)
    assert LATENTS_TEXT not in said(model=model, score="brightness")
    assert "latent" not in said(model=model, score="brightness")
    assert LATENTS_TEXT not in said(model=model, threshold="gm")
