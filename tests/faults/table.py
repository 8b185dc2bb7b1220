"""The table of ``docs/reliability.md``, from what was tried: ``python -m faults.table`` in ``tests`` writes it.

Rows that were tried take the place of the page's; others stay, so that a bounded run can renew its part. Rows of
faults that are no longer in the matrix go.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from faults.ground import REPOSITORY
from faults.harness import REPORTS, Outcome, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = REPOSITORY / "docs" / "reliability.md"
HEADINGS = {
    "input": "Scans and datasets", "security": "Hostile files", "environment": "Environment", "process": "Processes and machine",
}  # fmt: skip
COLUMNS = "| fault | exit code | message | state afterwards |\n|---|---|---|---|\n"
BEGIN, END = "<!-- begin of what tests/faults/table.py writes -->\n", "<!-- end -->\n"
LONGEST = 240
KILLS_BEGIN, KILLS_END = "<!-- begin of the campaigns -->\n", "<!-- end of the campaigns -->\n"
KILLS_COLUMNS = {
    "level": "level", "kills": "killed", "while_publishing": "of these while publishing", "ended_first": "ended before", "lost": "results lost",
    "different": "results that differ", "orphans": "processes left", "leftovers": "files left", "codes": "other exit codes",
}  # fmt: skip
"""Columns of the campaigns' table, by the names of `kills.Findings`."""


def row(outcome: Outcome) -> str:
    """One line of the table."""
    message = outcome.message
    if len(message) > LONGEST:  # at a word's end: half an option is none
        message = message[: LONGEST - 3].rsplit(" ", 1)[0] + " ..."
    quoted = message if message == "none" else f"`{message.replace('`', '').replace('|', '/')}`"
    return f"| {outcome.name.replace('|', '/')} | {outcome.code} | {quoted} | {outcome.state} |"


def documented() -> dict[tuple[str, str], str]:
    """The page's rows by family and fault."""
    family, rows = "", {}
    families = {heading: name for name, heading in HEADINGS.items()}
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.is_file() else ():
        if line.startswith("### "):
            family = families.get(line[4:].strip(), "")
        elif line == KILLS_BEGIN.strip():  # campaigns are no faults
            break
        elif family and line.startswith("| ") and not line.startswith("| fault"):
            rows[family, line.split("|")[1].strip()] = line
    return rows


def tables(rows: dict[tuple[str, str], str]) -> str:
    parts = []
    for family, heading in HEADINGS.items():
        lines = [line for (of, _), line in rows.items() if of == family]
        parts.append(f"### {heading}\n\n{COLUMNS}" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def renew(outcomes: Iterable[Outcome], names: Iterable[tuple[str, str]]) -> str:
    """The page with rows of `outcomes`; `names` are the faults of the matrix, in order."""
    old = documented()
    new = {(one.family, one.name.replace("|", "/")): row(one) for one in outcomes}
    known = [(family, name.replace("|", "/")) for family, name in names]
    rows = {key: line for key in known if (line := new.get(key, old.get(key)))}
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{tables(rows)}\n{END}{after}"


def campaigns() -> str:
    """The table of the kills, as the last ``make test-faults`` found them; the page's own if there was none."""
    path = REPORTS / "kills.jsonl"
    if not path.is_file():
        return PAGE.read_text(encoding="utf-8").split(KILLS_BEGIN)[1].split(KILLS_END)[0]
    lines = [f"| {' | '.join(KILLS_COLUMNS.values())} |", "|" + "---|" * len(KILLS_COLUMNS)]
    for text in path.read_text().splitlines():
        found = json.loads(text)
        cells = [len(found[key]) if isinstance(found[key], list) else found[key] for key in KILLS_COLUMNS]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n" + "\n".join(lines) + "\n\n"


def main() -> int:
    """Write the page."""
    from faults.matrix import NAMES

    text = renew(read_record(), NAMES)
    before, after = text.split(KILLS_BEGIN)[0], text.split(KILLS_END)[1]
    PAGE.write_text(f"{before}{KILLS_BEGIN}{campaigns()}{KILLS_END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
