"""Reference masks that users bring, in a derivatives dataset of theirs."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from bids_wmh_uad.bids.names import read_name
from bids_wmh_uad.errors import OTHER_SPACE, RESAMPLE_HINT, SEVERAL_REFERENCES

LOGGER = logging.getLogger("bids_wmh_uad")
"""The program's log."""
LABELS = ("wmh", "lesion", "lesions", "l")
"""Values of ``label`` that mean lesions, in lower case. ``L`` is BIDS' own abbreviation."""
MANUAL = "manual"
"""How the value of ``desc`` begins that needs no ``label``."""
SUFFIXES = ("mask", "dseg", "roi", "probseg")
"""Suffixes of masks, the preferred first."""
SAME_SPACES = (None, "FLAIR", "orig", "individual", "scanner")
"""Values of ``space`` that may mean the FLAIR's world."""


@dataclass(frozen=True)
class Reference:
    """A reference mask.

    Parameters
    ----------
    path : Path
    space : str or None
        What its name says.
    """

    path: Path
    space: str | None = None

    @property
    def in_t1w_space(self) -> bool:
        """Whether the T1w's transform brings it to the FLAIR."""
        return self.space == "T1w"

    @property
    def may_be_resampled(self) -> bool:
        """Whether its world may be the FLAIR's, on another grid."""
        return self.space in SAME_SPACES

    @property
    def remedy(self) -> str:
        """What to do if its grid is not the FLAIR's."""
        return RESAMPLE_HINT if self.may_be_resampled else OTHER_SPACE.format(space=self.space)


def find_reference(reference: Path, participant_id: str, session_id: str) -> Reference | None:
    """The session's lesion mask: binary before probabilistic, in the FLAIR's space before the T1w's before others.

    A lesion mask is a NIfTI file in ``anat/`` with a suffix of `SUFFIXES` whose ``label`` is one of
    `LABELS`, or that has none and whose ``desc`` begins with `MANUAL`. Of several that are equal in this, the one
    with the shortest name is taken, with a warning. Hidden files, and those whose name is of another participant
    or session, are none of it.

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
        for path in directory.glob("anat/sub-*.nii*")
        if _is_lesion_mask(path.name)
        and read_name(path.name).belongs_to(participant_id.removeprefix("sub-"), session)
    ]
    if not masks:
        return None
    first = min(masks, key=lambda path: (*_rank(path.name), len(path.name), path.name))
    equals = sum(_rank(path.name) == _rank(first.name) for path in masks)
    if equals > 1:
        LOGGER.warning(SEVERAL_REFERENCES.format(path=first, n=equals))
    return Reference(first, read_name(first.name).entities.get("space"))


def _suffix(name: str) -> str | None:
    match = re.search(r"_([a-zA-Z]+)\.nii(?:\.gz)?$", name)
    return match[1] if match else None


def _is_lesion_mask(name: str) -> bool:
    entities = read_name(name).entities
    label, desc = entities.get("label"), entities.get("desc", "")
    is_lesion = desc.lower().startswith(MANUAL) if label is None else label.lower() in LABELS
    return is_lesion and _suffix(name) in SUFFIXES


def _rank(name: str) -> tuple[int, int]:
    """Order of preference by space and suffix."""
    space = read_name(name).entities.get("space")
    place = 0 if space in SAME_SPACES else 1 if space == "T1w" else 2
    return place, SUFFIXES.index(_suffix(name) or "")
