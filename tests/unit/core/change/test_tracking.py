"""Which lesions are the same, and the names of what became of them."""

import numpy as np
import pytest

from bids_wmh_uad.core.change.tracking import Match, match_lesions, name_status


def image(*boxes):
    out = np.zeros((40, 12, 6), np.int32)
    for label, (start, stop) in enumerate(boxes, start=1):
        out[start:stop, 4:8, 2:4] = label
    return out


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([(2, 6)], [(4, 9)], [Match((1,), (1,))]),
        ([(2, 6), (8, 12)], [(2, 12)], [Match((1, 2), (1,))]),
        ([(2, 12)], [(2, 6), (8, 12)], [Match((1,), (1, 2))]),
        ([(2, 6), (10, 16)], [(4, 12), (14, 18)], [Match((1, 2), (1, 2))]),
        ([(2, 6)], [], [Match((1,), ())]),
        ([], [(2, 6), (20, 24)], [Match((), (1,)), Match((), (2,))]),
        ([(2, 6)], [(6, 9)], [Match((1,), (1,))]),  # they touch, and nothing else is there
        ([(2, 6), (7, 9)], [(2, 6), (7, 9)], [Match((1,), (1,)), Match((2,), (2,))]),  # neighbours stay apart
        ([], [], []),
    ],
)
def test_lesions_that_share_tissue_are_one(before, after, expected):
    assert match_lesions(image(*before), image(*after)) == expected
    mirrored = match_lesions(image(*after), image(*before))
    assert {(one.after, one.before) for one in mirrored} == {(one.before, one.after) for one in expected}


@pytest.mark.parametrize(
    ("before", "after", "up", "down", "status"),
    [
        ((), (1,), True, False, "new"),
        ((), (1,), False, False, "stable"),
        ((1,), (1,), True, False, "enlarging"),
        ((1,), (1,), False, True, "shrinking"),
        ((1,), (1,), False, False, "stable"),
        ((1,), (), False, True, "resolved"),
        ((1,), (), False, False, "stable"),
        ((1, 2), (1,), True, False, "merged"),
        ((1, 2), (1,), False, False, "stable"),
        ((1, 2), (1,), False, True, "shrinking"),
        ((1,), (1, 2), False, True, "split"),
        ((1,), (1, 2), True, False, "enlarging"),
    ],
)
def test_the_evidence_names_the_status(before, after, up, down, status):
    assert name_status(Match(before, after), grew=up, shrank=down, whole=True) == status
    in_part = {"new": "enlarging", "resolved": "shrinking"}.get(status, status)
    assert name_status(Match(before, after), grew=up, shrank=down, whole=False) == in_part
