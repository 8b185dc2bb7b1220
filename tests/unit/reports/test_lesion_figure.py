"""The lesion figure: the whole brain, numbers that cover no lesion, links to the table and back, what the heading counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.reports.figures.labels import MAX_LESION_ROWS, Label, anchor, draw_labels
from bids_wmh_uad.reports.figures.lesions import (
    LESION_COLOUR,
    LESION_PANELS,
    MAX_PANELS,
    NO_LESION,
    REJECTED_COLOUR,
    choose_slices,
    plot_anomaly_map,
    plot_lesions,
)
from bids_wmh_uad.reports.inlining import drawing_of
from bids_wmh_uad.reports.readers import read_drawn

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (60, 72, 100)
BRAIN = slice(10, 90)
SVG = "{http://www.w3.org/2000/svg}"


def image(data: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(data.astype(np.int32), np.diag([3.0, 2.5, 2.0, 1.0]))


def scene(*lesions: tuple[int, int]) -> tuple[nib.Nifti1Image, nib.Nifti1Image, np.ndarray]:
    """FLAIR and brain mask, and labels of blocks: (edge, slice) of number 1, 2, ..."""
    brain, labels = np.zeros(SHAPE, bool), np.zeros(SHAPE, int)
    brain[5:55, 5:67, BRAIN] = True
    for number, (edge, k) in enumerate(lesions, start=1):
        left = 8 + 11 * (number % 4)
        labels[left : left + edge, 30 : 30 + edge, k] = number
    return image(100 * brain + 50 * (labels > 0)), image(brain), labels


def panels(path: Path) -> list[ET.Element]:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    return [node for node in root.iter(f"{SVG}g") if node.get("class") == "wmh-panel"]


def words(path: Path) -> str:
    return " ".join(ET.fromstring(path.read_text(encoding="utf-8")).itertext())


@pytest.mark.parametrize("lesions", [(), ((3, 40),), tuple((3, k) for k in range(12, 88))])
def test_the_slices_span_the_brain_whatever_was_found(lesions: tuple[tuple[int, int], ...]) -> None:
    _, brain, labels = scene(*lesions)
    chosen = choose_slices(labels, np.asarray(brain.dataobj) > 0)
    assert len(chosen.all) <= MAX_PANELS
    assert len(set(chosen.all)) == len(chosen.all)
    gaps = np.diff([BRAIN.start, *chosen.even, BRAIN.stop])
    assert gaps.max() <= 2 * 80 / (MAX_PANELS - LESION_PANELS)


def test_the_largest_lesions_between_the_slices_get_one_each() -> None:
    _, brain, labels = scene()
    even = choose_slices(labels, np.asarray(brain.dataobj) > 0).even
    between = [k for k in range(12, 88) if k not in even]
    sizes = [2 + k % 7 for k in between]
    _, brain, labels = scene(*zip(sizes, between, strict=True))
    chosen = choose_slices(labels, np.asarray(brain.dataobj) > 0)
    assert chosen.even == even
    assert len(chosen.added) == LESION_PANELS
    left_out = [size for size, k in zip(sizes, between, strict=True) if k not in chosen.added]
    taken = [size for size, k in zip(sizes, between, strict=True) if k in chosen.added]
    assert min(taken) >= max(left_out)


def test_a_short_brain_is_shown_whole() -> None:
    brain = np.zeros((20, 20, 40), bool)
    brain[5:15, 5:15, 10:30] = True
    chosen = choose_slices(np.zeros(brain.shape, int), brain)
    assert chosen.all == list(range(10, 30))
    assert chosen.heading == "All 20 axial slices of the brain"


def test_the_heading_counts_what_is_drawn(tmp_path: Path) -> None:
    flair, brain, labels = scene((5, 20), (4, 60), *[(3, k) for k in range(30, 55)])
    rejected = np.zeros(SHAPE, int)
    rejected[50:53, 50:53, 21], rejected[50:53, 50:53, 70] = 1, 2
    out = plot_lesions(flair, image(labels), tmp_path / "l.svg", mask=brain, rejected=image(rejected))
    chosen = choose_slices(labels, np.asarray(brain.dataobj) > 0)
    drawn = len(np.unique(labels[:, :, chosen.all])) - 1
    blue = len(np.unique(rejected[:, :, chosen.all])) - 1
    volume = (labels > 0).sum() * 15 / 1000
    text = words(out)
    assert (
        f"{len(chosen.even)} of the brain's 80 axial slices, evenly spaced, and {len(chosen.added)} through"
        in text
    )
    assert f"lesions, 27 in all ({volume:.2f} mL), {drawn} of them in these slices" in text
    assert f"candidates that were rejected, 2 in all, {blue} of them in these slices" in text
    assert NO_LESION not in text
    strokes = [{path.get("stroke") for path in panel.findall(f"{SVG}path")} for panel in panels(out)]
    assert len(strokes) == len(chosen.all)
    for shown, k in zip(strokes, chosen.all, strict=True):
        assert (LESION_COLOUR in shown) == labels[:, :, k].any()
        assert (REJECTED_COLOUR in shown) == rejected[:, :, k].any()


def test_without_lesions_the_same_slices_are_shown_and_it_is_said(tmp_path: Path) -> None:
    flair, brain, labels = scene()
    rejected = np.zeros(SHAPE, int)
    rejected[50:53, 50:53, 30:50] = 1
    out = plot_lesions(flair, image(labels), tmp_path / "l.svg", mask=brain, rejected=image(rejected))
    assert NO_LESION in words(out)
    assert "Red" not in words(out)
    assert len(panels(out)) == MAX_PANELS - LESION_PANELS
    assert sum(bool(panel.findall(f"{SVG}path")) for panel in panels(out)) >= 3


def test_every_lesion_in_these_slices_has_one_anchor_and_leads_to_its_row(tmp_path: Path) -> None:
    many = [(2, 12 + k % 70) for k in range(MAX_LESION_ROWS + 10)]
    flair, brain, labels = scene((6, 40), *many)
    out = plot_lesions(flair, image(labels), tmp_path / "l.svg", mask=brain, prefix="sub-01_ses-a")
    text = out.read_text(encoding="utf-8")
    assert drawing_of(text)  # the page takes it
    drawn = read_drawn(out, "sub-01_ses-a")
    chosen = choose_slices(labels, np.asarray(brain.dataobj) > 0).all
    assert set(drawn) == {str(number) for number in np.unique(labels[:, :, chosen]) if number}
    for number, k in drawn.items():
        areas = (labels[:, :, chosen] == int(number)).sum(axis=(0, 1))
        assert areas[chosen.index(int(k))] == areas.max()
        assert text.count(f'id="{anchor("sub-01_ses-a", "lesion", int(number))}"') == 1
    linked = {int(number) for number in re.findall(r'href="#sub-01_ses-a-row-(\d+)"', text)}
    assert linked == {number for number in map(int, drawn) if number <= MAX_LESION_ROWS}
    assert read_drawn(out, "sub-02") == read_drawn(tmp_path / "none.svg", "sub-01_ses-a") == {}
    plain = plot_lesions(flair, image(labels), tmp_path / "p.svg", mask=brain)
    assert "<a " not in plain.read_text(encoding="utf-8")


def test_the_anomaly_map_has_the_same_slices(tmp_path: Path) -> None:
    flair, brain, labels = scene((6, 41), (5, 62))
    both = [
        plot_lesions(flair, image(labels), tmp_path / "l.svg", mask=brain),
        plot_anomaly_map(
            flair, image(9 * labels), 4.0, tmp_path / "a.svg", lesions=image(labels), mask=brain
        ),
    ]
    captions = [[panel.find(f"{SVG}text").text for panel in panels(path)] for path in both]  # type: ignore[union-attr]
    assert captions[0] == captions[1]
    assert "z = 82 mm, slice 41" in captions[0]


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.integers(1, 34), st.integers(1, 44), st.integers(1, 5)), min_size=1, max_size=25
    )
)
def test_numbers_cover_no_lesion_and_no_other_number(places: list[tuple[int, int, int]]) -> None:
    width, height = 200.0, 250.0
    plane = np.zeros((50, 40), int)
    for number, (column, row, edge) in enumerate(places, start=1):
        plane[row : row + edge, column : column + edge] = number
    marks = [Label(number, plane == number, "x") for number in np.unique(plane) if number]
    text = draw_labels(marks, [plane > 0], width, height)
    boxes = []
    for x, y, number in re.findall(r'x="([\d.-]+)" y="([\d.-]+)">(\d+)<', text):
        left, base, right = float(x), float(y), float(x) + 7 * len(number)
        assert left >= 0
        assert right <= width
        covered = plane[int((base - 9) / 5) : int(base / 5) + 1, int(left / 5) : int(right / 5) + 1]
        assert not covered.any()
        assert all(right <= a or left >= c or base - 9 >= d or base <= b for a, b, c, d in boxes)
        boxes.append((left, base - 9, right, base))


def test_a_lesion_s_own_number_is_drawn_even_where_nothing_is_free() -> None:
    full = np.ones((10, 10), bool)
    assert draw_labels([Label(7, full, "x")], [full], 100, 100) == ""
    assert ">7</text>" in draw_labels([Label(7, full, "a<b", id="here")], [full], 100, 100)
    assert "a&lt;b" in draw_labels([Label(7, full, "a<b", id="here")], [full], 100, 100)


def test_rejected_candidates_have_numbers_that_give_way(tmp_path: Path) -> None:
    flair, brain, labels = scene((6, 40), (6, 41))
    rejected = np.zeros(SHAPE, int)
    rejected[30:33, 50:53, 40], rejected[40:43, 20:23, 61] = 1, 2
    out = plot_lesions(
        flair, image(labels), tmp_path / "l.svg", mask=brain, rejected=image(rejected), prefix="sub-01"
    )
    text = out.read_text(encoding="utf-8")
    assert drawing_of(text)
    chosen = choose_slices(labels, np.asarray(brain.dataobj) > 0).all
    expected = {str(number) for number in np.unique(rejected[:, :, chosen]) if number}
    assert "1" in expected
    drawn = read_drawn(out, "sub-01", "candidate")
    assert set(drawn) == expected
    assert drawn["1"] == "40"
    for number in drawn:
        assert text.count(f'id="{anchor("sub-01", "candidate", int(number))}"') == 1
        assert (
            f'href="#{anchor("sub-01", "rejected", int(number))}" aria-label="rejected candidate {number}, slice'
            in text
        )
    assert set(read_drawn(out, "sub-01")) == {"1", "2"}  # lesions of the same numbers keep theirs
    assert text.count("wmh-number wmh-quiet") >= len(drawn)


def test_a_quiet_number_is_drawn_only_right_beside_and_after_the_others() -> None:
    plane = np.zeros((40, 40), bool)
    plane[18:22, 18:22] = True
    loud, quiet = Label(1, plane, "x", id="a"), Label(2, plane, "y", id="b", quiet=True)
    text = draw_labels([quiet, loud], [plane], 200, 200)
    assert text.index(">1</text>") < text.index(">2</text>")
    assert "wmh-leader" not in text
    around = np.ones((40, 40), bool)
    around[:12], around[-12:], around[:, :12], around[:, -12:] = False, False, False, False
    assert "wmh-leader" in draw_labels(
        [loud], [around], 200, 200
    )  # the lesion's own goes where there is room
    assert draw_labels([quiet], [around], 200, 200) == ""
