"""The viewer's images lie where the scan's do, its file is not trusted, and what the page runs is what npm has."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.reports.figures import viewer as figure
from bids_wmh_uad.reports.pages import content_policy
from bids_wmh_uad.reports.subject import write_subject_report
from bids_wmh_uad.reports.viewer import library, read_viewer, viewer_scripts

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 50, 30)
AFFINE = np.array([[-2.0, 0, 0.2, 40], [0, 2.5, 0, -60], [0.2, 0, 3, -20], [0, 0, 0, 1]])


def scene(path: Path) -> Path:
    """A brain with a lesion of 27 voxels and a rejected candidate, stored with x to the left."""
    brain, lesions, rejected = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    brain[4:36, 5:45, 3:27] = 1
    lesions[20:23, 30:33, 10:13], lesions[9, 9, 9], rejected[30, 10, 20] = 1, 2, 1
    flair = 100 * brain + 80 * (lesions > 0) + np.arange(SHAPE[1])[:, None]
    score = brain * (1 + 9 * (lesions > 0))
    flair_image, *others = [
        nib.Nifti1Image(data.astype(np.float32), AFFINE) for data in (flair, score, brain, lesions, rejected)
    ]
    anomaly, mask, found, turned_down = others
    return figure.write_viewer(
        flair_image, anomaly, 5.0, path, mask=mask, lesions=found, rejected=turned_down
    )


def images(path: Path) -> dict[str, nib.Nifti1Image]:
    content = json.loads(path.read_text())
    return {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content[name])))
        for name in ("flair", "anomaly", "marks")
    }


def largest(shown: dict[str, nib.Nifti1Image]) -> np.ndarray:
    """The largest lesion's voxels."""
    blocks, _ = ndimage.label(np.asarray(shown["marks"].dataobj) == figure.LESION)
    found: np.ndarray = blocks == np.argmax(np.bincount(blocks[blocks > 0]))
    return found


def world_centre(image: nib.Nifti1Image, mask: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(image.affine, np.argwhere(mask).mean(axis=0))


def test_what_is_marked_lies_where_it_lies_in_the_scan(tmp_path: Path) -> None:
    path = scene(tmp_path / "v.json")
    shown = images(path)
    marks = np.asarray(shown["marks"].dataobj)
    lesion, candidate = nib.affines.apply_affine(AFFINE, [[21, 31, 11], [30, 10, 20]])
    assert (marks == figure.LESION).sum() == 28
    assert (marks == figure.REJECTED).sum() == 1
    biggest = largest(shown)
    assert world_centre(shown["marks"], biggest) == pytest.approx(lesion, abs=1e-3)
    assert np.asarray(shown["anomaly"].dataobj)[biggest].min() == 255
    assert world_centre(shown["marks"], marks == figure.REJECTED) == pytest.approx(candidate, abs=1e-3)
    assert json.loads(path.read_text())["centre"] == pytest.approx(lesion, abs=0.06)
    for image in shown.values():
        assert image.shape == shown["flair"].shape
        assert image.get_data_dtype() == np.uint8


def test_a_fine_scan_is_made_coarser_and_stays_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = images(scene(tmp_path / "fine.json"))
    monkeypatch.setattr(figure, "VOXEL_BUDGET", 6000)
    coarse = images(scene(tmp_path / "coarse.json"))
    assert (
        (np.asarray(coarse["flair"].dataobj) > 0).sum() < 9000 < (np.asarray(fine["flair"].dataobj) > 0).sum()
    )
    for find in (largest, lambda shown: np.asarray(shown["marks"].dataobj) == figure.REJECTED):
        places = [world_centre(shown["marks"], find(shown)) for shown in (fine, coarse)]
        assert np.abs(places[0] - places[1]).max() < 3


def test_the_same_bytes_again(tmp_path: Path) -> None:
    assert scene(tmp_path / "a.json").read_bytes() == scene(tmp_path / "b.json").read_bytes()


def write_result(root: Path, viewer: str | None) -> str:
    anat, figures = root / "sub-01" / "anat", root / "sub-01" / "figures"
    anat.mkdir(parents=True, exist_ok=True)
    figures.mkdir(exist_ok=True)
    (anat / "sub-01_desc-wmh_summary.json").write_text(json.dumps({"wmh_volume_ml": 1.0}))
    if viewer is not None:
        (figures / "sub-01_desc-viewer_FLAIR.json").write_text(viewer)
    return write_subject_report(root, "01").read_text(encoding="utf-8")


def test_the_page_allows_its_two_scripts_and_no_others(tmp_path: Path) -> None:
    content = scene(tmp_path / "v.json").read_text()
    page = write_result(tmp_path, content)
    _, scripts = viewer_scripts()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].replace("&#x27;", "'") == content_policy(*scripts)
    bodies = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    kinds = [re.sub(r' id="niivue-packed"', "", attributes) for attributes, _ in bodies]
    assert kinds == [' type="application/json"', ' type="text/plain"', ""]
    assert bodies[2][1] == scripts[0]
    packed = gzip.decompress(base64.b64decode(bodies[1][1])).decode()
    assert packed == scripts[1] == library()
    assert page == write_result(tmp_path, content)
    assert "<script" not in write_result(tmp_path / "none", None)


def changed(path: Path, **changes: Any) -> str:
    return json.dumps({**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"flair": "</script><script>alert(1)</script>"}, {"marks": None}, {"anomaly": ["x"]}, {"low": "x"}, {"threshold": None},
        {"centre": [1, 2]}, {"centre": "123"}, {"centre": [1, 2, "<b>"]}, {"flair": ""},
    ],
)  # fmt: skip
def test_a_changed_file_shows_no_viewer(changes: dict[str, Any], tmp_path: Path) -> None:
    content = changed(scene(tmp_path / "v.json"), **changes)
    page = write_result(tmp_path, content)
    assert "<script" not in page
    assert "alert(1)" not in page


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_broken_file_shows_no_viewer(content: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(content)
    assert read_viewer(tmp_path / "v.json") == read_viewer(tmp_path / "none.json") == ""


def test_what_else_the_file_says_does_not_reach_the_page(tmp_path: Path) -> None:
    content = changed(scene(tmp_path / "v.json"), more="</script><b>")
    assert "more" not in read_viewer(scene(tmp_path / "w.json"))
    assert "</script><b>" not in write_result(tmp_path, content)


def test_the_library_is_the_one_that_npm_has_with_its_licences() -> None:
    room = files("bids_wmh_uad.reports") / "vendor" / "niivue"
    digest = hashlib.sha256((room / "niivue.umd.js").read_bytes()).hexdigest()
    readme, recipe = (room / "README.md").read_text(), (room / "renew.sh").read_text()
    assert f"SHA256={digest}" in recipe
    assert digest in readme
    version = re.search(r"VERSION=([\d.]+)", recipe)
    assert version is not None
    assert f"version {version[1]}" in readme
    assert "BSD 2-Clause" in (room / "LICENSE").read_text()
    built_in = (room / "LICENSE.built-in").read_text()
    listed = re.search(r'BUILT_IN="([^"]+)"', recipe)
    assert listed is not None
    assert all(f"---- {name} ----" in built_in for name in listed[1].split())


def test_font_picture_and_colour_maps_that_the_library_carries_are_named() -> None:
    room = files("bids_wmh_uad.reports") / "vendor" / "niivue"
    starter = files("bids_wmh_uad.reports") / "specs" / "viewer.js"
    named, text = (room / "LICENSE.data").read_text(), library()
    carried = re.findall(r"data:(?:image|font)/\w+;base64,([A-Za-z0-9+/=]{100,})", text)
    digests = {hashlib.sha256(base64.b64decode(data)).hexdigest() for data in carried}
    assert digests == set(re.findall(r"\b[0-9a-f]{64}\b", named))
    maps = text[text.index("{__proto__:null,$itksnap:{R:[") :]
    names = re.findall(r"[,{](\$?\w+):\{[^{}]*\bR:\[", maps)
    assert f"{len(names)} colour maps" in named
    told = named.partition("names tell an origin:")[2].partition("The others")[0]
    origins = [word for line in told.splitlines() for word in line[:38].replace(",", " ").split()]
    assert len(origins) == 12
    assert set(origins) <= set(names)
    shown = set(re.findall(r'colormap: "(\w+)"', starter.read_text()))
    assert shown == set(re.search(r"A page uses two: (\w+), (\w+)", named).groups())  # type: ignore[union-attr]


@pytest.mark.parametrize("forbidden", ["new Function(", "WebAssembly", " eval("])
def test_the_library_needs_nothing_that_the_policy_forbids(forbidden: str) -> None:
    assert forbidden not in library()
