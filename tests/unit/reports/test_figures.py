"""Figures: what they show, where, and that they need nothing from outside."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.errors import GridMismatchError
from bids_wmh_uad.reports.figures import charts, mosaic
from bids_wmh_uad.reports.figures import lesions as lesion_figures
from bids_wmh_uad.reports.figures import scans as figures

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, ZOOMS = (60, 72, 30), (3.0, 2.5, 5.0)
SVG = "{http://www.w3.org/2000/svg}"
REFERENCE = re.compile(
    r"""(?:\b(?:src|href|data|action|poster)\s*=\s*["']?|url\(\s*["']?|@import\s+["']?)([^"'\s>)]+)"""
)


def network_references(text: str) -> list[str]:
    """References that a browser would fetch: everything but data URIs and anchors."""
    return [found for found in REFERENCE.findall(text) if re.match(r"(?:[a-z]+:)?//", found, re.IGNORECASE)]


def oblique_affine() -> np.ndarray:
    """LPS storage, anisotropic, tilted by 10 degrees about the left-right axis."""
    tilt = np.deg2rad(10)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    ) @ np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = rotation * ZOOMS
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


class Case:
    """An ellipsoid brain with bright blobs, as NIfTI images."""

    def __init__(self, lesion_slices: tuple[int, ...] = (10, 11, 17), affine: np.ndarray | None = None):
        grid = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
        radius = np.sqrt(((grid / (np.array(SHAPE).reshape(3, 1, 1, 1) * 0.45)) ** 2).sum(axis=0))
        rng = np.random.default_rng(7)
        self.brain = radius < 1
        self.lesions = np.zeros(SHAPE, dtype=bool)
        for index in lesion_slices:
            self.lesions[36:41, 30:35, index] = True
        noise = rng.normal(0, 5, SHAPE)
        self.data = np.where(self.brain, 100 + noise + 120 * self.lesions, 0).astype(np.float32)
        self.affine = oblique_affine() if affine is None else affine
        scores = np.where(self.brain, rng.normal(0, 1, SHAPE) + 9 * self.lesions, 0)
        self.flair, self.mask = self.image(self.data), self.image(self.brain)
        self.marked, self.anomaly = self.image(self.lesions), self.image(scores)

    def image(self, data: np.ndarray) -> nib.Nifti1Image:
        kind = np.uint8 if data.dtype == bool else np.float32
        return nib.Nifti1Image(data.astype(kind), self.affine)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def parse(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text(encoding="utf-8"))


def panels(path: Path) -> list[ET.Element]:
    return [node for node in parse(path).iter(f"{SVG}g") if node.get("class") == "wmh-panel"]


def pixels(panel: ET.Element, layer: int = 0) -> np.ndarray:
    from PIL import Image

    uri = panel.findall(f"{SVG}image")[layer].get("href") or ""
    return np.asarray(Image.open(BytesIO(b64decode(uri.split(",")[1]))), dtype=float)


def draw_all(case: Case, directory: Path) -> list[Path]:
    return [
        figures.plot_brain_mask(case.flair, case.mask, directory / "brain.svg"),
        figures.plot_registration(case.flair, case.anomaly, directory / "coreg.svg", mask=case.mask),
        figures.plot_template_registration(case.flair, case.anomaly, directory / "norm.svg"),
        lesion_figures.plot_lesions(case.flair, case.marked, directory / "lesions.svg", mask=case.mask),
        lesion_figures.plot_anomaly_map(
            case.flair, case.anomaly, 4.0, directory / "map.svg", lesions=case.marked, mask=case.mask
        ),
        charts.plot_score_histogram(case.anomaly, case.mask, 4.0, directory / "histogram.svg"),
    ]


def test_all_are_small_selfcontained_svg_and_repeatable(case: Case, tmp_path: Path) -> None:
    first, second = draw_all(case, tmp_path / "a"), draw_all(case, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        text = one.read_text(encoding="utf-8")
        root = parse(one)
        assert root.tag == f"{SVG}svg"
        assert root.get("viewBox")
        assert root.get("width") is None
        assert not network_references(text)
        assert len(text) < 1_000_000
        assert one.read_bytes() == other.read_bytes()
        if one.stem != "histogram":
            images = list(root.iter(f"{SVG}image"))
            assert images
            assert all((node.get("href") or "").startswith("data:image/jpeg;base64,") for node in images)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in first}


def test_network_references_are_found() -> None:
    bad = """<a href='//x.org/a'><img src=https://x.org/b.png><style>p{background:url("http://x.org/c")}</style>"""
    assert network_references(bad) == ["//x.org/a", "https://x.org/b.png", "http://x.org/c"]
    assert (
        network_references('<svg xmlns="http://www.w3.org/2000/svg" href="data:image/png;base64,//8="/>')
        == []
    )


def test_no_lesion_is_said_and_the_brain_shown(tmp_path: Path) -> None:
    case = Case(())
    out = lesion_figures.plot_lesions(case.flair, case.marked, tmp_path / "l.svg")
    assert lesion_figures.NO_LESION in "".join(parse(out).itertext())
    assert len(panels(out)) > 6
    assert all(panel.find(f"{SVG}path") is None for panel in panels(out))


def colours(panel: ET.Element) -> list[str]:
    """Of a panel's outlines, as drawn."""
    return [path.get("stroke") or path.get("style") or "" for path in panel.findall(f"{SVG}path")]


def test_right_is_drawn_on_the_right_and_front_at_the_top(tmp_path: Path) -> None:
    case = Case()
    world = np.einsum("ij,j...->i...", case.affine[:3, :3], np.indices(SHAPE)) + case.affine[:3, 3].reshape(
        3, 1, 1, 1
    )
    right_front = case.brain & (world[0] > 10) & (world[1] > 10)
    marked = case.image(case.data + 300 * right_front)
    panel = panels(figures.plot_brain_mask(marked, case.mask, tmp_path / "b.svg"))[9]
    grey = pixels(panel)
    rows, columns = grey.shape
    quarter = grey[: rows // 2, columns // 2 :].mean()
    assert quarter > 2 * grey[: rows // 2, : columns // 2].mean()
    assert quarter > 2 * grey[rows // 2 :, columns // 2 :].mean()
    texts = [node.text for node in panel.findall(f"{SVG}text")]
    assert texts[1:3] == ["L", "R"]


def test_storage_order_does_not_matter(case: Case, tmp_path: Path) -> None:
    stored = lesion_figures.plot_lesions(case.flair, case.marked, tmp_path / "a.svg", mask=case.mask)
    turned = [nib.as_closest_canonical(image) for image in (case.flair, case.marked, case.mask)]
    canonical = lesion_figures.plot_lesions(turned[0], turned[1], tmp_path / "b.svg", mask=turned[2])
    assert case.affine[0, 0] < 0
    assert stored.read_bytes() == canonical.read_bytes()


def test_panels_keep_the_aspect_in_millimetres(case: Case, tmp_path: Path) -> None:
    out = figures.plot_registration(case.flair, case.flair, tmp_path / "r.svg", mask=case.mask)
    for panel in panels(out):
        node = panel.find(f"{SVG}image")
        assert node is not None
        rows, columns = pixels(panel).shape
        caption = panel.findall(f"{SVG}text")[0].text or ""
        across, up = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[caption[0]]
        expected = columns * ZOOMS[across] / (rows * ZOOMS[up])
        assert float(node.get("width", 0)) / float(node.get("height", 1)) == pytest.approx(expected, rel=0.01)


def test_registration_flickers_between_two_named_images(case: Case, tmp_path: Path) -> None:
    out = figures.plot_registration(case.flair, case.anomaly, tmp_path / "r.svg", names=("FLAIR", "a<b"))
    text = out.read_text(encoding="utf-8")
    assert "@keyframes wmh-blink" in text
    assert "a&lt;b" in text
    for panel in panels(out):
        assert [node.get("class") for node in panel.findall(f"{SVG}image")] == ["wmh-bottom", "wmh-top"]
        assert not np.array_equal(pixels(panel, 0), pixels(panel, 1))


def test_outline_surrounds_the_mask() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 6:12] = True
    numbers = re.findall(r"-?[\d.]+", mosaic.outline_path(mask, 200, 100))
    points = np.array(numbers, dtype=float).reshape(-1, 2)
    assert points.min(axis=0).tolist() == [60, 20]
    assert points.max(axis=0).tolist() == [120, 50]
    assert mosaic.outline_path(np.zeros((4, 4), dtype=bool), 10, 10) == ""


def test_anomaly_map_is_coloured_where_scores_are_high(case: Case, tmp_path: Path) -> None:
    out = lesion_figures.plot_anomaly_map(case.flair, case.anomaly, 4.0, tmp_path / "a.svg", mask=case.mask)
    found = [pixels(panel) for panel in panels(out)]
    assert all(drawn.ndim == 3 for drawn in found)
    assert max(np.ptp(drawn, axis=2).max() for drawn in found) > 100
    line = parse(out).find(f".//{SVG}line[@class='wmh-threshold']")
    assert line is not None
    bar = parse(out).find(f".//{SVG}g[@class='wmh-colourbar']/{SVG}image")
    assert bar is not None
    left, width = float(bar.get("x", 0)), float(bar.get("width", 0))
    assert left < float(line.get("x1", 0)) < left + width
    assert "threshold 4" in out.read_text(encoding="utf-8")


def test_histogram_states_the_volume_above_the_threshold(case: Case, tmp_path: Path) -> None:
    scores = np.asarray(case.anomaly.dataobj)
    above = (scores[case.brain] > 4.0).sum() * np.prod(ZOOMS) / 1000
    out = charts.plot_score_histogram(case.anomaly, case.mask, 4.0, tmp_path / "h.svg")
    text = "".join(parse(out).itertext())
    assert f"threshold 4: {above:.2f} mL" in text
    for sign, shifted in (("-", 3.2), ("+", 4.8)):
        volume = (scores[case.brain] > shifted).sum() * np.prod(ZOOMS) / 1000
        assert f"threshold {sign} 20 %: {volume:.2f} mL" in text
    measured = charts.plot_score_histogram(
        case.anomaly, case.mask, 4.0, tmp_path / "m.svg", volumes={"wmh_volume_ml": 123.4}
    )
    assert "threshold 4: 123.40 mL" in "".join(parse(measured).itertext())


def test_drawing_leaves_matplotlib_settings_alone(case: Case, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    charts.plot_score_histogram(case.anomaly, None, 4.0, tmp_path / "h.svg")
    assert dict(mpl.rcParams) == before


def test_broken_values_and_flat_images_are_drawn(case: Case, tmp_path: Path) -> None:
    holes = case.data.copy()
    holes[::7, ::5] = np.nan
    holes[3, 3, 3] = np.inf
    flat = case.image(np.zeros(SHAPE, dtype=np.float32))
    assert panels(figures.plot_brain_mask(case.image(holes), case.mask, tmp_path / "a.svg"))
    assert panels(lesion_figures.plot_lesions(flat, flat, tmp_path / "b.svg"))
    assert panels(lesion_figures.plot_anomaly_map(flat, flat, 1.0, tmp_path / "c.svg"))
    assert charts.plot_score_histogram(flat, None, 1.0, tmp_path / "d.svg").is_file()
    assert panels(figures.plot_registration(flat, flat, tmp_path / "e.svg"))
    empty = case.image(np.zeros(SHAPE, dtype=bool))
    assert panels(figures.plot_brain_mask(case.flair, empty, tmp_path / "f.svg"))


def test_paths_are_read_and_other_grids_refused(case: Case, tmp_path: Path) -> None:
    nib.save(case.flair, tmp_path / "flair.nii.gz")
    moved = nib.Nifti1Image(case.lesions.astype(np.uint8), case.affine + np.diag([0.5, 0, 0, 0]))
    nib.save(moved, tmp_path / "moved.nii.gz")
    from_path = lesion_figures.plot_lesions(str(tmp_path / "flair.nii.gz"), case.marked, tmp_path / "a.svg")
    from_image = lesion_figures.plot_lesions(case.flair, case.marked, tmp_path / "b.svg")
    assert from_path.read_bytes() == from_image.read_bytes()
    with pytest.raises(
        GridMismatchError, match=r"flair\.nii\.gz and .*moved\.nii\.gz are not on the same grid"
    ):
        lesion_figures.plot_lesions(tmp_path / "flair.nii.gz", tmp_path / "moved.nii.gz", tmp_path / "c.svg")
    smaller = nib.Nifti1Image(np.zeros((5, 5, 5), dtype=np.uint8), case.affine)
    with pytest.raises(GridMismatchError):
        figures.plot_brain_mask(case.flair, smaller, tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists()
