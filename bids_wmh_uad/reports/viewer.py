"""The interactive viewer of a participant's page: NiiVue and the images it shows, all of them inside the page.

The library is a file of its own (``vendor/niivue``), carried packed and run by ``specs/viewer.js`` only when somebody opens the
viewer. The page's policy names both by their digests, so that nothing else can run.
"""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.reading import read_object
from bids_wmh_uad.reports.pages import as_number, embed, render, specs_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGES = ("flair", "anomaly", "marks")
"""Names of the images that the viewer shows."""
NUMBERS = ("low", "high", "threshold")
"""Names of the numbers that go with them."""
PACKED = re.compile(r"[A-Za-z0-9+/]+={0,2}")
"""Pattern of an image in base64."""


def read_viewer(path: Path) -> str:
    """What a session's viewer shows, as JSON for a script element; empty if the file is not as `write_viewer` makes it."""
    try:
        content = read_object(path)
    except (OSError, ValueError):
        return ""
    images: dict[str, Any] = {name: content.get(name) for name in IMAGES}
    numbers: dict[str, Any] = {name: as_number(content.get(name)) for name in NUMBERS}
    centre = content.get("centre")
    place = [as_number(value) for value in centre] if isinstance(centre, list) else []
    whole = all(isinstance(text, str) and PACKED.fullmatch(text) for text in images.values())
    if not whole or None in numbers.values() or len(place) != 3 or None in place:
        return ""
    return embed({**images, **numbers, "centre": place})


def viewer_block(prefix: str, data: str) -> str:
    """The viewer of one session, for the page; closed until somebody opens it."""
    return render("viewer.html.j2", {"prefix": prefix, "data": data})


def library() -> str:
    """Text of NiiVue's standalone build."""
    return (files("bids_wmh_uad.reports") / "vendor" / "niivue" / "niivue.umd.js").read_text(encoding="utf-8")


def viewer_scripts() -> tuple[str, Sequence[str]]:
    """What a page with viewers ends with, and the scripts that its policy has to allow."""
    text = library()
    with specs_directory() as directory:
        starter = (directory / "viewer.js").read_text(encoding="utf-8")
    packed = b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")
    block = f'<script type="text/plain" id="niivue-packed">{packed}</script>\n<script>{starter}</script>'
    return block, (starter, text)
