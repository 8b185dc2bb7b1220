"""What the text of an option means: paths, labels, sizes of memory; each refuses what it cannot be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from bids_wmh_uad.config import LEVELS, SPACES
from bids_wmh_uad.errors import BAD_VALUE, KNOWN_SPACES, UnknownLevelError, UsageError

PRINTABLE = (
    "expected a path of printable characters in this locale's encoding ({encoding}). Rename the directory, give a link to it,"
    " or set LC_ALL=C.UTF-8"
)
"""What is wrong with a path that cannot be quoted."""
WHOLE_PATH = "give the whole path, from /"
"""What to do where a path depends on a working directory or a home that is not there."""
MEMORY = re.compile(r"(\d+(?:\.\d+)?)(?:([KMGT])(?:I?B)?)?", re.IGNORECASE)
GIB = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}
"""What a unit is counted as: 1,000 MB are one GiB of ``--mem-gb``, as in fMRIPrep."""


def level(value: str) -> str:
    """The name of an analysis level."""
    if value not in LEVELS:
        raise UnknownLevelError(
            BAD_VALUE.format(option="analysis level", value=value, expected=f"choose from {LEVELS}")
        )
    return value


def path(value: str) -> Path:
    """An absolute path. Crash files, tables and sidecars quote it, a line each, in UTF-8."""
    if any(
        not sign.isprintable() for sign in value
    ):  # line breaks, control characters, bytes that are no text
        shown = value.encode("utf-8", "backslashreplace").decode()
        raise UsageError(
            BAD_VALUE.format(
                option="path", value=shown, expected=PRINTABLE.format(encoding=sys.getfilesystemencoding())
            )
        )
    try:
        return Path(value).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # the working directory is gone; there is no home
        raise UsageError(
            BAD_VALUE.format(option="path", value=value, expected=f"{WHOLE_PATH} ({error})")
        ) from error


def label(prefix: str) -> Callable[[str], str]:
    """A converter that drops the optional ``sub-``/``ses-`` prefix of a label."""

    def convert(value: str) -> str:
        return value.removeprefix(prefix)

    return convert


def dataset(value: str) -> Path:
    """The path of ``PATH`` or fMRIPrep's ``NAME=PATH``; the name is not used."""
    name, equals, rest = value.partition("=")
    return path(rest) if equals and name.isidentifier() and not path(value).exists() else path(value)


def space(value: str) -> str:
    """The name of an output space."""
    if value not in SPACES:
        expected = KNOWN_SPACES.format(known=", ".join(SPACES))
        raise UsageError(BAD_VALUE.format(option="--output-spaces", value=value, expected=expected))
    return value


def gamma(value: str) -> str | float:
    """``scale``, or a number."""
    return value if value == "scale" else float(value)


def memory(value: str) -> float:
    """GiB of fMRIPrep's ``--mem``: megabytes, or a number with a unit, such as ``8G`` or ``8000MB``."""
    match = MEMORY.fullmatch(value.strip())
    if match is None:
        raise UsageError(
            BAD_VALUE.format(option="--mem", value=value, expected="expected MB, or a size such as 8G")
        )
    return float(match[1]) * GIB[(match[2] or "M").upper()]
