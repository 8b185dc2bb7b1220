"""The training page: how the losses fell, what the network makes of patches, and under which settings."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.files import write_text
from bids_wmh_uad.reports.pages import render

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.training import EpochResult, Pair

CHART_WIDTH, CHART_HEIGHT = 720, 300
"""Size of the loss chart, SVG units."""
CHART_MARGIN = {"left": 70, "right": 20, "top": 16, "bottom": 44}
"""Room for axes and ticks around the loss chart, SVG units."""
TICKS = 5
"""Number of ticks of the loss axis."""
ZOOM = 4
"""Edge of a patch's voxel on the page, pixels."""
TILE_GAP = 3
"""Room between example patches, pixels."""
EXAMPLE_ROWS = ("FLAIR", "FLAIR, reconstructed", "T1w", "T1w, reconstructed")
"""Names of the rows of example patches."""

NOTHING_HELD_OUT = (
    "No participant was held out: nothing says whether the network learnt these controls by heart."
)
"""Warning without held-out participants."""
STILL_FALLING = "The last epoch was the best: more epochs may give a better model."
"""Warning where the plan ended before the loss did."""
STOPPED = "Training stopped early: the held-out loss had not fallen for {patience} epochs."
"""Notice of an early stop."""
OVERFITTED = "The held-out loss at the end lies {percent:.0f} % above its best: more controls would help."
"""Warning of overfitting."""
OVERFIT_PERCENT = 5.0
"""Rise of the held-out loss above its best that is called overfitting, percent: less is noise."""


def write_training_report(  # noqa: PLR0913 (all keywords)
    path: Path,
    *,
    history: Sequence[EpochResult],
    best_epoch: int,
    plan: Mapping[str, Any],
    finished: bool,
    settings: Mapping[str, Any],
    participants: tuple[int, int],
    seconds: float,
    examples: Pair | None = None,
) -> Path:
    """Write the page, as far as training has come.

    Parameters
    ----------
    path : Path
    history : sequence of EpochResult
        At least one.
    best_epoch : int
    plan : mapping
        Fields of `core.network.plan.Plan`.
    finished : bool
    settings : mapping
        What the weights depend on, by the name users know.
    participants : (int, int)
        Trained on, and held out.
    seconds : float
        Since the training was started, or resumed.
    examples : pair of (n, 2, s, s) arrays, optional
        Held-out patches and their reconstructions.

    Returns
    -------
    Path
        `path`.
    """
    context = {
        "history": history,
        "best_epoch": best_epoch,
        "epochs": plan["epochs"],
        "finished": finished,
        "settings": settings,
        "participants": participants,
        "minutes": seconds / 60,
        "warnings": training_warnings(history, best_epoch, plan, finished),
        "chart": loss_chart(history),
        "examples": draw_examples(examples) if examples is not None else None,
        "guided": any(result.training.hinge for result in history),
    }
    return write_text(path, render("training.html.j2", context))


def training_warnings(
    history: Sequence[EpochResult], best_epoch: int, plan: Mapping[str, Any], finished: bool
) -> list[str]:
    """What the user should know of a training."""
    last, best = history[-1].held_out, history[best_epoch - 1].held_out
    if last is None or best is None:
        return [NOTHING_HELD_OUT]
    warnings = []
    if finished and len(history) < plan["epochs"]:
        warnings.append(STOPPED.format(patience=plan["patience"]))
    if finished and best_epoch == plan["epochs"]:
        warnings.append(STILL_FALLING)
    rise = 100 * (last.loss - best.loss) / abs(best.loss) if best.loss else 0.0
    if rise > OVERFIT_PERCENT:
        warnings.append(OVERFITTED.format(percent=rise))
    return warnings


def loss_chart(history: Sequence[EpochResult]) -> dict[str, Any]:
    """Places of the losses' curves, axes and ticks in an SVG of `CHART_WIDTH` x `CHART_HEIGHT`."""
    curves = {"training": [(result.epoch, result.training.loss) for result in history]}
    held_out = [(result.epoch, result.held_out.loss) for result in history if result.held_out]
    if held_out:
        curves["held out"] = held_out
    values = [value for points in curves.values() for _, value in points]
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - room, high + room
    last = max(2, len(history))
    inner_width = CHART_WIDTH - CHART_MARGIN["left"] - CHART_MARGIN["right"]
    inner_height = CHART_HEIGHT - CHART_MARGIN["top"] - CHART_MARGIN["bottom"]

    def x(epoch: float) -> float:
        return round(CHART_MARGIN["left"] + inner_width * (epoch - 1) / (last - 1), 1)

    def y(value: float) -> float:
        return round(CHART_MARGIN["top"] + inner_height * (high - value) / (high - low), 1)

    step = -(-last // 10)
    return {
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "margin": CHART_MARGIN,
        "x_ticks": [(x(epoch), epoch) for epoch in range(1, last + 1, step)],
        "y_ticks": [(y(value), f"{value:.3g}") for value in np.linspace(low, high, TICKS).tolist()],
        "curves": [
            {"name": name, "points": [(x(epoch), y(value)) for epoch, value in points]}
            for name, points in curves.items()
        ],
    }


def draw_examples(examples: Pair) -> dict[str, Any]:
    """Patches above their reconstructions, as one PNG data URI with its size in pixels.

    Parameters
    ----------
    examples : pair of (n, 2, s, s) arrays
        In [0, 1]: FLAIR, T1w.
    """
    from PIL import Image

    patches, reconstructions = examples
    number, channels, edge, _ = patches.shape
    tile = edge * ZOOM + TILE_GAP
    canvas: NDArray[np.uint8] = np.full(
        (2 * channels * tile - TILE_GAP, number * tile - TILE_GAP), 255, dtype=np.uint8
    )
    for channel in range(channels):
        for row, source in enumerate((patches, reconstructions)):
            for column in range(number):
                top, left = (2 * channel + row) * tile, column * tile
                # anterior up, as in the other figures
                shown = np.clip(source[column, channel].T[::-1] * 255, 0, 255).astype(np.uint8)
                canvas[top : top + edge * ZOOM, left : left + edge * ZOOM] = np.kron(
                    shown, np.ones((ZOOM, ZOOM), np.uint8)
                )
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    uri = "data:image/png;base64," + b64encode(buffer.getvalue()).decode("ascii")
    return {
        "uri": uri,
        "width": canvas.shape[1],
        "height": canvas.shape[0],
        "number": number,
        "rows": EXAMPLE_ROWS[: 2 * channels],
    }
