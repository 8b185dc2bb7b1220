"""The comparison of two revisions' outputs sees what differs, and does not see how long it took."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_outputs.py"
PAGE = """<p>2 lesions</p>
<summary>Run time {total} s, peak memory of a step {memory} GiB</summary>
{steps}
</details>
<p>{lesions} lesions</p>
"""


@pytest.fixture(scope="module")
def same_outputs():
    spec = importlib.util.spec_from_file_location("same_outputs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path):
    """Two finished runs that differ in nothing but time, memory, logs and the order of the steps."""
    for name, total, memory, steps in (("a", 12, 0.4, "read 0.1\nn4 3"), ("b", 13, 1.5, "n4 4\nread 0.2")):
        folder = tmp_path / name / "raw"
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "run.toml").write_text(name)
        page = PAGE.format(total=total, memory=memory, steps=steps, lesions=3)
        (folder / "sub-1.html").write_text(page)
        (folder / "summary.json").write_text(json.dumps({"volume": {"ml": 1.0, "mm3": [1, 2]}, "count": 3}))
    return tmp_path / "a", tmp_path / "b"


def test_run_time_and_logs_do_not_count(same_outputs, folders):
    result, surprises = same_outputs.compare(*folders)
    assert (result["files"], result["same"], surprises) == (2, 2, [])


def test_a_number_elsewhere_on_the_page_counts(same_outputs, folders):
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
