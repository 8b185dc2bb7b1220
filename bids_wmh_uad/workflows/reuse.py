"""Finished results of an earlier run in place of preprocessing, and lesion masks (``--derivatives``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.results import read_transform, read_volume, result_path
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.image.volume import Volume, check_same_grid, voxel_sizes
from bids_wmh_uad.errors import (
    NO_SUCH_DIRECTORY,
    NOT_REUSED,
    UNREADABLE_SIDECAR,
    BadDataError,
    MissingInputError,
)
from bids_wmh_uad.group.evaluation import find_reference, on_grid_of
from bids_wmh_uad.imaging import registration, scans
from bids_wmh_uad.interfaces.preprocess import Stage, priors_on, zscore

LOGGER = logging.getLogger("bids_wmh_uad")
MARGIN_MM = 2.0
IMAGES = ("flair", "t1w", "brain")
TRANSFORMS = ("t1w_to_flair", "t1w_to_template")
CHANGED = "it is of other scans, of another --random-seed, or of a version that preprocessed differently"
ABSENT = "{path} is not there"
REFERENCE_MASKS, LABEL_FREE_MASKS, NO_MASKS = "reference masks", "label-free masks", "none"


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """What an earlier run left of one session's preprocessing.

    Parameters
    ----------
    summary : Path
        The session's summary: the other files lie beside it.
    scaling : dict
        White matter's ``mode`` and ``scale`` in the ``flair`` and the ``t1w``.
    stripped : dict
        Whether each was skull-stripped already.
    overlap : float
        Dice of the two brain masks after registration.
    """

    summary: Path
    scaling: dict[str, dict[str, float]]
    stripped: dict[str, bool]
    overlap: float

    def path(self, output: str) -> Path:
        """One of the session's files, by its name in ``derivatives.OUTPUTS``."""
        return result_path(self.summary, output)

    def interface(self) -> ReusePreprocessed:
        """The step that takes the place of the preprocessing."""
        return ReusePreprocessed(
            scaling=self.scaling,
            stripped=self.stripped,
            overlap=self.overlap,
            **{name: str(self.path(name)) for name in (*IMAGES, *TRANSFORMS)},
        )


def datasets(config: RunConfig) -> tuple[Path, ...]:
    """The datasets of ``--derivatives``.

    Raises
    ------
    MissingInputError
        If one is not there.
    """
    for path in config.selection.derivatives:
        if not path.is_dir():
            raise MissingInputError(NO_SUCH_DIRECTORY.format(path=path))
    return config.selection.derivatives


def find_preprocessed(session: Session, where: Sequence[Path], seed: int) -> Preprocessed | None:
    """Finished results of the session that fit its scans; those that do not are said.

    Parameters
    ----------
    session : Session
    where : sequence of Path
        Derivatives datasets: the first with usable results counts.
    seed : int
        ``--random-seed``.
    """
    for dataset in where:
        summary = derivatives.output_path(dataset, session, "summary")
        if not summary.is_file():
            continue
        try:
            return _read(summary, session, seed)
        except BadDataError as error:
            LOGGER.warning("%s", NOT_REUSED.format(where=session.label, path=dataset, reason=error))
        except OSError:  # a scan that cannot be read: running the session says so
            return None
    return None


def _read(summary: Path, session: Session, seed: int) -> Preprocessed:
    """Check an earlier run's files.

    Raises
    ------
    BadDataError
        With the reason why they cannot be reused.
    """
    content = derivatives.read_summary(summary)
    if content.get("preprocessing") != derivatives.preprocessing_signature(session, seed):
        raise BadDataError(CHANGED)
    for name in (*IMAGES, *TRANSFORMS):
        if not result_path(summary, name).is_file():
            raise BadDataError(ABSENT.format(path=result_path(summary, name)))
    scan = read_volume(session.flair)
    for name in IMAGES:
        path = result_path(summary, name)
        check_same_grid(scan, read_volume(path), (str(session.flair), str(path)))
    for name in TRANSFORMS:
        read_transform(result_path(summary, name))
    scaling, stripped = {}, {}
    for name in ("flair", "t1w"):
        path = derivatives.sidecar_path(result_path(summary, name))
        sidecar = derivatives.read_summary(path)
        try:
            white_matter = sidecar["WhiteMatter"]
            scaling[name] = {key: float(white_matter[key]) for key in ("mode", "scale")}
            stripped[name] = bool(sidecar["SkullStripped"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
    try:
        overlap = float(content["registration_overlap"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=summary, reason=error)) from error
    return Preprocessed(summary, scaling, stripped, overlap)


def _grid(path: Path) -> Volume:
    """The grid of an image, without its voxels."""
    image = nib.load(path)
    return Volume(np.broadcast_to(np.uint8(0), image.shape[:3]), image.affine)


def find_lesions(
    session: Session, where: Sequence[Path], earlier: Preprocessed | None
) -> tuple[str, Path | None]:
    """The mask of what must not be learnt as normal, and its kind.

    A reference mask from a dataset of ``--derivatives`` comes first (matched as for ``--reference``),
    then the mask that an earlier run of this program made without labels.

    Parameters
    ----------
    session : Session
    where : sequence of Path
    earlier : Preprocessed or None
        The session's own results.
    """
    session_id = f"ses-{session.session}" if session.session else "n/a"
    for dataset in where:
        mask = find_reference(dataset, f"sub-{session.subject}", session_id)
        if mask is not None and not _is_own(mask):
            return REFERENCE_MASKS, mask
    if earlier is not None and earlier.path("mask").is_file():
        return LABEL_FREE_MASKS, earlier.path("mask")
    return NO_MASKS, None


def _is_own(mask: Path) -> bool:
    """Whether this program made the mask: its session's summary lies beside it."""
    return Path(
        str(mask).removesuffix(derivatives.OUTPUTS["mask"]) + derivatives.OUTPUTS["summary"]
    ).is_file()


def read_lesions(path: Path, scan: Path, *, resample: bool) -> NDArray[np.bool_]:
    """A lesion mask with its surroundings, in the canonical order of the scan's axes.

    Every label counts, a reference's other pathology too. `MARGIN_MM` are added: raters differ by
    about a voxel at a lesion's border, and the voxels there hold both tissues. Patches that see
    a lesion at their edge stay: most of the periventricular white matter would go with them, and
    a patient's healthy voxels beside a lesion should be known as normal.

    Parameters
    ----------
    path, scan : Path
        The mask, and the user's FLAIR.
    resample : bool
        Bring a mask on another grid to the scan's, nearest neighbour.

    Raises
    ------
    GridMismatchError
        If it is on another grid and is not to be resampled.
    BadImageError
        If it cannot be read.
    """
    grid = _grid(scan)
    mask = on_grid_of(grid, read_volume(path), (scan, path), resample) > 0
    image = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), grid.affine))
    lesions: NDArray[np.bool_] = np.asanyarray(image.dataobj) > 0
    if not lesions.any():
        return lesions
    distance = ndimage.distance_transform_edt(~lesions, sampling=voxel_sizes(image.affine))
    grown: NDArray[np.bool_] = np.asarray(distance <= MARGIN_MM)
    return grown


class _ReuseInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain = File(exists=True, mandatory=True)
    t1w_to_flair = File(exists=True, mandatory=True)
    t1w_to_template = File(exists=True, mandatory=True)
    scaling = traits.Dict(mandatory=True)
    stripped = traits.Dict(mandatory=True)
    overlap = traits.Float(mandatory=True)


class _ReuseOutput(TraitedSpec):
    """`preprocess.OUTPUT_FIELDS`."""

    flair = File()
    t1w = File()
    flair_z = File()
    t1w_z = File()
    scaling = traits.Dict()
    brain_mask = File()
    wm = File()
    gm = File()
    template = File()
    flair_to_t1w = traits.List(traits.List(traits.Float))
    t1w_to_template = traits.List(traits.List(traits.Float))
    overlap = traits.Float()
    flair_stripped = traits.Bool()
    t1w_stripped = traits.Bool()


class ReusePreprocessed(Stage):
    """Read what an earlier run left, as the preprocessing would have made it."""

    input_spec = _ReuseInput
    output_spec = _ReuseOutput

    def _compute(self, directory: Path) -> None:
        i = self.inputs
        flair = scans.read_scan(Path(i.flair))
        data: dict[str, Any] = {"flair": np.asanyarray(flair.dataobj)}
        data["t1w"] = np.asanyarray(scans.read_scan(Path(i.t1w)).dataobj)
        mask = read_volume(Path(i.brain))
        canonical = nib.as_closest_canonical(nib.Nifti1Image((mask.data > 0).astype(np.uint8), mask.affine))
        data["brain_mask"] = np.asanyarray(canonical.dataobj)
        flair_to_t1w, t1w_to_template = (
            np.linalg.inv(read_transform(Path(i.t1w_to_flair))).round(registration.DECIMALS),
            read_transform(Path(i.t1w_to_template)).round(registration.DECIMALS),
        )
        from_template = np.linalg.inv(flair_to_t1w) @ np.linalg.inv(t1w_to_template)
        data |= priors_on(flair, from_template)
        data |= {f"{name}_z": zscore(data[name], i.scaling[name]) for name in ("flair", "t1w")}
        for name, values in data.items():
            self._save(name, directory, scans.as_image(values, flair.affine))
        self._results |= {
            "scaling": i.scaling,
            "overlap": i.overlap,
            "flair_to_t1w": flair_to_t1w.tolist(),
            "t1w_to_template": t1w_to_template.tolist(),
            "flair_stripped": i.stripped["flair"],
            "t1w_stripped": i.stripped["t1w"],
        }
