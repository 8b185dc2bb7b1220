"""Which lesion of one session is which of another, and what became of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Labels = NDArray[np.int32]

STATUSES = ("new", "enlarging", "stable", "shrinking", "resolved", "merged", "split")
"""Names of what becomes of lesions."""


@dataclass(frozen=True)
class Match:
    """Lesions of two sessions that are the same tissue.

    Attributes
    ----------
    before, after : tuple of int
        Labels in the two sessions, in order; one of them may be empty.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def match_lesions(before: Labels, after: Labels) -> list[Match]:
    """Match lesions that share a voxel; those left over, with what they touch.

    Lesions linked through others belong together: two that share a third were merged, or split from it.

    Parameters
    ----------
    before, after : (X, Y, Z) int32 arrays
        Numbered lesions on the common grid, 0 elsewhere.

    Returns
    -------
    list of Match
        Each label of either session is in exactly one, in order of the first label after, then before; exchanging the sessions exchanges
        the labels in them.
    """
    links = _shared(before, after)
    alone_before = set(_labels(before)) - {one for one, _ in links}
    alone_after = set(_labels(after)) - {other for _, other in links}
    grown = [ndimage.maximum_filter(labels, 3) for labels in (before, after)]
    touching = _shared(before, grown[1]) | _shared(grown[0], after)
    links |= {(one, other) for one, other in touching if one in alone_before or other in alone_after}
    groups = _connected(links, _labels(before), _labels(after))
    return sorted(groups, key=lambda match: (not match.after, match.after, match.before))


def _labels(image: Labels) -> list[int]:
    return [int(label) for label in np.unique(image) if label]


def _shared(first: Labels, second: Labels) -> set[tuple[int, int]]:
    both = (first > 0) & (second > 0)
    return {
        (int(one), int(other)) for one, other in np.unique(np.stack([first[both], second[both]]), axis=1).T
    }


def _connected(links: Iterable[tuple[int, int]], before: Iterable[int], after: Iterable[int]) -> list[Match]:
    """The connected parts of a graph between two sets of labels."""
    nodes = [*((0, label) for label in before), *((1, label) for label in after)]
    beside: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for one, other in links:
        beside[0, one].add((1, other))
        beside[1, other].add((0, one))
    seen: set[tuple[int, int]] = set()
    found = []
    for start in nodes:
        if start in seen:
            continue
        part, todo = set(), [start]
        while todo:
            node = todo.pop()
            if node not in part:
                part.add(node)
                todo += beside[node] - part
        seen |= part
        sides = [tuple(sorted(label for side, label in part if side == which)) for which in (0, 1)]
        found.append(Match(*sides))
    return found


def name_status(match: Match, *, grew: bool, shrank: bool, whole: bool) -> str:
    """What became of matched lesions.

    Parameters
    ----------
    match : Match
    grew, shrank : bool
        Whether the evidence says so; at most one of them does.
    whole : bool
        Whether all of it came or went: one that only one mask has may have been there in the other session, too faint for its mask.

    Returns
    -------
    str
        One of `STATUSES`. A lesion that only one of the masks has is stable where nothing changed by the evidence; and
        lesions that joined or parted without it are one lesion that the masks cut differently: stable.
    """
    if grew:
        if not match.before:
            return "new" if whole else "enlarging"
        return "merged" if len(match.before) > len(match.after) >= 1 else "enlarging"
    if shrank:
        if not match.after:
            return "resolved" if whole else "shrinking"
        return "split" if len(match.after) > len(match.before) >= 1 else "shrinking"
    return "stable"
