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
PENDING = frozenset(
    {
        # inputs and names
        "directory link that leads to its parent", "derivatives inside the dataset", "a converter's temporary directory",
        "contrast-enhanced T1w beside run-1", "FLAIR named acq-FLAIR_T2w", "T1w named UNIT1", "entities out of order",
        "ses-1/anat without ses-1 in the name", "participants.tsv without sub-", "participants.tsv in Latin-1", "participants.tsv in UTF-16",
        # images
        "T1w below 0 (z-scores)", "header in micrometres", "header in metres", "qform and sform without code",
        "header of 1,100 cubed, no data", "header of 2,000 cubed, no data", "header of 32,767 cubed, no data",
        "1 MB of gzip that becomes 1 GB", "/dev/zero as a scan", "FIFO as a scan", "/dev/zero as weights", "FIFO as weights",
        "weights with a header of 2 GB", "weights that are NaN", "weights of another type", "description nested 100,000 deep",
        "description that is Infinity", "filter file nested 100,000 deep", "filter file that is a list", "summary nested 100,000 deep",
        "summary with lists where objects belong", "summary with Infinity as volume", "file name that is no text",
        # work directories, locks, signals, disk full
        "work directory that others may write, with pickles", "work directory of somebody else, with pickles",
        "work directory that is a link to such a one", "disk full from the start", "disk full in the work directory",
        "crowd", "SIGTERM in the middle", "Ctrl-C in the middle",
        "control whose FLAIR broke after a first training", "results of two FLAIR of one session", "orphans", "leftovers", "codes",
        # environment, pages, memory
        "OUT named like markup", "figure with a script", "TMPDIR full", "/dev/shm may not be written", "ulimit -v of 500 MB",
        "OUT with % in its name", "working directory that was deleted", "stdout closed", "broken pipe (--dry-run | true)",
        "description that is a list, validation skipped",
    }
)  # fmt: skip
"""Names of faults that are being mended elsewhere: they are not tried."""


def skipped(fault: Fault | Scan) -> str:
    """Why a fault is not tried; empty if it is."""
    if fault.name in PENDING:
        return "is being mended elsewhere"
    if fault.full and not WHOLE:
        return "takes a whole session: 'make test-faults' tries it"
    return fault.needs()
