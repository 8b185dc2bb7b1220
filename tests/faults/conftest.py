"""The ground, made once; faults tried side by side; the outcomes, written when all were tried."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from faults import ground as grounds
from faults import harness
from faults.matrix import skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bids_wmh_uad.phantom import PhantomSubject
    from faults.ground import Ground
    from faults.harness import Outcome, Tried

AT_ONCE = min(4, len(os.sched_getaffinity(0)))


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, phantom: PhantomSubject) -> Ground:
    return grounds.make_ground(tmp_path_factory.mktemp("ground"), phantom)


@pytest.fixture(scope="session")
def tried(
    request: pytest.FixtureRequest, ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Tried]]]:
    """All faults that this run of pytest asks for, by name: as many at once as there are processors."""
    root = tmp_path_factory.mktemp("faults")
    asked = [item.callspec.params.get("fault") for item in request.session.items if hasattr(item, "callspec")]
    faults = [fault for fault in asked if isinstance(fault, harness.Fault) and not skipped(fault)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            fault.name: pool.submit(harness.try_fault, fault, ground, root / f"fault{number:03d}")
            for number, fault in enumerate(faults)
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[Outcome]]:
    """What came of the faults; written as JSON lines in the end."""
    collected: list[Outcome] = []
    yield collected
    harness.record(collected)
