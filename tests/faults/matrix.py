"""All rows of the matrix, and which of them are left out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from faults import datasets, security, surroundings
from faults.scans import SCANS, USABLE

if TYPE_CHECKING:
    from faults.harness import Fault
    from faults.scans import Scan

FAULTS = (*datasets.FAULTS, *security.FAULTS, *surroundings.FAULTS)
NAMES = tuple((one.family, one.name) for one in (*SCANS, *USABLE, *FAULTS))
"""Family and name of every row, in the table's order."""
WHOLE = os.environ.get("FAULTS") == "all"
"""Whether what takes whole sessions is tried too: ``make test-faults``."""
PENDING: frozenset[str] = frozenset()
"""Names of faults that are being mended elsewhere: they are not tried."""


def skipped(fault: Fault | Scan) -> str:
    """Why a fault is not tried; empty if it is."""
    if fault.name in PENDING:
        return "is being mended elsewhere"
    if fault.full and not WHOLE:
        return "takes a whole session: 'make test-faults' tries it"
    return fault.needs()
