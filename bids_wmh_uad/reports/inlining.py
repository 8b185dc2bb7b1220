"""Which drawings may become part of a page: those that this program could have written, and no others.

The output directory is written by many hands. A page that carries a script, or asks a server for
something, is a way into the reader's browser, so a figure is looked through before it is inlined
and refused as soon as it holds anything that our figures do not. Nothing is taken out of it: what
is shown is the file as it is.
"""

from __future__ import annotations

import re
from xml.parsers import expat

MAX_FIGURE_BYTES = 20_000_000
"""Largest figure that is read: ours have less than a tenth of it."""
ELEMENTS = frozenset({
    "svg", "g", "defs", "use", "path", "rect", "line", "circle", "ellipse", "polyline", "polygon", "text", "tspan", "image",
    "style", "clipPath", "a",
})  # fmt: skip
"""Names of the elements of drawings; none of them runs or embeds anything, and a link leads to the page itself."""
ATTRIBUTES = frozenset({
    "id", "class", "role", "aria-label", "version", "xmlns", "xmlns:xlink", "xml:space", "viewBox", "preserveAspectRatio",
    "type", "style", "transform", "clip-path", "d", "points", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry",
    "dx", "dy", "width", "height", "href", "xlink:href", "fill", "fill-opacity", "fill-rule", "opacity", "stroke",
    "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin",
    "text-anchor", "font-size", "font-family", "font-weight", "font-style", "dominant-baseline",
})  # fmt: skip
"""Names of the attributes of drawings: no event handlers among them."""
REFERENCE = re.compile(r"#|data:image/(jpeg|png);base64,")
"""Pattern of what a drawing may refer to: a part of itself, or pixels that it carries."""
FETCHING_STYLE = re.compile(r"@|\\|url\((?!#)", re.IGNORECASE)
"""Pattern of style rules that may ask for a file, or hide that they do."""


class UnsafeDrawing(ValueError):  # noqa: N818 (its message says what was found)
    """A drawing that is not shown, and what is wrong with it."""


def drawing_of(text: str) -> str:
    """Return the ``<svg>`` element of an SVG file, if all of it is drawing.

    Parameters
    ----------
    text : str
        Content of the file.

    Returns
    -------
    str
        The element, unchanged.

    Raises
    ------
    UnsafeDrawing
        If it is not well-formed, or holds an element, an attribute, a reference or a style rule
        that figures of this program do not have.
    """
    start = text.find("<svg")
    if start < 0:
        raise UnsafeDrawing("no SVG element")
    drawing = text[start:].strip()
    parser = expat.ParserCreate()
    look = _Look()
    parser.StartElementHandler = look.element
    parser.EndElementHandler = look.end
    parser.CharacterDataHandler = look.text
    parser.CommentHandler = look.comment
    parser.StartCdataSectionHandler = look.cdata
    parser.ProcessingInstructionHandler = look.instruction
    try:
        parser.Parse(drawing.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise UnsafeDrawing(f"broken XML: {error}") from error
    return drawing


class _Look:
    """Expat's handlers: each raises at the first thing that is no drawing.

    A browser reads the drawing as HTML, so what XML and HTML end at different places is refused too.
    """

    def __init__(self) -> None:
        self._style: list[str] | None = None

    def element(self, name: str, attributes: dict[str, str]) -> None:
        if name == "style":
            self._style = []
        if name not in ELEMENTS:
            raise UnsafeDrawing(f"the element '{name}'")
        for key, value in attributes.items():
            if key not in ATTRIBUTES:
                raise UnsafeDrawing(f"the attribute '{key}'")
            if key in {"href", "xlink:href"} and not (
                value.startswith("#") if name == "a" else REFERENCE.match(value)
            ):
                raise UnsafeDrawing("a reference to another file")
            if key not in {"href", "xlink:href", "aria-label"} and FETCHING_STYLE.search(value):
                raise UnsafeDrawing(f"an attribute '{key}' that refers to another file")

    def text(self, content: str) -> None:
        if self._style is not None:
            self._style.append(content)

    def end(self, name: str) -> None:
        if name == "style" and self._style is not None:
            if FETCHING_STYLE.search("".join(self._style).replace("@keyframes wmh-blink", "")):
                raise UnsafeDrawing("a style rule that refers to another file")
            self._style = None

    def comment(self, content: str) -> None:
        if "<" in content or ">" in content:
            raise UnsafeDrawing("a comment with markup")

    def cdata(self) -> None:
        raise UnsafeDrawing("a CDATA section")

    def instruction(self, *_: str) -> None:
        raise UnsafeDrawing("a processing instruction")
