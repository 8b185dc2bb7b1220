"""The house and its rooms: imports point one way, libraries have their home, files and functions stay short.

Every rule reads the package's source, imports inside functions and under ``TYPE_CHECKING`` included, and is also
tried on a source that breaks it. ``docs/architecture.md`` says in words what is checked here.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter

import pytest
from package_source import (
    PACKAGE,
    Sources,
    at_module_level,
    between_folders,
    called,
    circles,
    edges,
    function_lines,
    imported,
    module_variables,
    parse,
    read_package,
    room,
    third_party,
)

FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "__init__ errors",
        "processes",
        "core files reading environment",
        "config images models locks",
        "imaging bids reports phantom",
        "interfaces",
        "workflows",
        "participant train group",
        "api cli",
        "__main__",
    )
)
"""Rooms and root modules, lowest first: one may import what lies on lower floors, and itself."""
NOBODY_IMPORTS = {"phantom", "api", "cli", "__main__"}
"""Ways in. The phantom knows where its lesions are, which no other room may."""

CORE_LIBRARIES = {"numpy", "scipy", "torch", "sklearn"}
CORE_NEVER = {"logging", "subprocess", "pickle", "pathlib", "os", "shutil", "tempfile", "io"}
GRAPHS = {"interfaces", "workflows"}
HOMES = {
    "nipype": GRAPHS,
    "niworkflows": GRAPHS,
    "ants": {"imaging"},
    "deepbet": {"imaging"},
    "nilearn": {"imaging", "reports", "phantom"},
    "bids": {"bids"},
    "nireports": {"reports"},
    "jinja2": {"reports"},
    "matplotlib": {"reports", "api"},
    "PIL": {"reports"},
    "torch": {"core", "models", "imaging", "interfaces", "train"},
    "sklearn": {"core"},
}
"""Libraries that only some rooms may import, at any depth."""
MOST_FILES, MOST_LINES, LONGEST_FUNCTION = 10, 400, 60

MAKERS = {"getLogger", "WarningText", "compile", "TypeVar", "timedelta", "tuple", "frozenset", "replace"}
"""Calls at module level whose result nobody can change (of a logger: nobody does)."""
ARRAYS = {
    "bids_wmh_uad.imaging.registration.LPS_TO_RAS": "a matrix that is only multiplied with",
    "bids_wmh_uad.phantom.anatomy.BRAIN_BOX": "millimetres that are only added",
    "bids_wmh_uad.phantom.anatomy.HEAD_MARGIN": "millimetres that are only added",
    "bids_wmh_uad.phantom.scanner.HEAD_SCAN_MARGIN": "millimetres that are only added",
    "bids_wmh_uad.phantom.scanner.SCAN_MARGIN": "millimetres that are only added",
}
WRITERS = {"update", "setdefault", "pop", "popitem", "clear", "append", "extend", "add", "insert", "remove"}
REMEMBERING = {"cache", "lru_cache"}

SOURCES = read_package()


def wrong_arrows(sources: Sources) -> list[str]:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return [
        f"{module} -> {other}"
        for module, others in edges(sources).items()
        for other in sorted(others)
        if room(module) != room(other) and floor[room(other)] >= floor[room(module)]
    ]


def core_imports(sources: Sources) -> list[str]:
    """Imports of ``core/`` that are not arithmetic."""
    return [
        f"{module} imports {name}"
        for module, text in sources.items()
        if room(module) == "core"
        for name in sorted({name.split(".")[0] for name in imported(module, parse(text))})
        if name in CORE_NEVER or name not in {PACKAGE, *CORE_LIBRARIES, *sys.stdlib_module_names}
    ]


def homeless_imports(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, text in sources.items()
        for name in sorted(third_party(module, parse(text)) & HOMES.keys())
        if room(module) not in HOMES[name]
    ]


def loaded_by_the_parser(sources: Sources) -> list[str]:
    """Third-party imports that run when the command line does: at module level, at any distance."""
    graph, todo, seen = edges(sources, top_level_only=True), ["bids_wmh_uad.__main__"], set()
    while todo:
        module = todo.pop()
        seen.add(module)
        todo += graph.get(module, set()) - seen
    found = []
    for module in sorted(seen & sources.keys()):
        tree = at_module_level(parse(sources[module]))
        found += [f"{module} imports {name}" for name in sorted(third_party(module, tree))]
    return found


def crowded_rooms(sources: Sources) -> list[str]:
    counted = Counter(module.rpartition(".")[0] for module in sources if not module.endswith(".__init__"))
    return [
        f"{name.removeprefix(PACKAGE + '.')}: {count} files"
        for name, count in sorted(counted.items())
        if count > MOST_FILES
    ]


def long_files(sources: Sources) -> list[str]:
    lines = {module: len(text.splitlines()) for module, text in sources.items()}
    return [f"{module}: {count} lines" for module, count in lines.items() if count > MOST_LINES]


def long_functions(sources: Sources) -> list[str]:
    return [
        f"{module}.{node.name}: {count} lines"
        for module, text in sources.items()
        for node in ast.walk(parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (count := function_lines(node)) > LONGEST_FUNCTION
    ]


def mutable_state(sources: Sources) -> list[str]:
    """Module-level values that can change while the program runs.

    Dictionaries are tables; :func:`written_tables` sees to it that they stay as they are.
    """
    containers = ast.List | ast.Set | ast.ListComp | ast.SetComp | ast.GeneratorExp
    return [
        f"{module}.{name}"
        for module, text in sources.items()
        for name, value in module_variables(parse(text))
        if name != "__all__"
        and (isinstance(value, containers) or (isinstance(value, ast.Call) and called(value) not in MAKERS))
    ]


def written_tables(sources: Sources) -> list[str]:
    """Writes to module-level names, ``global``, and functions that remember what they returned."""
    found = []
    for module, text in sources.items():
        tree = parse(text)
        names = {name for name, _ in module_variables(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                found.append(f"{module}:{node.lineno} global")
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                found += [
                    f"{module}:{node.lineno} writes" for name in names if ast.unparse(node.value) == name
                ]
            elif (
                isinstance(node, ast.Attribute) and node.attr in WRITERS and ast.unparse(node.value) in names
            ):
                found.append(f"{module}:{node.lineno} writes")
            elif isinstance(node, ast.FunctionDef):
                names_of_decorators = map(called, node.decorator_list)
                found += [
                    f"{module}:{node.lineno} {name}" for name in names_of_decorators if name in REMEMBERING
                ]
    return found


def work_at_import(sources: Sources) -> list[str]:
    """Module-level statements other than definitions, imports, constants and the ``__main__`` guard."""
    harmless = (
        *(ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom),
        *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    )
    guards = {"TYPE_CHECKING", "__name__ == '__main__'"}
    return [
        f"{module}:{node.lineno}"
        for module, text in sources.items()
        for node in parse(text).body
        if not isinstance(node, harmless)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.If) and ast.unparse(node.test) in guards)
        and not (isinstance(node, ast.Try) and ast.unparse(node.handlers[0].type or node) == "ImportError")
    ]


def nodes_found_by_name(sources: Sources) -> list[str]:
    return [
        f"{module}:{node.lineno}"
        for module, text in sources.items()
        for node in ast.walk(parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get_node"
    ]


def test_every_module_has_a_floor() -> None:
    assert {room(module) for module in SOURCES} == frozenset().union(*FLOORS)


def test_imports_point_one_way() -> None:
    assert wrong_arrows(SOURCES) == []


def test_ways_in_are_imported_by_nobody() -> None:
    entered = {(room(module), room(other)) for module, others in edges(SOURCES).items() for other in others}
    assert {pair for pair in entered if pair[1] in NOBODY_IMPORTS and pair[0] != pair[1]} == {
        ("__main__", "cli")
    }


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(edges(SOURCES)) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    assert circles(between_folders(edges(SOURCES))) == []


def test_core_imports_arithmetic_only() -> None:
    assert core_imports(SOURCES) == []


def test_libraries_stay_at_home() -> None:
    assert homeless_imports(SOURCES) == []


def test_the_command_line_loads_no_library() -> None:
    assert loaded_by_the_parser(SOURCES) == []


def test_rooms_are_small() -> None:
    assert crowded_rooms(SOURCES) == []


def test_files_stay_short() -> None:
    assert long_files(SOURCES) == []


def test_functions_read_on_one_screen() -> None:
    assert long_functions(SOURCES) == []


def test_no_state_at_module_level() -> None:
    assert mutable_state(SOURCES) == list(ARRAYS)


def test_tables_are_not_written_to() -> None:
    assert written_tables(SOURCES) == []


def test_no_work_at_import() -> None:
    assert work_at_import(SOURCES) == []


def test_graphs_are_built_without_finding_nodes_by_name() -> None:
    assert nodes_found_by_name(SOURCES) == []


BODY = "\n    x = 1"
BROKEN = [
    (wrong_arrows, {"core.a": "from bids_wmh_uad.bids import b", "bids.b": ""}),
    (wrong_arrows, {"core.a": "def f():\n    import bids_wmh_uad.files", "files": ""}),
    (wrong_arrows, {"imaging.a": "from bids_wmh_uad import models, bids", "bids.__init__": "", "models": ""}),
    (wrong_arrows, {"train.a": "if TYPE_CHECKING:\n    from bids_wmh_uad.group.b import B", "group.b": ""}),
    (wrong_arrows, {"bids.a": "from ..workflows import w", "workflows.w": ""}),
    (wrong_arrows, {"errors": "from bids_wmh_uad.config import x", "config": ""}),
    (core_imports, {"core.a": "import nibabel"}),
    (core_imports, {"core.x.a": "def f():\n    import logging"}),
    (homeless_imports, {"bids.a": "import torch.nn"}),
    (homeless_imports, {"imaging.a": "def f():\n    from nipype.pipeline import engine"}),
    (homeless_imports, {"group.a": "import matplotlib.pyplot as plt"}),
    (loaded_by_the_parser, {"__main__": "from bids_wmh_uad.cli import run", "cli.run": "import numpy"}),
    (loaded_by_the_parser, {"__main__": "import bids_wmh_uad.cli", "cli.__init__": "from bids_wmh_uad import files", "files": "import torch"}),
    (crowded_rooms, {f"core.score.m{number}": "" for number in range(11)}),
    (long_files, {"bids.a": "x = 1\n" * 401}),
    (long_functions, {"bids.a": f"class A:\n  def f(self):{BODY * 60}"}),
    (mutable_state, {"files": "SEEN = []"}),
    (mutable_state, {"reports.a": "SEEN: set[int] = {1}"}),
    (mutable_state, {"reports.a": "CONFIG = read()"}),
    (written_tables, {"reports.a": "SEEN = {}\ndef f(x):\n    SEEN[x] = 1"}),
    (written_tables, {"reports.a": "SEEN = {}\ndef f(x):\n    SEEN.setdefault(x, 1)"}),
    (written_tables, {"reports.a": "N = 0\ndef f():\n    global N\n    N += 1"}),
    (written_tables, {"reports.a": "@functools.lru_cache(1)\ndef f(): ..."}),
    (work_at_import, {"files": "print(1)"}),
    (work_at_import, {"files": "for x in ():\n    pass"}),
    (nodes_found_by_name, {"workflows.a": "def f(wf):\n    return wf.get_node('score')"}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "sources"), BROKEN, ids=lambda item: getattr(item, "__name__", ""))
def test_every_rule_can_fail(rule, sources) -> None:
    named = {f"{PACKAGE}.{name}": text for name, text in sources.items()}
    assert rule(named) != []


@pytest.mark.parametrize(
    "sources",
    [
        {"a": "from b import x", "b": "def f():\n    from a import y"},
        {"a": "import b", "b": "from c import d", "c.__init__": "from c import d", "c.d": "import a"},
    ],
)
def test_circles_are_found_through_functions_and_packages(sources) -> None:
    named = {f"{PACKAGE}.{name}": text for name, text in sources.items()}
    named = {
        name: text.replace("import ", f"import {PACKAGE}.", 1)
        if text.startswith("import")
        else text.replace("from ", f"from {PACKAGE}.")
        for name, text in named.items()
    }
    assert {f"{PACKAGE}.a", f"{PACKAGE}.b"} <= set(circles(edges(named)))


def test_docstrings_do_not_count_as_lines() -> None:
    words = "\n    word" * 99
    assert long_functions({f"{PACKAGE}.files": f'def f():\n    """{words}\n    """{BODY * 59}'}) == []
