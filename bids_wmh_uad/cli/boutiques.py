"""The Boutiques descriptor, made from the parser: ``python -m bids_wmh_uad.cli.boutiques > boutiques.json``.

Its form is what ``bosh validate --bids`` asks for: the levels of a BIDS App only (so not ``train``, nor
the options of that level), the output directory both as a string and as a file, and that directory as
the one output. Boutiques puts only the first of the two on the command line: the string, which may exist.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from bids_wmh_uad import errors
from bids_wmh_uad.cli.parser import DESCRIPTION, build_parser
from bids_wmh_uad.config import LEVELS, Performance

RELEASE = "0.1.0"
"""The version that the descriptor is for, and the tag of its image: it changes with a release, not with a commit."""
IMAGE = f"bids/bids-wmh-uad:{RELEASE}"
URL = "https://github.com/bids-apps/bids-wmh-uad"
BIDS_APP_LEVELS = ("participant", "group")
FIRST = ("bids_dir", "output_dir", "analysis_level", "participant_label", "session_label")
"""The order in which a BIDS App's command line begins."""


def descriptor() -> dict[str, Any]:
    """The descriptor, ready for JSON.

    Returns
    -------
    dict
        Boutiques schema 0.5; the same for every call and machine.
    """
    inputs = list(_inputs())
    rest = " ".join(dict.fromkeys(item["value-key"] for item in inputs))
    return {
        "name": "bids-wmh-uad",
        "tool-version": RELEASE,
        "schema-version": "0.5",
        "description": " ".join(DESCRIPTION.split()),
        "author": "The bids-wmh-uad developers",
        "url": URL,
        "descriptor-url": f"{URL}/blob/main/boutiques.json",
        "container-image": {"type": "docker", "image": IMAGE},
        "shell": "/bin/bash",
        "command-line": f"mkdir -p [OUTPUT_DIR]; bids-wmh-uad {rest}",
        "inputs": inputs,
        "groups": [
            {
                "id": "output",
                "name": "the output directory",
                "members": ["output_dir", "output_dir_existing"],
                "mutually-exclusive": True,
                "one-is-required": True,
            }
        ],
        "output-files": [
            {
                "id": "output_dataset",
                "name": "output dataset",
                "description": "BIDS derivatives dataset",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": list(_error_codes()),
        "suggested-resources": {"cpu-cores": 1, "ram": Performance.mem_gb},
        "tags": {"domain": ["neuroinformatics", "bids", "mri"]},
    }


def _inputs() -> Iterator[dict[str, Any]]:
    parser = build_parser()
    left_out = {f"{level} level" for level in LEVELS if level not in BIDS_APP_LEVELS}
    actions = {
        action.dest: action
        for group in parser._action_groups
        if group.title not in left_out
        for action in group._group_actions
        if action.default != argparse.SUPPRESS  # --help and --version do not run the program
    }
    formatter = parser._get_formatter()
    for dest in [*FIRST, *(dest for dest in actions if dest not in FIRST)]:
        item = _input(actions[dest], formatter)
        yield item
        if dest == "output_dir":
            text = "not used: give output_dir, whether it exists or not"
            yield {**item, "id": "output_dir_existing", "description": text, "type": "File"}


def _input(action: argparse.Action, formatter: argparse.HelpFormatter) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": formatter._expand_help(action),
        "type": _kind(action),
        "value-key": f"[{action.dest.upper()}]",
        "optional": bool(action.option_strings) or action.dest == "output_dir",
    }
    if action.type is int:
        item["integer"] = True
    if action.nargs == "+":
        item["list"] = True
    if action.option_strings:
        item["command-line-flag"] = next(name for name in action.option_strings if name.startswith("--"))
    choices = BIDS_APP_LEVELS if action.dest == "analysis_level" else action.choices
    if choices:
        item["value-choices"] = list(choices)
    return item


def _kind(action: argparse.Action) -> str:
    """Boutiques' type. A File must exist before the run: directories that the program makes are strings."""
    if action.nargs == 0:
        return "Flag"
    if action.type in (int, float):
        return "Number"
    return "File" if action.dest == "bids_dir" or action.metavar in ("FILE", "DATASET") else "String"


def _error_codes() -> Iterator[dict[str, Any]]:
    """What each exit code means: the first lines of the error classes that define one."""
    yield {"code": errors.EXIT_SESSION_FAILED, "description": "Some session failed; the others are done."}
    kinds = [item for item in vars(errors).values() if isinstance(item, type)]
    codes = {vars(kind)["exit_code"]: kind.__doc__ for kind in kinds if "exit_code" in vars(kind)}
    for code, text in sorted(codes.items()):
        if code != errors.EXIT_SESSION_FAILED:
            summary = re.sub(r" \(exit code \d+\)", "", str(text).splitlines()[0])
            yield {"code": code, "description": summary}


def main() -> int:
    """Print the descriptor."""
    sys.stdout.write(json.dumps(descriptor(), indent=2) + "\n")
    return errors.EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
