"""Numbers that tell whether two scans are what they should be: a head's T1w and FLAIR, aligned.

Each is cheap, needs no label, and is a ratio or correlation, so that neither the scanner's units nor
its noise move it much. What they were on intact and on broken scans is in ``docs/preprocessing.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.noise import noise_sd
from bids_wmh_uad.core.image.template import CHECK_LEVEL, OUTLINE_LEVEL, template_brain
from bids_wmh_uad.errors import (
    CUT_BRAIN,
    EMPTY_BRAIN,
    FLAIR_CONTRAST,
    FLUID_CONTRAST,
    LOW_OVERLAP,
    NOISY,
    ODD_SCALE,
    ODD_VOLUME,
    POOR_ALIGNMENT,
    POOR_TEMPLATE,
    SAME_CONTRAST,
    T1W_CONTRAST,
    THICK_SLICES,
    SessionWarning,
    WarningText,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

GREY_CERTAIN, WHITE_CERTAIN = 0.8, 0.9
"""Priors above which a voxel is taken for the tissue, in [0, 1]."""
DEPENDENCE_BINS = 32
"""Number of T1w bins of the correlation ratio."""
DEPENDENCE_MM = 1.5
"""Smoothing before `dependence`, mm: noise and a shift of a voxel then matter little."""


@dataclass(frozen=True)
class Brain:
    """One session on the FLAIR's grid.

    Parameters
    ----------
    flair, t1w : (X, Y, Z) array
        Intensities after bias correction, in units of white matter's mode.
    mask : (X, Y, Z) bool array
        Brain.
    grey, white : (X, Y, Z) array
        Priors in [0, 1], registered.
    template : (X, Y, Z) array
        T1w template, registered, 0 outside the brain.
    spacing : (3,) array
        Voxel sizes, mm.
    """

    flair: NDArray[np.float32]
    t1w: NDArray[np.float32]
    mask: NDArray[np.bool_]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    template: NDArray[np.float32]
    spacing: NDArray[np.float64]


def measure(brain: Brain) -> dict[str, float]:
    """All numbers of this module.

    Returns
    -------
    dict
        ``flair_grey``, ``t1w_grey``: median of grey over white matter's mode; ``flair_noise``, ``t1w_noise``:
        noise over white matter's mode; ``dependence``, ``sameness``: see `dependence`; ``template_r``:
        correlation of T1w and template; ``coverage``: fraction of the template's brain that is in the mask;
        ``cut``: see `cut_area`; ``flair_empty``, ``t1w_empty``: fraction of the brain that is exactly 0;
        ``icv_ml``: volume of the mask; ``thickness_mm``: largest voxel size.
    """
    numbers: dict[str, float] = {}
    inside = {
        "grey": brain.mask & (brain.grey > GREY_CERTAIN),
        "white": brain.mask & (brain.white > WHITE_CERTAIN),
    }
    for name, image in (("flair", brain.flair), ("t1w", brain.t1w)):
        grey, white = (
            float(np.median(image[tissue])) if tissue.any() else np.nan for tissue in inside.values()
        )
        numbers[f"{name}_grey"] = grey / white if white else np.nan
        numbers[f"{name}_noise"] = noise_sd(image, inside["white"], order=1, axes=(0,))
        numbers[f"{name}_empty"] = float(np.mean(image[brain.mask] == 0))
    smooth = [_smoothed(image, brain) for image in (brain.flair, brain.t1w)]
    numbers["dependence"], numbers["sameness"] = dependence(*smooth)
    skull = template_brain(brain.template, CHECK_LEVEL)
    both = brain.mask & skull
    numbers["template_r"] = _correlation(brain.t1w[both], brain.template[both])
    numbers["coverage"] = int(np.count_nonzero(both)) / max(1, int(np.count_nonzero(skull)))
    numbers["cut"] = cut_area(brain.mask)
    numbers["icv_ml"] = float(np.count_nonzero(brain.mask) * np.prod(brain.spacing) / 1000)
    numbers["thickness_mm"] = float(brain.spacing.max())
    return numbers


def dependence(flair: NDArray[np.float32], t1w: NDArray[np.float32]) -> tuple[float, float]:
    """How well one contrast tells the other: high for aligned scans, whatever their contrasts.

    Parameters
    ----------
    flair, t1w : (n,) array
        The same voxels.

    Returns
    -------
    eta2 : float
        Correlation ratio: the fraction of FLAIR's variance that T1w explains, in bins of equal size
        (Roche et al., MICCAI 1998).
    r : float
        Pearson's correlation: near 1 only where both are the same contrast.
    """
    flair = np.clip(flair, *np.percentile(flair, (1, 99)))
    t1w = np.clip(t1w, *np.percentile(t1w, (1, 99)))
    bins = np.array_split(flair[np.argsort(t1w, kind="stable")], DEPENDENCE_BINS)
    within = sum(float(part.var()) * part.size for part in bins if part.size) / max(1, flair.size)
    total = float(flair.var())
    return (1 - within / total if total > 0 else 0.0), _correlation(flair, t1w)


def cut_area(mask: NDArray[np.bool_]) -> float:
    """How much of the brain the image's faces cut off: the largest share of a face's widest cross-section."""
    shares = []
    for axis in range(3):
        area = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        widest = max(1, int(area.max()))
        shares += [int(area[0]) / widest, int(area[-1]) / widest]
    return float(max(shares))


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    if first.size < 2 or first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _smoothed(image: NDArray[np.float32], brain: Brain) -> NDArray[np.float32]:
    """What `dependence` compares: smoothed voxels of the brain's core."""
    inside = np.where(brain.mask, image, 0).astype(np.float32)
    smooth = ndimage.gaussian_filter(inside, DEPENDENCE_MM / brain.spacing)
    core = brain.mask & template_brain(brain.template, OUTLINE_LEVEL, relative=False)
    return np.asarray(smooth[core if core.any() else brain.mask])


@dataclass(frozen=True)
class Limit:
    """Where a number becomes a doubt.

    Parameters
    ----------
    name : str
        Of the number in `measure`.
    low, high : float
        Outside of these there is a doubt.
    text : WarningText
        The warning.
    contrast : str
        Which scan it is about, for texts that name one.
    """

    name: str
    low: float
    high: float
    text: WarningText
    contrast: str = ""


LIMITS = (
    Limit("dependence", 0.25, np.inf, POOR_ALIGNMENT),
    Limit("sameness", -np.inf, 0.92, SAME_CONTRAST),
    Limit("sameness", 0.0, np.inf, FLUID_CONTRAST),
    Limit("flair_grey", 0.9, np.inf, FLAIR_CONTRAST),
    Limit("t1w_grey", -np.inf, 0.97, T1W_CONTRAST),
    Limit("template_r", 0.2, np.inf, POOR_TEMPLATE),
    Limit("scale_max", -np.inf, 1.4, ODD_SCALE),
    Limit("scale_min", 0.7, np.inf, ODD_SCALE),
    Limit("cut", -np.inf, 0.4, CUT_BRAIN),
    Limit("flair_empty", -np.inf, 0.1, EMPTY_BRAIN, "FLAIR"),
    Limit("t1w_empty", -np.inf, 0.1, EMPTY_BRAIN, "T1w"),
    Limit("icv_ml", 800.0, 2400.0, ODD_VOLUME),
    Limit("flair_noise", -np.inf, 0.25, NOISY, "FLAIR"),
    Limit("t1w_noise", -np.inf, 0.25, NOISY, "T1w"),
    Limit("thickness_mm", -np.inf, 7.0, THICK_SLICES),
)
"""Limits of the numbers, in their units: far enough from every intact scan tried that they stay silent there
(docs/preprocessing.md)."""

OVERLAP, OVERLAP_STRIPPED = 0.95, 0.85
"""Least Dice of the brain masks: of two that deepbet made; where a scan came stripped, by another tool."""


def quality_warnings(numbers: Mapping[str, float], *, stripped: bool) -> list[SessionWarning]:
    """Warnings that the numbers give rise to.

    Parameters
    ----------
    numbers : mapping
        From `measure`, with ``overlap`` (Dice of the brain masks) and ``scale_min``, ``scale_max``
        (stretches of the affine to the template). One that is not finite gives a warning.
    stripped : bool
        Whether one of the scans came skull-stripped.
    """
    overlap = OVERLAP_STRIPPED if stripped else OVERLAP
    limits = (Limit("overlap", overlap, np.inf, LOW_OVERLAP), *LIMITS)
    return [
        limit.text.format(
            value=numbers[limit.name],
            limit=limit.low,
            percent=100 * numbers[limit.name],
            contrast=limit.contrast,
        )
        for limit in limits
        if not limit.low <= numbers[limit.name] <= limit.high
    ]
