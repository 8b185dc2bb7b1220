"""Scans that are wrong in one way each: one participant each in one run, beside one that has results."""

from __future__ import annotations

import gzip
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_wmh_uad import errors
from faults import ground as grounds
from faults.harness import REASON_LEFT, Outcome, Tried, anonymous, pattern_of, without_contrast

if TYPE_CHECKING:
    from collections.abc import Callable

    from bids_wmh_uad.errors import WarningText
    from faults.ground import Ground

    Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Scan:
    """A scan that cannot be used, or one that is usable in spite of all.

    Attributes
    ----------
    name : str
        In words.
    spoil : callable
        Gets the path of the FLAIR, and the T1w's.
    message : str, WarningText or pattern
        Why the session failed; or, where `survives`, its warning, ``""`` for none that is expected.
    survives : bool
        A result is made: a whole session's time, so ``make test-faults`` only.
    """

    name: str
    spoil: Callable[[Path, Path], None]
    message: str | WarningText | re.Pattern[str]
    survives: bool = False
    family: str = "input"

    @property
    def full(self) -> bool:
        return self.survives

    def needs(self) -> str:
        return ""


def image(change: Change, *, both: bool = False) -> Callable[[Path, Path], None]:
    """Spoil the FLAIR's image, or both scans'."""

    def spoil(flair: Path, t1w: Path) -> None:
        for path in (flair, t1w) if both else (flair,):
            grounds.save(change(nib.load(path)), path)

    return spoil


def content(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    """Spoil the FLAIR's bytes."""

    def spoil(flair: Path, t1w: Path) -> None:
        flair.write_bytes(change(flair.read_bytes()))

    return spoil


def values(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], None]:
    return image(lambda old: nib.Nifti1Image(change(np.asanyarray(old.dataobj)), old.affine))


def geometry(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], None]:
    """Another sform, and no qform, which could not hold it."""

    def turned(old: Any) -> Any:
        new = nib.Nifti1Image(np.asanyarray(old.dataobj), None)
        new.header["qform_code"], new.header["sform_code"] = 0, 1
        for number, name in enumerate(("srow_x", "srow_y", "srow_z")):
            new.header[name] = change(old.affine.copy())[number]
        new.header["pixdim"][1:4] = old.header["pixdim"][1:4]
        return _Stored(new)

    return image(turned)


class _Stored:
    """An image whose header is written as it is: nibabel would set the forms anew."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def to_filename(self, path: str) -> None:
        header = self._kept.header.copy()
        header["magic"], header["vox_offset"] = b"n+1", 352
        data = np.asanyarray(self._kept.dataobj)
        header.set_data_dtype(data.dtype)
        header.set_data_shape(data.shape)
        blob = header.binaryblock + b"\0" * 4 + data.tobytes(order="F")
        Path(path).write_bytes(gzip.compress(blob) if str(path).endswith(".gz") else blob)


def _sheared(affine: np.ndarray) -> np.ndarray:
    shear = np.eye(4)
    shear[0, 1] = 0.2
    return affine @ shear


def _singular(affine: np.ndarray) -> np.ndarray:
    affine[:3, 2] = affine[:3, 1]
    return affine


def _colour(old: Any) -> Any:
    data = np.zeros(old.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    data["R"] = np.clip(np.asanyarray(old.dataobj), 0, 255)
    return nib.Nifti1Image(data, old.affine)


def _fifth_axis(old: Any) -> Any:
    data = np.asanyarray(old.dataobj)
    return nib.Nifti1Image(np.stack([data, data], axis=-1)[:, :, :, None], old.affine)


SCANS = (
    Scan("empty file", content(lambda _: b""), errors.UNREADABLE_IMAGE),
    Scan("text instead of an image", content(lambda _: b"<html>404 Not Found</html>" * 40), errors.UNREADABLE_IMAGE),
    Scan("not compressed, but named .gz", content(gzip.decompress), errors.UNREADABLE_IMAGE),
    Scan("cut off in the middle (.gz)", content(lambda old: old[: len(old) // 2]), errors.TRUNCATED_IMAGE),
    Scan("cut off in its last bytes (.gz)", content(lambda old: old[:-3]), errors.TRUNCATED_IMAGE),
    Scan("one byte changed (.gz)", content(lambda old: old[:4000] + bytes([old[4000] ^ 8]) + old[4001:]),
         re.compile("cannot be read as a NIfTI image|the file ends before its data do")),
    Scan("cut off inside a whole .gz", content(lambda old: gzip.compress(gzip.decompress(old)[:-5000])), errors.TRUNCATED_IMAGE),
    Scan("all voxels 0", values(np.zeros_like), errors.EMPTY_IMAGE),
    Scan("all voxels 7", values(lambda old: np.full_like(old, 7)), errors.EMPTY_IMAGE),
    Scan("all voxels NaN", values(lambda old: np.full(old.shape, np.nan, np.float32)), errors.EMPTY_IMAGE),
    Scan("4D, two volumes", image(lambda old: nib.concat_images([old, old])), errors.NOT_3D_IMAGE),
    Scan("5D, two volumes", image(_fifth_axis), errors.NOT_3D_IMAGE),
    Scan("RGB", image(_colour), errors.ODD_VOXELS),
    Scan("complex numbers", values(lambda old: old.astype(np.complex64)), errors.ODD_VOXELS),
    Scan("one slice", image(lambda old: old.slicer[:, :, :1]), errors.TINY_IMAGE),
    Scan("one slice, 2D", image(lambda old: nib.Nifti1Image(np.asanyarray(old.dataobj)[:, :, 0], old.affine)), errors.NOT_3D_IMAGE),
    Scan("sheared affine", geometry(_sheared), errors.BAD_AFFINE),
    Scan("singular affine", geometry(_singular), errors.BAD_AFFINE),
    Scan("affine of zeros", geometry(np.zeros_like), errors.BAD_AFFINE),
    Scan("NaN in the affine", geometry(lambda old: np.where(np.eye(4) > 0, np.nan, old)), errors.BAD_AFFINE),
)  # fmt: skip
"""Scans that cannot be used, all in one run."""


# Scans that are usable: each takes a whole session.


def _scaled(factor: float) -> Callable[[Path, Path], None]:
    """The FLAIR on another grid of the same head: voxels `factor` times as large in the plane."""

    def resampled(old: Any) -> Any:
        from scipy import ndimage

        data = ndimage.zoom(
            np.asanyarray(old.dataobj).astype(np.float32), (1 / factor, 1 / factor, 1), order=1
        )
        return nib.Nifti1Image(data, old.affine @ np.diag([factor, factor, 1, 1]))

    return image(resampled)


def _units(code: str, factor: float) -> Callable[[Path, Path], None]:
    """The same geometry in other units, which the header names."""

    def change(old: Any) -> Any:
        new = nib.Nifti1Image(np.asanyarray(old.dataobj), np.diag([factor] * 3 + [1]) @ old.affine)
        new.header.set_xyzt_units(code)
        return new

    return image(change, both=True)


def _no_forms(old: Any) -> Any:
    new = nib.Nifti1Image(np.asanyarray(old.dataobj), None, old.header)
    new.header["qform_code"] = new.header["sform_code"] = 0
    return _Stored(new)


def _signed(flair: Path, t1w: Path) -> None:
    """A T1w as z-scores: the background is negative, white matter positive."""
    old = nib.load(t1w)
    data = np.asanyarray(old.dataobj).astype(np.float32)
    grounds.save(nib.Nifti1Image((data - data.mean()) / data.std(), old.affine), t1w)


def _flipped(old: Any) -> Any:
    old = nib.as_closest_canonical(old)
    return nib.Nifti1Image(np.asanyarray(old.dataobj)[::-1], old.affine)


def _necked(old: Any) -> Any:
    """100 mm of tissue below the head."""
    old = nib.as_closest_canonical(old)
    data = np.asanyarray(old.dataobj)
    slices = round(100 / old.header.get_zooms()[2])
    below = np.repeat(data[:, :, :1] * 0 + data[:, :, 1:2], slices, axis=2)
    affine = old.affine.copy()
    affine[:3, 3] -= affine[:3, 2] * slices
    return nib.Nifti1Image(np.concatenate([below, data], axis=2), affine)


def _defaced(old: Any) -> Any:
    """Everything in front of and below a tilted plane is 0."""
    old = nib.as_closest_canonical(old)
    data = np.asanyarray(old.dataobj).copy()
    y, z = np.meshgrid(np.linspace(0, 1, data.shape[1]), np.linspace(0, 1, data.shape[2]), indexing="ij")
    data[:, (y - z) > 0.6] = 0
    return nib.Nifti1Image(data, old.affine)


USABLE = (
    Scan("voxels of 0.3 mm", _scaled(0.2), "", survives=True),
    Scan("voxels of 6 mm", _scaled(4), "", survives=True),
    Scan("one slab of 50 mm", image(lambda old: old.slicer[:, :, 14:24]), errors.CUT_BRAIN, survives=True),
    Scan("defaced", image(_defaced, both=True), "", survives=True),
    Scan("long neck", image(_necked, both=True), "", survives=True),
    Scan("left and right exchanged in both", image(_flipped, both=True), "", survives=True),
    Scan("NIfTI-2", image(lambda old: nib.Nifti2Image(np.asanyarray(old.dataobj), old.affine), both=True), "", survives=True),
    Scan("big-endian", image(lambda old: nib.Nifti1Image(np.asanyarray(old.dataobj), old.affine, old.header.as_byteswapped(">")), both=True), "", survives=True),
    Scan("T1w below 0 (z-scores)", _signed, "", survives=True),
    Scan("header in micrometres", _units("micron", 1000), "", survives=True),
    Scan("header in metres", _units("meter", 0.001), "", survives=True),
    Scan("qform and sform without code", image(_no_forms), re.compile("(?i)left and right|qform"), survives=True),
)  # fmt: skip
"""Scans that are done, all in one run."""


def add_scans(here: Ground, scans: tuple[Scan, ...], source: Path) -> dict[str, str]:
    """One participant for each scan, from the pair in `source`; their labels by the scans' names."""
    labels = {}
    for number, scan in enumerate(scans):
        label = f"w{number:02d}"
        anat = here.bids / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        paths = [anat / f"sub-{label}_{suffix}.nii.gz" for suffix in ("FLAIR", "T1w")]
        for path, suffix in zip(paths, ("FLAIR", "T1w"), strict=True):
            (old,) = source.glob(f"*_{suffix}.nii.gz")
            shutil.copy(old, path)
        scan.spoil(*paths)
        if not scan.survives:  # both are wrong, or the other's brain would be extracted for nothing
            shutil.copy(*paths)
        labels[scan.name] = label
    return labels


def judge_scan(scan: Scan, label: str, tried: Tried) -> Outcome:
    """What became of one participant.

    Raises
    ------
    AssertionError
    """
    anat = tried.ground.out / f"sub-{label}" / "anat"
    REASON_LEFT.check(tried)
    if scan.survives:
        from bids_wmh_uad.bids.derivatives import read_summary

        assert not list(anat.glob("*_desc-failed_summary.json")), tried.said[-3000:]
        (summary,) = anat.glob("*_desc-wmh_summary.json")
        said = [warning["text"] for warning in read_summary(summary)["warnings"]]
        words, code = "done", 0
    else:
        prefix = f"sub-{label}: FAILED. "
        said = [line.split(prefix, 1)[1] for line in tried.said.splitlines() if prefix in line]
        assert [path.name for path in anat.iterdir()] == [f"sub-{label}_desc-failed_summary.json"]
        words, code = "reason written down; other sessions done", 1
        assert tried.code == code, tried.said[-3000:]
    if scan.message == "":
        return Outcome(scan.name, scan.family, code, "none", words)
    pattern = pattern_of(scan.message)
    found = [text for text in said if pattern.search(text)]
    assert found, f"not said: {pattern.pattern}\n{said}"
    return Outcome(
        scan.name,
        scan.family,
        code,
        without_contrast(anonymous(found[0], tried.ground)).replace(label, "X"),
        words,
    )
