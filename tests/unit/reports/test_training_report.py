"""The training page: curves in their places, warnings where they are due, nothing from outside."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bids_wmh_uad.core.network.training import EpochResult, Losses
from bids_wmh_uad.reports import training as page
from bids_wmh_uad.reports.training import draw_examples, loss_chart, training_warnings, write_training_report


def history(training, held_out=None):
    losses = held_out or [None] * len(training)
    return [
        EpochResult(epoch, Losses(one, one, 0.5), None if two is None else Losses(two, two, 0.5))
        for epoch, (one, two) in enumerate(zip(training, losses, strict=True), start=1)
    ]


PLAN = {"epochs": 4, "patience": 2}


@pytest.mark.parametrize(
    ("losses", "best", "finished", "expected"),
    [
        ([4, 3, 2, 1], 4, True, [page.STILL_FALLING]),
        ([4, 3, 2], 3, False, []),
        ([4, 3, 3.01], 2, False, []),
        ([4, 2, 3, 3], 2, True, [page.OVERFITTED.format(percent=50)]),
        ([2, 2.01, 2.02], 1, True, [page.STOPPED.format(patience=2)]),
    ],
)
def test_warnings(losses, best, finished, expected):
    assert training_warnings(history(losses, losses), best, PLAN, finished) == expected


def test_nothing_held_out_is_said():
    assert training_warnings(history([3, 2]), 2, PLAN, True) == [page.NOTHING_HELD_OUT]


def test_curves_lie_inside_the_axes_and_fall_where_losses_fall():
    chart = loss_chart(history([5, 3, 2], [4, 2, 3]))
    assert [curve["name"] for curve in chart["curves"]] == ["training", "held out"]
    for curve in chart["curves"]:
        x, y = np.array(curve["points"]).T
        assert (np.diff(x) > 0).all()
        assert (x >= page.CHART_MARGIN["left"]).all() and (
            x <= page.CHART_WIDTH - page.CHART_MARGIN["right"]
        ).all()
        assert (y > page.CHART_MARGIN["top"]).all() and (
            y < page.CHART_HEIGHT - page.CHART_MARGIN["bottom"]
        ).all()
    falling = np.array(chart["curves"][0]["points"])[:, 1]
    assert (np.diff(falling) > 0).all()  # SVG's y grows downwards
    same = dict(zip([5, 3, 2], falling, strict=True))
    assert chart["curves"][1]["points"][1][1] == same[2]


@pytest.mark.parametrize("losses", [[3.0], [2.0, 2.0], [0.0, 0.0], [-0.1, -0.2]])
def test_short_flat_and_negative_curves_are_drawn(losses):
    for curve in loss_chart(history(losses))["curves"]:
        assert np.isfinite(np.array(curve["points"])).all()


def test_examples_are_patches_above_their_reconstructions():
    patches = np.zeros((3, 2, 15, 15), dtype=np.float32)
    shown = draw_examples((patches, patches + 1))
    tile = 15 * page.ZOOM + page.TILE_GAP
    assert (shown["width"], shown["height"]) == (3 * tile - page.TILE_GAP, 4 * tile - page.TILE_GAP)
    assert shown["rows"] == page.EXAMPLE_ROWS


def test_the_page_holds_every_number_and_asks_for_nothing(tmp_path):
    patches = np.random.default_rng(0).random((2, 2, 15, 15), dtype=np.float32)
    path = write_training_report(
        tmp_path / "train.html",
        history=history([5, 3.25, 2], [4, 2.125, 3]),
        best_epoch=2,
        plan=PLAN,
        finished=True,
        settings={"--focus": 1.5, "<odd>": "a & b"},
        participants=(10, 2),
        seconds=90.0,
        examples=(patches, patches),
    )
    text = path.read_text()
    for expected in (
        "Finished: 3 of 4 epochs",
        "1.5 minutes",
        "<code>--focus 1.5</code>",
        "3.2500",
        "2.1250",
        "&lt;odd&gt;",
        "a &amp; b",
    ):
        assert expected in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert 'role="img" aria-label=' in text
    assert "alt=" in text
