"""The group page in a real, headless Chromium: errors, requests, sorting, filtering, plots, narrow screens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.reports.group import write_group_report
from browser.chromium import NAMES, Browser, find_browser
from browser.pages import make_cohort, make_evaluation, make_summary

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"THE GROUP PAGE IS NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed",
)
SIZES = {3: 0, 60: 3, 1000: 17}
CHANGE = "(() => {{ const input = document.getElementById('{id}'); input.{field} = {value}; input.dispatchEvent(new Event('change')); }})()"
COLUMN = "[...document.querySelectorAll('#sessions-table tbody tr')].filter(row => !row.hidden).map(row => row.cells[{place}].textContent)"
OVERFLOW = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    written = {}
    for sessions, failed in SIZES.items():
        root = tmp_path_factory.mktemp(f"sessions{sessions}")
        cohort = make_cohort(sessions, failed=failed)
        for row in cohort[:-1:2]:
            (root / f"{row['participant_id']}.html").write_text(
                "<title>a participant</title>", encoding="utf-8"
            )
        evaluation = make_evaluation(cohort)
        summary = make_summary(evaluation, cohort)
        written[sessions] = write_group_report(root, cohort, evaluation=evaluation, summary=summary)
    return written


def change(browser: Browser, name: str, value: str | bool) -> None:
    field = "checked" if isinstance(value, bool) else "value"
    browser.run(CHANGE.format(id=name, field=field, value=json.dumps(value)))


def column(browser: Browser, place: int) -> list[str]:
    return browser.run(COLUMN.format(place=place))


@pytest.mark.parametrize("sessions", SIZES)
def test_it_opens_without_errors_and_asks_for_nothing(
    sessions: int, browser: Browser, pages: dict[int, Path]
) -> None:
    browser.resize(1280, 900)
    browser.open(pages[sessions])
    done = sessions - SIZES[sessions]
    assert browser.run("document.querySelectorAll('#strip-plot .mark').length") == done
    assert browser.run("document.querySelectorAll('#agreement .mark').length") == done
    assert browser.run("document.querySelectorAll('#curves path.curve').length") == 10
    assert "NaN" not in browser.run("[...document.querySelectorAll('svg')].map(svg => svg.outerHTML).join()")
    assert browser.run(OVERFLOW) <= 1280
    for measure in browser.run(
        "[...document.querySelectorAll('#measure option')].map(option => option.value)"
    )[: 8 if sessions == 1000 else None]:
        change(browser, "measure", measure)
        known = sessions if measure == "sessions age" else done  # a failed session's age is known
        assert browser.run("document.querySelectorAll('#strip-plot .mark').length") == known, measure
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1


@pytest.mark.parametrize("sessions", SIZES)
@pytest.mark.parametrize(("height", "zoom"), [(800, 1), (256, 4)], ids=["320 px", "400 %"])
def test_no_sideways_scrolling_on_narrow_screens(
    height: int, zoom: int, sessions: int, browser: Browser, pages: dict[int, Path]
) -> None:
    browser.resize(320, height, zoom)
    browser.open(pages[sessions])
    change(browser, "split", "site" if sessions > 3 else "")
    assert browser.run(OVERFLOW) <= 320
    wide = "[...document.querySelectorAll('.plot svg')].filter(svg => svg.getBoundingClientRect().right > 320).length"
    assert browser.run(wide) == 0
    inside = """[...document.querySelectorAll('.plot text')].filter(text => {
      const box = text.getBoundingClientRect(); return box.left < -1 || box.right > 321; }).map(text => text.textContent)"""
    assert browser.run(inside) == []
    assert browser.errors == []


def test_axis_texts_do_not_meet(browser: Browser, pages: dict[int, Path]) -> None:
    meeting = """[...document.querySelectorAll('.plot svg')].flatMap(svg => {
      const all = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
      return all.flatMap(([a, p], index) => all.slice(index + 1).filter(([b, q]) =>
        p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3).map(([b]) => a + ' | ' + b)); })"""
    for page in pages.values():
        browser.resize(1280, 800)
        browser.open(page)
        for width in (1280, 320):
            browser.resize(width, 800)
            for logarithmic in (True, False):
                change(browser, "log", logarithmic)
                assert browser.run(meeting) == []


def test_sorting(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.open(pages[60])
    state = "document.querySelectorAll('#sessions-table th')[3].getAttribute('aria-sort')"
    click = "document.querySelectorAll('#sessions-table th button')[3].click()"
    for order, reverse in (("ascending", False), ("descending", True)):
        browser.run(click)
        assert browser.run(state) == order
        volumes = column(browser, 3)
        assert volumes[-3:] == ["n/a"] * 3
        numbers = [float(text) for text in volumes[:-3]]
        assert numbers == sorted(numbers, reverse=reverse)
    assert browser.run("document.querySelectorAll('#sessions-table [aria-sort]').length") == 1


def test_filter_and_download(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.open(pages[60])
    browser.run("document.querySelector('.filter').focus()")
    browser.send("Input.insertText", text="sub-0007 SINGA")
    assert browser.run("document.querySelector('.count').textContent") == "1 of 60 rows"
    assert column(browser, 0) == ["sub-0007"]
    browser.run("URL.createObjectURL = blob => { window.saved = blob; return 'blob:none'; }")
    browser.run("HTMLAnchorElement.prototype.click = function () { window.named = this.download; }")
    browser.run("document.querySelector('.download').click()")
    lines = browser.run("window.saved.text()").splitlines()
    assert browser.run("window.named") == "group_sessions.tsv"
    assert lines[0].startswith("participant_id\tsession_id\tstatus\twmh_volume_ml\t")
    assert len(lines) == 2
    assert lines[1].startswith("sub-0007\t")


def test_a_thousand_sessions_are_sorted_and_filtered_at_once(
    browser: Browser, pages: dict[int, Path]
) -> None:
    browser.resize(1280, 900)
    browser.open(pages[1000])
    timed = """(() => { const start = performance.now(); {action}; document.body.offsetHeight; return performance.now() - start; })()"""
    sort = "document.querySelectorAll('#sessions-table th button')[3].click()"
    change_split = CHANGE.format(id="split", field="value", value='"site"')
    for action in (sort, change_split):
        assert browser.run(timed.replace("{action}", action)) < 5000  # about 0.3 s where the machine is idle


def test_splitting_by_site(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.open(pages[60])
    change(browser, "split", "site")
    names = browser.run(
        "[...document.querySelectorAll('#strip-plot text.group')].map(text => text.textContent)"
    )
    assert [name.split(" (")[0] for name in names] == ["Amsterdam", "Singapore", "Utrecht"]
    assert browser.run("document.querySelectorAll('#strip-plot .box').length") == 3
    change(browser, "measure", "evaluation dice")
    assert browser.run("document.querySelectorAll('#strip-plot .box').length") == 3
    assert browser.run("document.getElementById('log-label').hidden") is True


def test_outliers_are_those_of_tukey(browser: Browser, pages: dict[int, Path]) -> None:
    import numpy as np

    volumes = [row["wmh_volume_ml"] for row in make_cohort(60, failed=3)[3:]]
    low, high = np.percentile(volumes, (25, 75))
    expected = sum(v > high + 1.5 * (high - low) or v < low - 1.5 * (high - low) for v in volumes)
    browser.resize(1280, 900)
    browser.open(pages[60])
    assert expected > 0
    assert browser.run("document.querySelectorAll('#strip-plot .mark path').length") == expected
    assert browser.run("document.querySelectorAll('#outliers li').length") == expected


def test_points_can_be_reached_by_keyboard(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.open(pages[60])
    assert browser.run("document.querySelectorAll('#strip-plot [tabindex=\"0\"]').length") == 1
    browser.run("document.querySelector('#strip-plot [tabindex=\"0\"]').focus()")
    first = browser.run("document.querySelector('#strip-plot .tip').textContent")
    browser.press("ArrowRight")
    second = browser.run("document.querySelector('#strip-plot .tip').textContent")
    volumes = sorted(row["wmh_volume_ml"] for row in make_cohort(60, failed=3)[3:])
    shown = [float(text.split("WMH volume, mL: ")[1]) for text in (first, second)]
    assert shown == pytest.approx(volumes[:2], rel=1e-3)
    assert browser.run("document.activeElement.getAttribute('aria-label')").startswith("sub-")
    browser.press("Escape")
    assert browser.run("document.querySelector('#strip-plot .tip').hidden") is True
    browser.press("End")
    assert browser.run("document.activeElement.getAttribute('aria-label')").endswith("outlier")
    with browser.loading():
        browser.press("Enter")
    assert browser.run("document.title") == "a participant"


def test_a_point_opens_its_page(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.open(pages[3])
    box = browser.run(
        "(() => { const box = document.querySelector('#strip-plot a').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.point(box[0] + 9, box[1])
    assert browser.run("document.querySelector('#strip-plot .tip').hidden") is False
    with browser.loading():
        browser.point(box[0] + 9, box[1], click=True)
    assert browser.run("document.title") == "a participant"


def test_the_page_reads_without_scripts(browser: Browser, pages: dict[int, Path]) -> None:
    browser.resize(1280, 900)
    browser.allow_scripts(False)
    try:
        browser.open(pages[60])
        document = browser.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        rows = browser.send("DOM.querySelectorAll", nodeId=document, selector="#sessions-table tbody tr")
        note = browser.send("DOM.querySelectorAll", nodeId=document, selector="noscript p.warning")
    finally:
        browser.allow_scripts(True)
    assert len(rows["nodeIds"]) == 60
    assert len(note["nodeIds"]) == 2
