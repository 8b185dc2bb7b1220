"""The picture of ``architecture.md``: one session's graph, drawn from the code (``make architecture``).

The graph is built, not run. Sub-workflows are boxes, and nodes that only hand values on (``inputnode``, ``outputnode``) are left out in favour of
what they connect. An arrow is left out where a longer way leads to the same node.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = {
    "NO_ET": "1",
    "NIPYPE_NO_ET": "1",
    "TEMPLATEFLOW_HOME": str(ROOT / "bids_wmh_uad" / "data" / "templateflow"),
    "TEMPLATEFLOW_AUTOUPDATE": "0",
}
"""What the libraries read when they are imported: no look-up of hosts, no download."""
NODE_SIZE, GAP, PADDING = (1.9, 0.52), (0.4, 0.34), (0.3, 0.34)
"""Inches: width and height."""
EDGE, RIM, FRAME = "#3b4a5a", "#cfd6de", "#f1f5f9"
NODE_COLOUR = "#ffffff"


@dataclass(frozen=True)
class Step:
    """A node of the picture.

    Attributes
    ----------
    name, interface : str
        Its two lines of text.
    within : tuple of str
        The sub-workflows around it, the outermost first.
    """

    name: str
    interface: str
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """Where something is, inches from the upper left corner; y points down."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> Box:
        return Box(self.x + x, self.y + y, self.width, self.height)


def session_graph(folder: Path) -> Any:
    """One session's workflow; its two scans are empty files in `folder`."""
    from bids_wmh_uad.bids.dataset import Session
    from bids_wmh_uad.cli.parser import parse_args
    from bids_wmh_uad.workflows.session import init_session_wf

    raw = folder / "raw"
    raw.mkdir()
    flair, t1w = (raw / f"sub-01_{suffix}.nii.gz" for suffix in ("FLAIR", "T1w"))
    for scan in (flair, t1w):
        scan.touch()
    config = parse_args([str(raw), str(folder / "out"), "participant"])
    return init_session_wf(Session("01", None, flair, t1w), config, digest="")


def step_of(node: Any) -> Step:
    """What a nipype node is in the picture."""
    within = tuple(node.fullname.split(".")[1:-1])
    return Step(node.name, type(node.interface).__name__, within)


def picture_graph(workflow: Any) -> nx.DiGraph:
    """The graph of steps."""
    flat = workflow._create_flat_graph()
    between = {node for node in flat if type(node.interface).__name__ == "IdentityInterface"}
    graph = nx.DiGraph()
    graph.add_nodes_from(step_of(node) for node in flat if node not in between)
    for before, node, data in flat.edges(data=True):
        if node not in between:
            for output, _ in data["connect"]:
                graph.add_edges_from((step, step_of(node)) for step in origins(flat, between, before, output))
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    needed = nx.transitive_reduction(graph)
    graph.remove_edges_from([edge for edge in graph.edges if not needed.has_edge(*edge)])
    return graph


def origins(flat: nx.DiGraph, between: set[Any], node: Any, output: Any) -> Iterable[Step]:
    """The steps that an output comes from, through nodes that hand it on."""
    if node not in between:
        return [step_of(node)]
    field = output if isinstance(output, str) else output[0]  # a tuple: connected through a function
    return [
        step
        for before, _, data in flat.in_edges(node, data=True)
        for earlier, name in data["connect"]
        if name == field
        for step in origins(flat, between, before, earlier)
    ]


def arrange(graph: nx.DiGraph, inside: tuple[str, ...] = ()) -> dict[Any, Box]:
    """Place the steps and sub-workflows below `inside`, rows from top to bottom in the order data flows.

    Returns
    -------
    dict
        Boxes of steps, of sub-workflows (by their tuple of names), and of `inside` itself.
    """
    depth = len(inside)

    def block(step: Step) -> Any:
        return step.within[: depth + 1] if len(step.within) > depth else step

    here = [step for step in graph if step.within[:depth] == inside]
    blocks = nx.DiGraph()
    blocks.add_nodes_from(block(step) for step in here)
    blocks.add_edges_from((block(a), block(b)) for a, b in graph.subgraph(here).edges if block(a) != block(b))
    content = {
        item: arrange(graph, item) if isinstance(item, tuple) else {item: Box(0, 0, *NODE_SIZE)}
        for item in blocks
    }
    rows = ordered_rows(blocks)
    widths = [sum(content[item][item].width for item in row) + GAP[0] * (len(row) - 1) for row in rows]
    margin = PADDING if inside else (0.1, 0.1)
    width, y, placed = max(widths) + 2 * margin[0], margin[1], {}
    for row, row_width in zip(rows, widths, strict=True):
        x = (width - row_width) / 2
        for item in row:
            placed |= {name: box.moved(x, y) for name, box in content[item].items()}
            x += content[item][item].width + GAP[0]
        y += max(content[item][item].height for item in row) + GAP[1]
    return {**placed, inside: Box(0, 0, width, y - GAP[1] + margin[1])}


def ordered_rows(blocks: nx.DiGraph) -> list[list[Any]]:
    """Rows by longest way from the start; in a row, each near the mean place of what comes before."""
    rows: list[list[Any]] = []
    place: dict[Any, float] = {}
    for generation in nx.topological_generations(blocks):
        wanted = {item: [place[name] for name in blocks.predecessors(item)] for item in generation}
        row = sorted(generation, key=lambda item: (sum(wanted[item]) / max(len(wanted[item]), 1), str(item)))
        place |= {item: number - (len(row) - 1) / 2 for number, item in enumerate(row)}
        rows.append(row)
    return rows


def draw(graph: nx.DiGraph, target: Path) -> None:
    """Write the picture as an SVG whose bytes depend on the graph only."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    boxes = arrange(graph)
    page = boxes.pop(())
    style = {"svg.fonttype": "none", "svg.hashsalt": "session", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = plt.figure(figsize=(page.width, page.height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(page.height, 0))
        axes.axis("off")
        for name in sorted((name for name in boxes if isinstance(name, tuple)), key=len):
            draw_frame(axes, name[-1], boxes[name])
        for before, after in graph.edges:
            draw_arrow(axes, boxes[before], boxes[after])
        for step in graph:
            draw_step(axes, step, boxes[step])
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def draw_frame(axes: Any, name: str, box: Box) -> None:
    """A sub-workflow's box; its name where no arrow comes: in the lower left corner."""
    from matplotlib.patches import FancyBboxPatch

    shape = FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.1",
        fc=FRAME,
        ec=RIM,
        lw=1,
    )
    axes.add_patch(shape)
    axes.text(box.x + 0.1, box.y + box.height - 0.12, name, fontsize=9, color=EDGE, style="italic")


def draw_step(axes: Any, step: Step, box: Box) -> None:
    """A node: its name above its interface."""
    from matplotlib.patches import FancyBboxPatch

    shape = FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.08",
        fc=NODE_COLOUR,
        ec=EDGE,
        lw=1,
    )
    axes.add_patch(shape)
    middle = box.x + box.width / 2
    axes.text(middle, box.y + 0.22, step.name, ha="center", fontsize=10.5, color="#10202f", weight="bold")
    axes.text(middle, box.y + 0.41, step.interface, ha="center", fontsize=8.5, color=EDGE)


def draw_arrow(axes: Any, start: Box, end: Box) -> None:
    """An arrow from one box straight down, and to the upper edge of the other in the gap above it."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    x, right = start.x + start.width / 2, end.x + end.width / 2
    turn, bend = end.y - GAP[1], GAP[1] * 0.75
    points = [(x, start.y + start.height), (x, turn), (x, turn + bend), (right, end.y - bend), (right, end.y)]
    curve = Curve(points, [Curve.MOVETO, Curve.LINETO, *[Curve.CURVE4] * 3])
    arrow = FancyArrowPatch(path=curve, arrowstyle="-|>,head_length=5,head_width=2.5", color=EDGE, lw=1.1)
    axes.add_patch(arrow)


def main(target: Path) -> None:
    """Draw the graph."""
    with TemporaryDirectory(prefix="wmhgraph") as folder:
        graph = picture_graph(session_graph(Path(folder)))
    draw(graph, target)


if __name__ == "__main__":
    os.environ |= OFFLINE
    main(Path(sys.argv[1]))
