"""``--config-file``: the ``config.toml`` that each run writes, read back as the values of options.

Each value is checked as the option of its name checks it. What the file says beyond options is no setting: ``run_uuid``
is the run's own, and ``detection`` repeats the program's numbers, so that they must be these.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bids_wmh_uad.config import Group, Method, Performance, Running, Selection, Training
from bids_wmh_uad.errors import BAD_CONFIG_FILE, UsageError, WmhUadError
from bids_wmh_uad.reading import read_text

TABLES = {
    "selection": Selection,
    "method": Method,
    "performance": Performance,
    "running": Running,
    "group": Group,
    "training": Training,
}
"""The tables of the file whose keys are options, and what each is in the run's settings."""
PLACES = ("bids_dir", "output_dir", "analysis_level")
NO_SETTINGS = ("run_uuid", "detection")
OF_ONE_LEVEL = {"threshold": ("group", "group"), "paradigm": ("train", "training")}
"""Options that are another setting at one level: which level, and in which table it stands there."""
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
"""What a value of the file is called."""


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the file; only its tables and keys are checked.

    Raises
    ------
    UsageError
        If it cannot be read, is no TOML, or has a key that is no setting.
    """
    try:
        content = tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or error) from error
    for key, value in content.items():
        if key in TABLES or key == "detection":
            if not isinstance(value, dict):
                raise _unusable(path, f"{key}: expected a table")
        elif key not in (*PLACES, *NO_SETTINGS):
            raise _unusable(path, f"{key}: no such setting")
    for table, kind in TABLES.items():
        known = {field.name for field in fields(kind)}
        for key in content.get(table, {}):
            if key not in known:
                raise _unusable(path, f"{table}.{key}: no such setting")
    return content


def option_values(
    path: Path, content: Mapping[str, Any], level: str | None, actions: Mapping[str, argparse.Action]
) -> dict[str, Any]:
    """The values of the file's options, by the names of `actions`.

    Parameters
    ----------
    path : Path
        The file, for messages.
    content : mapping
        Of `read_config_file`.
    level : str or None
        The level that is run, if the command line says so: else the file's.
    actions : mapping
        The parser's, by their ``dest``.

    Raises
    ------
    UsageError
        If a value is not of its option's type.
    """
    found = {name: (name, content[name]) for name in PLACES if name in content}
    level = level or found.get("analysis_level", ("", None))[1]
    for table in TABLES:
        for key, value in content.get(table, {}).items():
            at_level, elsewhere = OF_ONE_LEVEL.get(key, ("", ""))
            if (level == at_level) == (table == elsewhere) and key in actions:
                found[key] = (f"{table}.{key}", value)
    values = {}
    for name, (key, value) in found.items():
        try:
            values[name] = _value(actions[name], value)
        except (TypeError, ValueError, WmhUadError) as error:
            raise _unusable(path, f"{key}: {error}") from error
    return values


def check_settings(path: Path, content: Mapping[str, Any], make: Callable[[], Method]) -> None:
    """Say which file a setting comes from that is out of its range, or that is no option and not this version's.

    Parameters
    ----------
    path : Path
    content : mapping
        Of `read_config_file`.
    make : callable
        Makes the settings of the file alone, and returns those of the method.

    Raises
    ------
    UsageError
    """
    try:
        own = asdict(make().parameters)
    except UsageError as error:
        raise _unusable(path, error) from error
    for key, value in content.get("detection", {}).items():
        now = own.get(key)
        if key not in own or value != (list(now) if isinstance(now, tuple) else now):
            this = f"takes {now!r}" if key in own else "does not know it"
            raise _unusable(
                path, f"detection.{key}: {value!r}, but this version {this}; it follows from the options"
            )


def _value(action: argparse.Action, value: Any) -> Any:
    """What the option would make of the value, if it is of the option's type."""
    if action.nargs == "+":
        if not isinstance(value, list):
            raise TypeError(f"expected a list, not {value!r}")
        return [_single(action, item) for item in value]
    if action.nargs == 0:
        return _typed(value, bool if isinstance(action.const, bool) else int)
    return _single(action, value)


def _single(action: argparse.Action, value: Any) -> Any:
    if action.type in (int, float):
        value = _typed(value, action.type)
    elif action.dest != "gamma" or isinstance(value, str):
        value = _typed(value, str)
    else:
        value = _typed(value, float)
    if callable(action.type):
        value = action.type(value)
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"{value!r} is none of {', '.join(action.choices)}")
    return value


def _typed(value: Any, kind: Any) -> Any:
    """The value, if it is of this kind; whole numbers are numbers too, true and false are not."""
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {KINDS[kind]}, not {value!r}")
    return kind(value)


def _unusable(path: Path, reason: object) -> UsageError:
    return UsageError(BAD_CONFIG_FILE.format(path=path, reason=reason))
