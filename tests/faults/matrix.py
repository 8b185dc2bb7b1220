"""All rows of the matrix, and which of them are left out for now."""

from __future__ import annotations

from faults import datasets, security, surroundings
from faults.scans import SCANS, USABLE

FAULTS = (*datasets.FAULTS, *security.FAULTS, *surroundings.FAULTS)
NAMES = tuple((one.family, one.name) for one in (*SCANS, *USABLE, *FAULTS))
"""Family and name of every row, in the table's order."""
PENDING: frozenset[str] = frozenset()
"""Names of faults that are being mended elsewhere: they are not tried."""
