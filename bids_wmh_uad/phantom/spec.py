"""What defines a phantom, and what one consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.errors import BAD_VALUE, UsageError

Array = NDArray[np.float32]
"""Values on a grid."""
Matrix = NDArray[np.float64]
"""Coordinates, and transforms between them."""

DTYPES = ("int16", "uint16", "float32")
"""Names of the data types in which scans are stored: those that scanners' converters write."""
MAX_LESION_ML = 100.0
"""Largest lesion volume that may be asked for, mL: beyond the loads of patients."""


@dataclass(frozen=True)
class PhantomSpec:
    """All that defines a phantom: the same spec gives the same images, byte for byte.

    Parameters
    ----------
    seed : int
        Seeds contrast, pose, bias and noise, and the anatomy unless `anatomy_seed` is given.
    anatomy_seed : int, optional
        Shared by the sessions of one subject: same brain, and lesions that only grow with their volume.
    lesion_volume_ml : float
        Volume of the truth on the FLAIR grid, 0 (a healthy control) to 100 mL.
    mimics : float
        Strength of the normal bright structures and of pulsation artefacts: from 0, none, to 1, as in people.
    head : bool
        Put skull, scalp, face and neck around the brain; otherwise the background is exactly 0.
    flair_zooms, t1w_zooms : tuple of float
        Voxel sizes in mm along right-left, posterior-anterior, inferior-superior, 0.5 to 8.
    misalignment : float
        Largest motion between T1w and FLAIR: degrees about, and mm along, each axis.
    oblique : float
        Largest tilt of the head, and of the slices, in degrees.
    noise : float
        Standard deviation of the Rician noise, relative to white matter.
    bias : float
        Standard deviation of the logarithm of the bias field.
    orientation : str
        Order in which the voxels are stored, such as ``"LAS"``.
    dtype : str
        On-disk type of the scans: int16, uint16 or float32.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    seed: int = 0
    anatomy_seed: int | None = None
    lesion_volume_ml: float = 10.0
    mimics: float = 1.0
    head: bool = True
    flair_zooms: tuple[float, float, float] = (0.9, 0.9, 4.0)
    t1w_zooms: tuple[float, float, float] = (1.2, 1.2, 1.2)
    misalignment: float = 2.0
    oblique: float = 8.0
    noise: float = 0.03
    bias: float = 0.08
    orientation: str = "LAS"
    dtype: str = "int16"

    def __post_init__(self) -> None:
        self._need("seed", self.seed >= 0, "an integer from 0")
        self._need("anatomy_seed", self.anatomy_seed is None or self.anatomy_seed >= 0, "an integer from 0")
        self._need("lesion_volume_ml", 0 <= self.lesion_volume_ml <= MAX_LESION_ML, "0 to 100 mL")
        self._need("mimics", 0 <= self.mimics <= 1, "0 to 1")
        for name in ("flair_zooms", "t1w_zooms"):
            zooms = getattr(self, name)
            self._need(name, len(zooms) == 3 and all(0.5 <= z <= 8 for z in zooms), "3 sizes, 0.5 to 8 mm")
        for name, limit in (("misalignment", 20), ("oblique", 30), ("noise", 0.5), ("bias", 0.5)):
            self._need(name, 0 <= getattr(self, name) <= limit, f"0 to {limit}")
        axes = sorted("RLAPSI".find(code) // 2 for code in self.orientation)
        self._need("orientation", axes == [0, 1, 2], "three axis codes such as LAS")
        self._need("dtype", self.dtype in DTYPES, "one of " + ", ".join(DTYPES))

    def _need(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise UsageError(BAD_VALUE.format(option=name, value=getattr(self, name), expected=expected))


@dataclass(frozen=True)
class PhantomSubject:
    """A phantom's scans and its truth.

    Attributes
    ----------
    spec : PhantomSpec
        What it was made from.
    t1w, flair : nibabel.Nifti1Image
        The scans, each on its own grid.
    lesions, brain : nibabel.Nifti1Image
        uint8 masks on the FLAIR grid: voxels of which about half or more is lesion, or brain. The brain of a
        skull-stripped scan takes in patches of dura, as brain extraction does.
    mimics : nibabel.Nifti1Image
        uint8 labels on the FLAIR grid, 1 + the place in `phantom.mimics.MIMICS`: normal structures that are, or
        may be, bright, and artefacts. 0 elsewhere and in lesions.
    t1w_to_flair : ndarray of shape (4, 4)
        Rigid motion that takes a point of the T1w's world (RAS+, mm) to the FLAIR's.
    """

    spec: PhantomSpec
    t1w: Any
    flair: Any
    lesions: Any
    brain: Any
    mimics: Any
    t1w_to_flair: Matrix
