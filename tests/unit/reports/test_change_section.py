"""The page's section of change: what it says, that it says nothing without a comparison, and that foreign files do no harm."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from followed import WARNING, write_followed

from bids_wmh_uad.bids.derivatives import longitudinal_path
from bids_wmh_uad.reports.change import change_section
from bids_wmh_uad.reports.figures.change import COLOURS, place_of
from bids_wmh_uad.reports.subject import write_subject_report

if TYPE_CHECKING:
    from pathlib import Path

PLACE = place_of("sub-01_ses-2", "consecutive")


def _edit(root: Path, change: dict[str, Any]) -> None:
    path = longitudinal_path(root, "01")
    content = json.loads(path.read_text())
    content["pairs"][0] |= change
    path.write_text(json.dumps(content))


def test_what_it_says(tmp_path: Path) -> None:
    write_followed(tmp_path)
    text = change_section(tmp_path, "01")
    assert "From ses-1 to ses-2, 2.0 years later" in text
    assert "Lesions: 1 new, 1 enlarging, 1 stable." in text
    assert "+0.50 mL (95 % interval +0.25 to +0.75), +0.25 mL a year." in text
    assert WARNING not in text
    assert "&lt;b&gt;voxel&lt;/b&gt;" in text
    rows = re.findall(r'<tr id="([^"]+)"><td class="number">(\d+)</td><td>(\w+)</td>', text)
    assert rows == [
        (f"{PLACE}-row-{n}", str(n), name) for n, name in ((3, "new"), (2, "enlarging"), (1, "stable"))
    ]
    assert re.findall(r'<td class="number">([^<]+)</td>', text)[1:7] == [
        "0",
        "36",
        "35 (30 to 40)",
        "1",
        "-2",
        "3",
    ]
    links = set(re.findall(r'href="#([^"]+-row-\d+)"', text))
    assert links == {f"{PLACE}-row-2", f"{PLACE}-row-3"}  # the figure's numbers lead to rows that are there
    assert COLOURS["new"] in text
    assert "years since the first session" in text


def test_each_pair_has_ids_of_its_own(tmp_path: Path) -> None:
    write_followed(tmp_path, sessions=3)
    text = change_section(tmp_path, "01")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text.count('<div class="change"') == 3
    assert "From ses-1 to ses-3, 2.0 years later, first and last session" in text
    names = set(re.findall(r'type="radio" name="([^"]+)"', text))
    assert len(names) == 3


def test_nothing_without_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    assert change_section(tmp_path, "01") == ""
    write_followed(tmp_path)
    for broken in ("{", "[]", '{"pairs": 3}', '{"pairs": [{"prefix": "sub-01_ses-2", "kind": "other"}]}'):
        longitudinal_path(tmp_path, "01").write_text(broken)
        assert change_section(tmp_path, "01") == "", broken


@pytest.mark.parametrize("prefix", ["../sub-01_ses-2", "sub-02_ses-2", "", None])
def test_files_of_others_are_not_read(tmp_path: Path, prefix: Any) -> None:
    write_followed(tmp_path)
    _edit(tmp_path, {"prefix": prefix})
    assert change_section(tmp_path, "01") == ""


def test_changed_figure_is_not_shown(tmp_path: Path) -> None:
    write_followed(tmp_path)
    (figure,) = (tmp_path / "sub-01" / "figures").glob("*change_FLAIR.svg")
    figure.write_text(figure.read_text().replace("</svg>", "<script>alert(1)</script></svg>"))
    text = change_section(tmp_path, "01")
    assert "<script>" not in text
    assert "the element &#39;script&#39;" in text
    assert "enlarging" in text  # the table is there all the same
    figure.unlink()
    assert "is not shown" in change_section(tmp_path, "01")


def test_missing_numbers(tmp_path: Path) -> None:
    write_followed(tmp_path)
    _edit(tmp_path, {"years": None, "change_ml": "?", "warnings": None, "new_count": None})
    text = change_section(tmp_path, "01")
    assert "From ses-1 to ses-2<" in text
    assert "Lesions: 1 enlarging, 1 stable.<" in text
    assert "Look twice" not in text


@pytest.mark.parametrize("sessions", [2, 3])
def test_page(tmp_path: Path, sessions: int) -> None:
    for number in range(1, sessions + 1):
        anat = tmp_path / "sub-01" / f"ses-{number}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-01_ses-{number}_desc-wmh_summary.json").write_text('{"wmh_volume_ml": 1.0}')
    page = write_subject_report(tmp_path, "01")
    assert 'id="Change"' not in page.read_text()
    write_followed(tmp_path, sessions)
    page = write_subject_report(tmp_path, "01")
    text = page.read_text()
    assert text.index('id="Summary"') < text.index('id="Change"') < text.index('id="About"')
    assert text.count('<div class="change"') == (1 if sessions == 2 else 3)
    own = list(tmp_path.glob("sub-01_*.html"))
    assert len(own) == (0 if sessions == 2 else 3)
    assert all('id="Change"' not in path.read_text() for path in own)
