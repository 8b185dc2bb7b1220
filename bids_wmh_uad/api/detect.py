"""Two scans in, a `Detection` out.

The scans are put where the participant level looks for a session, and the program runs on them in a process of its
own: one way for data, the same bytes, and nothing of the caller's process (threads, environment, nipype's settings,
matplotlib's backend) is changed or has a say.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from bids_wmh_uad import errors
from bids_wmh_uad.api.detection import Detection, read_detection
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import Method, Performance
from bids_wmh_uad.errors import NOT_AN_IMAGE, SessionError, UsageError, WmhUadError
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.images import read_header
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.models import model_digest

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypeAlias

    ImageLike: TypeAlias = "str | PathLike[str] | Any"  # a path or a nibabel image

LOGGER = logging.getLogger("bids_wmh_uad")
SUBJECT = "01"
"""Label of the only participant."""
CONTRASTS = {"flair": "FLAIR", "t1w": "T1w"}
"""BIDS suffixes by the argument of `detect`."""
PROGRAM = """\
import json, sys
sys.path[:], parent = json.loads(sys.argv.pop(1))
from bids_wmh_uad.processes import die_with_parent
die_with_parent(parent)
from bids_wmh_uad.cli.run import main
sys.exit(main())
"""
"""What the other process runs: the command line, with this one's search path, and no longer than this one lives."""
LAST_LINES = 20
"""Number of lines of the program that are remembered, in case it fails."""
PATIENCE = 10.0
"""Seconds that a program which was told to stop may take."""


def detect(  # noqa: PLR0913 (all keywords but the scans)
    flair: ImageLike,
    t1w: ImageLike,
    *,
    model: str | PathLike[str] = Method.model,
    paradigm: str = Method.paradigm,
    score: str = Method.score,
    threshold: str = Method.threshold,
    accept: float = Method.accept,
    min_lesion_volume: float = Method.min_lesion_volume,
    random_seed: int = Method.random_seed,
    device: str = Performance.device,
    n_threads: int = Performance.omp_nthreads,
    work_dir: str | PathLike[str] | None = None,
) -> Detection:
    """Find white matter hyperintensities in the two scans of one session, as the participant level does.

    Parameters
    ----------
    flair, t1w : str, path or nibabel image
        Raw or skull-stripped scans of the same head, 3D, each on its own grid; files are NIfTI. They are not changed.
    model : str or path
        "default" (shipped with the package) or a model directory of your own, from ``bids-wmh-uad ... train``.
    paradigm : {"patient", "pooled", "voxel"}
        Whose patches are normal: this scan's own, or those of the model's controls.
    score : {"directed", "brightness", "latent", "faithful"}
        What the anomaly map is. "brightness" needs no model, and is the rival to beat.
    threshold : str
        Rule of the mask: ``tail[=K]``, ``gm[=KAPPA]``, ``quantile[=Q]`` or ``value=T``.
    accept : float
        Least probability of a lesion, in [0, 1].
    min_lesion_volume : float
        Smaller lesions are dropped, mm3.
    random_seed : int
        Of every random step.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    n_threads : int
        Threads of each step. With 1 results repeat byte for byte; with more registrations differ by up to 0.1 mm.
    work_dir : str or path, optional
        A directory that is kept: another call there with other settings takes over what they do not change, such as
        the whole preprocessing, and ``derivatives`` in it has the newest call's files and page. One call at a time.

    Returns
    -------
    Detection
        Images on the FLAIR's own grid, tables, numbers, warnings and figures.

    Raises
    ------
    UsageError
        A setting is out of range, or a scan is neither a path nor an image.
    BadImageError
        A scan cannot be used: unreadable, not 3D, empty, without a brain; or the two do not overlap.
    ModelError
        The model is unknown or damaged, or has no One-Class SVM of that paradigm.
    TemporaryError
        The GPU that was asked for is not there, memory ran out, or another call works in `work_dir`.
    WmhUadError
        Whatever else the program says (`bids_wmh_uad.errors`).

    See Also
    --------
    evaluate : Compare a mask and a map with a reference.

    Notes
    -----
    It takes as long as the participant level for one session, minutes for a whole head. ``logging.basicConfig(level="INFO")`` shows what
    the program says meanwhile. The images are the very arrays that the participant level writes for the same scans.

    Examples
    --------
    A phantom with known lesions, coarse and without a head, so that it is quick:

    >>> from bids_wmh_uad import detect, evaluate
    >>> from bids_wmh_uad.phantom import PhantomSpec, make_subject
    >>> coarse = PhantomSpec(seed=1, head=False, flair_zooms=(2.5, 2.5, 6), t1w_zooms=(3, 3, 3))
    >>> phantom = make_subject(coarse)
    >>> found = detect(phantom.flair, phantom.t1w, score="brightness", work_dir="example")
    >>> found.mask.shape == phantom.flair.shape
    True
    >>> len(found.lesions) == found.summary["lesion_count"] > 0
    True
    >>> evaluate(phantom.lesions, found.mask)["dice"] > 0.3
    True
    """
    method = Method(
        model=os.fspath(model), paradigm=paradigm, score=score, threshold=threshold, accept=accept,
        min_lesion_volume=min_lesion_volume, random_seed=random_seed,
    )  # fmt: skip
    performance = Performance(device=device, nprocs=n_threads, omp_nthreads=n_threads)
    if method.parameters.uses_network:
        model_digest(method.model, method.paradigm)  # before any work
    with _folder(work_dir) as folder:
        bids_dir, output_dir = folder / "scans", folder / "derivatives"
        for path in (bids_dir, output_dir):
            derivatives.remove_tree(path)
        session = _stage(bids_dir, {"flair": flair, "t1w": t1w})
        code, said = _run(_arguments(bids_dir, output_dir, folder / "work", method, performance))
        if code:
            error = _failure(output_dir, code, said)
            shown = _with_own_names(str(error), session, {"flair": flair, "t1w": t1w})
            raise type(error)(shown) from None
        return read_detection(output_dir, session)


@contextmanager
def _folder(work_dir: str | PathLike[str] | None) -> Iterator[Path]:
    """Where everything of a call lies: `work_dir`, locked; or a temporary directory, which goes away.

    It stays where a step crashed, for the error names files in it.
    """
    if work_dir is not None:
        folder = Path(work_dir).expanduser().resolve()
        with Locks() as locks:
            locks.take(folder / "detect.lock", str(folder))
            yield folder
        return
    folder = Path(mkdtemp(prefix="bids-wmh-uad-")).resolve()
    try:
        yield folder
    except SessionError:
        raise
    except BaseException:
        rmtree(folder, ignore_errors=True)
        raise
    rmtree(folder, ignore_errors=True)


def _stage(bids_dir: Path, scans: dict[str, ImageLike]) -> Session:
    """Put two scans where the participant level finds them: links to files, and files of images in memory."""
    anat = derivatives.session_directory(bids_dir, SUBJECT, None)
    anat.mkdir(parents=True)
    (bids_dir / "dataset_description.json").write_bytes(dump_json({"Name": "scans", "BIDSVersion": "1.10.0"}))
    staged = {}
    for name, scan in scans.items():
        stem = f"sub-{SUBJECT}_{CONTRASTS[name]}.nii"
        if isinstance(scan, str | os.PathLike):
            source = Path(scan).expanduser().absolute()
            read_header(source)  # says what is wrong by the caller's name of it
            staged[name] = anat / (stem + (".gz" if source.suffix == ".gz" else ""))
            staged[name].symlink_to(source)
        else:
            staged[name] = anat / stem
            _save(name, scan, staged[name])
    return Session(SUBJECT, None, staged["flair"], staged["t1w"])


def _save(name: str, image: Any, path: Path) -> None:
    """Write an image in memory as it is: its values without rounding, its qform, sform and unit.

    Raises
    ------
    UsageError
        If it is none.
    """
    import nibabel as nib
    import numpy as np

    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise UsageError(NOT_AN_IMAGE.format(name=name, kind=type(image).__name__))
    data = np.asanyarray(image.dataobj)
    stored = {"bool": "uint8", "float16": "float32", "longdouble": "float64"}.get(data.dtype.name)
    data = data if stored is None else data.astype(stored)
    kind = nib.Nifti2Image if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Image
    nib.save(kind(data, image.affine, image.header, dtype=data.dtype), path)


def _arguments(
    bids_dir: Path, output_dir: Path, work_dir: Path, method: Method, performance: Performance
) -> list[str]:
    """The command line of this call."""
    options: dict[str, Any] = {"work_dir": work_dir}
    options |= {field.name: getattr(method, field.name) for field in fields(method)}
    options |= {name: getattr(performance, name) for name in ("device", "nprocs", "omp_nthreads")}
    named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return [str(bids_dir), str(output_dir), "participant", *named]


def _run(arguments: list[str]) -> tuple[int, list[str]]:
    """Run the program; its exit code and last lines. It ends when this call does, in whatever way."""
    surroundings = json.dumps([sys.path, os.getpid()])
    process = subprocess.Popen(  # noqa: S603 (this program)
        [sys.executable, "-c", PROGRAM, surroundings, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    said: deque[str] = deque(maxlen=LAST_LINES)
    try:
        for line in process.stderr or ():
            said.append(line.rstrip("\n"))
            LOGGER.info("%s", said[-1])
        return process.wait(), list(said)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
        if process.stderr:
            process.stderr.close()


def _failure(output_dir: Path, code: int, said: list[str]) -> WmhUadError:
    """Why the program did not finish: the session's error, or the run's."""
    failed = derivatives.read_summary(derivatives.failure_path(output_dir, SUBJECT, None))
    if failed:
        return _typed(errors.__dict__.get(failed.get("error", "")), failed["reason"])
    texts = [line.partition("error: ")[2] for line in said if line.startswith("bids-wmh-uad: error: ")]
    text = texts[-1] if texts else "\n".join(said)
    by_code = (kind for kind in WmhUadError.__subclasses__() if kind.exit_code == code)
    return _typed(next(by_code, SessionError), text)


def _typed(kind: object, text: str) -> WmhUadError:
    known = isinstance(kind, type) and issubclass(kind, WmhUadError)
    return kind(text) if known else SessionError(text)  # type: ignore[operator]


def _with_own_names(text: str, session: Session, scans: dict[str, ImageLike]) -> str:
    """An error's text with the caller's names of the scans."""
    for name, staged in {"flair": session.flair, "t1w": session.t1w}.items():
        scan = scans[name]
        own = scan if isinstance(scan, str | os.PathLike) else scan.get_filename()
        text = text.replace(str(staged), os.fspath(own) if own else f"{name} (an image in memory)")
    return text
