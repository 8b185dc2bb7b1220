"""The ground, made once; and the outcomes, written when all faults were tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults import ground as grounds
from faults import harness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject
    from faults.ground import Ground
    from faults.harness import Outcome


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, phantom: PhantomSubject) -> Ground:
    return grounds.make_ground(tmp_path_factory.mktemp("ground"), phantom)


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[Outcome]]:
    """What was tried in this run; written as JSON lines at its end."""
    tried: list[Outcome] = []
    yield tried
    harness.record(tried)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "fault"
