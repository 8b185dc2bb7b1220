"""Charts of the subject page that are no brain slices: score histogram, latents, example patches."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.files import write_text
from bids_wmh_uad.reports.figures.mosaic import PROLOG, Panel, load_canonical, load_together, write_mosaic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from bids_wmh_uad.reports.figures.mosaic import ImageLike

THRESHOLD_COLOUR, SHIFTED_COLOUR = "#cf222e", "#9a6700"
"""Colours of the threshold's line, and of those 20 % below and above."""
KIND_COLOURS = ("#0969da", "#8c959f", "#1b7c83", "#cf222e")
"""Colours of white matter, grey matter, ventricles and lesions."""
PATCH_MM = 15.0
"""Edge of a patch, mm: 15 voxels of 1 mm."""


def save(figure: Any, out: str | PathLike[str]) -> Path:
    """Write a matplotlib figure as an SVG without date and size, its texts as text."""
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bids-wmh-uad", "font.family": "sans-serif"}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue()
    drawing = re.sub(r' (width|height)="[0-9.]+pt"', "", drawing[drawing.index("<svg") :], count=2)
    # several charts share a page, and matplotlib gives the same ids to all
    unique = re.sub(r"\W", "", Path(out).stem)
    drawing = re.sub(r'\bid="', f'id="{unique}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{unique}-", drawing)
    drawing = re.sub(r'href="#', f'href="#{unique}-', drawing)
    return write_text(Path(out), PROLOG + drawing)


def plot_score_histogram(
    anomaly: ImageLike,
    mask: ImageLike | None,
    threshold: float,
    out: str | PathLike[str],
    *,
    volumes: Mapping[str, float] | None = None,
) -> Path:
    """Draw how many voxels have which score, with the threshold, and what 20 % more or less of it does.

    Parameters
    ----------
    anomaly : path or nibabel image
        Anomaly map.
    mask : path or nibabel image or None
        Brain mask on its grid; None: where the map is not 0.
    threshold : float
        Operating point.
    out : path
        SVG to write.
    volumes : mapping of str to float, optional
        The session's measures, mL; without them the volumes above each line are shown.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the two are not on the same grid.
    """
    from matplotlib.figure import Figure

    scan = load_canonical(anomaly)
    brain = load_together(anomaly, mask)[1].data > 0.5 if mask is not None else scan.data != 0
    scores = scan.data[brain]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    if scores.size:
        axes.hist(scores, bins=120, log=True, histtype="stepfilled", color="#6e9fd6")
    keys = ("volume_ml_threshold_minus20", "wmh_volume_ml", "volume_ml_threshold_plus20")
    labels = ("threshold - 20 %", f"threshold {threshold:.4g}", "threshold + 20 %")
    for label, key, shift in zip(labels, keys, (-0.2, 0.0, 0.2), strict=True):
        at = threshold + shift * abs(threshold)
        volume = (volumes or {}).get(key, float((scores > at).sum()) * scan.voxel_ml)
        colour, style = (SHIFTED_COLOUR, "--") if shift else (THRESHOLD_COLOUR, "-")
        axes.axvline(at, color=colour, linestyle=style, label=f"{label}: {volume:.2f} mL")
    axes.legend(loc="upper right", frameon=False)
    axes.set(xlabel="anomaly score (larger = more abnormal)", ylabel="voxels in the brain")
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, out)


def plot_latents(sample: Mapping[str, NDArray[Any]], out: str | PathLike[str]) -> Path:
    """Draw the sampled latents in their plane, coloured by tissue.

    Parameters
    ----------
    sample : mapping
        The arrays of `core.score.explain.Explanation`.
    out : path
        SVG to write.

    Returns
    -------
    Path
        `out`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    plane, share = np.asarray(sample["plane"]), np.asarray(sample["share"])
    for number, name in enumerate(sample["kinds"]):
        points = plane[np.asarray(sample["kind"]) == number]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=9,
            alpha=0.6,
            linewidths=0,
            color=_colour_of(str(name)),
            label=f"{name} ({len(points)})",
        )
    axes.legend(loc="best", frameon=False, markerscale=2)
    axes.set(
        xlabel=f"first direction ({100 * share[0]:.0f} % of the tissues' variance)",
        ylabel=f"second direction ({100 * share[-1]:.0f} %)",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, out)


def _colour_of(kind: str) -> str:
    kinds = ("white matter", "grey matter", "ventricles", "lesions")
    return KIND_COLOURS[kinds.index(kind)] if kind in kinds else "#000000"


def plot_patches(sample: Mapping[str, NDArray[Any]], out: str | PathLike[str]) -> Path:
    """Draw example patches: FLAIR and T1w above, what the decoder makes of their latents below.

    Parameters, returns as in `plot_latents`.
    """
    kinds = [str(name) for name in sample["kinds"]]
    rows: list[list[Panel]] = [[], []]
    for patch, reconstruction, number in zip(
        sample["patches"], sample["reconstructions"], sample["patch_kind"], strict=True
    ):
        error = float(np.sqrt(np.mean((patch - reconstruction) ** 2)))
        captions = (kinds[int(number)], f"error {error:.3f}")
        for row, image, caption in zip(rows, (patch, reconstruction), captions, strict=True):
            # side by side, and each voxel as a square of 8: a browser would blur them
            both = np.concatenate([np.pad(channel.T[::-1], ((0, 0), (0, 1))) for channel in image], axis=1)
            grey = np.kron((np.clip(both, 0, 1) * 255).astype(np.uint8), np.ones((8, 8), np.uint8))
            row.append(Panel((grey,), (2 * PATCH_MM, PATCH_MM), (), caption, ("", "")))
    wide = 6
    blocks = [row[start : start + wide] for start in range(0, len(rows[0]), wide) for row in rows]
    heading = "Patches (FLAIR, T1w), and below each its reconstruction"
    return write_mosaic(blocks, out, heading)
