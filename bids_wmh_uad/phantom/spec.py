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
FATES = ("new", "enlarging", "stable", "shrinking", "resolved")
"""What becomes of a lesion between two sessions."""


@dataclass(frozen=True)
class Change:
    """What happens to a person between two sessions; by default nothing: another position, noise and bias field.

    Lesions are drawn from those of the size that `lesion_mm3` states; where there are fewer than asked for,
    all of them change.

    Parameters
    ----------
    new, grown, shrunk, resolved : int
        Numbers of lesions, 0 to 50.
    growth, shrinkage : float
        By which share of its volume a lesion grows (up to 2) or shrinks (less than 1).
    lesion_mm3 : tuple of float
        Smallest and largest volume of lesions that come, change or go, mm3.
    atrophy : float
        By which share of their volume the ventricles grow, 0 to 0.5; the tissue around them gives way smoothly.
    position : float
        Largest turn (degrees about) and shift (mm along each axis) of the head and of the slices against the first session.
    other_scanner : bool
        Draw the tissues' contrasts anew.
    scale : three floats
        By which factors the head is larger in this session's scans than in the first one's, along its right-left, posterior-anterior and inferior-superior axes,
        0.9 to 1.1: gradients calibrated otherwise. The lesions' volumes in `PhantomSubject.course` are without it.
    flair_zooms : tuple of float, optional
        Voxel sizes of the FLAIR; those of the first session if not given.
    years : float
        Since the session before, 0 to 50; nothing in the images depends on it.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    new: int = 0
    grown: int = 0
    shrunk: int = 0
    resolved: int = 0
    growth: float = 0.2
    shrinkage: float = 0.3
    lesion_mm3: tuple[float, float] = (30.0, 3000.0)
    atrophy: float = 0.0
    position: float = 3.0
    other_scanner: bool = False
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    flair_zooms: tuple[float, float, float] | None = None
    years: float = 1.0

    def __post_init__(self) -> None:
        for name in ("new", "grown", "shrunk", "resolved"):
            _need(self, name, 0 <= getattr(self, name) <= 50, "0 to 50")
        low, high = self.lesion_mm3
        _need(self, "lesion_mm3", 1 <= low < high, "the smallest volume, from 1 mm3, and the largest")
        _need(self, "growth", 0 < self.growth <= 2, "more than 0, up to 2")
        _need(self, "shrinkage", 0 < self.shrinkage < 1, "between 0 and 1")
        for name, limit in (("atrophy", 0.5), ("position", 20), ("years", 50)):
            _need(self, name, 0 <= getattr(self, name) <= limit, f"0 to {limit}")
        sizes = len(self.scale) == 3 and all(0.9 <= factor <= 1.1 for factor in self.scale)
        _need(self, "scale", sizes, "3 factors, 0.9 to 1.1")
        if self.flair_zooms is not None:
            _need_zooms(self, "flair_zooms")


@dataclass(frozen=True)
class FollowedLesion:
    """One lesion of a followed person, in a session.

    Attributes
    ----------
    index : int
        Its number in every session's `PhantomSubject.followed`.
    fate : str or None
        One of :data:`FATES`, since the session before; None in the first session.
    volume_before_mm3, volume_mm3 : float
        True volumes in the session before and in this one: partial volumes count with their share. The lesion
        is displaced and squeezed by the atrophy, which its fate does not tell.
    """

    index: int
    fate: str | None
    volume_before_mm3: float
    volume_mm3: float


def _need(holder: Any, name: str, valid: bool, expected: str) -> None:
    if not valid:
        raise UsageError(BAD_VALUE.format(option=name, value=getattr(holder, name), expected=expected))


def _need_zooms(holder: Any, name: str) -> None:
    zooms = getattr(holder, name)
    _need(holder, name, len(zooms) == 3 and all(0.5 <= z <= 8 for z in zooms), "3 sizes, 0.5 to 8 mm")


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
    changes : tuple of Change, optional
        What happened from the first session to this one, a change between each two. Empty for the first session of
        a person who is followed: its images are those of None, and its lesions are numbered as in the later ones.

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
    changes: tuple[Change, ...] | None = None

    def __post_init__(self) -> None:
        _need(self, "seed", self.seed >= 0, "an integer from 0")
        _need(self, "anatomy_seed", self.anatomy_seed is None or self.anatomy_seed >= 0, "an integer from 0")
        _need(self, "lesion_volume_ml", 0 <= self.lesion_volume_ml <= MAX_LESION_ML, "0 to 100 mL")
        _need(self, "mimics", 0 <= self.mimics <= 1, "0 to 1")
        for name in ("flair_zooms", "t1w_zooms"):
            _need_zooms(self, name)
        for name, limit in (("misalignment", 20), ("oblique", 30), ("noise", 0.5), ("bias", 0.5)):
            _need(self, name, 0 <= getattr(self, name) <= limit, f"0 to {limit}")
        axes = sorted("RLAPSI".find(code) // 2 for code in self.orientation)
        _need(self, "orientation", axes == [0, 1, 2], "three axis codes such as LAS")
        _need(self, "dtype", self.dtype in DTYPES, "one of " + ", ".join(DTYPES))


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
    first_to_flair : ndarray of shape (4, 4)
        Motion that takes a point of the first session's FLAIR's world to this FLAIR's, but for the atrophy: rigid unless `Change.scale` says otherwise.
    followed : nibabel.Nifti1Image or None
        uint16 on the FLAIR grid: the voxels of `lesions`, each with its lesion's number, the same in every session
        of the person. None where the spec's `changes` is None.
    course : tuple of FollowedLesion
        What became of each lesion.
    """

    spec: PhantomSpec
    t1w: Any
    flair: Any
    lesions: Any
    brain: Any
    mimics: Any
    t1w_to_flair: Matrix
    first_to_flair: Matrix
    followed: Any = None
    course: tuple[FollowedLesion, ...] = ()
