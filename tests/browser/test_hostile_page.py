"""Pages of hostile files in a real browser: nothing runs, nothing is asked for, and the policy holds by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.reports.group import write_group_report
from bids_wmh_uad.reports.subject import write_subject_report
from browser.chromium import NAMES, Browser, find_browser

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"HOSTILE PAGES ARE NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed",
)
RUN = "document.documentElement.dataset.ran = 1"
MARKUP = f"</title></script><script>{RUN}</script><img src=x onerror='{RUN}'>"
FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="{run}"><g/></svg>'
RAN = "document.documentElement.dataset.ran || ''"


def subject_page(root: Path) -> Path:
    label = MARKUP.replace("/", "")
    anat, figures = root / f"sub-{label}" / "anat", root / f"sub-{label}" / "figures"
    anat.mkdir(parents=True)
    figures.mkdir()
    summary = {"wmh_volume_ml": 1.0, "warnings": [MARKUP], "model": {"name": MARKUP}, "score": MARKUP}
    (anat / f"sub-{label}_desc-wmh_summary.json").write_text(json.dumps(summary))
    (figures / f"sub-{label}_desc-lesions_FLAIR.svg").write_text(FIGURE.format(run=RUN))
    (root / "CITATION.md").write_text(MARKUP)
    return write_subject_report(root, label, failures={MARKUP: MARKUP})


def group_page(root: Path) -> Path:
    row = {
        "participant_id": MARKUP,
        "session_id": MARKUP,
        "wmh_volume_ml": 1.0,
        MARKUP: MARKUP,
        "reason": MARKUP,
    }
    return write_group_report(root, [row, row | {"participant_id": "sub-2", MARKUP: "x"}])


@pytest.mark.parametrize("make", [subject_page, group_page])
def test_nothing_runs(make, browser: Browser, tmp_path: Path) -> None:
    browser.open(make(tmp_path))
    assert browser.run(RAN) == ""
    assert browser.errors == []  # the policy had nothing to forbid: the markup is text
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    assert RUN in browser.run("document.body.textContent")


@pytest.mark.parametrize("make", [subject_page, group_page])
def test_the_policy_forbids_what_came_in_all_the_same(make, browser: Browser, tmp_path: Path) -> None:
    page = make(tmp_path)
    injected = f'<script>{RUN}</script><svg onload="{RUN}"></svg><img src="https://example.com/x.png"></main>'
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", injected), encoding="utf-8")
    browser.open(page)
    assert browser.run(RAN) == ""
    assert len(browser.errors) >= 3
    assert all("Content Security Policy" in error for error in browser.errors)
