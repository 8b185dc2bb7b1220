"""The comparison of two revisions' outputs sees what differs, and does not look at logs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_outputs.py"
PAGE = "<p>2 lesions</p>\n<p>3 lesions</p>\n"


@pytest.fixture(scope="module")
def same_outputs():
    spec = importlib.util.spec_from_file_location("same_outputs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path):
    """Two finished runs that differ in nothing but their logs."""
    for name in ("a", "b"):
        folder = tmp_path / name / "raw"
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "run.toml").write_text(name)
        (folder / "sub-1.html").write_text(PAGE)
        (folder / "summary.json").write_text(json.dumps({"volume": {"ml": 1.0, "mm3": [1, 2]}, "count": 3}))
    return tmp_path / "a", tmp_path / "b"


def test_logs_do_not_count(same_outputs, folders):
    result, surprises = same_outputs.compare(*folders)
    assert (result["files"], result["same"], surprises) == (2, 2, [])


def test_a_number_on_a_page_counts(same_outputs, folders):
    page = folders[1] / "raw" / "sub-1.html"
    page.write_text(page.read_text().replace("3 lesions", "4 lesions"))
    assert same_outputs.compare(*folders)[1] == ["raw/sub-1.html"]


def test_keys_of_json_files_are_named(same_outputs, folders):
    text = json.dumps({"volume": {"ml": 1.0, "mm3": [1, 3]}, "count": 3.0, "new": []})
    (folders[1] / "raw" / "summary.json").write_text(text)
    result, _ = same_outputs.compare(*folders)
    assert result["different_keys"] == {"raw/summary.json": ["count", "new", "volume.mm3[1]"]}


def test_only_what_no_pattern_names_is_a_surprise(same_outputs, folders):
    (folders[0] / "raw" / "more.tsv").write_text("")
    (folders[1] / "raw" / "summary.json").write_text("{}")
    result, surprises = same_outputs.compare(*folders, ["raw/*.json"])
    assert (result["different"], result["only_in_one"]) == (["raw/summary.json"], ["raw/more.tsv"])
    assert surprises == ["raw/more.tsv"]
