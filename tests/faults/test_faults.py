"""Every fault of the matrix is survived or refused as expected, and ``docs/reliability.md`` says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults import ground as grounds
from faults import harness, table
from faults.matrix import FAULTS, NAMES, WHOLE, skipped
from faults.scans import SCANS, USABLE, Scan, add_scans, judge_scan

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bids_wmh_uad.phantom import PhantomSubject
    from faults.ground import Ground
    from faults.harness import Fault, Outcome, Tried

pytestmark = pytest.mark.slow


def accept(outcome: Outcome, tried: list[Outcome]) -> None:
    """Keep it for the record, and compare it with the page, which ``make test-faults`` writes anew."""
    tried.append(outcome)
    if WHOLE:
        return
    key = (outcome.family, outcome.name.replace("|", "/"))
    assert table.documented().get(key) == table.row(outcome), (
        "docs/reliability.md says otherwise: 'make test-faults' writes it anew"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_the_fault_does_no_harm(
    fault: Fault, tried: dict[str, Future[Tried]], outcomes: list[Outcome]
) -> None:
    if reason := skipped(fault):
        pytest.skip(reason)
    accept(harness.judge(fault, tried[fault.name].result()), outcomes)


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


@pytest.mark.parametrize("scan", (*SCANS, *USABLE), ids=lambda scan: scan.name.replace(" ", "_"))
def test_a_scan_is_used_or_named(scan: Scan, request: pytest.FixtureRequest, outcomes: list[Outcome]) -> None:
    if reason := skipped(scan):
        pytest.skip(reason)
    labels, run = request.getfixturevalue("usable" if scan in USABLE else "broken")
    accept(judge_scan(scan, labels[scan.name], run), outcomes)


def test_the_page_has_no_other_faults() -> None:
    known = {(family, name.replace("|", "/")) for family, name in NAMES}
    assert set(table.documented()) <= known
    assert len(known) == len(NAMES)
