"""What the subject and the group page share: templates, number formats, safe writing."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import as_file, files
from numbers import Integral
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.reports.figures.labels import anchor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MISSING = "n/a"
"""Text of a missing value, as BIDS writes it in tables."""


def content_policy(*scripts: str) -> str:
    """Content-Security-Policy of a page: it asks for nothing, and runs no scripts but these.

    Parameters
    ----------
    *scripts : str
        For each, all that stands between the tags of its element.
    """
    digests = [b64encode(sha256(script.encode()).digest()).decode("ascii") for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def embed(data: object) -> str:
    r"""JSON that may stand inside a script element: no character in it can end one."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@contextmanager
def specs_directory() -> Iterator[Path]:
    """Directory of the templates and report specifications, as real files."""
    with as_file(files("bids_wmh_uad.reports") / "specs") as directory:
        yield directory


def is_missing(value: object) -> bool:
    """Whether a table cell holds nothing: None, NaN, empty, or ``n/a``."""
    if value is None or (isinstance(value, str) and value.strip() in {"", MISSING}):
        return True
    try:
        return math.isnan(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def as_number(value: object) -> float | None:
    """Read the cell as a finite number; None if it is missing or text."""
    if is_missing(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def show(value: object, digits: int = 2) -> str:
    """Text of a table cell: ``n/a`` if missing, integers plain, other numbers with `digits` decimals."""
    if is_missing(value):
        return MISSING
    if isinstance(value, (str, Integral)):
        return str(value)
    number = as_number(value)
    return str(value) if number is None else f"{number:.{digits}f}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill one of our templates; everything inserted is escaped, and what is no text (bytes of file names) is marked."""
    from jinja2 import Environment, FileSystemLoader

    with specs_directory() as directory:
        environment = Environment(
            loader=FileSystemLoader(directory), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(show=show, number=as_number, anchor=anchor)
        environment.globals["content_policy"] = content_policy
        text = environment.get_template(template).render(**context)
    return text.encode("utf-8", "replace").decode("utf-8")
