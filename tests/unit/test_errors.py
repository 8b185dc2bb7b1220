"""Errors and warnings: what programs and people know them by."""

from __future__ import annotations

import string

import pytest

from bids_wmh_uad import errors

WARNINGS = {name: text for name, text in vars(errors).items() if isinstance(text, errors.WarningText)}
KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.WmhUadError)
]


def test_a_warnings_code_is_its_name() -> None:
    assert len(WARNINGS) > 10
    assert {name: text.code for name, text in WARNINGS.items()} == {name: name for name in WARNINGS}


@pytest.mark.parametrize("name", WARNINGS)
def test_the_text_holds_the_values(name: str) -> None:
    fields = {field for _, field, _, _ in string.Formatter().parse(WARNINGS[name].template) if field}
    warning = WARNINGS[name].format(**dict.fromkeys(fields, 7))
    assert warning.code == name
    assert "{" not in warning.text
    assert warning.text.count("7") >= len(fields)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_crash_file_can_give_every_error_back(kind: type[errors.WmhUadError]) -> None:
    assert str(kind("text")) == "text"  # made of its message alone, as workflows.engine does
