"""The image tools of the preprocessing, one function each: files in, files out.

Chosen and measured in ``docs/preprocessing.md``. Working files are canonical (RAS),
float32, uncompressed NIfTI with qform equal to sform, so that nibabel and ITK agree on
the grid. Transforms are 4x4 matrices in RAS world millimetres that move an *image*
from one space to the other: a point at ``x`` in the source is at ``M @ x`` in the target.

Heavy packages are imported inside the functions: the graph is built without them.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_wmh_uad.errors import (
    BAD_AFFINE,
    EMPTY_IMAGE,
    NO_BRAIN,
    NO_GPU,
    NOT_3D_IMAGE,
    TINY_IMAGE,
    TRUNCATED_IMAGE,
    UNREADABLE_IMAGE,
    BadImageError,
    TemporaryError,
)

if TYPE_CHECKING:
    import ants

Array = NDArray[Any]
MAX_SHEAR = 0.01
"""Largest difference between an affine and its nearest one without shear (per millimetre)."""
MIN_GRID = (16, 16, 4)
STRIPPED_DICE = 0.8
"""Agreement between deepbet's mask and the non-zero voxels above which an image counts as
skull-stripped. Measured: stripped scans 0.86-0.98, heads on a zero background 0.60-0.68."""
MIN_BRAIN_ML = 200.0
BRAIN = 0.1
"""Of the template's brightest voxel."""
GM_LIKELY = 0.5
"""Grey-matter prior above which a voxel is taken for grey matter."""
DECIMALS = 6
"""Of a transform's matrix."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_scan(path: Path) -> nib.Nifti1Image:
    """Read one 3D scan: canonical orientation, float32, NaN and infinity set to 0, qform = sform.

    Parameters
    ----------
    path : Path
        A NIfTI file: any storage order, data type and scale factor; a trailing axis of length 1 is dropped.

    Raises
    ------
    BadImageError
        If the file cannot be read, ends early, is constant, is not 3D, is tiny, or has a bad affine.
    """
    try:
        _check_gzip(path)
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except (EOFError, zlib.error) as error:
        raise BadImageError(TRUNCATED_IMAGE.format(path=path, reason=error)) from error
    except (OSError, ValueError, ImageFileError, HeaderDataError) as error:
        if isinstance(error, HeaderDataError) and "affine" in str(error):
            raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR)) from error
        text = TRUNCATED_IMAGE if "Expected" in str(error) and "bytes" in str(error) else UNREADABLE_IMAGE
        raise BadImageError(text.format(path=path, reason=" ".join(str(error).split()))) from error
    if data.dtype.kind not in "biuf":  # complex or colour
        raise BadImageError(UNREADABLE_IMAGE.format(path=path, reason=f"data type {data.dtype}"))
    _check_shape(path, data.shape)
    data = data.reshape(data.shape[:3]).astype(np.float32)
    data[~np.isfinite(data)] = 0
    if data.min() == data.max():
        raise BadImageError(EMPTY_IMAGE.format(path=path, value=data.flat[0]))
    _rigid_affine(path, image.affine)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, image.affine))
    return as_image(np.asanyarray(canonical.dataobj), _rigid_affine(path, canonical.affine))


def _check_gzip(path: Path) -> None:
    """Read a ``.gz`` to its end, checksum included: nibabel stops at the last voxel."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or int(np.prod(shape[3:])) != 1:
        raise BadImageError(NOT_3D_IMAGE.format(path=path, shape=shape))
    if any(n < minimum for n, minimum in zip(sorted(shape[:3]), sorted(MIN_GRID), strict=True)):
        raise BadImageError(TINY_IMAGE.format(path=path, shape=shape[:3]))


def _rigid_affine(path: Path, affine: Array) -> Array:
    """The nearest affine without shear, which is what the qform (and ITK) can hold."""
    header = nib.Nifti1Header()
    try:
        header.set_qform(affine, code=1)
        rigid = header.get_qform()
    except (np.linalg.LinAlgError, ValueError, HeaderDataError):
        raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR)) from None
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(zooms > 0) or np.abs((rigid - affine)[:3, :3] / zooms).max() > MAX_SHEAR:
        raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR))
    return np.asarray(rigid)


def as_image(data: Array, affine: Array) -> nib.Nifti1Image:
    """An image in memory with qform equal to sform (code 1, scanner) and millimetres."""
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def brain_mask(image: nib.Nifti1Image, name: Path, *, threads: int, device: str) -> tuple[Array, bool]:
    """The brain in a T1w or FLAIR, by deepbet; a skull-stripped image keeps its own outline.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`read_scan`.
    name : Path
        The user's file, for the error message.
    threads : int
        CPU threads for the network.
    device : str
        ``cpu``, or anything else to let deepbet use a GPU.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
    stripped : bool
        Whether the image was skull-stripped already.

    Raises
    ------
    BadImageError
        If less than 200 mL of brain is found.
    """
    import torch
    from deepbet import BrainExtraction
    from scipy.ndimage import binary_fill_holes

    torch.set_num_threads(threads)
    voxel_ml = float(np.prod(image.header.get_zooms())) / 1000
    try:
        _, found, _ = BrainExtraction(no_gpu=device == "cpu").run(image)
    except (ValueError, AssertionError):  # deepbet's way of saying that nothing stands out
        raise BadImageError(NO_BRAIN.format(path=name, volume=0)) from None
    mask = np.asanyarray(found.dataobj) > 0
    support = binary_fill_holes(np.asanyarray(image.dataobj) != 0)
    stripped = dice(mask, support) > STRIPPED_DICE and not support.all()
    mask = support if stripped else mask
    if mask.sum() * voxel_ml < MIN_BRAIN_ML:
        raise BadImageError(NO_BRAIN.format(path=name, volume=mask.sum() * voxel_ml))
    return mask, stripped


def torch_device(name: str) -> str:
    """The device that ``--device`` means here: ``auto`` is a GPU where there is one.

    Raises
    ------
    TemporaryError
        If a GPU was asked for by name and torch sees none.
    """
    import torch

    available = torch.cuda.is_available()
    torch.backends.cudnn.allow_tf32 = False  # its 10-bit mantissa costs more than the 1e-4 promised
    if name == "auto":
        return "cuda" if available else "cpu"
    if name != "cpu" and not available:
        raise TemporaryError(NO_GPU.format(device=name))
    return name


def dice(first: Array, second: Array) -> float:
    """Dice overlap of two boolean arrays; 0 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0


def correct_bias(image: nib.Nifti1Image, mask: Array, *, levels: int) -> Array:
    """N4 (Tustison 2010) at shrink factor 4 inside the brain mask.

    Parameters
    ----------
    image : Nifti1Image
    mask : ndarray of bool, shape (X, Y, Z)
    levels : int
        Resolutions of 50 iterations each. The field's control points lie a brain's length
        apart at the first, and half as far at each further one: at the fourth (about 25 mm)
        the field begins to follow confluent lesions (docs/preprocessing.md).

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In the image's units; voxels that are exactly 0 stay so.
    """
    import ants

    data = np.asanyarray(image.dataobj)
    offset = min(0.0, float(data.min()))  # N4 takes logarithms
    corrected = ants.n4_bias_field_correction(
        _to_ants(data - offset, image.affine),
        mask=_to_ants(mask, image.affine),
        shrink_factor=4,
        convergence={"iters": [50] * levels, "tol": 1e-3},
    )
    # an empty background stays 0, also where the offset moved it
    return np.where(data == 0, 0, corrected.numpy() + offset).astype(np.float32)


def _to_ants(data: Array, affine: Array) -> ants.ANTsImage:
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
        ``Affine`` starts from a rigid and a similarity step of its own.
    seed : int
        Of the metric's sampling; reproducible bit for bit with one ITK thread.

    Returns
    -------
    ndarray, shape (4, 4)
        Takes a point of `moving` to `fixed`, RAS world mm. Rounded to six decimals (a nanometre),
        so that what is read back from the transform's file is the very same.
    """
    import ants

    os.environ["ANTS_RANDOM_SEED"] = str(seed)  # antspyx ignores registration(random_seed=)
    result = ants.registration(
        fixed=_to_ants(np.asanyarray(fixed.dataobj), fixed.affine),
        moving=_to_ants(np.asanyarray(moving.dataobj), moving.affine),
        type_of_transform=transform,
        aff_iterations=(500, 250, 100, 0),
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


def template_brain(template: nib.Nifti1Image) -> Array:
    """Where the skull-stripped T1w template has brain: resampled to a coarse grid, its background ripples above 0."""
    data = np.asanyarray(template.dataobj)
    return np.asarray(data > BRAIN * data.max())


def resample(
    image: nib.Nifti1Image, target: nib.Nifti1Image, matrix: Array, *, interpolation: str = "linear"
) -> Array:
    """Bring an image to another's grid through a linear transform, in one interpolation.

    Moving an image by a linear transform is changing its affine; nilearn does the rest.

    Parameters
    ----------
    image, target : Nifti1Image
    matrix : ndarray, shape (4, 4)
        From the image's world to the target's.
    interpolation : {"linear", "continuous", "nearest"}
        ``continuous`` is a cubic spline.
    """
    from nilearn.image import resample_img

    moved = nib.Nifti1Image(np.asanyarray(image.dataobj, dtype=np.float32), matrix @ image.affine)
    out = resample_img(
        moved,
        target_affine=target.affine,
        target_shape=target.shape[:3],
        interpolation=interpolation,
        copy_header=True,
        force_resample=True,
    )
    return np.asanyarray(out.dataobj, dtype=np.float32)


def template(which: str, resolution: int = 1) -> nib.Nifti1Image:
    """The template that nilearn ships (ICBM 2009a symmetric), brain only.

    Parameters
    ----------
    which : {"T1w", "WM", "GM"}
        The T1w average, or a tissue's probability in [0, 1].
    resolution : int
        Isotropic voxel size in mm.
    """
    from nilearn import datasets

    load = {
        "T1w": datasets.load_mni152_template,
        "WM": datasets.load_mni152_wm_template,
        "GM": datasets.load_mni152_gm_template,
    }[which]
    image = load(resolution=resolution)
    return as_image(np.asanyarray(image.dataobj, dtype=np.float32), image.affine)


def to_grid_of(data: Array, source: nib.Nifti1Image) -> nib.Nifti1Image:
    """Put canonical (RAS) data back into the storage order and affine of the scan it came from.

    Parameters
    ----------
    data : ndarray, shape of the canonical grid
    source : Nifti1Image
        The user's image: its shape, affine, qform and sform are the result's.
    """
    orientation = nib.io_orientation(source.affine)
    back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    image = nib.Nifti1Image(nib.apply_orientation(data, back), source.affine)
    for kind in ("qform", "sform"):
        form, code = getattr(source, f"get_{kind}")(coded=True)
        getattr(image, f"set_{kind}")(form if code else source.affine, code=int(code) or 1)
    image.header.set_xyzt_units("mm")
    return image
