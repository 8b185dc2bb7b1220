"""Anomaly maps in one streamed pass: embed a slab, score it, write it, forget it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bids_wmh_uad.core.image.intensity import MAD_TO_SD, smooth_inside
from bids_wmh_uad.core.network.embedding import DenseEncoder, slab_slices, slices_first
from bids_wmh_uad.core.network.patches import network_input
from bids_wmh_uad.core.parallel import stream_slabs
from bids_wmh_uad.core.score.brightness import Brightness, brightness_maps
from bids_wmh_uad.core.score.sampling import Sample, draw_sample
from bids_wmh_uad.core.svm.estimator import fit_patient
from bids_wmh_uad.errors import (
    BAD_VALUE,
    GRID_MISMATCH,
    TOO_FEW_VOXELS,
    BadDataError,
    GridMismatchError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from bids_wmh_uad.core.network.autoencoder import SiamesePatchAutoEncoder
    from bids_wmh_uad.core.svm.estimator import OneClassModel, ScoreOperator

SCORES = ("directed", "faithful")


@dataclass(frozen=True)
class ScoreParams:
    """How a patient is scored.

    Parameters
    ----------
    score : {"directed", "faithful"}
        See `anomaly_map`.
    nu : float
        One-Class SVM: bound on the training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised latents.
    n_samples : int
        Latents per One-Class SVM.
    n_models : int
        One-Class SVMs averaged.
    trim : float
        Fraction of the brain's voxels, the brightest on FLAIR, left out of the
        training sample (directed score only).
    ceiling : float
        Of what may count as usual on FLAIR: robust standard deviations above grey
        matter's median (directed score only).
    floor : float
        Weight of the brightness where nothing is unusual; the full weight is ``floor + 1``
        (directed score only).
    sigma_mm : float
        Gaussian smoothing of both contrasts and of the latent score: at least so many mm
        (directed score only).
    noise : float
        What smoothing may leave of FLAIR's noise, in units of white matter's spread: noisy scans
        are smoothed more (directed score only).

    Raises
    ------
    UsageError
        `errors.BAD_VALUE`, naming the field.
    """

    score: str = "directed"
    nu: float = 0.03
    gamma: float | str = "scale"
    n_samples: int = 2000
    n_models: int = 3
    trim: float = 0.10
    ceiling: float = 2.0
    floor: float = 3.0
    sigma_mm: float = 0.7
    noise: float = 0.15

    def __post_init__(self) -> None:
        self._require(self.score in SCORES, "score", self.score, f"choose from {SCORES}")
        self._require(0.0 < self.nu <= 1.0, "nu", self.nu, "expected 0 < nu <= 1")
        self._require(0.0 <= self.trim < 0.9, "trim", self.trim, "expected 0 <= trim < 0.9")
        self._require(self.floor >= 0.0, "floor", self.floor, "expected floor >= 0")
        self._require(self.noise > 0.0, "noise", self.noise, "expected noise > 0")
        self._require(self.n_samples >= 1, "n_samples", self.n_samples, "expected at least 1")
        self._require(self.n_models >= 1, "n_models", self.n_models, "expected at least 1")

    @staticmethod
    def _require(condition: bool, field: str, value: object, expected: str) -> None:
        if not condition:
            raise UsageError(BAD_VALUE.format(option=field, value=value, expected=expected))


@dataclass(frozen=True, eq=False)
class AnomalyMap:
    """What scoring gives.

    Attributes
    ----------
    scores : (X, Y, Z) float32 array
        Larger = more abnormal, 0 outside the mask.
    device : str
        Where it was computed in the end.
    warnings : tuple of str
        What the user should know: the GPU's memory did not suffice.
    """

    scores: NDArray[np.float32]
    device: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scan:
    """One session on its working grid.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) array
        Robust z-scores against white matter.
    mask : (X, Y, Z) bool array
        Brain.
    grey_matter : (X, Y, Z) bool array, optional
        From a registered prior; the brain when not given.
    voxels : (X, Y, Z) integer array, optional
        For voxel-wise models: which one scores which voxel, -1 = none.
    zooms : three floats
        Voxel edges, mm.

    Raises
    ------
    GridMismatchError
        `errors.GRID_MISMATCH`, when the arrays differ in shape.
    """

    flair_z: NDArray[Any]
    t1w_z: NDArray[Any]
    mask: NDArray[np.bool_]
    grey_matter: NDArray[np.bool_] | None = None
    voxels: NDArray[np.integer[Any]] | None = None
    zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        arrays = (self.flair_z, self.t1w_z, self.mask, self.grey_matter, self.voxels)
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) > 1:
            detail = f"shapes {sorted(shapes)}"
            raise GridMismatchError(GRID_MISMATCH.format(first="FLAIR", second="T1w or mask", detail=detail))

    def network_input(
        self, slab: slice = slice(None), most: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Network input of some axial slices, FLAIR cut where it is above `most` (X, Y, Z): (2, X, Y, S)."""
        flair = self.flair_z[..., slab]
        flair = flair if most is None else np.minimum(flair, most[..., slab])
        return network_input(flair, self.t1w_z[..., slab], self.mask[..., slab])


def anomaly_map(
    model: SiamesePatchAutoEncoder,
    scan: Scan,
    params: ScoreParams,
    rng: np.random.Generator,
    *,
    one_class: OneClassModel | None = None,
    device: str = "cpu",
    slices: int | None = None,
) -> AnomalyMap:
    r"""Score every brain voxel: larger = more abnormal.

    Slab by slab, the patch around every voxel is embedded and scored; latents are never
    held for the whole brain. On the CPU ``torch.get_num_threads()`` slabs are in work at
    once. On a GPU whose memory does not suffice slabs are halved, and in the end the CPU
    goes on. The map does not depend on the number of threads.

    ``"faithful"`` is minus the decision function of an untrimmed ensemble, as in
    Pinon et al., MIDL 2023 (inferred, METHOD.md section 1).

    ``"directed"`` asks how much of a patch's surprise S (minus the log of the
    One-Class SVM's kernel sum) goes away when FLAIR is cut where it is brighter than
    usual, and weights the brightness B with the answer:

    .. math:: D = \max(0, S(F, T) - S(\min(F, u), T)) / \sigma_S, \qquad
              B = r \sqrt{\max(z, 0) \max(z_T, 0)}, \qquad
              A = B \cdot \left(\text{floor} + \frac{D}{1 + D}\right)

    z is FLAIR against white matter, less its local departure; z_T the same against the scan's
    own tissue of the same T1w (`expected.expected_flair`): cortex that is bright in everybody is
    no lesion. u is one spread above that. r is `expected.rim_weight` times `expected.tissue_weight`. The
    brightest `trim` of the brain's FLAIR is never shown to the patient's own
    One-Class SVM: lesions cannot be learnt as normal. sigma_S = 1.4826 MAD of S over the voxels
    that may be shown; D and both contrasts are smoothed (`brightness.smoothing_mm`), F itself is not. The factor lies in
    [floor, floor + 1): the latent score ranks, it cannot veto.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
    scan : Scan
    params : ScoreParams
    rng : numpy.random.Generator
    one_class : OneClassModel, optional
        Fitted to controls (*pooled* or *voxel* paradigm); without it the scan's own patches
        are learnt (*patient* paradigm). Voxels without a model (`Scan.voxels`) have D = 0,
        and the median of all others as their faithful score.
    device : str
        torch device.
    slices : int, optional
        Axial slices per slab: bounds the memory, does not change the map beyond rounding;
        `embedding.slab_slices` without it.

    Returns
    -------
    AnomalyMap

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the mask is too small.
    """
    if params.score == "faithful":
        return _faithful(model, scan, params, rng, one_class, device, slices or slab_slices(model))
    brightness = brightness_maps(scan, params)
    found = latent_excess(
        model, scan, params, rng, brightness, one_class=one_class, device=device, slices=slices
    )
    factor = np.float32(params.floor) + found.scores / (1.0 + found.scores)
    return replace(found, scores=brightness.score * factor)


def latent_excess(
    model: SiamesePatchAutoEncoder,
    scan: Scan,
    params: ScoreParams,
    rng: np.random.Generator,
    brightness: Brightness,
    *,
    one_class: OneClassModel | None = None,
    device: str = "cpu",
    slices: int | None = None,
) -> AnomalyMap:
    """Surprise that goes away when FLAIR is no brighter than usual: D of `anomaly_map`, without the rest.

    The parameters are `anomaly_map`'s, and `brightness_maps` of the same scan.

    Returns
    -------
    AnomalyMap
        In units of the usual surprise's spread, smoothed; 0 where the scan is not bright.
    """
    flair, relevant = brightness.flair, scan.mask & (brightness.score > 0)
    shown = scan.mask & (flair <= np.quantile(flair[scan.mask], 1.0 - params.trim))
    sample = draw_sample(model, scan, shown, params, rng, members=one_class is None)
    one_class = one_class or fit_patient(sample.members, nu=params.nu, gamma=params.gamma)
    spread = _surprise_spread(one_class.on(), sample)

    def score_on(where: str) -> Callable[[slice], Tensor]:
        encoder, operator = DenseEncoder(model, where), one_class.on(where)

        def score(slab: slice) -> Tensor:
            wanted = relevant[..., slab]
            voxels = _models(scan.voxels, relevant, slab, where)
            with_lesions, without = (
                operator.log_score_samples(
                    encoder(scan.network_input(slab, most), wanted, slice(None)), voxels
                )
                for most in (None, brightness.most)
            )
            return (without - with_lesions).clamp_(min=0.0).div_(spread)

        return score

    excess, where, warnings = stream_slabs(score_on, relevant, slices or slab_slices(model), device)
    excess = smooth_inside(excess, scan.mask, scan.zooms, brightness.sigma_mm)
    return AnomalyMap(np.where(relevant, excess, np.float32(0.0)), where, warnings)


def _faithful(
    model: SiamesePatchAutoEncoder,
    scan: Scan,
    params: ScoreParams,
    rng: np.random.Generator,
    one_class: OneClassModel | None,
    device: str,
    slices: int,
) -> AnomalyMap:
    """Minus the decision function at every brain voxel."""
    if one_class is None:
        sample = draw_sample(model, scan, scan.mask, params, rng, spread=False)
    fitted = one_class or fit_patient(sample.members, nu=params.nu, gamma=params.gamma)

    def score_on(where: str) -> Callable[[slice], Tensor]:
        encoder, operator = DenseEncoder(model, where), fitted.on(where)

        def score(slab: slice) -> Tensor:
            latents = encoder(scan.network_input(slab), scan.mask[..., slab], slice(None))
            return -operator.decision_function(latents, _models(scan.voxels, scan.mask, slab, where))

        return score

    scores, where, warnings = stream_slabs(score_on, scan.mask, slices, device)
    if scan.voxels is not None:  # without a model: neither unusual nor usual
        known = scan.mask & (scan.voxels >= 0)
        if not known.any():
            raise BadDataError(TOO_FEW_VOXELS.format(what="voxels that the model covers", n=0, needed=1))
        scores[scan.mask & ~known] = np.median(scores[known])
    return AnomalyMap(scores, where, warnings)


def _surprise_spread(operator: ScoreOperator, sample: Sample) -> float:
    """1.4826 MAD of surprise over usual voxels."""
    usual = operator.log_score_samples(torch.from_numpy(sample.spread), sample.spread_voxels).numpy()
    usual = usual[np.isfinite(usual)]
    if not usual.size:
        raise BadDataError(TOO_FEW_VOXELS.format(what="voxels that the model covers", n=0, needed=1))
    return max(MAD_TO_SD * float(np.median(np.abs(usual - np.median(usual)))), 1e-6)


def _models(
    voxels: NDArray[np.integer[Any]] | None, wanted: NDArray[np.bool_], slab: slice, device: str
) -> Tensor | None:
    """Which voxel-wise model scores which row of a slab."""
    if voxels is None:
        return None
    rows = slices_first(voxels, slab)[slices_first(wanted, slab)]
    return torch.from_numpy(rows.astype(np.int64)).to(device)
