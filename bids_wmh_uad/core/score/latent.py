"""How unusual patches are in latent space: of the scan's bright voxels, and of all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad
from bids_wmh_uad.core.network.dense import DenseEncoder, slab_slices, slices_first
from bids_wmh_uad.core.parallel import stream_slabs
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.brightness import Brightness
from bids_wmh_uad.core.score.sampling import Sample, draw_sample
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.core.svm.paradigms import fit_patient
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError, SessionWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from bids_wmh_uad.core.image.volume import WorkingGrid
    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.svm.kernel import KernelSum
    from bids_wmh_uad.core.svm.paradigms import OneClassModel, ScoreOperator


@dataclass(frozen=True, eq=False)
class AnomalyMap:
    """An anomaly map and how it was made.

    Attributes
    ----------
    scores : (X, Y, Z) float32 array
        Larger = more abnormal, 0 outside the mask.
    evidence : (X, Y, Z) float32 array or None
        What the latents say of being a lesion (`lesion.decision.LesionDecision`), log-odds; 0 where the score is.
    device : str
        The torch device it was computed on in the end.
    warnings : tuple of SessionWarning
        What the user should know: the GPU's memory did not suffice.
    brightness : (X, Y, Z) float32 array or None
        The score "brightness" of the same scan; None where the score has no part of it ("faithful").

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad import AnomalyMap, DetectionParameters, Scan, anomaly_map
    >>> flair, t1w = np.random.default_rng(0).normal(size=(2, 24, 24, 12)).astype(np.float32)
    >>> scan = Scan(flair, t1w, mask=np.ones(flair.shape, dtype=bool), zooms=(1, 1, 3))
    >>> found = anomaly_map(None, scan, DetectionParameters(score="brightness"), np.random.default_rng(0))
    >>> isinstance(found, AnomalyMap), found.scores.shape, found.device, found.warnings
    (True, (24, 24, 12), 'cpu', ())
    """

    scores: NDArray[np.float32]
    device: str
    warnings: tuple[SessionWarning, ...]
    evidence: NDArray[np.float32] | None = None
    brightness: NDArray[np.float32] | None = None

    def from_grid(self, grid: WorkingGrid, mask: NDArray[np.bool_]) -> AnomalyMap:
        """Bring the maps from the working grid to the FLAIR's own: lesions are found there, in what users see.

        Linearly, but for what is nearest to a voxel without a score: it has none either. Else the faint rims that
        interpolation puts around everything would count as scores, of which thresholds are made (`threshold.tail_point`),
        and these would depend on the FLAIR's voxels.

        Parameters
        ----------
        grid : WorkingGrid
            That the scan was scored on (`Scan.on_grid`).
        mask : (X, Y, Z) bool array
            Brain, on the FLAIR's own grid; the maps are 0 outside.

        Raises
        ------
        GridMismatchError
            `errors.GRID_MISMATCH`, when the maps are not on that grid.
        """

        def back(volume: NDArray[np.float32]) -> NDArray[np.float32]:
            known = mask & (grid.backward(volume, order=0) != 0)
            return np.where(known, grid.backward(volume), np.float32(0))

        return replace(
            self,
            scores=back(self.scores),
            evidence=None if self.evidence is None else back(self.evidence),
            brightness=None if self.brightness is None else back(self.brightness),
        )


def latent_excess(  # noqa: PLR0913 (all but the first five are keywords)
    model: SiameseAutoencoder,
    scan: Scan,
    params: DetectionParameters,
    rng: np.random.Generator,
    brightness: Brightness,
    *,
    one_class: OneClassModel | None = None,
    device: str = "cpu",
    slices: int | None = None,
    direction: NDArray[np.float32] | None = None,
) -> AnomalyMap:
    """Surprise that goes away when FLAIR is no brighter than usual: D of `anomaly.anomaly_map`, without the rest.

    The parameters are `anomaly.anomaly_map`'s, and `brightness.brightness_maps` of the same scan; the latents as
    they are also give the map's `evidence`, in the same pass.

    Returns
    -------
    AnomalyMap
        In units of normal surprise's spread, smoothed; 0 where the scan is not bright.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the mask is too small, or no voxel has a model.
    """
    flair, relevant = brightness.flair, scan.mask & (brightness.score > 0)
    shown = scan.mask & (flair <= np.quantile(flair[scan.mask], 1.0 - params.trim))
    sample = draw_sample(model, scan, shown, params, rng, members=one_class is None)
    one_class = one_class or _fit(sample, params)
    spread = _surprise_spread(one_class.on(), sample)
    towards = torch.zeros(sample.spread.shape[1]) if direction is None else torch.from_numpy(direction)

    def score_on(target: str) -> Callable[[slice], Tensor]:
        encoder, operator = DenseEncoder(model, target), one_class.on(target)

        def score(slab: slice) -> Tensor:
            inside = relevant[..., slab]
            voxels = _models(scan.voxels, relevant, slab, target)
            latents = encoder(scan.network_input(slab), inside, slice(None))
            with_lesions, evidence = (
                operator.log_score_samples(latents, voxels),
                latents @ towards.to(latents),
            )
            del latents  # one set at a time: they are most of the memory
            cut = encoder(scan.network_input(slab, brightness.upper), inside, slice(None))
            excess = (operator.log_score_samples(cut, voxels) - with_lesions).clamp_(min=0.0).div_(spread)
            return torch.stack([excess, evidence], dim=1)

        return score

    values, used, warnings = stream_slabs(score_on, relevant, slices or slab_slices(model), device, (2,))
    excess = smooth_inside(values[..., 0], scan.mask, scan.zooms, brightness.sigma_mm)
    evidence = None if direction is None else np.ascontiguousarray(values[..., 1])
    return AnomalyMap(np.where(relevant, excess, np.float32(0.0)), used, warnings, evidence)


def minus_decision(
    model: SiameseAutoencoder,
    scan: Scan,
    params: DetectionParameters,
    rng: np.random.Generator,
    one_class: OneClassModel | None,
    device: str,
    slices: int,
) -> AnomalyMap:
    """Minus the decision function at every brain voxel: the faithful score of `anomaly.anomaly_map`.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the mask is too small, or no voxel has a model.
    """
    if one_class is None:
        sample = draw_sample(model, scan, scan.mask, params, rng, spread=False)
    fitted = one_class or _fit(sample, params)

    def score_on(target: str) -> Callable[[slice], Tensor]:
        encoder, operator = DenseEncoder(model, target), fitted.on(target)

        def score(slab: slice) -> Tensor:
            latents = encoder(scan.network_input(slab), scan.mask[..., slab], slice(None))
            return -operator.decision_function(latents, _models(scan.voxels, scan.mask, slab, target))

        return score

    scores, used, warnings = stream_slabs(score_on, scan.mask, slices, device)
    if scan.voxels is not None:  # without a model: neither unusual nor usual
        known = scan.mask & (scan.voxels >= 0)
        if not known.any():
            raise BadDataError(TOO_FEW_VOXELS.format(what="voxels that the model covers", n=0, needed=1))
        scores[scan.mask & ~known] = np.median(scores[known])
    return AnomalyMap(scores, used, warnings)


def _fit(sample: Sample, params: DetectionParameters) -> KernelSum:
    """The patient's own One-Class SVMs."""
    return fit_patient(sample.members, nu=params.nu, gamma=params.gamma, tol=params.tolerance)


def _surprise_spread(operator: ScoreOperator, sample: Sample) -> float:
    """1.4826 MAD of surprise over the voxels drawn for it."""
    surprise = operator.log_score_samples(torch.from_numpy(sample.spread), sample.spread_voxels).numpy()
    surprise = surprise[np.isfinite(surprise)]
    if not surprise.size:
        raise BadDataError(TOO_FEW_VOXELS.format(what="voxels that the model covers", n=0, needed=1))
    return max(MAD_TO_SD * float(median_and_mad(surprise)[1]), 1e-6)


def _models(
    voxels: NDArray[np.integer[Any]] | None, mask: NDArray[np.bool_], slab: slice, device: str
) -> Tensor | None:
    """Which voxel-wise model scores which row of a slab."""
    if voxels is None:
        return None
    rows = slices_first(voxels, slab)[slices_first(mask, slab)]
    return torch.from_numpy(rows.astype(np.int64)).to(device)
