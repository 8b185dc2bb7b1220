"""The pages in the dark and on paper: text can be told from what is behind it, nothing is cut off, what needs a hand is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.reports.figures.mosaic import Panel, write_mosaic
from bids_wmh_uad.reports.group import write_group_report
from bids_wmh_uad.reports.methods import METHODS_FILES
from bids_wmh_uad.reports.subject import write_subject_report
from browser.chromium import NAMES, Browser, find_browser
from browser.pages import make_cohort, make_evaluation, make_summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"THEMES ARE NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed"
)
CONTRAST = """(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = colour => { const [r, g, b] = colour.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = element => { for (; element; element = element.parentElement) { const found = numbers(getComputedStyle(element).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found; } return [255, 255, 255]; };
  const texts = [...document.querySelectorAll('p, td, th, a, li, label, button, select, summary, pre, h1, h2, h3, span, strong, option')]
    .filter(e => !e.closest('svg') && e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return texts.map(e => { const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40)]; });
})()"""
CUT_OFF = """[...document.querySelectorAll('table, pre, p, svg, img, li')].filter(e => e.checkVisibility() && !e.closest('svg svg'))
  .filter(e => { const box = e.getBoundingClientRect(); return box.width && box.right > document.documentElement.clientWidth + 1; }).map(e => e.tagName + '.' + e.getAttribute('class'))"""
SHOWN = "[...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).length"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A participant's page with lesions, warnings and an error, and a cohort's with everything."""
    import numpy as np

    root = tmp_path_factory.mktemp("themes")
    anat, figures = root / "sub-01" / "anat", root / "sub-01" / "figures"
    anat.mkdir(parents=True)
    scan = {
        "file": "bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz",
        "voxel_size_mm": [1, 1, 3],
        "matrix": [240, 240, 48],
        "EchoTime": 0.1,
    }
    summary = {
        "wmh_volume_ml": 8.0,
        "warnings": [{"code": "X", "text": "Look twice."}],
        "inputs": {"FLAIR": scan, "T1w": scan},
    }
    (anat / "sub-01_desc-wmh_summary.json").write_text(json.dumps(summary))
    rows = [f"{n}\tperiventricular\t2.5\t812.5\t1\t2\t3\t5.25\t0.9" for n in range(1, 100)]
    table = ["index\tregion\tventricle_distance_mm\tvolume_mm3\tx\ty\tz\tmean_score\tprobability", *rows]
    (anat / "sub-01_space-FLAIR_desc-lesions_dseg.tsv").write_text("\n".join(table) + "\n")
    grey = np.tile(np.arange(32, dtype=np.uint8), (40, 1))
    write_mosaic(
        [[Panel((grey,), (64.0, 80.0), (), "z", ("L", "R"))] * 6],
        figures / "sub-01_desc-lesions_FLAIR.svg",
        "x",
    )
    for name, write in METHODS_FILES.items():
        (root / name).write_text(write("We did *this* [@n4]."))
    cohort = make_cohort(24, failed=1)
    evaluation = make_evaluation(cohort)
    return {
        "subject": write_subject_report(root, "01", failures={"ses-b": "no T1w"}),
        "group": write_group_report(
            root, cohort, evaluation=evaluation, summary=make_summary(evaluation, cohort)
        ),
    }


@pytest.fixture
def plain(browser: Browser) -> Iterator[Browser]:
    """The browser; afterwards it shows pages on a light screen again."""
    yield browser
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


def emulate(browser: Browser, scheme: str, media: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.send("Emulation.setEmulatedMedia", media=media, features=features)


@pytest.mark.parametrize("name", ["subject", "group"])
@pytest.mark.parametrize(("scheme", "media"), [("light", ""), ("dark", ""), ("dark", "print")])
def test_text_can_be_read(name: str, scheme: str, media: str, plain: Browser, pages: dict[str, Path]) -> None:
    plain.resize(1400, 900)
    emulate(plain, scheme, media)
    plain.open(pages[name])
    found = plain.run(CONTRAST)
    assert len(found) > 100
    assert [text for ratio, text in found if ratio < 4.5] == []
    paper = plain.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light" or media == "print")


@pytest.mark.parametrize("name", ["subject", "group"])
def test_nothing_is_cut_off_on_paper(name: str, plain: Browser, pages: dict[str, Path]) -> None:
    plain.resize(1000 if name == "group" else 720, 1000)
    emulate(plain, "light", "print")
    plain.open(pages[name])
    assert plain.run("document.documentElement.scrollWidth") <= plain.run("innerWidth")
    assert plain.run(CUT_OFF) == []
    hidden = "[...document.querySelectorAll('.scroll, .figure')].filter(e => e.scrollHeight > e.clientHeight + 2).length"
    assert plain.run(hidden) == 0
    assert plain.run(SHOWN.format("nav, .tools, .viewer, button.go, .tabs > label, .tabs > pre")) == 0


def test_the_methods_have_tabs_on_the_screen_and_one_form_on_paper(
    plain: Browser, pages: dict[str, Path]
) -> None:
    plain.resize(1400, 900)
    plain.open(pages["subject"])
    for number, kind in enumerate(("div.tab", "pre.tab", "pre.tab", "pre.tab"), start=1):
        plain.run(f"document.getElementById('methods-{number}').click()")
        assert plain.run(SHOWN.format(".tab")) == plain.run(SHOWN.format(kind)) == 1
    assert "@article{n4" in plain.run("document.querySelectorAll('pre.tab')[2].innerText")
    emulate(plain, "light", "print")
    assert plain.run(SHOWN.format("div.tab")) == plain.run(SHOWN.format(".tab")) == 1
