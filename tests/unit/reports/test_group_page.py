"""The group page without a browser: what it says, what it links, and that nothing comes from outside."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from browser.pages import REASON, make_cohort, make_evaluation, make_summary

from bids_wmh_uad.errors import CannotCreateError
from bids_wmh_uad.group.statistics import summarise
from bids_wmh_uad.reports.evaluation import verdict
from bids_wmh_uad.reports.group import write_group_report

if TYPE_CHECKING:
    from pathlib import Path

FETCHING = {"src", "data", "poster", "srcset", "action", "xlink:href", "background"}
SECTIONS = ["volumes", "sessions", "failed", "evaluation", "evaluation-sessions", "prevalence"]


class Page(HTMLParser):
    """Elements of a page and the text of its script elements, as a browser reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    @property
    def sections(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.elements if tag == "section"]

    @property
    def links(self) -> list[str]:
        links = [attrs["href"] for tag, attrs in self.elements if tag == "a"]
        return [link for link in links if not link.startswith("#")]

    def fetched(self) -> list[str]:
        links = [attrs["href"] for tag, attrs in self.elements if "href" in attrs and tag != "a"]
        links += [attrs[key] for _, attrs in self.elements for key in FETCHING if key in attrs]
        links += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", self.text)
        return [link for link in links if not link.startswith(("data:", "#"))]

    def rows(self, table: str) -> list[list[str]]:
        body = self.text.split(f'id="{table}"')[1].split("<tbody>")[1].split("</tbody>")[0]
        return [cells(row) for row in body.split("</tr>")[:-1]]

    def words(self) -> str:
        body = self.text.split("<body>")[1].split('<script type="application/json"')[0]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def cells(row: str) -> list[str]:
    found = re.findall(r"<t[dh][^>]*>.*?</t[dh]>", row, re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in found]


def small_cohort() -> list[dict[str, Any]]:
    done = {"session_id": "ses-1", "status": "done", "lesion_count": 4, "icv_ml": 1400.4}
    return [
        {"participant_id": "sub-01", "wmh_volume_ml": 10.0, **done, "reason": "n/a"},
        {"participant_id": "sub-02", "wmh_volume_ml": 0.0, **done, "lesion_count": 0},
        {"participant_id": "sub-<03>", "session_id": "ses-1", "status": "failed", "wmh_volume_ml": "n/a", "reason": REASON},
        {"participant_id": "sub-04", "wmh_volume_ml": 30.0, **done, "site": "a & b"},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("group")
    (root / "sub-0001.html").write_text("", encoding="utf-8")
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-80, -110, -60)
    prevalence = np.zeros((41, 51, 41), dtype=np.float32)
    prevalence[12:28, 20:30, 16:24] = 0.4
    nib.save(nib.Nifti1Image(prevalence, affine), root / "prevalence.nii.gz")
    (root / "prevalence.json").write_text('{"Participants": 7, "Sessions": 9}')
    cohort = make_cohort(20, failed=1)
    evaluation = make_evaluation(cohort)
    return Page(
        write_group_report(
            root,
            cohort,
            evaluation=evaluation,
            summary=make_summary(evaluation, cohort),
            prevalence=root / "prevalence.nii.gz",
        )
    )


def test_every_section_is_there_and_in_the_navigation(full: Page) -> None:
    assert full.sections == SECTIONS
    navigation = re.findall(r'href="#([a-z]+)"', full.text.split("<nav")[1].split("</nav>")[0])
    assert navigation == [name for name in SECTIONS if name != "evaluation-sessions"]
    assert "not a medical device, not for diagnosis" in full.words()


def test_nothing_comes_from_outside(full: Page) -> None:
    assert full.fetched() == []
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", full.text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_the_data_read_back(full: Page) -> None:
    sheet = full.data["sessions"]
    columns = dict(zip([column["key"] for column in sheet["columns"]], sheet["values"], strict=True))
    cohort = make_cohort(20, failed=1)
    assert columns["participant_id"] == [row["participant_id"] for row in cohort]
    assert columns["wmh_volume_ml"][0] is None
    assert columns["wmh_volume_ml"][1:] == pytest.approx(
        [row["wmh_volume_ml"] for row in cohort[1:]], rel=1e-5
    )
    assert columns["reason"][0] == REASON
    assert sheet["categories"] == ["site", "scanner"]
    assert "age" in sheet["measures"]
    assert full.data["curves"]["precision"]["model"]["mean"][0] is None


def test_numbers_of_the_summary_are_written(full: Page) -> None:
    cohort = make_cohort(20, failed=1)
    summary = make_summary(make_evaluation(cohort), cohort)
    versus = full.text.split('class="versus"')[1].split("</table>")[0].split("<tbody>")[1]
    rows = [cells(row) for row in versus.split("</tr>")[:-1]]
    assert len(rows) == 8
    for row, (rival, name) in zip(
        rows, {"brightness": "brightness", "baseline": "the FLAIR z-score"}.items(), strict=False
    ):
        gain = summary["differences"][rival]["ap"]
        other = summary["measures"][f"{rival}_ap"]
        assert (row[0], row[2]) == ("average precision", name)
        assert row[3].startswith(f"{other['mean']:.3f} [")
        assert row[4] == f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]".replace(
            "-", "\N{MINUS SIGN}"
        )
        assert row[5:] == [f"{gain['better']} of 19", verdict(gain, name)]
    assert [list(full.data["curves"][curve]) for curve in ("roc", "pro", "precision")] == [
        ["model", "brightness", "baseline"]
    ] * 3
    assert "brightness: 0.600 at 0.120" in full.words()
    assert "average precision \N{MINUS SIGN} that of brightness" in full.words()
    stats = summary["measures"]["dice"]
    assert f"{stats['mean']:.3f} [{stats['low']:.3f}, {stats['high']:.3f}]" in full.text
    words = full.words()
    assert "2000 bootstrap samples" in words
    assert "intraclass correlation (ICC) 0.930" in words
    assert "0.01 to 0.05 mL 100 35 35 %" in words
    assert "1 mL and more" in words
    assert "By site" in words
    assert "Utrecht" in words


def test_the_map_is_one_described_picture(full: Page) -> None:
    images = [attrs for tag, attrs in full.elements if tag == "img"]
    assert len(images) == 1
    assert images[0]["src"].startswith("data:image/webp;base64,")
    assert len(images[0]["src"]) < 400_000
    assert "12 axial slices" in images[0]["alt"]
    assert "from 9 sessions of 7 participants; at most 40 %" in full.words()


def test_one_row_per_session_and_links_only_to_pages(tmp_path: Path) -> None:
    (tmp_path / "sub-01.html").write_text("", encoding="utf-8")
    page = Page(write_group_report(tmp_path, small_cohort()))
    assert [row[:6] for row in page.rows("sessions-table")] == [
        ["sub-01", "ses-1", "done", "10.00", "4", "1400"],
        ["sub-02", "ses-1", "done", "0.00", "0", "1400"],
        ["sub-<03>", "ses-1", "failed", "n/a", "n/a", "n/a"],
        ["sub-04", "ses-1", "done", "30.00", "4", "1400"],
    ]
    assert page.rows("sessions-table")[3][6:] == ["a & b", "n/a"]
    assert page.links == ["sub-01.html"]
    assert page.words().startswith(
        "WMH report: group Volumes Sessions Failed sessions Volumes 3 of 4 sessions done"
    )
    assert (
        "WMH volume: 0.00 to 30.00 mL; fewer than 5 participants, so no quartiles are given." in page.words()
    )
    assert "quartiles 5.00" not in page.text


def test_all_text_is_escaped(tmp_path: Path) -> None:
    page = Page(write_group_report(tmp_path, small_cohort()))
    assert page.rows("failed-table") == [["sub-<03>", "ses-1", REASON]]
    assert len(page.scripts) == 2
    assert not any("alert(1)" in script for script in page.scripts[1:])
    assert "alert(1)</script>" not in page.text
    assert not [tag for tag, _ in page.elements if tag == "b"]


def test_a_page_name_that_needs_quoting(tmp_path: Path) -> None:
    (tmp_path / "sub-a b#1.html").write_text("", encoding="utf-8")
    page = Page(write_group_report(tmp_path, [{"participant_id": "sub-a b#1", "wmh_volume_ml": 1.0}]))
    assert page.links == ["sub-a%20b%231.html"]
    outside = [{"participant_id": "sub-../x", "wmh_volume_ml": 1.0}]
    assert Page(write_group_report(tmp_path, outside)).links == []


def test_without_anything_but_the_cohort(tmp_path: Path) -> None:
    page = Page(write_group_report(tmp_path, make_cohort(3, extras=False), name="other.html"))
    assert page.sections == ["volumes", "sessions"]
    assert (tmp_path / "other.html").is_file()
    assert page.data["evaluation"] is None
    assert page.data["sessions"]["categories"] == []


@pytest.mark.parametrize(
    "rows", [[], [{"participant_id": "sub-01", "wmh_volume_ml": None}], make_cohort(4, failed=4)]
)
def test_a_cohort_without_any_volume(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    page = Page(write_group_report(tmp_path, rows))
    assert f"0 of {len(rows)} session" in page.text
    assert "median" not in page.words()
    assert len(page.rows("sessions-table")) == len(rows)


def test_one_session_gives_no_interval(tmp_path: Path) -> None:
    cohort = make_cohort(1, extras=False)
    evaluation = make_evaluation(cohort)
    summary = make_summary(evaluation, cohort)
    words = Page(write_group_report(tmp_path, cohort, evaluation=evaluation, summary=summary)).words()
    assert "Fewer than 10 participants: no intervals and no verdicts are given" in words
    assert "none: fewer than 10 participants" in words


INTERVAL = re.compile(r"\[[^]]*,[^]]*\]")


@pytest.mark.parametrize(("sessions", "given"), [(20, True), (18, False), (2, False)])
def test_nothing_that_looks_like_an_interval_below_ten_participants(
    sessions: int, given: bool, tmp_path: Path
) -> None:
    cohort = make_cohort(sessions)
    evaluation = make_evaluation(cohort)
    summary = make_summary(evaluation, cohort)
    page = Page(write_group_report(tmp_path, cohort, evaluation=evaluation, summary=summary))
    words = page.words()
    said = ("is better", "undecided", "limits of agreement", "the band spans", "bootstrap")
    assert bool(INTERVAL.search(words)) == given
    assert any(text in words for text in said) == given
    assert ("Fewer than 10 participants: no intervals" in words) != given
    curves = json.dumps(page.data["curves"])
    assert ('"low"' in curves) == ('"high"' in curves) == given
    assert (page.data["agreement"]["low"] is not None) == given


@pytest.mark.parametrize(("sessions", "given"), [(10, True), (8, False)])
def test_quartiles_from_five_participants_on(sessions: int, given: bool, tmp_path: Path) -> None:
    words = Page(write_group_report(tmp_path, make_cohort(sessions, extras=False))).words()
    assert ("mL, quartiles" in words) == given
    assert ("fewer than 5 participants, so no quartiles" in words) != given


def test_a_session_that_could_not_be_compared_counts_nowhere(tmp_path: Path) -> None:
    scores = [
        {"participant_id": "sub-01", "dice": 0.5, "ap": 0.4, "baseline_ap": 0.5},
        {"participant_id": "sub-02", "dice": 0.6, "ap": 0.6, "baseline_ap": 0.3},
        {"participant_id": "sub-03", "dice": float("nan"), "ap": None, "baseline_ap": 0.9},
    ]
    summary = summarise(scores, [None] * 3, {}, seed=0)
    page = Page(write_group_report(tmp_path, small_cohort(), evaluation=scores, summary=summary))
    versus = page.text.split('class="versus"')[1].split("</table>")[0].split("<tbody>")[1]
    assert cells(versus)[1:4] == ["0.500", "the FLAIR z-score", "0.400"]
    assert "Brightness could not be computed for 2 sessions" in page.words()
    assert cells(versus)[4:] == [
        "+0.100",
        "1 of 2",
        "none: fewer than 10 participants",
    ]
    assert "Curves" not in page.words()
    assert [row[1] for row in page.rows("evaluation-table")] == ["0.500", "0.600", "n/a"]


@pytest.mark.parametrize(
    ("low", "high", "clusters", "text"),
    [
        (0.1, 0.2, 10, "the model is better"),
        (-0.2, -0.1, 10, "brightness is better"),
        (-0.1, 0.2, 10, "undecided: the interval holds 0"),
        (None, None, 10, "no interval"),
        (0.1, 0.2, 9, "none: fewer than 10 participants"),
        (None, None, 1, "none: fewer than 10 participants"),
    ],
)
def test_verdicts(low: float | None, high: float | None, clusters: int, text: str) -> None:
    assert verdict({"mean": 0.1, "low": low, "high": high, "clusters": clusters}, "brightness") == text


def test_maps_of_brightness_alone_are_not_called_a_models(tmp_path: Path, full: Page) -> None:
    cohort = [row | {"score": "brightness", "model": None} for row in make_cohort(4, failed=1)]
    evaluation = make_evaluation(cohort)
    summary = make_summary(evaluation, cohort)
    page = Page(write_group_report(tmp_path, cohort, evaluation=evaluation, summary=summary))
    assert "no model took part" in page.words()
    assert "no model took part" not in full.words()
    assert "could not be computed" not in full.words()


def test_a_summary_of_nothing_but_nulls(tmp_path: Path) -> None:
    cohort = make_cohort(2)
    nothing = dict.fromkeys(("mean", "median", "low", "high", "n", "clusters"))
    summary = {
        "sessions": 2, "participants": 2, "measures": {"dice": nothing}, "differences": {"brightness": {}, "baseline": {"ap": nothing}}, "by": {},
        "pooled": dict.fromkeys(("best_dice", "threshold", "baseline_best_dice", "baseline_threshold")),
        "lesion_recall_by_size": [{"from_ml": 0, "to_ml": None, "lesions": 0, "found": 0, "recall": None}],
        "volume_agreement": dict.fromkeys(("bias", "sd", "low", "high", "n", "icc")), "curves": None,
    }  # fmt: skip
    words = Page(write_group_report(tmp_path, cohort, summary=summary, evaluation=[])).words()
    assert "Dice n/a n/a n/a" in words


def test_a_thousand_sessions_stay_below_two_megabytes(tmp_path: Path) -> None:
    cohort = make_cohort(1000, failed=10)
    for row in cohort:
        (tmp_path / f"{row['participant_id']}.html").touch()
    evaluation = make_evaluation(cohort)
    summary = make_summary(evaluation, cohort)
    page = write_group_report(tmp_path, cohort, evaluation=evaluation, summary=summary)
    assert page.stat().st_size < 2_000_000


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(CannotCreateError, match=r"group\.html: cannot be created"):
        write_group_report(blocked, [])
