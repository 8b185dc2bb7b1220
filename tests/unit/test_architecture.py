"""core/ stays pure numerics: imports of numpy, scipy, torch, scikit-learn and the standard library only."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import bids_wmh_uad.core

CORE = Path(bids_wmh_uad.core.__file__).parent
ALLOWED = {"numpy", "scipy", "torch", "sklearn"}
OWN = ("bids_wmh_uad.core", "bids_wmh_uad.errors")
FORBIDDEN_STANDARD = {"logging", "subprocess", "pickle", "pathlib", "os", "shutil", "tempfile", "io"}


def imported(source: str) -> list[str]:
    """Modules that a source text imports, at any depth."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


def is_allowed(module: str) -> bool:
    top = module.partition(".")[0]
    if module.startswith(OWN):
        return True
    return top in ALLOWED or (top in sys.stdlib_module_names and top not in FORBIDDEN_STANDARD)


@pytest.mark.parametrize("path", sorted(CORE.glob("**/*.py")), ids=lambda path: path.name)
def test_imports(path: Path) -> None:
    assert [module for module in imported(path.read_text()) if not is_allowed(module)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import nibabel",
        "from nipype import x",
        "def f():\n    import logging",
        "from bids_wmh_uad.bids import y",
        "from . import z",
    ],
)
def test_the_rule_can_fail(source: str) -> None:
    assert not all(is_allowed(module) for module in imported(source))


@pytest.mark.parametrize("path", sorted(CORE.glob("**/*.py")), ids=lambda path: path.name)
def test_no_mutable_state_at_module_level(path: Path) -> None:
    mutable = (ast.List, ast.Set, ast.ListComp, ast.Call)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, mutable):
            assert isinstance(node.value, ast.Call) is False, f"{path.name}:{node.lineno} runs at import"
            pytest.fail(f"{path.name}:{node.lineno} is mutable")


def test_files_stay_short() -> None:
    assert {p.name: n for p in CORE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400} == {}
