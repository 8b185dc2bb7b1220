"""Where the T1w template has brain: one function, and every level that is in use.

The template is skull-stripped, but its background is not 0 on every grid: interpolation ripples
there. The levels are not one value yet, because another one would move outputs: the places where
models are trained and fitted, the atlas's regions, or the checks' numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAINING_LEVEL = 0.10
"""Level of the places where controls' patches are drawn and voxel-wise models are fitted, fraction of the maximum: low, so that the cortex is whole."""
CHECK_LEVEL = 0.15
"""Level of the brain that a session's mask is compared with (`quality.measure`), fraction of the maximum: higher, since the template is interpolated once more, to the session's grid."""
ATLAS_LEVEL = 0.15
"""Level of the brain in which the atlas is derived (`imaging.atlas`), in the template's own unit (its maximum is about 1): paths between regions must not run through the spill beyond the edge."""
OUTLINE_LEVEL = 0.0
"""Level of everything that the template touches, in its own unit: which voxels the checks correlate."""


GM_LIKELY = 0.5
"""Grey-matter prior above which a voxel is taken for grey matter: more likely than not."""


def template_brain(t1w: NDArray[Any], level: float, *, relative: bool = True) -> NDArray[np.bool_]:
    """Where the T1w template has brain.

    Parameters
    ----------
    t1w : (X, Y, Z) array
        Skull-stripped template, on any grid, >= 0 but for ripples.
    level : float
        Brain is what is brighter.
    relative : bool
        Whether the level is a fraction of the brightest voxel; else it is in the template's unit.

    Returns
    -------
    (X, Y, Z) bool array
    """
    unit = float(t1w.max(initial=0)) if relative else 1.0
    return np.asarray(t1w > level * unit)
