"""Reference masks that users bring, in a derivatives dataset of theirs."""

from __future__ import annotations

import logging
from pathlib import Path

from bids_wmh_uad.bids.names import read_name
from bids_wmh_uad.errors import SEVERAL_REFERENCES

LOGGER = logging.getLogger("bids_wmh_uad")
"""The program's log."""


def find_reference(reference: Path, participant_id: str, session_id: str) -> Path | None:
    """The session's ``*_label-{WMH,lesion}_mask.nii.gz``; of several the one with the shortest name, with a warning.

    Hidden files, and those whose name is of another participant or session, are none of it.

    Parameters
    ----------
    reference : Path
        The dataset.
    participant_id, session_id : str
        With their prefixes; ``n/a`` where there are no sessions.
    """
    directory = reference / participant_id
    if session_id != "n/a":
        directory /= session_id
    session = None if session_id == "n/a" else session_id.removeprefix("ses-")
    masks = [
        path
        for label in ("WMH", "lesion")
        for path in directory.glob(f"anat/*_label-{label}_mask.nii.gz")
        if read_name(path.name).belongs_to(participant_id.removeprefix("sub-"), session)
    ]
    if not masks:
        return None
    first = min(masks, key=lambda path: (len(path.name), path.name))
    if len(masks) > 1:
        LOGGER.warning(SEVERAL_REFERENCES.format(path=first, n=len(masks)))
    return first
