"""The page for developers says what is there: paths, rooms, and a picture of the graph as it is."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from package_source import PACKAGE, ROOT, read_package, room

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
NOT_LISTED = {"__init__", "__main__", "api", "interfaces", "phantom"}
"""Rooms that are not there: ways in, nodes, and what docs/python.md has, a page for each name."""
UNLISTED = {
    f"{PACKAGE}.cli.boutiques",  # a command
    f"{PACKAGE}.reports.figures.mosaic",  # its Scan has a namesake in core: the links would be ambiguous
}
PICTURE = ROOT / "docs" / "_static" / "session.svg"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("session_picture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in module.OFFLINE.items():
            patch.setenv(name, value)
        yield module


def texts(picture: Path) -> list[str]:
    return sorted(re.findall(r"<text[^>]*>([^<]+)</text>", picture.read_text(encoding="utf-8")))


def named_paths(page: str) -> list[str]:
    """Code spans with a slash or a suffix: paths below the package, or below the repository."""
    spans = re.findall(r"`([^`\n]+)`", page)
    return [
        span for span in spans if re.fullmatch(r"[\w./-]+", span) and ("/" in span or span.endswith(".py"))
    ]


def test_every_path_on_the_page_exists() -> None:
    paths = named_paths(PAGE)
    assert len(paths) > 30
    assert [
        path for path in paths if not any((base / path).exists() for base in (ROOT / PACKAGE, ROOT))
    ] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", *PAGES])
def test_every_module_that_a_page_names_exists(page) -> None:
    modules = [path for path in named_paths((ROOT / page).read_text()) if path.endswith(".py")]
    assert [
        path for path in modules if not any((base / path).exists() for base in (ROOT / PACKAGE, ROOT))
    ] == []


def test_every_module_but_the_nodes_is_on_the_api_page() -> None:
    listed = set(re.findall(r"automodule:: ([\w.]+)", (ROOT / "docs" / "api.md").read_text()))
    package = {
        module.removesuffix(".__init__") for module in read_package() if room(module) not in NOT_LISTED
    }
    rooms = {module.rpartition(".")[0] for module in package}
    assert package - rooms - listed == UNLISTED
    assert listed <= package | {f"{PACKAGE}.phantom"}


def test_the_page_names_every_room() -> None:
    table = PAGE[PAGE.index("| room ") : PAGE.index("## ", PAGE.index("| room "))]
    rooms = {room(module) for module in read_package()} - {"__init__", "__main__"}
    listed = {name.strip("/").removesuffix(".py") for name in re.findall(r"`([\w.]+/?)`", table)}
    assert rooms <= listed


def test_the_picture_shows_every_node_of_the_graph(script, tmp_path) -> None:
    workflow = script.session_graph(tmp_path)
    script.draw(script.picture_graph(workflow), tmp_path / "session.svg")
    shown = texts(tmp_path / "session.svg")
    nodes = [
        node for node in workflow._get_all_nodes() if type(node.interface).__name__ != "IdentityInterface"
    ]
    assert {node.name for node in nodes} <= set(shown)


def test_the_picture_on_the_page_is_of_this_graph(script, tmp_path) -> None:
    script.main(tmp_path / "first.svg")
    script.main(tmp_path / "second.svg")
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert texts(PICTURE) == texts(tmp_path / "first.svg"), "run 'make architecture'"
    assert PICTURE.stat().st_size < 200_000


def test_values_are_followed_through_nodes_that_hand_them_on(script) -> None:
    import nipype.interfaces.utility as niu
    import nipype.pipeline.engine as pe

    def through(name: str) -> pe.Node:
        return pe.Node(niu.IdentityInterface(fields=["a", "b"]), name=name)

    inner, outer = pe.Workflow(name="inner"), pe.Workflow(name="outer")
    first, second, last = (pe.Node(niu.Merge(2), name=name) for name in ("first", "second", "last"))
    end = through("outputnode")
    inner.connect(
        [(first, second, [("out", "in1")]), (first, end, [("out", "a")]), (second, end, [("out", "b")])]
    )
    outer.connect([(inner, last, [("outputnode.a", "in1")])])
    graph = script.picture_graph(outer)
    assert {(before.name, after.name) for before, after in graph.edges} == {
        ("first", "second"),
        ("first", "last"),
    }
    boxes = script.arrange(graph)
    step = {step.name: boxes[step] for step in graph}
    frame = boxes["inner",]
    assert frame.y < step["first"].y < step["second"].y < frame.y + frame.height < step["last"].y
