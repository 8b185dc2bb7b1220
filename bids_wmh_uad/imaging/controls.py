"""Prepared controls on disk, laid out so that training may read patches through memory maps.

One directory a control::

    image.npy          (Z, C, X, Y) float16, the network's input
    mask.npy           (Z, X, Y) bool, where patch centres may lie
    mni_to_voxel.npy   (4, 4) float64, MNI mm to the voxels of image and mask (X, Y, Z)

Slices come first: a patch lies in a few pages of the file, where the usual order spreads it over
ninety. Images are cut to the mask's box and half a patch around it in plane, so that no patch leaves
them. float16 keeps z-scores of -10 to 10 within 0.02, less than a scanner's noise, and halves
what is read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.network.patches import BACKGROUND, PATCH_SIZE
from bids_wmh_uad.core.network.sampling import TrainingSubject
from bids_wmh_uad.errors import BAD_CONTROL, BadDataError
from bids_wmh_uad.reading import open_file

IMAGE_FILE, MASK_FILE, MATRIX_FILE = "image.npy", "mask.npy", "mni_to_voxel.npy"
"""Names of a control's files."""


def save_control(
    directory: Path, image: NDArray[Any], mask: NDArray[np.bool_], mni_to_voxel: NDArray[np.float64]
) -> Path:
    """Write one control; the directory appears whole or not at all.

    Parameters
    ----------
    directory : Path
        Replaced when it is there.
    image : (C, X, Y, Z) array
        Network input in [0, 1].
    mask : (X, Y, Z) bool array
        Not empty.
    mni_to_voxel : (4, 4) array
        MNI mm to voxel indices of `image`.

    Returns
    -------
    Path
        `directory`.
    """
    halo = PATCH_SIZE // 2
    low, high = ([int(bound(axis)) for axis in np.nonzero(mask)] for bound in (np.min, np.max))
    # half a patch more in plane than the mask's box, with whatever the image has there
    box = (*(slice(low[axis], high[axis] + 1 + 2 * halo) for axis in (0, 1)), slice(low[2], high[2] + 1))
    margin = ((halo, halo), (halo, halo), (0, 0))
    inner = np.pad(image, ((0, 0), *margin), constant_values=BACKGROUND)[:, *box].astype(np.float16)
    shift = np.eye(4)
    shift[:3, 3] = np.array([halo, halo, 0]) - low
    temporary = directory.with_name(directory.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    np.save(temporary / IMAGE_FILE, np.ascontiguousarray(inner.transpose(3, 0, 1, 2)))
    np.save(temporary / MASK_FILE, np.ascontiguousarray(np.pad(mask, margin)[box].transpose(2, 0, 1)))
    np.save(temporary / MATRIX_FILE, shift @ mni_to_voxel)
    shutil.rmtree(directory, ignore_errors=True)
    return temporary.rename(directory)


def open_control(directory: Path) -> TrainingSubject:
    """Open a prepared control: image and mask are memory-mapped, and read where they are used.

    Two files stay open for as long as the arrays live.

    Parameters
    ----------
    directory : Path
        From `save_control`.

    Returns
    -------
    TrainingSubject
        With (C, X, Y, Z) and (X, Y, Z) views; values are float16.

    Raises
    ------
    BadDataError
        `errors.BAD_CONTROL`, when a file is missing, cut off or of another kind.
    """
    try:
        image = _map(directory / IMAGE_FILE, np.float16)
        mask = _map(directory / MASK_FILE, np.bool_)
        matrix = np.array(_map(directory / MATRIX_FILE, np.float64))
        if image.ndim != 4 or mask.shape != (image.shape[0], *image.shape[2:]) or matrix.shape != (4, 4):
            raise ValueError(f"shapes {image.shape}, {mask.shape}, {matrix.shape}")  # noqa: TRY301
        if not np.isfinite(matrix).all():
            raise ValueError(f"{MATRIX_FILE} holds NaN or infinite numbers")  # noqa: TRY301
    except (OSError, ValueError, EOFError, OverflowError, TypeError) as error:
        raise BadDataError(BAD_CONTROL.format(path=directory, reason=error)) from error
    return TrainingSubject(image.transpose(1, 2, 3, 0), mask.transpose(1, 2, 0), matrix)


def _map(path: Path, dtype: Any) -> NDArray[Any]:
    """Memory-map one array: whatever size its header claims, nothing is allocated for it."""
    open_file(path).close()  # a FIFO would have numpy wait
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    if array.dtype != dtype:
        raise ValueError(f"{path.name} holds {array.dtype}")
    return array


EXCLUDED = "excluded.txt"
"""Name of the file that says which lesions were left out of a control (`workflows.reuse.find_lesions`)."""
