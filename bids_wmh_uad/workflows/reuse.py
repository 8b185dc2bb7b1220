"""Finished results of an earlier run in place of preprocessing, and lesion masks (``--derivatives``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.references import Reference, find_reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.image.volume import Volume, check_same_grid
from bids_wmh_uad.errors import (
    NO_SUCH_DIRECTORY,
    NOT_REUSED,
    UNREADABLE_SIDECAR,
    BadDataError,
    MissingInputError,
)
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import read_volume

LOGGER = logging.getLogger("bids_wmh_uad")
REUSED_IMAGES = ("flair", "t1w", "brain")
"""The images of an earlier run that are read, by their names in `derivatives.OUTPUTS`."""
REUSED_TRANSFORMS = ("t1w_to_flair", "t1w_to_template")
"""The transforms, likewise."""
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
    shift : dict
        What was added to each because its background was not its lowest value; 0 where nothing was.
    overlap : float
        Dice of the two brain masks after registration.
    """

    summary: Path
    scaling: dict[str, dict[str, float]]
    stripped: dict[str, bool]
    shift: dict[str, float]
    overlap: float

    def path(self, output: str) -> Path:
        """One of the session's files, by its name in ``derivatives.OUTPUTS``."""
        return result_path(self.summary, output)


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


def find_preprocessed(session: Session, sources: Sequence[Path], seed: int) -> Preprocessed | None:
    """Finished results of the session that fit its scans; those that do not are said.

    Parameters
    ----------
    session : Session
    sources : sequence of Path
        Derivatives datasets: the first with usable results counts.
    seed : int
        ``--random-seed``.
    """
    for dataset in sources:
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
    for name in (*REUSED_IMAGES, *REUSED_TRANSFORMS):
        if not result_path(summary, name).is_file():
            raise BadDataError(ABSENT.format(path=result_path(summary, name)))
    grid = read_grid(session.flair)
    scan = Volume(np.asanyarray(grid.dataobj), grid.affine)
    for name in REUSED_IMAGES:
        path = result_path(summary, name)
        check_same_grid(scan, read_volume(path), (str(session.flair), str(path)))
    for name in REUSED_TRANSFORMS:
        read_transform(result_path(summary, name))
    scaling, stripped, shift = {}, {}, {}
    for name in ("flair", "t1w"):
        path = derivatives.sidecar_path(result_path(summary, name))
        sidecar = derivatives.read_summary(path)
        try:
            white_matter = sidecar["WhiteMatter"]
            scaling[name] = {key: float(white_matter[key]) for key in ("mode", "scale")}
            stripped[name] = bool(sidecar["SkullStripped"])
            shift[name] = float(sidecar.get("IntensityShift", 0.0))
        except (KeyError, TypeError, ValueError) as error:
            raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
    try:
        overlap = float(content["registration_overlap"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=summary, reason=error)) from error
    return Preprocessed(summary, scaling, stripped, shift, overlap)


def find_lesions(
    session: Session, sources: Sequence[Path], earlier: Preprocessed | None
) -> tuple[str, Reference | None]:
    """The mask of what must not be learnt as normal, and its kind.

    A reference mask from a dataset of ``--derivatives`` comes first (matched as for ``--reference``),
    then the mask that an earlier run of this program made without labels.

    Parameters
    ----------
    session : Session
    sources : sequence of Path
    earlier : Preprocessed or None
        The session's own results.
    """
    session_id = f"ses-{session.session}" if session.session else "n/a"
    for dataset in sources:
        mask = find_reference(dataset, f"sub-{session.subject}", session_id)
        if mask is not None and not _is_own(mask.path):
            return REFERENCE_MASKS, mask
    if earlier is not None and earlier.path("mask").is_file():
        return LABEL_FREE_MASKS, Reference(earlier.path("mask"))
    return NO_MASKS, None


def _is_own(mask: Path) -> bool:
    """Whether this program made the mask: its session's summary lies beside it."""
    return Path(
        str(mask).removesuffix(derivatives.OUTPUTS["mask"]) + derivatives.OUTPUTS["summary"]
    ).is_file()
