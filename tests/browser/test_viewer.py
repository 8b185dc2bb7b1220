"""The viewer in a real, headless Chromium with WebGL in software: it opens under the page's policy, and without it the page still serves."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from io import BytesIO
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.reports.figures.lesions import plot_lesions
from bids_wmh_uad.reports.figures.viewer import write_viewer
from bids_wmh_uad.reports.subject import write_subject_report
from browser.chromium import NAMES, Browser, find_browser

if TYPE_CHECKING:
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"THE VIEWER IS NOT TESTED IN A BROWSER: none of {', '.join(NAMES)} is installed"
)
OPEN = "document.querySelector('.viewer .open').click()"
STATE = """[!document.querySelector('.viewer .controls').hidden, document.querySelector('.viewer .message').textContent,
  document.querySelector('.viewer .place').textContent]"""


def pixels(browser: Browser) -> np.ndarray:
    """What is on the screen where the viewer draws, shape (rows, columns, 3)."""
    from PIL import Image

    box = browser.run("document.querySelector('.viewer canvas').getBoundingClientRect().toJSON()")
    clip = {key: box[key] for key in ("x", "y", "width", "height")} | {"scale": 1}
    clip["y"] += browser.run("scrollY")
    shot = browser.send("Page.captureScreenshot", clip=clip)["data"]
    return np.asarray(Image.open(BytesIO(b64decode(shot))).convert("RGB")).astype(int)


def red(shown: np.ndarray) -> int:
    """How many pixels are clearly red: lesions, not the crosshair, which is yellow."""
    return int(((shown[..., 0] > shown[..., 1] + 50) & (shown[..., 0] > shown[..., 2] + 50)).sum())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, phantom: PhantomSubject) -> Path:
    root = tmp_path_factory.mktemp("viewer")
    flair, mask, brain = (
        nib.as_closest_canonical(getattr(phantom, name)) for name in ("flair", "lesions", "brain")
    )
    data = np.asarray(mask.dataobj) > 0
    found, count = ndimage.label(data, np.ones((3, 3, 3)))
    labels = nib.Nifti1Image(found.astype(np.int32), flair.affine)
    none = nib.Nifti1Image(np.zeros(flair.shape, np.int32), flair.affine)
    score = nib.Nifti1Image(ndimage.gaussian_filter(data.astype(np.float32), 1), flair.affine)
    figures, anat = root / "sub-01" / "figures", root / "sub-01" / "anat"
    figures.mkdir(parents=True)
    anat.mkdir()
    write_viewer(
        flair,
        score,
        0.3,
        figures / "sub-01_desc-viewer_FLAIR.json",
        mask=brain,
        lesions=labels,
        rejected=none,
    )
    plot_lesions(flair, labels, figures / "sub-01_desc-lesions_FLAIR.svg", mask=brain, prefix="sub-01")
    (anat / "sub-01_desc-wmh_summary.json").write_text(
        json.dumps({"wmh_volume_ml": 1.0, "lesion_count": count})
    )
    rows = ["index\tregion\tvolume_mm3\tx\ty\tz"]
    for number, (x, y, z) in enumerate(ndimage.center_of_mass(data, found, range(1, count + 1)), start=1):
        place = nib.affines.apply_affine(flair.affine, [x, y, z])
        rows.append("\t".join([str(number), "deep", "1", *(f"{value:.3f}" for value in place)]))
    (anat / "sub-01_space-FLAIR_desc-lesions_dseg.tsv").write_text("\n".join(rows) + "\n")
    return write_subject_report(root, "01")


def wait(browser: Browser) -> list[str]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state: list[str] = browser.run(STATE)
        if state[0] or state[1]:
            browser.settle()
            return state
        time.sleep(0.1)
    raise TimeoutError(state)


def real_errors(browser: Browser) -> list[str]:
    """Errors, without what a renderer in software says of itself."""
    return [error for error in browser.errors if '"source": "rendering"' not in error]


def test_it_opens_under_the_policy_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    assert browser.run("typeof window.niivue") == "undefined"  # nothing is unpacked before somebody asks
    browser.run(OPEN)
    opened, message, place = wait(browser)
    assert opened
    assert message == ""
    assert "mm; anomaly score" in place
    browser.run("document.querySelector('.viewer').scrollIntoView()")
    shown = pixels(browser)
    assert (shown.min(axis=2) > 60).sum() > 5000
    assert red(shown) > 5
    browser.run("document.querySelector('.viewer .marks').click()")
    assert red(pixels(browser)) == 0
    assert real_errors(browser) == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    browser.run(
        "(() => { const other = document.createElement('script'); other.textContent = 'window.ran = 1'; document.head.append(other); })()"
    )
    assert browser.run("typeof window.ran") == "undefined"  # no script but the two that the policy names


def test_a_row_of_the_table_leads_to_its_lesion(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    browser.run("document.querySelectorAll('button.go')[1].click()")
    _, _, place = wait(browser)
    wanted = browser.run("document.querySelectorAll('button.go')[1].dataset.mm").split()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        place = browser.run(STATE)[2]
        shown = [float(part.split("=")[1].split()[0].strip(",")) for part in place.split(";")[0].split(", ")]
        if np.abs(np.array(shown) - np.array(wanted, float)).max() < 3:
            return
        time.sleep(0.1)
    raise AssertionError((shown, wanted))


def test_numbers_lead_from_the_table_to_the_figure_and_back(browser: Browser, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    link = "document.querySelector('table.lesions td a')"
    target = browser.run(f"{link}.hash.slice(1)")
    browser.run(f"{link}.click()")
    browser.settle()
    box = browser.run(
        f"(() => {{ const box = document.getElementById({target!r}).getBoundingClientRect(); return [box.top, box.bottom]; }})()"
    )
    assert 0 <= box[0] < box[1] <= 900
    row = browser.run(
        f"(() => {{ const link = document.getElementById({target!r}).querySelector('a'); link.dispatchEvent(new MouseEvent('click', {{bubbles: true}})); return link.getAttribute('href'); }})()"
    )
    browser.settle()
    assert browser.run("location.hash") == row
    assert browser.run(f"document.querySelector({row!r}).cells[1].querySelector('a').hash.slice(1)") == target


def test_without_webgl_it_says_so_and_without_scripts_nothing_is_promised(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    browser.run("HTMLCanvasElement.prototype.getContext = () => null")
    browser.run(OPEN)
    opened, message, _ = wait(browser)
    assert not opened
    assert "WebGL 2" in message
    assert browser.run("getComputedStyle(document.querySelector('.viewer .stage')).display") == "none"
    browser.allow_scripts(False)
    try:
        browser.open(page)
        hidden = "getComputedStyle(document.querySelector('{}')).display"
        assert browser.run(hidden.format(".viewer")) == "none"
        assert browser.run(hidden.format("button.go")) == "none"
        assert browser.run(hidden.format(".viewer-off")) == "block"
        assert browser.run("document.querySelectorAll('.figure svg image').length") > 10
    finally:
        browser.allow_scripts(True)
