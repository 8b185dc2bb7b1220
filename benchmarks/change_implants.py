"""New lesions put into the later scan of real patients who were scanned twice, before anything is done with it.

Real noise, real repositioning, real bias fields and real change of everything else, with new lesions that are known. The shapes are
those of other patients' lesions, at the places that they have in the template.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scans import CONTRASTS, T1W_SHARE
from scipy import ndimage

from bids_wmh_uad.bids.results import current_summaries, finished, result_path
from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.group.scans import read_scaling, read_tissue
from bids_wmh_uad.imaging.registration import read_transform

PER_PERSON = 3
"""Times that each person is taken, with other lesions."""
LESIONS = 8
"""New lesions each time."""
SIZES_MM3 = (40.0, 1500.0)
SOFT_MM = 0.8
"""Gaussian edge of a lesion."""
MOSTLY = 0.8
"""Least share of a lesion in normal white matter."""
EDGE = 3
"""Voxels of 1 mm around a lesion that its soft edge reaches."""
APART = 5
"""Voxels of 1 mm between a new lesion and all others."""
FRACTIONS = (np.arange(5) - 2) / 5
"""Places within a slice over which a lesion's share of a voxel is taken."""

Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]


def make_patients(bids_dir: Path, raw: Path, out: Path, masks: Path, seed: int) -> None:
    """Write the patients with two sessions and their implants as a dataset, with its truth, if it is not there."""
    if bids_dir.exists():
        return
    unfinished = bids_dir.with_name(f"{bids_dir.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shutil.copy(raw / "dataset_description.json", unfinished)
    rng = np.random.default_rng(seed)
    for person, summaries in _people(out):
        for k in range(PER_PERSON):
            _write_person(unfinished, f"{person}x{k + 1}", raw / person, summaries, masks, CONTRASTS[k], rng)
    unfinished.rename(bids_dir)


def _people(out: Path) -> Iterator[tuple[str, list[Path]]]:
    """Patients with two finished sessions."""
    people: dict[str, list[Path]] = {}
    for path, summary in finished(current_summaries(out)).items():
        people.setdefault(summary["participant_id"], []).append(path)
    yield from ((person, sorted(paths)) for person, paths in sorted(people.items()) if len(paths) == 2)


def _write_person(
    root: Path, name: str, source: Path, summaries: Sequence[Path], masks: Path, contrast: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    chosen, affine = choose(summaries, masks, rng)
    for number, summary in enumerate(summaries):
        session = summary.name.split("_")[1]
        old = source / session / "anat" / f"{source.name}_{session}"
        new = root / name / session / "anat" / f"{name}_{session}"
        truth = (
            root
            / "derivatives"
            / "truth"
            / name
            / session
            / "anat"
            / f"{name}_{session}_space-FLAIR_desc-lesions_dseg"
        )
        for path in (new, truth):
            path.parent.mkdir(parents=True)
        implanted = chosen if number else np.zeros_like(chosen)
        _write_scans(str(old), str(new), summary, implanted, affine, contrast)
        flair = nib.load(f"{new}_FLAIR.nii.gz")
        shares = _shares(implanted, affine, summary, flair)
        halves = np.maximum(shares.max(axis=(1, 2, 3), keepdims=True), 1e-6) / 2
        numbers = np.where((shares > halves).any(axis=0), (shares / halves).argmax(axis=0) + 1, 0)
        image = nib.Nifti1Image(numbers.astype(np.uint8), flair.affine)
        nib.save(image, f"{truth}.nii.gz")
        rows = [f"{n}\tnew\t0" for n in range(1, int(implanted.max()) + 1)]
        Path(f"{truth}.tsv").write_text("\n".join(["index\tfate\tvolume_before_mm3", *rows, ""]))


def choose(
    summaries: Sequence[Path], masks: Path, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Affine]:
    """Whole lesions of other patients that lie in white matter that is no lesion in either session: numbered, in the template."""
    files = sorted(masks.glob("*_label-lesion_mask.nii.gz"))
    grid = nib.load(files[0])
    allowed = np.all([_white(summary, grid) for summary in summaries], axis=0)
    out = np.zeros(grid.shape, np.uint8)
    for file in rng.permutation(files):
        labels, _ = ndimage.label(np.asanyarray(nib.load(file).dataobj) > 0, np.ones((3, 3, 3)))
        boxes = [tuple(slice(max(0, side.start - APART), side.stop + APART) for side in box) for box in ndimage.find_objects(labels)]  # fmt: skip
        for k in rng.permutation(len(boxes)):
            box = boxes[k]
            lesion = labels[box] == k + 1
            if SIZES_MM3[0] <= lesion.sum() <= SIZES_MM3[1] and allowed[box][lesion].mean() > MOSTLY:
                out[box][lesion] = out.max() + 1
                allowed[box] &= ~ndimage.binary_dilation(lesion, iterations=APART)
                break
        if out.max() == LESIONS:
            break
    return out, np.asarray(grid.affine)


def _white(summary: Path, grid: nib.Nifti1Image) -> Mask:
    """White matter of a session that is away from lesions and the posterior fossa, on the template's grid."""
    tissue, affine = read_tissue(summary)
    lesion, regions = (
        np.asanyarray(nib.load(result_path(summary, name)).dataobj) for name in ("lesions", "regions")
    )
    sizes = np.abs(np.linalg.norm(affine[:3, :3], axis=0))
    beside = ndimage.distance_transform_edt(lesion == 0, sampling=sizes) > APART
    white = (np.abs(tissue.t1w_z) < 2) & (tissue.flair_z < 2) & (tissue.grey < 0.5)
    fine = (
        tissue.mask & white & beside & (regions != Landmark.INFRATENTORIAL) & (regions != Landmark.VENTRICLES)
    )
    to_template = read_transform(result_path(summary, "flair_to_template"))
    back = np.linalg.inv(affine) @ np.linalg.inv(to_template) @ grid.affine
    return np.asarray(
        ndimage.affine_transform(fine.astype(np.float32), back, output_shape=grid.shape, order=1) > 0.5
    )


def _write_scans(
    old: str, new: str, summary: Path, lesions: NDArray[np.uint8], affine: Affine, contrast: float
) -> None:
    """Both contrasts of a session, with lesions; without any, they are copied."""
    if not lesions.any():
        for suffix in ("FLAIR", "T1w"):
            shutil.copy(f"{old}_{suffix}.nii.gz", f"{new}_{suffix}.nii.gz")
        return
    tissue, _ = read_tissue(summary)
    level = float(np.percentile(tissue.flair_z[(tissue.grey > 0.5) & tissue.mask], 99))
    for suffix, name, share in (("FLAIR", "flair", 1.0), ("T1w", "t1w", -T1W_SHARE)):
        image = nib.load(f"{old}_{suffix}.nii.gz")
        step = contrast * level * share * _unit(image, result_path(summary, name), tissue.mask)
        values = image.get_fdata() + step * _shares(lesions, affine, summary, image).max(axis=0)
        nib.save(
            nib.Nifti1Image(np.maximum(values, 0).astype(np.float32), image.affine), f"{new}_{suffix}.nii.gz"
        )


def _unit(image: nib.Nifti1Image, preprocessed: Path, mask: Mask) -> float:
    """One robust z of a session's preprocessed image in the intensities of the raw one."""
    fine = nib.load(preprocessed)
    raw = resample_from_to(image, fine, order=1).get_fdata()[mask]
    return read_scaling(preprocessed).scale * float(np.median(raw / np.maximum(fine.get_fdata()[mask], 1e-6)))


def _shares(
    lesions: NDArray[np.uint8], affine: Affine, summary: Path, image: nib.Nifti1Image
) -> NDArray[np.float32]:
    """How much of each voxel of a raw image is each lesion: (lesions, X, Y, Z), a mean over the voxel's thickness."""
    to_template = read_transform(result_path(summary, "flair_to_template"))
    back = np.linalg.inv(affine) @ to_template @ image.affine
    thick = int(np.argmax(nib.affines.voxel_sizes(image.affine)))
    out = np.zeros((max(1, int(lesions.max())), *image.shape[:3]), np.float32)
    for number, box in enumerate(ndimage.find_objects(lesions), start=1):
        low = np.array([side.start - EDGE for side in box])
        soft = np.pad((lesions[box] == number).astype(np.float32), EDGE)
        soft = ndimage.gaussian_filter(soft, SOFT_MM)
        corners = np.array([*product(*((0, size - 1) for size in soft.shape))]) + low
        ends = nib.affines.apply_affine(np.linalg.inv(back), corners)
        start = np.clip(np.floor(ends.min(axis=0)).astype(int) - 1, 0, None)
        stop = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + 2, image.shape[:3])
        where = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
        for fraction in FRACTIONS:
            first = start + fraction * np.eye(3)[thick]
            offset = back[:3, 3] + back[:3, :3] @ first - low
            part = ndimage.affine_transform(
                soft, back[:3, :3], offset, output_shape=tuple(stop - start), order=1
            )
            out[number - 1][where] += part / len(FRACTIONS)
    return out
