"""The picture of the lesion prevalence map on the group page."""

from __future__ import annotations

import warnings
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.images import read_image
from bids_wmh_uad.reading import read_object

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

LEVELS_MM = tuple(range(-24, 72, 8))
"""Heights of the axial slices in MNI152 space, mm: from the temporal lobes to the vertex."""
PANEL_COLUMNS = 4
"""Number of slices in a row."""
COLOUR_MAP = "inferno"
"""Name of matplotlib's colour map: its brightness rises evenly."""
FADE_PERCENT = 2.0
"""Prevalence below which the colour fades into the template, percent."""


def draw_prevalence(path: str | PathLike[str]) -> dict[str, Any]:
    """Draw axial slices of a prevalence map over the template.

    Parameters
    ----------
    path : path
        NIfTI map in MNI152 space, fractions from 0 to 1, on any grid; the JSON file beside it may say
        of how many ``Sessions`` and ``Participants`` it is.

    Returns
    -------
    dict
        ``uri`` (the picture as a data URI), ``width``, ``height``, ``peak`` (largest prevalence, per
        cent), ``slices``, ``sessions`` and ``participants`` (None when nothing says).
    """
    from nilearn.datasets import load_mni152_template
    from nilearn.image import resample_to_img

    template = load_mni152_template(resolution=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the map of one participant is binary, and may be
        fine: Any = resample_to_img(
            _image(path), template, interpolation="linear", force_resample=True, copy_header=True
        )
    percent = 100 * np.nan_to_num(np.asarray(fine.dataobj, dtype=np.float32))
    peak = float(percent.max())
    grey = np.asarray(template.dataobj, dtype=np.float32)
    rows = [round(float((level - template.affine[2, 3]) / template.affine[2, 2])) for level in LEVELS_MM]
    slices = [(grey[:, :, row], percent[:, :, row]) for row in rows]
    uri, width, height = _draw(slices, max(peak, 1.0))
    counts = _counts(Path(path))
    return {"uri": uri, "width": width, "height": height, "peak": peak, "slices": len(rows), **counts}


def _counts(path: Path) -> dict[str, int | None]:
    """How many sessions and participants stand behind the map, from its sidecar."""
    try:
        sidecar = read_object(path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json"))
    except (OSError, ValueError):
        sidecar = {}
    return {name: sidecar.get(name.capitalize()) for name in ("sessions", "participants")}


def _image(path: str | PathLike[str]) -> Any:
    import nibabel as nib

    image: Any = read_image(Path(path))
    data = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    return nib.Nifti1Image(data, image.affine)


def _draw(slices: list[tuple[NDArray[Any], NDArray[Any]]], top: float) -> tuple[str, int, int]:
    """The slices and their colour bar as a WebP data URI, with its size in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure: Any = Figure(figsize=(9, 8.8), facecolor="black", layout="constrained")
    figure.get_layout_engine().set(w_pad=0, h_pad=0.02, wspace=0, hspace=0)
    panels = figure.subplots(-(-len(slices) // PANEL_COLUMNS), PANEL_COLUMNS)
    for axes, level, (grey, percent) in zip(panels.flat, LEVELS_MM, slices, strict=True):
        axes.imshow(grey.T, origin="lower", cmap="gray", vmin=0, vmax=grey.max())
        opacity = np.clip(percent / FADE_PERCENT, 0, 1).T
        shown = axes.imshow(percent.T, origin="lower", cmap=COLOUR_MAP, vmin=0, vmax=top, alpha=opacity)
        axes.text(0.02, 0.02, f"z = {level}", color="white", size=14, transform=axes.transAxes)
        axes.set_axis_off()
    for place, side in ((0.02, "L"), (0.92, "R")):
        panels.flat[0].text(place, 0.9, side, color="white", size=14, transform=panels.flat[0].transAxes)
    bar = figure.colorbar(shown, ax=panels, location="bottom", shrink=0.7, aspect=40, pad=0.02)
    bar.solids.set_alpha(1)
    bar.set_label("participants with a lesion there, %", color="white", size=14)
    bar.ax.tick_params(colors="white", labelsize=13)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode("ascii"), *picture.size
