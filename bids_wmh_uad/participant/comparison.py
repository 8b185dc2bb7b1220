"""What changed between the sessions of one participant, from their finished derivatives to published files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad import __version__
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import beside, result_path
from bids_wmh_uad.core.change.compare import Comparison, Marks, compare
from bids_wmh_uad.core.change.departure import Pair
from bids_wmh_uad.core.change.intensity import match_all
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.image.volume import Volume, bounding_box, check_same_grid, cut_affine
from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.errors import UNREADABLE_SIDECAR, BadDataError
from bids_wmh_uad.imaging.longitudinal import (
    CommonSpace,
    find_common_space,
    on_grid,
    resample_inside,
    space_of,
)
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import as_image, read_volume
from bids_wmh_uad.reading import sha256

IMAGES = ("flair", "t1w", "brain", "lesions", "regions")
"""What is read of each session, by its name in `derivatives.OUTPUTS`."""


@dataclass(frozen=True, eq=False)
class Visit:
    """A finished session of a participant.

    Parameters
    ----------
    summary : Path
        Its other files lie beside it.
    content : mapping
        Of the summary.
    time : datetime or None
        When it was scanned.
    """

    summary: Path
    content: Mapping[str, Any]
    time: datetime | None

    @property
    def label(self) -> str:
        """``ses-Y``."""
        return str(self.content["session_id"])

    @property
    def prefix(self) -> str:
        """Start of its files' names."""
        return self.summary.name.removesuffix("_" + derivatives.OUTPUTS["summary"])


@dataclass(frozen=True, eq=False)
class Aligned:
    """All sessions of a participant in their common space.

    Attributes
    ----------
    space : CommonSpace
    flair, t1w : (n, X, Y, Z) float32 arrays
        Matched.
    mask : (X, Y, Z) bool array
        Brain in all of them.
    lesions : (n, X, Y, Z) int32 array
    fossa : (n, X, Y, Z) bool array
        Brainstem and cerebellum.
    """

    space: CommonSpace
    flair: NDArray[np.float32]
    t1w: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lesions: NDArray[np.int32]
    fossa: NDArray[np.bool_]

    def compare(self, before: int, after: int, params: ChangeParameters) -> Comparison:
        """Compare two of the sessions, by their places."""
        both = [before, after]
        spacing = params.grid_mm
        pair = Pair(self.flair[both], self.t1w[both], self.mask, spacing)
        fossa = self.fossa[before] | self.fossa[after]
        marks = Marks(self.lesions[before], self.lesions[after], fossa)
        return compare(pair, marks, np.asarray(self.space.grid.affine), params)


def signature(visits: Sequence[Visit], params: ChangeParameters) -> str:
    """What a comparison depends on: the sessions' files, their times, the method, the version."""
    digest = hashlib.sha256()
    for visit in visits:
        for name in (*IMAGES, "flair_to_template", "summary"):
            digest.update(sha256(result_path(visit.summary, name)).digest())
        digest.update(f"{visit.summary.name} {visit.time}".encode())
    settings = {**asdict(params), "version": __version__}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def align(visits: Sequence[Visit], params: ChangeParameters, n_jobs: int) -> Aligned:
    """Read the sessions, bring them to one space and match their intensities.

    Parameters
    ----------
    visits : sequence of Visit
        Two or more, in order.
    params : ChangeParameters
    n_jobs : int
        Threads.

    Raises
    ------
    BadDataError
        If a session's file cannot be read or used.
    """
    images = [_read(visit) for visit in visits]
    space = find_common_space(
        [image["flair"] for image in images],
        [read_transform(result_path(visit.summary, "flair_to_template")) for visit in visits],
        params, n_jobs,
    )  # fmt: skip
    return _bring(images, space, params, n_jobs)


def realign(visits: Sequence[Visit], params: ChangeParameters, n_jobs: int = 1) -> Aligned:
    """As `align`, by the motions that an earlier comparison of the same sessions published.

    Raises
    ------
    BadDataError, MissingInputError
        If a session's file cannot be read or used.
    """
    images = [_read(visit) for visit in visits]
    motions = [read_transform(beside(visit.summary, derivatives.TO_COMMON)) for visit in visits]
    space = space_of([image["flair"] for image in images], motions, params)
    return _bring(images, space, params, n_jobs)


def _bring(
    images: Sequence[Mapping[str, nib.Nifti1Image]],
    space: CommonSpace,
    params: ChangeParameters,
    n_jobs: int,
) -> Aligned:
    """Resample the sessions' images and match their intensities."""

    def resampled(name: str, interpolation: str = "linear") -> NDArray[np.float32]:
        return on_grid([image[name] for image in images], space.motions, space.grid, interpolation, n_jobs)

    mask = np.all(resampled("brain") > 0.5, axis=0)
    lesions = np.where(mask, np.rint(resampled("lesions", "nearest")), 0).astype(np.int32)
    flair, t1w = match_all(resampled("flair"), resampled("t1w"), mask, lesions, params)
    fossa = np.rint(resampled("regions", "nearest")) == Landmark.INFRATENTORIAL
    return Aligned(space, flair, t1w, mask, lesions, fossa)


def _read(visit: Visit) -> dict[str, nib.Nifti1Image]:
    """A session's images around its brain: FLAIR and T1w without the rest of the head, in units of white matter's mode."""
    volumes = {name: read_volume(result_path(visit.summary, name)) for name in IMAGES}
    for name, volume in volumes.items():
        names = (str(result_path(visit.summary, "flair")), str(result_path(visit.summary, name)))
        check_same_grid(volumes["flair"], volume, names)
    brain = volumes["brain"].data > 0
    box = bounding_box(brain, margin=1)  # the rest of a head is most of it, and all sessions are held at once
    affine = cut_affine(volumes["flair"].affine, box)
    scales = {name: _white_matter(result_path(visit.summary, name)) for name in ("flair", "t1w")}
    images = {}
    for name, volume in volumes.items():
        values = np.asarray(volume.data[box], np.float32) / np.float32(scales.get(name, 1.0))
        images[name] = as_image(np.where(brain[box], values, 0) if name in scales else values, affine)
    return images


def _white_matter(image: Path) -> float:
    """White matter's mode, as the image's sidecar says.

    Raises
    ------
    BadDataError
        If it does not, or says something that is no brightness.
    """
    path = derivatives.sidecar_path(image)
    try:
        mode = float(derivatives.read_summary(path)["WhiteMatter"]["mode"])
        if not (math.isfinite(mode) and mode > 0):
            raise ValueError(f"WhiteMatter.mode is {mode}")  # noqa: TRY301
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
    return mode


def to_flair(
    labels: NDArray[Any], aligned: Aligned, place: int, like: Volume, interpolation: str
) -> NDArray[np.float32]:
    """Bring an image of the common space to a session's own FLAIR grid."""
    target = as_image(np.zeros(like.shape, np.uint8), like.affine)
    source = as_image(labels.astype(np.float32), aligned.space.grid.affine)
    return resample_inside(source, target, np.linalg.inv(aligned.space.motions[place]), interpolation)


def own_mask(labels: NDArray[np.int32], aligned: Aligned, place: int, like: Volume) -> NDArray[np.uint8]:
    """The tissue of numbered lesions on a session's own grid: by nearest neighbour, at least a voxel each."""
    found = np.rint(to_flair(labels, aligned, place, like, "nearest")).astype(np.int32)
    to_voxel = np.linalg.inv(aligned.space.motions[place] @ like.affine) @ aligned.space.grid.affine
    for number in set(np.unique(labels[labels > 0])) - set(np.unique(found)):
        centre = to_voxel @ [*np.argwhere(labels == number).mean(axis=0), 1.0]
        voxel = tuple(np.clip(np.rint(centre[:3]).astype(int), 0, np.array(like.shape) - 1))
        found[voxel] = number
    return (found > 0).astype(np.uint8)


def related(visits: Sequence[Visit]) -> list[tuple[int, int, str]]:
    """Which sessions are compared, by their places, and why: each with the one before, and the last with the first."""
    pairs = [(k, k + 1, "consecutive") for k in range(len(visits) - 1)]
    return pairs + ([(0, len(visits) - 1, "total")] if len(visits) > 2 else [])


def years_between(before: Visit, after: Visit) -> float | None:
    """Years from one session to another, where both times are known."""
    if before.time is None or after.time is None:
        return None
    return (after.time - before.time).total_seconds() / (365.25 * 86400)


def beside_summary(visit: Visit, ending: str, root: Path, output_dir: Path) -> Path:
    """Where a file of a session goes below another root."""
    return root / beside(visit.summary, ending).relative_to(output_dir)
