"""Axial patches of the network's input: made, cut out and changed in contrast, without per-patch loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PATCH_SIZE = 15
"""Edge of a patch, working voxels (1 mm in plane): that of the later code of Pinon et al.'s group."""

BACKGROUND = 0.0
"""Value of network inputs outside the brain and beyond the image's edge."""

SQUASH_WIDTH = 2.0
"""Z-scores per unit of the logistic that maps z to network input: grey matter, lesions and CSF all stay off its ends."""

Patches = NDArray[np.float32]
"""(n, C, size, size) network input."""


def squash(z: NDArray[Any], mask: NDArray[np.bool_], width: float = SQUASH_WIDTH) -> NDArray[np.float32]:
    """Map z-scores to network input in (0, 1): ``1 / (1 + exp(-z / width))``, background 0.

    White matter's mode lands on 0.5. The logistic turns a change of contrast or
    brightness (an affine map of z) into an affine map of the logit: see
    `change_contrast`.

    Parameters
    ----------
    z : (..., X, Y, Z) array
        Robust z-scores.
    mask : (X, Y, Z) bool array
    width : float
        Z-scores per logit.

    Returns
    -------
    (..., X, Y, Z) float32 array.
    """
    scaled = np.clip(np.asarray(z, dtype=np.float32) / np.float32(width), -30.0, 30.0)
    return np.where(mask, 1.0 / (1.0 + np.exp(-scaled)), BACKGROUND).astype(np.float32)


def network_input(
    flair_z: NDArray[Any], t1w_z: NDArray[Any], mask: NDArray[np.bool_], width: float = SQUASH_WIDTH
) -> NDArray[np.float32]:
    """Stack and squash the two contrasts in the order every model expects.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) array
        Robust z-scores on the working grid.
    mask : (X, Y, Z) bool array
    width : float
        See `squash`.

    Returns
    -------
    (2, X, Y, Z) float32 array: FLAIR, T1w; in (0, 1), 0 outside the mask.
    """
    return np.stack([squash(flair_z, mask, width), squash(t1w_z, mask, width)])


def extract_patches(
    image: NDArray[Any], coords: NDArray[Any], size: int = PATCH_SIZE, background: float = BACKGROUND
) -> Patches:
    """Cut axial patches centred on voxels.

    Parameters
    ----------
    image : (C, X, Y, Z) array
        Network input, in any memory order; it is padded, so copied, if a patch leaves it.
    coords : (n, 3) integer array
        Centre voxels; they must lie inside the image, their patches need not.
    size : int
        Odd patch edge, voxels.
    background : float
        Value beyond the image's edge.

    Returns
    -------
    (n, C, size, size) float32 array; the last two axes follow X and Y.
    """
    centres = np.asarray(coords, dtype=np.int64).reshape(-1, 3)
    half = size // 2
    limit = np.asarray(image.shape[1:3]) - half
    if min(image.shape[1:3]) < size or ((centres[:, :2] < half) | (centres[:, :2] >= limit)).any():
        image = np.pad(image, ((0, 0), (half, half), (half, half), (0, 0)), constant_values=background)
        centres = centres + np.array([half, half, 0])
    cut = patch_views(image, size)[centres[:, 0] - half, centres[:, 1] - half, centres[:, 2]]
    return np.ascontiguousarray(cut, dtype=np.float32)


def patch_views(image: NDArray[Any], size: int) -> NDArray[Any]:
    """All patches of a (C, X, Y, Z) image by their first voxel, without a copy: (X', Y', Z, C, size, size)."""
    windows: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))  # type: ignore[call-overload]
    return windows.transpose(1, 2, 3, 0, 4, 5)


def change_contrast(patches: Patches, gain: NDArray[Any], offset: NDArray[Any]) -> Patches:
    """Change each patch's contrast and brightness: ``logit' = gain logit + offset``.

    Another scanner's contrast, or an imperfect normalisation. Background stays background.

    Parameters
    ----------
    patches : (n, C, s, s) float32 array
        Network input in [0, 1].
    gain, offset : (n, C) array
        1 and 0 = as it is.

    Returns
    -------
    (n, C, s, s) float32 array.
    """
    factor, shift = (part.astype(np.float32)[:, :, None, None] for part in (gain, offset))
    logit = np.clip(patches, 1e-6, 1.0 - 1e-6)
    logit /= 1.0 - logit
    np.log(logit, out=logit)
    logit *= -factor
    logit -= shift
    np.exp(logit, out=logit)
    logit += 1.0
    np.reciprocal(logit, out=logit)
    logit[patches == BACKGROUND] = BACKGROUND
    return logit
