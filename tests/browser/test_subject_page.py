"""The subject page in a real, headless Chromium: errors, requests, figures, narrow screens, keyboard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.score.explain import explain
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.reports.figures import charts
from bids_wmh_uad.reports.figures import lesions as lesion_figures
from bids_wmh_uad.reports.figures import scans as figures
from bids_wmh_uad.reports.subject import MAX_SESSIONS_PER_PAGE, write_subject_report
from browser.chromium import NAMES, Browser, find_browser

if TYPE_CHECKING:
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"THE SUBJECT PAGE IS NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed",
)
FIGURES = ("lesions", "anomaly", "histogram", "patches", "latents", "brain", "coreg", "norm")
OVERFLOW = "document.documentElement.scrollWidth"
BROKEN_IMAGES = """Promise.all([...document.querySelectorAll('svg image')].map(async image => {
  const probe = new Image(); probe.src = image.getAttribute('href');
  try { await probe.decode(); return probe.naturalWidth; } catch { return 0; } })).then(all => all.filter(width => !width).length)"""
WARNING = "Look <b>twice</b> & think."
TABLE = (
    "index\tname\tregion\tventricle_distance_mm\tvolume_mm3\tn_voxels\tx\ty\tz\tmean_score\tmax_score\n"
    "1\tlesion-1\tperiventricular\t2.5\t812.5\t72\t1\t2\t3\t5.25\t9\n"
    "2\tlesion-2\tdeep\tn/a\t101.25\t9\t1\t2\t3\t4\t5\n"
)


def draw(directory: Path, prefix: str, subject: PhantomSubject) -> None:
    """All figures of a session, of a phantom whose truth stands in for the results."""
    flair, lesions, brain = (
        nib.as_closest_canonical(getattr(subject, name)) for name in ("flair", "lesions", "brain")
    )
    mask = brain.get_fdata() > 0
    z = flair.get_fdata(dtype=np.float32) / np.median(flair.get_fdata()[mask]) - 1
    score = (ndimage.gaussian_filter(np.maximum(z, 0), 0.7) * mask).astype(np.float32)
    anomaly = nib.Nifti1Image(score, flair.affine)
    truth = lesions.get_fdata() > 0
    kinds = {"white matter": mask & ~truth, "grey matter": np.zeros_like(mask), "lesions": truth}
    sample = vars(explain(build_autoencoder(0).eval(), Scan(z, z, mask), kinds, np.random.default_rng(0)))

    def out(name: str) -> Path:
        return directory / f"{prefix}_desc-{name}_FLAIR.svg"

    rejected = nib.Nifti1Image(np.roll(lesions.get_fdata(), 8, axis=0).astype(np.int32), flair.affine)
    lesion_figures.plot_lesions(flair, lesions, out("lesions"), mask=brain, rejected=rejected, prefix=prefix)
    lesion_figures.plot_anomaly_map(flair, anomaly, 0.4, out("anomaly"), lesions=lesions, mask=brain)
    figures.plot_brain_mask(flair, brain, out("brain"))
    figures.plot_registration(flair, flair, out("coreg"), mask=brain)
    figures.plot_template_registration(flair, flair, out("norm"), mask=brain)
    charts.plot_score_histogram(anomaly, brain, 0.4, out("histogram"))
    charts.plot_patches(sample, out("patches"))
    charts.plot_latents(sample, out("latents"))


def write_session(root: Path, session: str, subject: PhantomSubject) -> None:
    prefix = f"sub-01_ses-{session}"
    draw(root / "sub-01" / "figures", prefix, subject)
    anat = root / "sub-01" / f"ses-{session}" / "anat"
    anat.mkdir(parents=True)
    summary = {
        "wmh_volume_ml": 8.0, "lesion_count": 2, "icv_ml": 1400.0, "warnings": [{"code": "HIGH_LOAD", "text": WARNING}],
        "wmh_volume_ml_periventricular": 7.0, "lesion_count_periventricular": 1,
        "wmh_volume_ml_left_frontal": 3.0, "fazekas_periventricular_estimate": 2, "fazekas_deep_estimate": 1,
        "Sources": ["bids:raw:" + "a_very_long_name_without_a_space" * 6], "model": {"name": "default", "digest": "0"},
    }  # fmt: skip
    (anat / f"{prefix}_desc-wmh_summary.json").write_text(json.dumps(summary))
    for name in ("lesions", "rejected"):
        (anat / f"{prefix}_space-FLAIR_desc-{name}_dseg.tsv").write_text(TABLE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, phantom: PhantomSubject) -> Path:
    root = tmp_path_factory.mktemp("one")
    write_session(root, "a", phantom)
    (root / "CITATION.md").write_text("# Methods\n" + "word" * 200)
    return write_subject_report(root, "01", failures={"ses-b": "no T1w"})


def test_it_opens_whole_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    shown = browser.run("[...document.querySelectorAll('.figure')].map(figure => figure.dataset.figure)")
    assert [name.split("_desc-")[1].split("_")[0] for name in shown] == list(FIGURES)
    sizes = "[...document.querySelectorAll('.figure svg')].map(svg => svg.getBoundingClientRect().height)"
    assert min(browser.run(sizes)) > 100
    assert browser.run("document.querySelectorAll('svg image').length") > 50
    assert browser.run(BROKEN_IMAGES) == 0
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    assert page.stat().st_size < 5e6 / MAX_SESSIONS_PER_PAGE


def test_ids_are_unique_and_every_reference_is_met(browser: Browser, page: Path) -> None:
    browser.open(page)
    ids = browser.run("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    wanted = browser.run(
        "[...document.querySelectorAll('use')].map(use => (use.getAttribute('href') || use.getAttribute('xlink:href')).slice(1))"
    )
    assert wanted
    assert set(wanted) <= set(ids)


@pytest.mark.parametrize(("height", "zoom"), [(800, 1), (256, 4)], ids=["320 px", "400 %"])
def test_narrow_screens(height: int, zoom: int, browser: Browser, page: Path) -> None:
    browser.resize(320, height, zoom)
    browser.open(page)
    browser.run("document.querySelectorAll('details').forEach(element => element.open = true)")
    assert browser.run(OVERFLOW) <= 320
    # what is drawn stays large enough to read, and its box scrolls
    text = """[...document.querySelectorAll('.wmh-mosaic text')].filter(text => text.textContent).map(text => text.getBoundingClientRect().height)"""
    assert min(browser.run(text)) > 9
    boxes = "[...document.querySelectorAll('.figure')].map(box => [box.scrollWidth, box.clientWidth])"
    assert all(inner > outer for inner, outer in browser.run(boxes))


def test_a_rejected_candidates_number_leads_to_its_row_and_back(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    row = "document.getElementById('sub-01_ses-a-rejected-1')"
    assert browser.run(f"{row}.closest('details').open") is False
    browser.run(
        "document.querySelector('[href=\"#sub-01_ses-a-rejected-1\"]').dispatchEvent(new MouseEvent('click'))"
    )
    browser.settle()
    assert browser.run("location.hash") == "#sub-01_ses-a-rejected-1"
    assert browser.run(f"{row}.closest('details').open") is True  # else the row would stay folded away
    browser.run(f"{row}.querySelector('a').click()")
    browser.settle()
    assert browser.run("document.querySelector(':target .wmh-quiet').textContent") == "1"


def test_figures_work_by_keyboard(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    reached = []
    for _ in range(60):
        browser.press("Tab")
        name = browser.run("document.activeElement.dataset.figure || ''")
        if name:
            reached.append(name.split("_desc-")[1].split("_")[0])
            if reached[-1] == "lesions":
                hidden = "getComputedStyle(document.activeElement.querySelector('.wmh-outline')).opacity"
                assert browser.run(hidden) == "0"
            if reached[-1] == "coreg":
                moving = "getComputedStyle(document.activeElement.querySelector('.wmh-top')).animationName"
                assert browser.run(moving) == "wmh-blink"
    assert reached[: len(FIGURES)] == list(FIGURES)
    labels = "[...document.querySelectorAll('.figure')].every(figure => figure.getAttribute('aria-label'))"
    assert browser.run(labels)


def test_what_it_says(browser: Browser, page: Path) -> None:
    browser.open(page)
    warnings = browser.run("document.querySelector('section .warning').textContent")
    assert WARNING in warnings
    above = "document.querySelector('section .warning').getBoundingClientRect().top < document.querySelector('table.summary').getBoundingClientRect().top"
    assert browser.run(above)
    assert "1 session failed." in browser.run("document.querySelector('.error').textContent")
    rows = "[...document.querySelectorAll('table.lesions tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    found = browser.run(rows)
    assert found[0].pop(1).isdecimal()  # the slice in which the figure has its number
    assert found == [
        ["1", "periventricular", "812.5", "1", "2", "3", "2.5", "n/a", "5.250"],
        ["2", "not drawn", "deep", "101.2", "1", "2", "3", "n/a", "n/a", "4.000"],
    ]  # fmt: skip


def test_many_sessions_get_a_page_each(browser: Browser, phantom: PhantomSubject, tmp_path: Path) -> None:
    for number in range(MAX_SESSIONS_PER_PAGE + 1):
        write_session(tmp_path, str(number), phantom)
    index = write_subject_report(tmp_path, "01")
    browser.resize(1280, 900)
    browser.open(index)
    assert browser.run("document.querySelectorAll('.figure').length") == 0
    links = browser.run(
        "[...document.querySelectorAll('table.summary a')].map(link => link.getAttribute('href'))"
    )
    assert links == [f"sub-01_ses-{number}.html" for number in range(MAX_SESSIONS_PER_PAGE + 1)]
    with browser.loading():
        browser.run("document.querySelector('table.summary a').click()")
    shown = browser.run("[...document.querySelectorAll('.figure')].map(figure => figure.dataset.figure)")
    assert [name.split("_desc-")[0] for name in shown] == ["sub-01_ses-0"] * len(FIGURES)
    assert browser.errors == []
    assert max(path.stat().st_size for path in tmp_path.glob("*.html")) < 5e6
