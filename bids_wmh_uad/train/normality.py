"""What controls look like: the pooled and the voxel-wise One-Class SVMs of the train level, and their use.

Memory is bounded: controls are opened one at a time, and the voxel-wise table, which lies in a file,
is no larger than `TABLE_BYTES`. Where many controls or wide latents would make it larger its grid
becomes coarser, and in the end not all controls are taken.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.config import TEMPLATE, Method, TrainConfig
from bids_wmh_uad.core.device import configure_torch, resolve_device
from bids_wmh_uad.errors import BAD_CONTROL, FEW_CONTROLS, BadDataError
from bids_wmh_uad.files import temporary_file
from bids_wmh_uad.imaging import templates
from bids_wmh_uad.imaging.controls import EXCLUDED, open_control
from bids_wmh_uad.reading import read_text

if TYPE_CHECKING:
    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.network.sampling import TrainingSubject
    from bids_wmh_uad.core.svm.kernel import KernelSum
    from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM

LOGGER = logging.getLogger("bids_wmh_uad")
FITTED = "%s One-Class SVM of the controls: %s"
NOT_WANTED = "the train level was not asked for it (--paradigm)"
POOLED_LATENTS = 20_000
"""Of all controls together: the time of a fit, and of every score, grows with it."""
MINIMUM_CONTROLS = 8
"""At each voxel a healthy newcomer is more unusual than all n controls once in n + 1 times: with
fewer than eight that is more than a ninth of a healthy brain."""
STEPS_MM = (3, 4, 5, 6)
"""Grids of the voxel-wise models. Affine registration puts the same fold of two brains 3 to 5 mm apart:
a finer one has no more to tell."""
TABLE_BYTES = 2**30
PATCHES_TOGETHER = 8192


@dataclass(frozen=True, eq=False)
class TemplateGrid:
    """Places in the template that may have a model.

    Parameters
    ----------
    step_mm : int
    mask : (X, Y, Z) bool array
    affine : (4, 4) array
        Voxel to template mm.
    """

    step_mm: int
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(V, 3), template mm, in ``np.nonzero`` order."""
        at: NDArray[np.float64] = np.argwhere(self.mask) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return at


def fit_normality(controls: Sequence[Path], config: TrainConfig) -> None:
    """Fit the One-Class SVMs of controls, and add them to the model that was trained on the same.

    Parameters
    ----------
    controls : sequence of Path
        Directories for `controls.open_control`.
    config : TrainConfig
        ``--output-model``, ``--paradigm``, ``--nu``, ``--gamma``, ``--random-seed``, ``--device``.

    Raises
    ------
    ModelError
        If the model directory cannot be used.
    LatentsError
        If the encoder gives NaN.
    """
    from bids_wmh_uad.models import ONE_CLASS_FILES, describe_one_class, load_model

    directory = config.training.output_model
    configure_torch()
    device = resolve_device(config.performance.device)
    encoder = load_model(directory)[0].to(device)
    fits = {"pooled": _add_pooled, "voxel": _add_voxelwise}
    about: dict[str, Any] = {}
    for paradigm, fit in fits.items():
        if config.training.paradigm in (None, paradigm):
            about[paradigm] = fit(encoder, controls, config, device)
        else:
            about[paradigm] = {"skipped": NOT_WANTED}
        if "skipped" in about[paradigm]:
            (directory / ONE_CLASS_FILES[paradigm]).unlink(missing_ok=True)  # of an earlier encoder
        else:
            LOGGER.info(FITTED, paradigm, {**about[paradigm], "sha256": about[paradigm]["sha256"][:8]})
    describe_one_class(directory, about, {"lesions_left_out": dict(sorted(read_excluded(controls).items()))})


def _add_pooled(
    encoder: SiameseAutoencoder, controls: Sequence[Path], config: TrainConfig, device: str
) -> dict[str, Any]:
    """Fit and save; what the description says of it."""
    from bids_wmh_uad.models import save_one_class

    rng = np.random.default_rng(config.method.random_seed)
    model, per_control = fit_pooled_controls(encoder, controls, config.method, rng, device)
    return {
        **_settings(config.method),
        "controls": len(controls),
        "latents": per_control * len(controls),
        "support_vectors": len(model.support_vectors),
        "sha256": save_one_class(model, config.training.output_model),
    }


def _add_voxelwise(
    encoder: SiameseAutoencoder, controls: Sequence[Path], config: TrainConfig, device: str
) -> dict[str, Any]:
    """Fit and save, if there are enough controls; what the description says of it."""
    from bids_wmh_uad.models import save_one_class

    rng = np.random.default_rng(config.method.random_seed)
    grid, chosen = plan_voxelwise(len(controls), encoder.latent_size, rng)
    if len(chosen) < MINIMUM_CONTROLS:
        reason = FEW_CONTROLS.format(n=len(chosen), needed=MINIMUM_CONTROLS)
        LOGGER.warning("%s", reason)
        return {"skipped": reason}
    table = temporary_file(config.running.work_dir)
    try:
        some = [controls[index] for index in chosen]
        model = fit_voxelwise_controls(encoder, some, grid, config.method, table, device)
    finally:
        table.unlink(missing_ok=True)
    return {
        **_settings(config.method),
        "controls": len(some),
        "models": len(model.gamma),
        "support_vectors": len(model.dual_coef),
        "step_mm": grid.step_mm,
        "template": TEMPLATE,
        "sha256": save_one_class(model, config.training.output_model),
    }


def _settings(method: Method) -> dict[str, Any]:
    return {"nu": method.nu, "gamma": method.gamma, "seed": method.random_seed}


def read_excluded(controls: Sequence[Path]) -> Counter[str]:
    """How many controls had which lesions left out.

    Raises
    ------
    BadDataError
        `errors.BAD_CONTROL`, when a file that says so cannot be read.
    """
    counted: Counter[str] = Counter()
    for path in controls:
        try:
            counted[read_text(path / EXCLUDED)] += 1
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise BadDataError(BAD_CONTROL.format(path=path, reason=error)) from error
    return counted


def fit_pooled_controls(
    encoder: SiameseAutoencoder,
    controls: Sequence[Path],
    method: Method,
    rng: np.random.Generator,
    device: str = "cpu",
) -> tuple[KernelSum, int]:
    """One One-Class SVM of patches of all controls, as many of each.

    Returns
    -------
    model : KernelSum
    per_control : int
    """
    from bids_wmh_uad.core.svm.paradigms import fit_pooled

    latents = pooled_latents(encoder, controls, max(1, POOLED_LATENTS // len(controls)), rng)
    return fit_pooled(latents, nu=method.nu, gamma=method.gamma, device=device), len(latents) // len(controls)


def pooled_latents(
    encoder: SiameseAutoencoder, controls: Sequence[Path], per_control: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Latents of randomly drawn patches, as many of each control: (n per_control, d)."""
    drawn = []
    for path in controls:
        subject = open_control(path)
        candidates = np.flatnonzero(subject.mask)
        rows = rng.choice(candidates, per_control, replace=len(candidates) < per_control)
        drawn.append(_embed(encoder, subject, np.stack(np.unravel_index(rows, subject.mask.shape), axis=1)))
    return np.concatenate(drawn)


def _embed(
    encoder: SiameseAutoencoder, subject: TrainingSubject, coords: NDArray[Any]
) -> NDArray[np.float32]:
    """Latents of the patches around (n, 3) voxels: (n, d)."""
    from bids_wmh_uad.core.network.embedding import embed_patches
    from bids_wmh_uad.core.network.patches import extract_patches

    parts = range(0, len(coords), PATCHES_TOGETHER)
    patches = (extract_patches(subject.image, coords[start : start + PATCHES_TOGETHER]) for start in parts)
    return np.concatenate([embed_patches(encoder, part) for part in patches])


def template_grid(step_mm: int) -> TemplateGrid:
    """The template's brain and one voxel around it: other brains are not its shape exactly."""
    from scipy import ndimage

    template = templates.template("T1w", resolution=step_mm)
    mask = ndimage.binary_dilation(templates.template_brain(template))
    return TemplateGrid(step_mm, mask, template.affine)


def plan_voxelwise(
    controls: int, width: int, rng: np.random.Generator
) -> tuple[TemplateGrid, NDArray[np.int64]]:
    """The finest grid whose table of latents is bounded, and the controls that it has room for.

    Parameters
    ----------
    controls : int
    width : int
        Of a latent.
    rng : numpy.random.Generator
        Draws controls where there is no room for all.

    Returns
    -------
    grid : TemplateGrid
    chosen : (n,) int array
        Ascending indices.
    """
    for step_mm in STEPS_MM:
        grid = template_grid(step_mm)
        room = TABLE_BYTES // (4 * width * int(grid.mask.sum()))
        if room >= controls:
            return grid, np.arange(controls)
    return grid, np.sort(rng.choice(controls, room, replace=False))


def fit_voxelwise_controls(
    encoder: SiameseAutoencoder,
    controls: Sequence[Path],
    grid: TemplateGrid,
    method: Method,
    table: Path,
    device: str = "cpu",
) -> VoxelwiseOneClassSVM:
    """One One-Class SVM for each place of the template, of the controls' patches there.

    Parameters
    ----------
    encoder : SiameseAutoencoder
    controls : sequence of Path
    grid : TemplateGrid
    method : Method
        nu and gamma.
    table : Path
        Where the latents are kept while they are needed.
    device : str
    """
    from bids_wmh_uad.core.svm.voxelwise_fit import fit_voxelwise

    latents, mask = colocated_latents(encoder, controls, grid, table)
    return fit_voxelwise(latents, mask, grid.affine, nu=method.nu, gamma=method.gamma, device=device)


def colocated_latents(
    encoder: SiameseAutoencoder, controls: Sequence[Path], grid: TemplateGrid, table: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Latents of the controls at the same places of the template, in a file.

    A place counts if at least `MINIMUM_CONTROLS` and half of the controls have brain there that is
    no lesion. At the others' entries stands the next control's that has: all controls weigh about the
    same, and no place is lost for one mask's edge.

    Returns
    -------
    latents : (n, V, d) float32 array
        Memory-mapped.
    mask : (X, Y, Z) bool array
        The V places, in ``np.nonzero`` order.
    """
    coordinates = grid.coordinates
    has = np.stack([nearest_voxels(open_control(path), coordinates)[1] for path in controls])
    kept = has.sum(axis=0) >= max(MINIMUM_CONTROLS, -(-len(controls) // 2))
    mask = np.zeros_like(grid.mask)
    mask[tuple(np.argwhere(grid.mask)[kept].T)] = True
    coordinates, has = coordinates[kept], has[:, kept]
    shape = (len(controls), len(coordinates), encoder.latent_size)
    latents = np.lib.format.open_memmap(table, mode="w+", dtype=np.float32, shape=shape)
    for number, path in enumerate(controls):
        subject = open_control(path)
        voxels, inside = nearest_voxels(subject, coordinates)
        latents[number, inside] = _embed(encoder, subject, voxels[inside])
    donors = next_with(has)
    for number, own in enumerate(has):
        latents[number, ~own] = latents[donors[number, ~own], np.flatnonzero(~own)]
    return latents, mask


def nearest_voxels(
    subject: TrainingSubject, coordinates: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Nearest voxel of each (n, 3) coordinate in template mm, and whether it lies in the control's mask."""
    matrix = subject.mni_to_voxel
    at = np.rint(coordinates @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.int64)
    limit = np.asarray(subject.mask.shape)
    within = ((at >= 0) & (at < limit)).all(axis=1)
    at = np.clip(at, 0, limit - 1)
    return at, within & subject.mask[at[:, 0], at[:, 1], at[:, 2]]


def next_with(has: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For every row and column of an (n, V) table the row that stands in: itself, or the next that has, around."""
    count = len(has)
    donors = np.full(has.shape, -1, dtype=np.int32)
    for step in range(2 * count - 1, -1, -1):
        row = step % count
        donors[row] = np.where(has[row], row, donors[(row + 1) % count])
    return donors
