"""The package's source as a test reads it: modules, what each imports, and where it lies."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "bids_wmh_uad"
GENERATED = {"_version"}

Sources = Mapping[str, str]
"""Source texts by module name; a package's own is called ``package.__init__``."""


def read_package() -> Sources:
    folder = ROOT / PACKAGE
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py"))
        if path.stem not in GENERATED
    }


@cache
def parse(text: str) -> ast.Module:
    return ast.parse(text)


def room(module: str) -> str:
    """The room, or the root module, that a module belongs to."""
    return (module.removeprefix(PACKAGE + ".").split(".")[0]) if "." in module else "__init__"


def folder(module: str) -> str:
    """The folder that a module lies in; a root module itself."""
    return module.rpartition(".")[0] if module.count(".") > 1 else module


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """What is imported anywhere in `tree`, as absolute dotted names; what ``from`` imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def at_module_level(tree: ast.Module) -> ast.Module:
    """The imports that run when the module is imported."""
    body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=body, type_ignores=[])


def edges(sources: Sources, top_level_only: bool = False) -> dict[str, set[str]]:
    """Which of the package's modules each imports."""
    found: dict[str, set[str]] = {}
    for module, text in sources.items():
        tree = at_module_level(parse(text)) if top_level_only else parse(text)
        own = (name for name in imported(module, tree) if name.split(".")[0] == PACKAGE)
        found[module] = {target(name, sources) for name in own} - {module}
    return found


def target(name: str, sources: Sources) -> str:
    """The module that a dotted name is, or is in."""
    while name and name not in sources and f"{name}.__init__" not in sources and "." in name:
        name = name.rpartition(".")[0]
    return name if name in sources or f"{name}.__init__" not in sources else f"{name}.__init__"


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Names that lead back to themselves."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    return sorted(name for name in graph if name in reached(name))


def between_folders(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same arrows, from folder to folder."""
    found: dict[str, set[str]] = {}
    for module, others in graph.items():
        found.setdefault(folder(module), set()).update(folder(other) for other in others)
    return {name: others - {name} for name, others in found.items()}


def third_party(module: str, tree: ast.AST) -> set[str]:
    names = {name.split(".")[0] for name in imported(module, tree)}
    return {name for name in names if name != PACKAGE and name not in sys.stdlib_module_names}


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its decorators and its docstring not counted."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        count -= function.body[0].end_lineno - function.body[0].lineno + 1
    return count


def called(node: ast.expr) -> str:
    """Last part of the name of what is called: ``compile`` for ``re.compile(...)``."""
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def module_variables(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((ast.unparse(name), node.value) for name in node.targets)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield ast.unparse(node.target), node.value
