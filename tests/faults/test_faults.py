"""Every fault of the matrix is survived or refused as expected, and ``docs/reliability.md`` says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from faults import ground as grounds
from faults import harness, table
from faults.matrix import FAULTS, NAMES, PENDING
from faults.scans import SCANS, USABLE, Scan, add_scans, judge_scan

if TYPE_CHECKING:
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject
    from faults.ground import Ground
    from faults.harness import Fault, Outcome, Tried

pytestmark = pytest.mark.slow
WHOLE = os.environ.get("FAULTS") == "all"
ONLY_WHOLE = "takes a whole session: 'make test-faults' tries it"
ELSEWHERE = "is being mended elsewhere"


def accept(outcome: Outcome, tried: list[Outcome]) -> None:
    """Keep it for the record, and compare it with the page."""
    tried.append(outcome)
    key = (outcome.family, outcome.name.replace("|", "/"))
    assert table.documented().get(key) == table.row(outcome), (
        "docs/reliability.md says otherwise: 'make test-faults' writes it anew"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_the_fault_does_no_harm(fault: Fault, ground: Ground, root: Path, outcomes: list[Outcome]) -> None:
    if fault.name in PENDING:
        pytest.skip(ELSEWHERE)
    if fault.full and not WHOLE:
        pytest.skip(ONLY_WHOLE)
    if reason := fault.needs():
        pytest.skip(reason)
    accept(harness.judge(fault, harness.try_fault(fault, ground, root)), outcomes)


@pytest.fixture(scope="module")
def broken(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Tried]:
    """All scans that cannot be used, in one run."""
    root = tmp_path_factory.mktemp("scans")
    here = grounds.copy(ground, root)
    labels = add_scans(here, SCANS, here.bids / "sub-02" / "anat")
    run = grounds.command(
        here.bids, here.out, "participant", *here.options, "--participant-label", "01", *labels.values()
    )
    return labels, harness.run_command(run, here, grounds.files_below(here.out), {})


@pytest.fixture(scope="module")
def usable(
    ground: Ground, phantom: PhantomSubject, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], Tried]:
    """All scans that are odd and usable, in one run with its preprocessing."""
    root = tmp_path_factory.mktemp("usable")
    here = grounds.copy(ground, root)
    for name, image in (("FLAIR", phantom.flair), ("T1w", phantom.t1w)):
        grounds.save(image, root / "whole" / f"sub-whole_{name}.nii.gz")
    labels = add_scans(here, USABLE, root / "whole")
    run = grounds.command(
        here.bids, here.out, "participant", *grounds.METHOD, "--participant-label", *labels.values()
    )
    return labels, harness.run_command(run, here, grounds.files_below(here.out), {}, seconds=7200)


@pytest.mark.parametrize("scan", SCANS, ids=lambda scan: scan.name.replace(" ", "_"))
def test_a_scan_that_cannot_be_used_is_named(
    scan: Scan, broken: tuple[dict[str, str], Tried], outcomes: list[Outcome]
) -> None:
    labels, tried = broken
    if scan.name in PENDING:
        pytest.skip(ELSEWHERE)
    accept(judge_scan(scan, labels[scan.name], tried), outcomes)


@pytest.mark.skipif(not WHOLE, reason=ONLY_WHOLE)
@pytest.mark.parametrize("scan", USABLE, ids=lambda scan: scan.name.replace(" ", "_"))
def test_an_odd_scan_is_used(
    scan: Scan, usable: tuple[dict[str, str], Tried], outcomes: list[Outcome]
) -> None:
    labels, tried = usable
    if scan.name in PENDING:
        pytest.skip(ELSEWHERE)
    accept(judge_scan(scan, labels[scan.name], tried), outcomes)


def test_the_page_has_no_other_faults() -> None:
    known = {(family, name.replace("|", "/")) for family, name in NAMES}
    assert set(table.documented()) <= known
    assert len(known) == len(NAMES)
