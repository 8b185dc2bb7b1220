"""The figure of two sessions, and of volumes over time: what is drawn, where, and in which colour."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.errors import GridMismatchError
from bids_wmh_uad.reports.figures.change import (
    COLOURS,
    MAX_PAIRS,
    NOTHING,
    Timepoint,
    choose_slices,
    plot_change,
    plot_volumes,
)
from bids_wmh_uad.reports.inlining import drawing_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (40, 48, 36)
NAMES = ("ses-1", "ses-2")


def _image(data: NDArray[np.generic]) -> nib.Nifti1Image:
    return nib.Nifti1Image(data, np.diag([1.0, 1, 1, 1]))


def _brain() -> NDArray[np.uint8]:
    brain = np.zeros(SHAPE, np.uint8)
    brain[4:-4, 4:-4, 2:-2] = 1
    return brain


def _draw(path: Path, pieces: dict[str, list[tuple[int, int]]]) -> str:
    """A figure of pairs of (number, slice)."""
    rng = np.random.default_rng(0)
    scans = [_image((rng.random(SHAPE) * _brain()).astype(np.float32)) for _ in range(2)]
    tissue = {}
    for name in COLOURS:
        labels = np.zeros(SHAPE, np.int32)
        for number, k in pieces.get(name, []):
            labels[8 + number : 11 + number, 20:24, k : k + 1] = number
        tissue[name] = _image(labels)
    return plot_change(*scans, _image(_brain()), tissue, path, names=NAMES, prefix="sub-1").read_text()


def test_what_changed_is_outlined_twice_in_its_colour(tmp_path: Path) -> None:
    svg = _draw(tmp_path / "x.svg", {"new": [(3, 7)], "lost": [(5, 29)]})
    drawing_of(svg)  # may be part of a page
    for name, count in (("new", 2), ("gained", 0), ("lost", 2)):
        assert len(re.findall(f'stroke="{COLOURS[name]}"', svg)) == count, name
    assert "slice 7" in svg
    assert "slice 29" in svg
    assert svg.count('href="#sub-1-row-3"') == svg.count('href="#sub-1-row-5"') == 1  # in the right panel
    assert "Red: new lesions, 1 (12 mm³), 1 in these slices" in svg
    assert "gained" not in svg
    assert NOTHING not in svg


def test_flickers_between_the_sessions(tmp_path: Path) -> None:
    svg = _draw(tmp_path / "x.svg", {})
    panels = svg.split('<g class="wmh-panel"')[1:]
    assert len(panels) == 2 * MAX_PAIRS
    left, right = (re.findall(r'<(image|use)(?: id="([^"]+)")? class="([\w-]*)"', x) for x in panels[:2])
    assert [(tag, role) for tag, _, role in left] == [("image", "")]
    assert [(tag, role) for tag, _, role in right] == [("image", "wmh-bottom"), ("use", "wmh-top")]
    assert f'href="#{left[0][1]}"' in panels[1]  # the first session is what comes on top
    assert re.search(r'wmh-top"[^>]*>right: ses-1<', svg)
    assert NOTHING in svg


def test_largest_changes_have_their_slices() -> None:
    labels = np.zeros(SHAPE, np.int32)
    for number in range(1, 13):
        labels[5 : 5 + number, 20, 2 + 2 * number] = number
    chosen = choose_slices([labels], _brain() > 0)
    assert chosen == [2 + 2 * number for number in range(13 - MAX_PAIRS, 13)]
    few = choose_slices([np.where(labels == 12, labels, 0)], _brain() > 0)
    assert 26 in few
    assert len(few) == MAX_PAIRS
    assert min(few) <= 10
    low = choose_slices([np.where(labels < MAX_PAIRS, labels, 0)], _brain() > 0)
    assert low[:-1] == [4, 6, 8, 10, 12]
    assert low[-1] in (17, 18)  # the place that is left


def test_other_grid_is_refused(tmp_path: Path) -> None:
    scan, small = _image(np.ones(SHAPE, np.float32)), _image(np.ones((9, 9, 9), np.float32))
    with pytest.raises(GridMismatchError):
        plot_change(scan, small, scan, {}, tmp_path / "x.svg", names=NAMES, prefix="x")


@pytest.mark.parametrize("years", [(0.0, 1.5, 2.25), (None, None, None)])
def test_volumes(tmp_path: Path, years: tuple[float | None, ...]) -> None:
    points = [Timepoint(f"ses-{k}", x, 5.0 + k, 4.0, 9.0) for k, x in enumerate(years)]
    svg = plot_volumes(points, tmp_path / "v.svg").read_text()
    drawing_of(svg)
    assert all(f"ses-{k}" in svg for k in range(3))
    assert ("years since the first session" in svg) == (years[1] is not None)
    assert ("2.2" in svg) == (years[1] is not None)
