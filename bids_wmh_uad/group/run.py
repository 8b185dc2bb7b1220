"""The group level: one table and page of the cohort, and the evaluation against reference masks.

Reads derivatives only; no network runs and raw data may be absent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import derivatives, tables
from bids_wmh_uad.bids.results import finished, identity, read_summaries, result_path
from bids_wmh_uad.config import GroupConfig
from bids_wmh_uad.errors import EXIT_OK, EXIT_SESSION_FAILED
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.group.change import write_change
from bids_wmh_uad.group.cohort import CHECKS, WMH_COLUMNS, cohort_table
from bids_wmh_uad.group.covariates import read_covariates
from bids_wmh_uad.group.lesions import COHORT_LESION_COLUMNS, cohort_lesions, read_lesions
from bids_wmh_uad.locks import Locks

LOGGER = logging.getLogger("bids_wmh_uad")


def run_group(config: GroupConfig) -> int:
    """Collect the cohort's table, evaluate it where references are given, and write the page.

    Returns
    -------
    int
        0; 1 if a session's results or its reference could not be used.

    Raises
    ------
    MissingInputError
        If there are no results, or no such reference dataset.
    BusyError
        If another process writes this output directory's tables.
    """
    with Locks() as locks:
        locks.take(derivatives.lock_path(config.output_dir, "group"), str(config.output_dir))
        return _write_group(config)


def _write_group(config: GroupConfig) -> int:
    from bids_wmh_uad.group.prevalence import write_prevalence
    from bids_wmh_uad.reports.group import write_group_report

    out = config.output_dir
    summaries = read_summaries(out)
    covariates = read_covariates([config.bids_dir, out], [*map(identity, summaries.values())], WMH_COLUMNS)
    if not (out / "dataset_description.json").is_file():  # it links the raw data
        derivatives.write_dataset_files(out, None)
    masks = {path: result_path(path, "mask") for path in finished(summaries)}
    desc, failures, lesions = "", 0, read_lesions(summaries)
    if config.group.threshold is not None:
        from bids_wmh_uad.group.rethreshold import rethreshold, threshold_label

        desc = threshold_label(config.group.threshold, config.method.accept)
        summaries, masks, lesions, failures = rethreshold(config, config.group.threshold, summaries)
    rows = cohort_table(summaries, covariates.rows)
    start = f"group_desc-{desc}_" if desc else "group_"
    tables.write_table(out / f"{start}wmh.tsv", rows, {**WMH_COLUMNS, **covariates.columns})
    found = cohort_lesions(summaries, lesions)
    tables.write_table(out / f"{start}lesions.tsv", found, COHORT_LESION_COLUMNS)
    if not desc:  # another threshold has masks of its own, and no comparison
        write_change(
            out, list(dict.fromkeys(participant for participant, _ in map(identity, summaries.values())))
        )
    evaluation, summary, unusable = _evaluate(config, summaries, masks, covariates.sites, start)
    page = write_group_report(
        out,
        [_without_checks(row) for row in rows],
        evaluation=evaluation,
        summary=summary,
        prevalence=write_prevalence(config, masks, summaries, desc),
        name=f"{start.rstrip('_')}.html",
    )
    LOGGER.info("%d sessions in %s", len(rows), out / f"{start}wmh.tsv")
    LOGGER.info("Report: %s", page)
    return EXIT_SESSION_FAILED if failures + unusable else EXIT_OK


def _without_checks(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for the page, whose warnings say what the checks found."""
    return {name: value for name, value in row.items() if name not in {f"check_{check}" for check in CHECKS}}


def _evaluate(
    config: GroupConfig,
    summaries: Mapping[Path, Mapping[str, Any]],
    masks: Mapping[Path, Path],
    sites: Mapping[str, Mapping[str, str]],
    start: str,
) -> tuple[list[dict[str, Any]] | None, dict[str, Any] | None, int]:
    """Write the evaluation's tables; their content, and the number of references that could not be used."""
    if config.group.reference is None:
        return None, None, 0
    from bids_wmh_uad.group.evaluation import EVALUATION_COLUMNS, evaluate_cohort
    from bids_wmh_uad.group.statistics import summarise

    rows, evaluations = evaluate_cohort(config, config.group.reference, summaries, masks)
    tables.write_table(config.output_dir / f"{start}evaluation.tsv", rows, EVALUATION_COLUMNS)
    summary = summarise(rows, evaluations, sites, config.method.random_seed)
    write_atomically(config.output_dir / f"{start}summary.json", dump_json(summary))
    return rows, summary, evaluations.count(None)
