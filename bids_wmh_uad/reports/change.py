"""What changed since another session, as a section of the participant's page: figures, volumes over time, lesions followed.

Read from what ``--longitudinal`` wrote; without that there is no such section.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.reading import read_object, read_text
from bids_wmh_uad.reports.figures.change import Timepoint, place_of, plot_volumes
from bids_wmh_uad.reports.figures.labels import MAX_LESION_ROWS
from bids_wmh_uad.reports.inlining import MAX_FIGURE_BYTES, UnsafeDrawing, drawing_of
from bids_wmh_uad.reports.pages import as_number, render
from bids_wmh_uad.reports.readers import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUMMARY = "sub-{subject}/sub-{subject}_desc-change_longitudinal.json"
"""What changed between a participant's sessions, below the output directory."""
KINDS = {"consecutive": "", "total": "total"}
"""Kinds of comparisons, and how the names of their files begin."""
TABLE, FIGURE = "{prefix}_desc-{kind}change_lesions.tsv", "{prefix}_desc-{kind}change_FLAIR.svg"
"""Names of a comparison's files, after the later session's prefix."""
NO_FIGURE = "The figure of both sessions is not shown ({reason})."
"""Notice in place of it."""
ORDER = ("new", "enlarging", "merged", "resolved", "shrinking", "split", "stable")
"""Order of the table's rows, by what became of the lesions."""
COUNTED = ("new", "enlarging", "shrinking", "resolved", "merged", "split", "stable")
"""Order in the sentence."""


@dataclass(frozen=True)
class FollowedRow:
    """A row of the table of lesions followed; texts of the file, or missing."""

    number: str
    anchor: str
    status: str
    before: str | None
    after: str | None
    change: str | None
    low: str | None
    high: str | None
    place: tuple[str | None, ...]


@dataclass(frozen=True)
class PairReport:
    """Two sessions that were compared.

    Attributes
    ----------
    anchor : str
        Start of the ids on the page.
    title, sentence : str
        Which sessions, and what changed in a line.
    warnings : tuple of str
    figure, notice : str
        An SVG element, or why there is none.
    rows : tuple of FollowedRow
        The first of the table's.
    total : int
        How many it has.
    """

    anchor: str
    title: str
    sentence: str
    warnings: tuple[str, ...]
    figure: str
    notice: str
    rows: tuple[FollowedRow, ...]
    total: int


def change_section(output_dir: Path, subject: str) -> str:
    """The section of a participant's page; empty if the sessions were not compared, or the file is not as it was written.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    subject : str
        Label, without ``sub-``.
    """
    try:
        content = read_object(output_dir / SUMMARY.format(subject=subject))
    except (OSError, ValueError):
        return ""
    root = output_dir / f"sub-{subject}"
    pairs = [pair for entry in _entries(content, "pairs") if (pair := _read_pair(entry, root)) is not None]
    if not pairs:
        return ""
    volumes = _draw_volumes(_entries(content, "sessions"))
    return render("change.html.j2", {"pairs": pairs, "volumes": volumes})


def _entries(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    listed = content.get(key)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _read_pair(entry: Mapping[str, Any], root: Path) -> PairReport | None:
    """One comparison; None where its names are none of this participant's."""
    prefix, kind = str(entry.get("prefix")), KINDS.get(str(entry.get("kind")))
    if kind is None or Path(prefix).name != prefix or prefix.split("_", maxsplit=1)[0] != root.name:
        return None
    place = place_of(prefix, str(entry["kind"]))
    table = TABLE.format(prefix=prefix, kind=kind)
    paths = sorted([*root.glob(f"anat/{table}"), *root.glob(f"ses-*/anat/{table}")])
    rows = [_row(row, place) for row in read_table(paths[0])] if paths else []
    rows.sort(key=lambda row: ORDER.index(row.status) if row.status in ORDER else len(ORDER))
    figure, notice = _read_figure(root / "figures" / FIGURE.format(prefix=prefix, kind=kind))
    listed = entry.get("warnings")
    return PairReport(
        place,
        _title(entry),
        _sentence(entry),
        tuple(str(one.get("text")) for one in listed if isinstance(one, dict))
        if isinstance(listed, list)
        else (),
        figure,
        notice,
        tuple(rows[:MAX_LESION_ROWS]),
        len(rows),
    )


def _title(entry: Mapping[str, Any]) -> str:
    years = as_number(entry.get("years"))
    whole = ", first and last session" if entry.get("kind") == "total" else ""
    after = "" if years is None else f", {years:.1f} years later"
    return f"From {entry.get('session_before')} to {entry.get('session_after')}{after}{whole}"


def _sentence(entry: Mapping[str, Any]) -> str:
    """What changed, in a line."""
    counts = {name: as_number(entry.get(f"{name}_count")) for name in COUNTED}
    texts = [f"{int(count)} {name}" for name, count in counts.items() if count]
    change, low, high = (as_number(entry.get(f"change_ml{end}")) for end in ("", "_lower", "_upper"))
    text = f"Lesions: {', '.join(texts)}." if texts else ""
    if change is not None and low is not None and high is not None:
        text += f" Change of their volume: {change:+.2f} mL (95 % interval {low:+.2f} to {high:+.2f})"
        years = as_number(entry.get("years"))
        text += f", {change / years:+.2f} mL a year." if years else "."
    return text.strip()


def _row(row: Mapping[str, str], place: str) -> FollowedRow:
    number = str(row.get("index"))
    here = f"{place}-row-{int(number)}" if number.isdecimal() else ""
    return FollowedRow(
        number=number,
        anchor=here,
        status=str(row.get("status")),
        before=row.get("volume_before_mm3"),
        after=row.get("volume_after_mm3"),
        change=row.get("change_mm3"),
        low=row.get("change_mm3_lower"),
        high=row.get("change_mm3_upper"),
        place=tuple(row.get(axis) for axis in "xyz"),
    )


def _read_figure(path: Path) -> tuple[str, str]:
    try:
        return drawing_of(read_text(path, MAX_FIGURE_BYTES)), ""
    except UnsafeDrawing as error:
        reason = f"it was changed, or is not of this program: {error}"
    except (OSError, ValueError) as error:
        reason = str(error)
    return "", NO_FIGURE.format(reason=reason)


def _draw_volumes(sessions: Sequence[Mapping[str, Any]]) -> str:
    """The volumes of all sessions over time, as an SVG element; empty if there are not two."""
    points = []
    for session in sessions:
        volume = as_number(session.get("wmh_volume_ml"))
        if volume is not None:
            years = as_number(session.get("years"))
            ends = (as_number(session.get(f"volume_ml_{end}")) for end in ("lower", "upper"))
            points.append(Timepoint(str(session.get("session_id")).replace("$", ""), years, volume, *ends))
    if len(points) < 2:
        return ""
    with TemporaryDirectory(prefix="wmhvolumes") as directory:
        return drawing_of(read_text(plot_volumes(points, Path(directory) / "volumes.svg"), MAX_FIGURE_BYTES))
