"""Where lesions may be, and which changed tissue is like one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.morphology import and_what_touches
from bids_wmh_uad.core.image.volume import bounding_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.departure import Pair
    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Labels = NDArray[np.int32]
    Bools = NDArray[np.bool_]


def where_lesions_may_be(pair: Pair, lesion: Bools, below: Bools, params: ChangeParameters) -> Bools:
    """White matter by T1w in both sessions, away from the posterior fossa (`near_fossa`); and lesions of the masks.

    Peaks elsewhere can be no lesions: they are not tested, and those of fluid's edges and cortex are not the null.
    """
    dark = np.minimum(*pair.smoothed(params.smooth_mm)[1])
    white = (dark >= params.least_t1w) & ~below
    return np.asarray(pair.mask & (white | and_what_touches(lesion)))


def like_lesions(
    pieces: Labels,
    sign: int,
    pair: Pair,
    contrast: NDArray[np.float32],
    below: Bools,
    params: ChangeParameters,
) -> Labels:
    """Changed tissue that is like a lesion in the session where it is brighter: numbered anew.

    It is large enough and changed enough; T1w is that of white matter in both sessions, and hardly became brighter with it, as it does
    with less fluid in the voxels. In and near the posterior fossa, where FLAIR's pulsation artefacts come and go, only the
    masks tell lesions.

    Parameters
    ----------
    pieces : (X, Y, Z) int32 array
        Numbered tissue that became brighter (`sign` 1) or darker (-1).
    sign : int
    pair : Pair
    contrast : (X, Y, Z) float32 array
        Of the departure.
    below : (X, Y, Z) bool array
        In and near the posterior fossa (`near_fossa`).
    params : ChangeParameters
    """
    there = 1 if sign > 0 else 0
    out = np.zeros_like(pieces)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[box] == number
        flair, t1w = (images[:, *box][:, piece].mean(axis=1) for images in (pair.flair, pair.t1w))
        if (
            not (piece & below[box]).any()
            and piece.sum() * pair.spacing**3 >= params.least_mm3
            and np.abs(contrast[box][piece]).max() >= params.least_contrast
            and t1w.min() >= params.least_t1w
            and t1w[there] - t1w[1 - there] <= params.most_t1w * (flair[there] - flair[1 - there])
        ):
            out[box][piece] = out.max() + 1
    return out


def beside(pieces: Labels, lesion: Bools) -> Labels:
    """The pieces that touch no lesion: numbered anew."""
    fine = np.ones(int(pieces.max()) + 1, dtype=np.int32)
    fine[np.unique(pieces[lesion])] = 0
    fine[0] = 0
    return np.asarray((np.cumsum(fine) * fine)[pieces], dtype=np.int32)


def near_fossa(fossa: Bools, spacing: float, params: ChangeParameters) -> Bools:
    """Brainstem and cerebellum, and what is within `fossa_mm` of them."""
    if not fossa.any():
        return fossa
    near = np.zeros_like(fossa)
    box = bounding_box(fossa, math.ceil(params.fossa_mm / spacing))
    near[box] = ndimage.distance_transform_edt(~fossa[box], sampling=spacing) <= params.fossa_mm
    return near
