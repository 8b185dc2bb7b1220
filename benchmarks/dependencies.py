"""What each declared dependency costs: its own size, and the packages that come only because of it.

A Markdown table, largest first: megabytes of the package on disk, the number of packages that would go if it went (and it alone),
and their megabytes together. Sizes are those that the installed packages list (RECORD), in this environment.

    python benchmarks/dependencies.py
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ROOT = "bids-wmh-uad"


def normal(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(package: Distribution) -> list[str]:
    """What it needs here, extras left out."""
    found = [Requirement(text) for text in package.requires or []]
    return [normal(item.name) for item in found if item.marker is None or item.marker.evaluate({"extra": ""})]


def closure(without: str = "") -> set[str]:
    """Everything that is installed for the program, when one of its dependencies is left out."""
    seen: set[str] = set()
    left = [name for name in requirements(distribution(ROOT)) if name != without]
    while left:
        name = left.pop()
        if name not in seen:
            try:
                left += requirements(distribution(name))
            except PackageNotFoundError:  # of another platform, or left out of an image
                continue
            seen.add(name)
    return seen


def megabytes(names: set[str]) -> float:
    """Size on disk."""
    return sum(file.size or 0 for name in names for file in distribution(name).files or []) / 1e6


def main() -> None:
    """Print the table."""
    everything = closure()
    rows = []
    for name in requirements(distribution(ROOT)):
        alone = everything - closure(without=name)
        rows.append(
            (megabytes(alone), len(alone), megabytes({name}), name, ", ".join(sorted(alone - {name})))
        )
    print("| dependency | MB | packages only for it | MB with them | which |\n|---|---|---|---|---|")
    for total, count, own, name, brought in sorted(rows, reverse=True):
        print(f"| {name} | {own:.1f} | {max(count - 1, 0)} | {total:.1f} | {brought} |")
    print(f"\n{len(everything)} packages, {megabytes(everything):.0f} MB")


if __name__ == "__main__":
    main()
