"""The subject page: every session's figures and numbers in one HTML file.

nireports assembles the page from the reportlets in ``sub-X/figures``, as
``specs/subject.yml`` orders them. Figures are inlined and styles are our own, so
the page opens from disk, offline, and can be mailed as one file. A participant with many
sessions gets one page for each, as in fMRIPrep, and ``sub-X.html`` links them.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bids_wmh_uad.core.lesion.lobes import LOBES
from bids_wmh_uad.core.lesion.regions import REGIONS
from bids_wmh_uad.errors import CANNOT_CREATE, OLDER_RESULT, CannotCreateError
from bids_wmh_uad.files import write_text
from bids_wmh_uad.reading import read_bytes, read_object, read_text
from bids_wmh_uad.reports.change import change_section
from bids_wmh_uad.reports.inlining import MAX_FIGURE_BYTES, UnsafeDrawing, drawing_of
from bids_wmh_uad.reports.methods import METHODS_FILES, methods_html
from bids_wmh_uad.reports.pages import MISSING, content_policy, render, specs_directory
from bids_wmh_uad.reports.readers import Inputs, Listing, list_inputs, read_card, read_listing
from bids_wmh_uad.reports.viewer import read_viewer, viewer_block, viewer_scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

MAX_SESSIONS_PER_PAGE = 2
"""Largest number of sessions that share a page: they take up to 2.2 MB each, and the viewer 0.4."""
SUMMARY_SUFFIX = "_desc-wmh_summary.json"
"""End of the name of a summary file, after the FLAIR's entities."""
UNREADABLE_SUMMARY = "{name} cannot be read ({reason}): run this session again."
"""Warning in place of the numbers of an unreadable summary."""
FIGURE_REFERENCE = re.compile(r'(?:src|data)="\./([^"]+\.svg)"')
"""Pattern of nireports' references to figure files, which are replaced by the figures."""
ENTITY_IN_PATH = re.compile(r"[_/\\][A-Za-z]+-[A-Za-z0-9]|[/\\](func|anat|fmap|dwi|meg|eeg|figures)[/\\]")
"""Pattern of paths in which pybids would see entities or data types."""
ODD_IN_LABEL, ODD_IN_NAME = re.compile(r"[^0-9A-Za-z+]"), re.compile(r"[^0-9A-Za-z_+-]")
"""Patterns of characters that no label, and no name of a figure, has in BIDS: pages are assembled without them."""
FIGURE_REFUSED = "The figure {name} is not shown: it was changed, or is not of this program ({reason}). Remove it and run the session again."
"""Notice in place of a figure that is not inlined."""


@dataclass(frozen=True)
class SessionReport:
    """What the page says about one FLAIR: its summary, and what else is read.

    Attributes
    ----------
    label : str
        Session and further entities, e.g. ``ses-1 run-2``; the subject where there are none.
    summary : dict
        Content of the summary file; keys may be missing.
    warnings : tuple of str
        What a reader should know before trusting the numbers.
    prefix : str
        Start of the names of its files.
    lesions, rejected : Listing
        Lesions, and candidates that were not taken for lesions.
    viewer : str
        What its viewer shows, as JSON; empty without.
    page : str
        File name of the session's own page, where it has one.
    """

    label: str
    summary: dict[str, Any]
    warnings: tuple[str, ...]
    prefix: str = ""
    lesions: Listing = field(default_factory=Listing)
    rejected: Listing = field(default_factory=Listing)
    viewer: str = ""
    page: str = ""

    @property
    def threshold(self) -> str:
        """Name and value of the operating point."""
        threshold = self.summary.get("threshold")
        if not isinstance(threshold, dict):
            return _plain(threshold) if threshold is not None else MISSING
        return f"{threshold.get('name', '')} {_plain(threshold.get('value', MISSING))}".strip()

    @property
    def inputs(self) -> Inputs:
        """The raw scans, for a table."""
        return list_inputs(self.summary)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Score, paradigm, model, versions and sources, as pairs of texts."""
        return [
            (key.replace("_", " "), _plain(self.summary[key]))
            for key in ("score", "paradigm", "model", "versions", "Sources")
            if self.summary.get(key)
        ]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_session(path: Path, root: Path) -> SessionReport:
    prefix = path.name.removesuffix(SUMMARY_SUFFIX)
    label = prefix.removeprefix(root.name).strip("_").replace("_", " ") or prefix
    try:
        content, reason = read_object(path), ""
    except (OSError, ValueError) as error:
        content, reason = {}, str(error)
    if reason:
        return SessionReport(label, {}, (UNREADABLE_SUMMARY.format(name=path.name, reason=reason),), prefix)
    figure = root / "figures" / f"{prefix}_desc-lesions_FLAIR.svg"
    lesions = read_listing(path, SUMMARY_SUFFIX, "lesions", figure, "lesion")
    rejected = read_listing(path, SUMMARY_SUFFIX, "rejected", figure, "candidate")
    viewer = read_viewer(root / "figures" / f"{prefix}_desc-viewer_FLAIR.json")
    return SessionReport(label, content, _warning_texts(path, content), prefix, lesions, rejected, viewer)


def _warning_texts(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a summary's warnings, each an object with ``code`` and ``text``; and whether it counts no more."""
    listed = content.get("warnings")
    entries = listed if isinstance(listed, list) else []
    kept = content.get("superseded_by")
    older = (OLDER_RESULT.format(path=path.name, kept=kept),) if kept else ()
    return older + tuple(str(entry.get("text") if isinstance(entry, dict) else entry) for entry in entries)


def read_sessions(output_dir: str | PathLike[str], subject: str) -> list[SessionReport]:
    """Read all summary files of a subject, in the order of their names.

    Parameters
    ----------
    output_dir : path
        Derivatives dataset.
    subject : str
        Label, without ``sub-``.

    Returns
    -------
    list of SessionReport
        An unreadable file becomes a row without numbers and with a warning.
    """
    root = Path(output_dir) / f"sub-{subject}"
    paths = [*root.glob(f"anat/*{SUMMARY_SUFFIX}"), *root.glob(f"ses-*/anat/*{SUMMARY_SUFFIX}")]
    return [_read_session(path, root) for path in sorted(paths)]


def _methods(output_dir: Path) -> list[dict[str, str]]:
    """The methods text in its forms, each with a title; what another hand wrote is escaped, whatever it is."""
    found = {}
    for name in METHODS_FILES:
        with suppress(OSError, ValueError):
            found[Path(name).suffix] = read_text(output_dir / name).strip()
    forms = [{"title": "Text", "html": methods_html(found[".md"])}] if ".md" in found else []
    titles = {".md": "Markdown", ".tex": "LaTeX", ".bib": "BibTeX"}
    return forms + [{"title": title, "plain": found[kind]} for kind, title in titles.items() if kind in found]


def _inline(content: str, staging: Path) -> str:
    """Replace nireports' reference to a figure file by the figure itself, or by why it is not shown."""
    reference = FIGURE_REFERENCE.search(content)
    if reference is None:
        return content
    path = staging / reference[1]
    name = path.name
    try:
        svg = drawing_of(_figure_text(path))
    except UnsafeDrawing as error:
        return f'<p class="warning">{escape(FIGURE_REFUSED.format(name=name, reason=error))}</p>'
    attributes = (
        f'class="figure" data-figure="{name}" role="region" tabindex="0" aria-label="{_figure_label(name)}"'
    )
    return f"<div {attributes}>{svg}</div>"


def _figure_text(figure: Path) -> str:
    """Content of a figure file; none if it is far larger than ours are."""
    try:
        return read_bytes(figure, MAX_FIGURE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _figure_label(figure: str) -> str:
    """What a screen reader says of a figure: its entities."""
    return "Figure: " + ", ".join(figure.removesuffix("_FLAIR.svg").split("_"))


def _stage() -> TemporaryDirectory[str]:
    """Make a directory to assemble the page in, at a path without BIDS entities if there is one.

    pybids looks for entities in whole paths: below ``/scratch/sub-9/`` every file
    would belong to subject 9, and below ``/data/anat/`` none would be a figure.
    """
    for parent in (gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108
        if os.access(parent, os.W_OK) and not ENTITY_IN_PATH.search(f"{Path(parent).absolute()}/"):
            return TemporaryDirectory(prefix="wmhreport", dir=parent)
    return TemporaryDirectory(prefix="wmhreport")


def _assemble(staging: Path, subject: str, title: str, *, viewers: bool) -> str:
    """Let nireports collect and order the reportlets of a staged subject; return the page."""
    from nireports.assembler.report import Report

    with specs_directory() as specs:
        report: Any = Report(  # type: ignore[no-untyped-call]
            staging,
            "",  # the run's name would change the page in every run
            bootstrap_file=specs / "subject.yml",
            out_filename="page.html",
            metadata={"template_path": str(specs / "report.tpl").replace("'", "''")},
            subject=subject,
        )
        report.title = title.encode("utf-8", "replace").decode("utf-8")
        block, scripts = viewer_scripts() if viewers else ("", ())
        report.header = [escape(content_policy(*scripts)), block]
        for section in report.sections:
            for item in section.reportlets:
                item.components = [(_inline(text, staging), caption) for text, caption in item.components]
                if item.title:
                    item.title = item.title.removeprefix("Reports for: ").removesuffix(".")
        report.generate_report()
    text: str = report.out_filename.read_text(encoding="utf-8")
    return text


def write_subject_report(
    output_dir: str | PathLike[str],
    subject: str,
    *,
    failures: Mapping[str, str] | None = None,
    model: Path | None = None,
) -> Path:
    """Write ``OUT/sub-X.html`` from the figures and summaries under ``OUT/sub-X``.

    Parameters
    ----------
    output_dir : path
        Derivatives dataset. Nothing but the page is written to it; with more than
        `MAX_SESSIONS_PER_PAGE` sessions also a page of each, ``sub-X_ses-Y.html``.
    subject : str
        Label, with or without ``sub-``.
    failures : mapping of str to str, optional
        Failed sessions (``ses-1``; an empty string where there are no sessions) and their error messages.
    model : Path, optional
        Directory of the model, for its card.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    CannotCreateError
        If a page cannot be written.
    """
    root, label = Path(output_dir), subject.removeprefix("sub-")
    rows = read_sessions(root, label)
    context: dict[str, Any] = {
        "rows": rows,
        "failures": dict(failures or {}),
        "name": f"sub-{label}",
        "methods": _methods(root),
        "regions": REGIONS,
        "lobes": tuple(dict.fromkeys(name.partition("_")[2] for name in LOBES)),
        "cards": _cards(rows, model),
        "split": len(rows) > MAX_SESSIONS_PER_PAGE,
        "most_sessions": MAX_SESSIONS_PER_PAGE,
    }
    change = change_section(root, label)
    if not context["split"]:
        return _write_page(root, f"sub-{label}", context, rows, change)
    for row in rows:
        _write_page(root, row.prefix, context | {"rows": [row], "failures": {}, "split": False}, [row])
    linked = [replace(row, page=quote(os.fsencode(f"{row.prefix}.html"))) for row in rows]
    return _write_page(root, f"sub-{label}", context | {"rows": linked, "cards": {}}, [], change)


def _cards(rows: Sequence[SessionReport], directory: Path | None) -> dict[str, str]:
    """Model cards by the models' names, of those that are at hand."""
    models = [row.summary.get("model") for row in rows]
    cards = {
        str(model["name"]): read_card(model, directory)
        for model in models
        if isinstance(model, dict) and "name" in model
    }
    return {name: text for name, text in cards.items() if text}


def _plain_name(stem: str, subject: str, label: str) -> str:
    """Name of a file without what BIDS names never have, for nireports."""
    return f"sub-{label}{ODD_IN_NAME.sub('', stem.removeprefix(subject))}"


def _write_page(
    root: Path, name: str, context: Mapping[str, Any], shown: Sequence[SessionReport], change: str = ""
) -> Path:
    """Write one page with the figures of the sessions shown, and the section on what changed between them."""
    page, subject = root / f"{name}.html", context["name"]
    label = ODD_IN_LABEL.sub("", subject.removeprefix("sub-")) or "x"
    starts = tuple(f"{row.prefix}_desc-" for row in shown)
    try:
        with _stage() as directory:
            staging = Path(directory)
            figures = staging / f"sub-{label}" / "figures"
            figures.mkdir(parents=True)
            for figure in sorted((root / subject / "figures").glob("*.svg")):
                if figure.name.startswith(starts) and figure.is_file():
                    target = figures / f"{_plain_name(figure.stem, subject, label)}.svg"
                    target.write_text(_figure_text(figure), encoding="utf-8")
            for row in shown:
                if row.viewer:
                    stem = _plain_name(f"{row.prefix}_desc-viewer_FLAIR", subject, label)
                    write_text(figures / f"{stem}.html", viewer_block(row.prefix, row.viewer))
            parts = {desc: render(f"{desc}.html.j2", context) for desc in ("summary", "about")}
            for desc, text in (parts | ({"change": change} if change else {})).items():
                write_text(figures / f"sub-{label}_desc-{desc}_FLAIR.html", text)
            viewers = any(row.viewer for row in shown)
            return write_text(page, _assemble(staging, label, f"WMH report: {subject}", viewers=viewers))
    except OSError as error:
        raise CannotCreateError(CANNOT_CREATE.format(path=page, reason=error)) from error
