"""The section of change in a real, headless Chromium: both sessions side by side, flicker only where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from followed import write_followed

from bids_wmh_uad.reports.subject import write_subject_report
from browser.chromium import NAMES, Browser, find_browser

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"THE SECTION OF CHANGE IS NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed",
)
SECOND = "document.querySelectorAll('.change')[1]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("change")
    for number in range(1, 4):
        anat = root / "sub-01" / f"ses-{number}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-01_ses-{number}_desc-wmh_summary.json").write_text('{"wmh_volume_ml": 1.0}')
    write_followed(root, sessions=3)
    return write_subject_report(root, "01")


def _style(browser: Browser, layer: str, name: str) -> Any:
    """Computed style of the earlier session in the second pair's right panels."""
    return browser.run(f"getComputedStyle({SECOND}.querySelector('use.{layer}')).{name}")


def _choose(browser: Browser, name: str) -> None:
    browser.run(f"{SECOND}.querySelector('input.{name}').click()")
    browser.settle()


def test_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    assert browser.errors == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.run("document.querySelectorAll('.change').length") == 3


def test_flickers_where_it_is_asked_to(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    assert _style(browser, "wmh-top", "animationName") == "none"
    assert _style(browser, "wmh-top", "opacity") == "0"
    _choose(browser, "flicker")
    assert _style(browser, "wmh-top", "animationName") == "wmh-blink"
    others = "[...document.querySelectorAll('.change')].filter((_, k) => k !== 1)"
    still = f"{others}.map(box => getComputedStyle(box.querySelector('use.wmh-top')).animationName)"
    assert browser.run(still) == ["none", "none"]
    _choose(browser, "earlier")
    assert _style(browser, "wmh-top", "opacity") == "1"
    assert _style(browser, "wmh-top", "animationName") == "none"
    _choose(browser, "still")
    assert _style(browser, "wmh-top", "opacity") == "0"
    outline = f"getComputedStyle({SECOND}.querySelector('.wmh-outline')).opacity"
    assert browser.run(outline) == "1"
    _choose(browser, "outlines")
    assert browser.run(outline) == "0"


def test_slower_where_motion_is_unwanted_and_still_on_paper(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    _choose(browser, "flicker")
    assert _style(browser, "wmh-top", "animationDuration") == "1.4s"
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.send("Emulation.setEmulatedMedia", media="", features=reduced)
    assert _style(browser, "wmh-top", "animationDuration") == "4s"
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert _style(browser, "wmh-top", "animationName") == "none"
    assert _style(browser, "wmh-top", "opacity") == "0"
    assert browser.run("getComputedStyle(document.querySelector('.change .tools')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.parametrize("width", [320, 400])
def test_narrow_screens(browser: Browser, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") <= width
    text = "[...document.querySelectorAll('.change .wmh-mosaic text')].filter(x => x.textContent).map(x => x.getBoundingClientRect().height)"
    assert min(browser.run(text)) > 9


def test_numbers_lead_to_rows(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    target = browser.run(f"{SECOND}.querySelector('svg a').getAttribute('href').slice(1)")
    assert browser.run(f"document.getElementById('{target}').closest('.change') === {SECOND}")
    ids = browser.run("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
