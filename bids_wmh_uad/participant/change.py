"""``--longitudinal``: which participants have sessions to compare, and what is said of those that cannot be."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bids_wmh_uad import __version__
from bids_wmh_uad.bids import derivatives, tables
from bids_wmh_uad.bids.participants import acquisition_times
from bids_wmh_uad.bids.results import beside, current_summaries, finished, identity
from bids_wmh_uad.bids.sidecars import change_sidecars
from bids_wmh_uad.bids.status import ALREADY_DONE, DONE, StatusTable, change_label
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.change.compare import Comparison
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.environment import refusal
from bids_wmh_uad.errors import (
    CHANGE_FAILED,
    ONE_SESSION,
    BusyError,
    SessionError,
    StorageError,
    WmhUadError,
)
from bids_wmh_uad.files import dump_json, json_plain
from bids_wmh_uad.imaging.registration import itk_text
from bids_wmh_uad.imaging.scans import as_image, read_volume
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.participant import comparison
from bids_wmh_uad.participant.comparison import Aligned, Visit
from bids_wmh_uad.participant.findings import MOTIONS, about_pair, about_visit, lesion_row
from bids_wmh_uad.reports.figures.change import COLOURS, place_of, plot_change
from bids_wmh_uad.workflows import memory

LOGGER = logging.getLogger("bids_wmh_uad")
FINISHED = "sub-%s: what changed between %d sessions is in %s"
ALREADY = "sub-%s: its sessions were compared before, nothing to do"
PLACES = ("anat", "ses-*/anat", "figures")
"""Where the files of a comparison lie, below the participant."""


def run_change(config: RunConfig, subjects: Sequence[str], table: StatusTable) -> list[WmhUadError]:
    """Compare the sessions of each participant; one that fails leaves the others.

    Parameters
    ----------
    config : RunConfig
    subjects : sequence of str
        Labels without prefix.
    table : StatusTable
        Gets a row for each participant with several sessions.

    Returns
    -------
    list of WmhUadError
        What went wrong, one for each participant that failed.
    """
    visits = {subject: _visits(config, subject) for subject in subjects}
    for subject, found in visits.items():
        if len(found) < 2:
            LOGGER.info("%s", ONE_SESSION.format(where=f"sub-{subject}", n=len(found)))
    several = {subject: found for subject, found in visits.items() if len(found) > 1}
    table.add(several)
    failed = []
    try:
        for subject, found in several.items():
            try:
                new = _compare_or_reuse(config, subject, found)
            except Exception as raised:
                error = _typed(raised, subject)
                LOGGER.log(logging.WARNING if isinstance(error, BusyError) else logging.ERROR, "%s", error)
                LOGGER.debug("", exc_info=True)
                table.fail_change(subject, error)
                failed.append(error)
                if isinstance(error, StorageError):
                    break
            else:
                table.end({change_label(subject): DONE if new else ALREADY_DONE})
    finally:  # Ctrl-C, a full disk: what has not ended never will
        table.interrupt()
    return failed


def _typed(raised: Exception, subject: str) -> WmhUadError:
    where = f"sub-{subject}"
    if isinstance(raised, BusyError | StorageError):
        return raised
    machine = None if isinstance(raised, WmhUadError) else refusal(raised, where)
    kind = type(raised) if isinstance(raised, WmhUadError) else SessionError
    return machine or kind(CHANGE_FAILED.format(where=where, reason=raised))


def _visits(config: RunConfig, subject: str) -> list[Visit]:
    """The finished sessions of a participant, of this run and of earlier ones: by time where all have one, else by label."""
    participant = f"sub-{subject}"
    found = {
        path: summary
        for path, summary in finished(current_summaries(config.output_dir)).items()
        if path.relative_to(config.output_dir).parts[0] == participant
    }
    flairs = {identity(summary): _flair_name(summary) for summary in found.values()}
    times = acquisition_times([config.bids_dir, config.output_dir], flairs)
    visits = [Visit(path, summary, times.get(identity(summary))) for path, summary in found.items()]
    timed = all(visit.time is not None for visit in visits)
    return sorted(
        visits, key=lambda one: ((one.time.isoformat(),) if timed and one.time else (), natural(one.label))
    )


def natural(label: str) -> tuple[tuple[int, str], ...]:
    """Key by which ``ses-2`` comes before ``ses-10``."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label))


def _flair_name(summary: Mapping[str, Any]) -> str:
    sources = summary.get("Sources")
    return Path(str(sources[0])).name if isinstance(sources, list) and sources else ""


def _compare_or_reuse(config: RunConfig, subject: str, visits: Sequence[Visit]) -> bool:
    """Compare a participant's sessions and publish it whole; whether anything was to do."""
    out, params = config.output_dir, ChangeParameters()
    with Locks() as locks:
        locks.take(derivatives.lock_path(out, f"sub-{subject}_change"), f"sub-{subject}")
        made_from = comparison.signature(visits, params)
        path = derivatives.longitudinal_path(out, subject)
        if derivatives.read_summary(path).get("signature") == made_from and _all_there(out, path):
            LOGGER.info(ALREADY, subject)
            return False
        aligned = comparison.align(visits, params, config.performance.nprocs)
        with TemporaryDirectory(prefix=f"sub-{subject}_change-", dir=config.running.work_dir) as staging:
            threads = memory.pairs_at_once(len(visits), aligned.mask.size, config)
            content = _stage(Path(staging), out, subject, visits, aligned, params, threads)
            content["signature"] = made_from
            _write(Path(staging) / path.relative_to(out), dump_json(json_plain(content)))
            _withdraw(out, path, content["files"])
            derivatives.publish(Path(staging), out)
        LOGGER.info(FINISHED, subject, len(visits), path)
        return True


def _all_there(out: Path, path: Path) -> bool:
    files = derivatives.read_summary(path).get("files")
    return isinstance(files, list) and all((out / str(name)).is_file() for name in files)


def _withdraw(out: Path, path: Path, kept: Sequence[str]) -> None:
    """Take an earlier comparison back, its summary first, before another takes its place: what is not overwritten goes."""
    path.unlink(missing_ok=True)
    endings = [
        ending.format(kind=kind)
        for ending in derivatives.CHANGE_OUTPUTS.values()
        for kind in derivatives.CHANGE_KINDS.values()
    ] + [derivatives.TO_COMMON]
    endings += [derivatives.CHANGE_FIGURE.format(kind=kind) for kind in derivatives.CHANGE_KINDS.values()]
    for ending in endings:
        for old in [found for place in PLACES for found in path.parent.glob(f"{place}/*_{ending}")]:
            if old.relative_to(out).as_posix() not in kept:
                old.unlink(missing_ok=True)
                (old.with_suffix(".json") if old.suffix == ".tsv" else derivatives.sidecar_path(old)).unlink(
                    missing_ok=True
                )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _stage(
    staging: Path,
    out: Path,
    subject: str,
    visits: Sequence[Visit],
    aligned: Aligned,
    params: ChangeParameters,
    threads: int,
) -> dict[str, Any]:
    """Write everything but the summary into the staging tree, and give the summary."""
    for visit, motion in zip(visits, aligned.space.motions, strict=True):
        path = comparison.beside_summary(visit, derivatives.TO_COMMON, staging, out)
        _write(path, itk_text(motion).encode())
        meta = {
            "Type": "linear",
            "Format": "ITK text",
            "Description": TO_COMMON_TEXT.format(kind=MOTIONS[aligned.space.rigid].capitalize()),
            "Sources": _sources([visit], out, "flair"),
        }
        _write(derivatives.sidecar_path(path), dump_json(meta))

    def compare(related: tuple[int, int, str]) -> dict[str, Any]:
        before, after, kind = related
        found = aligned.compare(before, after, params)
        _stage_pair(staging, out, visits, (before, after), kind, found, aligned, params)
        _draw_pair(staging / f"sub-{subject}", visits, (before, after), kind, found, aligned)
        return about_pair(visits[before], visits[after], kind, found, aligned, (before, after), params)

    pairs = parallel_map(compare, comparison.related(visits), threads=threads)
    for warning in (one for pair in pairs for one in pair["warnings"]):
        LOGGER.warning("%s", warning["text"])
    written = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    return {
        "participant_id": f"sub-{subject}",
        "sessions": [about_visit(visit, visits[0]) for visit in visits],
        "pairs": pairs,
        "parameters": asdict(params),
        "versions": {"bids-wmh-uad": __version__},
        "files": [derivatives.published_name(name).as_posix() for name in written],
    }


TO_COMMON_TEXT = "{kind} motion into the space common to the participant's sessions, halfway between them."


def _stage_pair(
    staging: Path,
    out: Path,
    visits: Sequence[Visit],
    places: tuple[int, int],
    kind: str,
    found: Comparison,
    aligned: Aligned,
    params: ChangeParameters,
) -> None:
    """Write what changed between two sessions, on the later one's own grid."""
    import nibabel as nib

    before, after = (visits[place] for place in places)
    like = read_volume(beside(after.summary, derivatives.OUTPUTS["flair"]))
    named = {
        name: comparison.beside_summary(
            after, ending.format(kind=derivatives.CHANGE_KINDS[kind]), staging, out
        )
        for name, ending in derivatives.CHANGE_OUTPUTS.items()
    }
    tissue = {"new": found.new, "enlarging": found.enlarging, "shrinking": found.gone}
    images: dict[str, Any] = {
        name: comparison.own_mask(labels, aligned, places[1], like) for name, labels in tissue.items()
    }
    images["map"] = comparison.to_flair(found.departure.score, aligned, places[1], like, "linear")
    about = change_sidecars(_sources([before, after], out, "flair"), before.label, asdict(params))
    for name, values in images.items():
        path = named[name].with_suffix("")  # publishing compresses
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(as_image(values, like.affine), path)
        _write(derivatives.sidecar_path(path), dump_json(json_plain(about[name])))
    rows = [
        lesion_row(number, lesion, aligned, places[1], params)
        for number, lesion in enumerate(found.lesions, start=1)
    ]
    tables.write_table(named["table"], rows, tables.CHANGE_COLUMNS)


def _draw_pair(
    directory: Path,
    visits: Sequence[Visit],
    places: tuple[int, int],
    kind: str,
    found: Comparison,
    aligned: Aligned,
) -> None:
    """Draw both sessions in the common space, with what changed outlined and numbered as in the table."""
    after = visits[places[1]]
    ending = derivatives.CHANGE_FIGURE.format(kind=derivatives.CHANGE_KINDS[kind])
    affine = aligned.space.grid.affine
    tissue = zip(COLOURS, (found.new, found.enlarging, found.gone), strict=True)
    first, second = (as_image(aligned.flair[place], affine) for place in places)
    plot_change(
        first,
        second,
        as_image(aligned.mask.astype(np.uint8), affine),
        {name: as_image(labels, affine) for name, labels in tissue},
        directory / "figures" / f"{after.prefix}_{ending}",
        names=(visits[places[0]].label, after.label),
        prefix=place_of(after.prefix, kind),
    )


def _sources(visits: Sequence[Visit], out: Path, output: str) -> list[str]:
    return [
        f"bids::{beside(visit.summary, derivatives.OUTPUTS[output]).relative_to(out).as_posix()}"
        for visit in visits
    ]
