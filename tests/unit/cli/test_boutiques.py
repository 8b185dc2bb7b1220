"""boutiques.json is what the parser says, and says it in the form that BIDS Apps need."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from bids_wmh_uad import errors
from bids_wmh_uad.cli.boutiques import RELEASE, descriptor
from bids_wmh_uad.cli.parser import build_parser, parse_args

ROOT = Path(__file__).parents[3]


def inputs():
    return {item["id"]: item for item in descriptor()["inputs"]}


def test_the_committed_descriptor_is_up_to_date():
    committed = json.loads((ROOT / "boutiques.json").read_text())
    assert committed == descriptor(), "run 'make boutiques'"


def test_every_option_but_those_of_the_train_level_is_an_input():
    flags = {item.get("command-line-flag") for item in inputs().values()}
    groups = {group.title: group._group_actions for group in build_parser()._action_groups}
    named = {
        title: {next(iter(flags.intersection(action.option_strings)), None) for action in actions}
        for title, actions in groups.items()
        if actions and all(action.option_strings for action in actions)
    }
    assert named.pop("train level") == {None}
    said_and_left = {"-h", "--version"}
    for title, found in named.items():
        actions = [item for item in groups[title] if not said_and_left.intersection(item.option_strings)]
        assert len(found - {None}) == len(actions), title


def test_each_value_key_is_on_the_command_line_once():
    line = descriptor()["command-line"]
    keys = re.findall(r"\[[A-Z0-9_]+\]", line.partition(";")[2])
    assert len(keys) == len(set(keys))
    assert set(keys) == {item["value-key"] for item in inputs().values()}


def test_flags_take_no_value_and_numbers_are_numbers():
    actions = {action.dest: action for action in build_parser()._actions}
    for name, item in inputs().items():
        action = actions.get(name)
        if action is None or action.default == argparse.SUPPRESS:
            continue
        assert (item["type"] == "Flag") == (action.nargs == 0), name
        assert item.get("list", False) == (action.nargs == "+"), name
        assert item.get("integer", False) == (action.type is int), name


def test_the_parser_takes_what_the_descriptor_offers(tmp_path):
    for name, item in inputs().items():
        if "command-line-flag" not in item or item["type"] == "File" or name == "gamma":
            continue
        values = {"Flag": [], "Number": ["1"], "String": [item.get("value-choices", ["tail"])[0]]}[
            item["type"]
        ]
        values = {"n_samples": ["101"], "device": ["cpu"], "mem": ["8G"]}.get(name, values)
        parse_args(
            [str(tmp_path / "in"), str(tmp_path / "out"), "participant", item["command-line-flag"], *values]
        )


def test_exit_codes_are_all_described():
    kinds = [item for item in vars(errors).values() if isinstance(item, type) and hasattr(item, "exit_code")]
    assert {item["code"] for item in descriptor()["error-codes"]} == {kind.exit_code for kind in kinds}


def test_the_release_is_the_one_in_the_change_log_and_the_package():
    assert re.search(r"^## .*?(\d+\.\d+\.\d+)", (ROOT / "CHANGES.md").read_text(), re.MULTILINE)[1] == RELEASE
    assert (
        re.search(r'fallback-version = "(\d+\.\d+\.\d+)', (ROOT / "pyproject.toml").read_text())[1] == RELEASE
    )
    pages = [ROOT / "README.md", ROOT / "main", ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md")]
    tags = {
        tag for page in pages for tag in re.findall(r"bids/bids-wmh-uad:(\d+\.\d+\.\d+)", page.read_text())
    }
    assert tags == {RELEASE}


def test_nothing_has_the_same_name_as_another():
    content = descriptor()
    named = [item["id"] for kind in ("inputs", "output-files", "groups") for item in content[kind]]
    assert len(named) == len(set(named))  # Boutiques refuses a descriptor otherwise
