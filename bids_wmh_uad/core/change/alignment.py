"""Images of one head on one grid, aligned with their mean: robust least squares of brightness, by Gauss and Newton."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.change.space import rotation_part
from bids_wmh_uad.core.image.intensity import MINIMUM_VOXELS
from bids_wmh_uad.core.image.morphology import without_rim
from bids_wmh_uad.core.image.robust import MAD_TO_SD
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

COARSE_MM = (8.0, 4.0)
"""Gaussian smoothing (standard deviation) from which heads find each other that are a centimetre apart."""
FINE_MM = 1.0
"""Gaussian smoothing of the last step."""
INNER_MM = 8.0
"""What is nearer to the outline of the sessions' common brain has no part in the last step: brain masks differ between sessions, and say another size."""
STEPS = 20
"""Most steps of a smoothing."""
STILL_MM = 0.002
"""Steps end where the next would move the brain by less."""
TUKEY = 4.685
"""Residual, in robust standard deviations, from which on a voxel does not count (95 % efficiency for normal noise: Huber and Ronchetti 2009)."""
LEAST = 0.1
"""Least brightness of the mean, in white matter's, of a voxel that counts before: the brain and what smoothing adds to it."""


def align(
    mean: NDArray[np.float32],
    image: NDArray[np.float32],
    brain: NDArray[np.bool_],
    affine: Matrix,
    *,
    rigid: bool,
    coarse: bool,
) -> Matrix:
    r"""Find the motion that takes an image to the mean of several of the same head.

    With the image :math:`I` moved by what is known of the motion so far, the mean :math:`T` and its gradient, every voxel x of the brain says

    .. math:: I(x) = a\, T(x) + b + \nabla T(x) \cdot (A (x - c) + t)

    where A is antisymmetric for a rigid motion and free for an affine one, and gain a and offset b are the scanner's. Least squares give the next motion, until
    it stands still. The finest step looks at the brain's inside (`INNER_MM`) only, where voxels have Tukey's weights: lesions that came or went, and
    ventricles that widened, are outliers and do not count.

    Parameters
    ----------
    mean, image : (X, Y, Z) float32 arrays
        Skull-stripped FLAIR (background 0) in units of white matter's mode.
    brain : (X, Y, Z) bool array
        Common to all sessions.
    affine : (4, 4) array
        Of their grid, with cubic voxels along the axes.
    rigid : bool
        Rigid; else affine.
    coarse : bool
        With `COARSE_MM` before: they are not nearly aligned.

    Returns
    -------
    (4, 4) float64 array
        Moves the image, in the grid's world, mm.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`: the sessions are of other heads, or far apart.

    Notes
    -----
    After Reuter, Rosas and Fischl, NeuroImage 2010 (robust registration), with the mean's gradient (inverse composition: Baker and Matthews, Int J Comput Vision 2004).
    """
    motion = np.eye(4)
    inner = without_rim(brain, round(INNER_MM / affine[0, 0]))
    if (n := int(inner.sum())) < MINIMUM_VOXELS:
        what = "the inside of the brain common to all sessions"
        raise BadDataError(TOO_FEW_VOXELS.format(what=what, n=n, needed=MINIMUM_VOXELS))
    for sigma in (*(COARSE_MM if coarse else ()), FINE_MM):
        smooth = [
            ndimage.gaussian_filter(one, sigma / affine[0, 0], mode="constant") for one in (mean, image)
        ]
        last = sigma == FINE_MM
        where = inner if last else smooth[0] > LEAST
        motion = _settle(smooth[0], smooth[1], where, affine, motion, rigid=rigid, robust=last)
    return motion


def _settle(
    mean: NDArray[np.float32],
    image: NDArray[np.float32],
    where: NDArray[np.bool_],
    affine: Matrix,
    motion: Matrix,
    *,
    rigid: bool,
    robust: bool,
) -> Matrix:
    """Step until the motion stands still, at one smoothing."""
    places = np.argwhere(where)
    values = mean[tuple(places.T)].astype(np.float64)
    slopes = [
        np.gradient(mean, affine[0, 0], axis=axis)[tuple(places.T)].astype(np.float64) for axis in range(3)
    ]
    world = places @ affine[:3, :3].T + affine[:3, 3]
    centre = world.mean(axis=0)
    around = (world - centre).T
    design = np.stack([*_moves(around, slopes, rigid=rigid), values, np.ones_like(values)], axis=1)
    reach = float(np.sqrt((around**2).sum(axis=0).mean()))
    for _ in range(STEPS):
        pull = np.linalg.inv(affine) @ np.linalg.inv(motion)
        seen = ndimage.map_coordinates(image, pull[:3, :3] @ world.T + pull[:3, 3:], order=1)
        solved = _solve(design, seen.astype(np.float64), robust=robust)
        step = _motion(solved[:-2], centre, rigid=rigid)
        motion = step @ motion
        if (
            np.linalg.norm(step[:3, :3] - np.eye(3)) * reach
            + np.linalg.norm(step[:3, :3] @ centre + step[:3, 3] - centre)
            < STILL_MM
        ):
            break
    return motion


def _moves(around: Matrix, slopes: Sequence[Matrix], *, rigid: bool) -> list[Matrix]:
    """What each parameter of a motion does to the brightness: turns (or any linear map), then shifts."""
    if rigid:
        x, y, z = around
        gx, gy, gz = slopes
        return [y * gz - z * gy, z * gx - x * gz, x * gy - y * gx, *slopes]
    return [slope * place for slope in slopes for place in around] + list(slopes)


def _solve(design: Matrix, seen: Matrix, *, robust: bool) -> Matrix:
    """Least squares; robust ones once more with the weights that the first residuals give."""
    solved = np.linalg.solve(design.T @ design, design.T @ seen)
    if robust:
        rest = np.abs(seen - design @ solved)
        weights = (
            np.clip(1 - (rest / (TUKEY * MAD_TO_SD * max(float(np.median(rest)), 1e-9))) ** 2, 0, None) ** 2
        )
        weighted = design * weights[:, None]
        solved = np.linalg.solve(weighted.T @ design, weighted.T @ seen)
    return np.asarray(solved)


def _motion(parameters: Matrix, centre: Matrix, *, rigid: bool) -> Matrix:
    """The motion about a point that parameters of `_moves` stand for."""
    shift = parameters[-3:]
    if rigid:
        a, b, c = parameters[:3]
        linear: NDArray[Any] = rotation_part(np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]]))
    else:
        linear = np.eye(3) + parameters[:9].reshape(3, 3)
    motion = np.eye(4)
    motion[:3, :3] = linear
    motion[:3, 3] = centre + shift - linear @ centre
    return motion
