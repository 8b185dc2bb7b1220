"""Names of scans, read; and the start of the names of what is made of them, made: nowhere else.

A scan's name may have its entities in any order, lack its session or say things that BIDS does not know.
What is made of it has a valid name all the same, and always the same one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

LABEL = "[a-zA-Z0-9+]+"
"""Pattern of an entity's value."""
PLAIN = ("sub", "ses", "task", "acq", "rec", "dir", "run")
"""Entities of an ordinary scan. Any other says that the image shows something else: contrast agent, inversion, echo, ..."""
KEPT = ("task", "acq", "ce", "rec", "run", "echo", "part")
"""Entities of a scan that the names of its derivatives keep, in BIDS' order: those that BIDS allows there."""
NUMBERS = ("run", "echo")
"""Entities whose value is a number."""


@dataclass(frozen=True)
class ScanName:
    """What the name of a scan says.

    Parameters
    ----------
    entities : mapping
        Values by their keys (``acq``, not ``acquisition``), in the name's order.
    odd : tuple of str
        Parts of the name that are no entity, or an entity for the second time.
    """

    entities: Mapping[str, str]
    odd: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        """The parts of the name that say that this is not an ordinary magnitude image of its contrast."""
        named = [f"{key}-{value}" for key, value in self.entities.items() if key not in PLAIN]
        return tuple(part for part in (*named, *self.odd) if part != "part-mag")

    @property
    def run(self) -> int:
        """Number of the run; 0 without one."""
        run = self.entities.get("run", "")
        return int(run) if run.isdecimal() else 0

    @property
    def is_magnitude(self) -> bool:
        """Whether it is no phase, real or imaginary part."""
        return self.entities.get("part", "mag") == "mag"

    def belongs_to(self, subject: str, session: str | None) -> bool:
        """Whether the name does not contradict the directory that it was found in: a name need not have a session."""
        says = self.entities.get("ses", session)
        return self.entities.get("sub") == subject and (session is None or says == session)


def read_name(name: str) -> ScanName:
    """Read a scan's name, or that of any file that is named like one; it must begin with ``sub-``.

    The last part, suffix and extension, is left to pybids.
    """
    entities: dict[str, str] = {}
    odd = []
    for number, part in enumerate(name.split("_")[:-1]):
        match = re.fullmatch(f"([a-z]+)-({LABEL})", part)
        if match is None or match[1] in entities or (number == 0) != (match[1] == "sub"):
            odd.append(part)
        else:
            entities[match[1]] = match[2]
    return ScanName(entities, tuple(odd))


def read_place(path: PurePath) -> tuple[str, str | None] | None:
    """Subject and session of the directory that a file of a dataset lies in, without prefixes.

    Parameters
    ----------
    path : PurePath
        Relative to the dataset's root.

    Returns
    -------
    tuple or None
        None where it does not lie in ``sub-*/[ses-*/]anat``, or is hidden.
    """
    match = re.fullmatch(rf"sub-({LABEL})/(?:ses-({LABEL})/)?anat/[^/.][^/]*", path.as_posix())
    return (match[1], match[2]) if match else None


def ignored_paths(subjects: tuple[str, ...] = ()) -> re.Pattern[str]:
    """Pattern of the paths that an index of a dataset leaves unopened: all but images in ``sub-*/[ses-*/]anat``.

    Parameters
    ----------
    subjects : tuple of str
        Only these; all if empty.
    """
    labels = "|".join(map(re.escape, subjects)) or LABEL
    image = r"[^/.\udc80-\udcff][^/\udc80-\udcff]*\.nii(\.gz)?"  # no bytes that are not UTF-8: pybids cannot hold them
    return re.compile(rf"^(?!/sub-({labels})(/ses-{LABEL})?(/anat(/{image})?)?/?$)")


def result_prefix(subject: str, session: str | None, scan: Path) -> str:
    """The start of the names of everything that is made of a scan, such as ``sub-1_ses-2_acq-3D_run-1``.

    Parameters
    ----------
    subject, session : str
        Labels without prefix; they count, not what the scan's name says.
    scan : Path
    """
    entities = read_name(scan.name).entities
    kept = {
        key: entities[key]
        for key in KEPT
        if key in entities and (key not in NUMBERS or entities[key].isdecimal())
    }
    known = {"sub": subject} | ({"ses": session} if session else {}) | kept
    return "_".join(f"{key}-{value}" for key, value in known.items())
