"""Linear registration by ANTs, and transforms as ITK's text files.

Transforms are 4x4 matrices in RAS world millimetres that move an *image* from one space to the
other: a point at ``x`` in the source is at ``M @ x`` in the target. Why these settings:
``docs/preprocessing.md``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.errors import (
    UNREADABLE_SIDECAR,
    BadDataError,
)
from bids_wmh_uad.reading import read_text

if TYPE_CHECKING:
    import ants


Array = NDArray[Any]
"""Array of any type."""
RIGID_MM = 2.0
"""Voxel size to which both images of a rigid registration are brought, mm (`benchmarks/registration.py`)."""
RIGID_LEVELS = {
    "aff_iterations": (500, 250, 100),
    "aff_shrink_factors": (4, 2, 1),
    "aff_smoothing_sigmas": (2, 1, 0),
    "aff_random_sampling_rate": 0.1,
}
"""Resolutions of a rigid registration, in voxels of `RIGID_MM`, and the share of voxels that the metric sees."""
AFFINE_LEVELS = {"aff_iterations": (500, 250, 100, 0)}
DECIMALS = 6
"""Number of decimals of a transform's matrix: a nanometre, and the same again when read back."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Change of axes between ITK's world (left, posterior, superior) and nibabel's; its own inverse."""


def to_ants(data: Array, affine: Array) -> ants.ANTsImage:
    """Make an ANTs image, float32, of an array and its RAS affine without shear."""
    import ants

    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def register(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image, *, transform: str, seed: int
) -> NDArray[np.float64]:
    """Register two brain images (background 0) linearly with ANTs, Mattes mutual information.

    Parameters
    ----------
    fixed, moving : Nifti1Image
        Skull-stripped.
    transform : {"Rigid", "Affine"}
        ``Rigid`` looks at both images on grids of `RIGID_MM`. ``Affine`` starts from a rigid and a similarity step
        of its own, at the voxel size of `fixed`.
    seed : int
        Of the metric's sampling, 0 or more; reproducible bit for bit with one ITK thread.

    Returns
    -------
    ndarray, shape (4, 4)
        Takes a point of `moving` to `fixed`, RAS world mm. Rounded to six decimals (a nanometre),
        so that what is read back from the transform's file is the very same.
    """
    import ants

    # antspyx ignores registration(random_seed=); 0 would mean: from the clock
    os.environ["ANTS_RANDOM_SEED"] = str(seed + 1)
    images = [to_ants(np.asanyarray(image.dataobj), image.affine) for image in (fixed, moving)]
    coarse = transform == "Rigid"
    if coarse:  # finer voxels cost more and are no nearer to the truth: benchmarks/registration.py
        images = [ants.resample_image(image, (RIGID_MM,) * 3, interp_type=0) for image in images]
    result = ants.registration(
        *images,
        type_of_transform=transform,
        **(RIGID_LEVELS if coarse else AFFINE_LEVELS),
    )
    paths = result["fwdtransforms"]
    try:
        return np.asarray(np.linalg.inv(_read_itk(paths[0])).round(DECIMALS), dtype=np.float64)
    finally:
        for path in {*paths, *result["invtransforms"]}:
            Path(path).unlink(missing_ok=True)


def _read_itk(path: str) -> NDArray[np.float64]:
    """An ITK affine as a RAS matrix; ITK's points from fixed to moving."""
    import ants

    transform = ants.read_transform(path)
    parameters, centre = np.asarray(transform.parameters), np.asarray(transform.fixed_parameters)
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
    return np.asarray(LPS_TO_RAS @ matrix @ LPS_TO_RAS)


def itk_text(matrix: Array) -> str:
    """An image transform as ITK's text format, for ``antsApplyTransforms`` and SimpleITK.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Moves an image from source to target (points source to target, RAS).
        ITK stores the inverse: where in the source a target point looks.
    """
    pull = LPS_TO_RAS @ np.linalg.inv(matrix) @ LPS_TO_RAS
    numbers = " ".join(f"{value:.12g}" for value in (*pull[:3, :3].ravel(), *pull[:3, 3]))
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def read_transform(path: Path) -> NDArray[np.float64]:
    """Read what ``registration.itk_text`` wrote: (4, 4), moves an image from source to target (RAS, mm).

    Raises
    ------
    BadDataError
        If the file is absent or says something else.
    """
    try:
        lines = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
        numbers = np.array(lines["Parameters"].split(), dtype=np.float64)
        pull = np.eye(4)
        pull[:3] = np.column_stack([numbers[:9].reshape(3, 3), numbers[9:]])
        if not np.isfinite(pull).all():
            raise ValueError("its numbers are not finite")  # noqa: TRY301
        return np.asarray(LPS_TO_RAS @ np.linalg.inv(pull) @ LPS_TO_RAS, dtype=np.float64)
    except (OSError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
