"""One One-Class SVM for every voxel of a template: the group's "localised" paradigm, in batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.dual import LOG2_E, DualSolution, scale_features, solve_dual
from bids_wmh_uad.core.ocsvm import Standardiser, require_nu, resolve_gamma
from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.errors import BAD_LATENTS, GRID_MISMATCH, GridMismatchError, LatentsError

MODELS_TOGETHER = 2048
"""Models solved side by side: many enough to hide the interpreter, few enough for the cache."""
ROWS_TOGETHER = 2048
"""Latents scored at a time: their support vectors take about 4 MB."""
TOLERANCE = 1e-4
"""Of every dual, in units of the score; scikit-learn's default is 1e-3."""
GRID = ("mask", "affine")
"""Where the models lie: what scoring does not need on its device."""


@dataclass(frozen=True, eq=False)
class VoxelwiseOneClassSVM:
    """Fitted models of all voxels in one ragged table: model v owns rows ``starts[v]:starts[v + 1]``.

    Every attribute may be memory-mapped: scoring reads the rows it needs.

    Parameters
    ----------
    starts : (V + 1,) int64 tensor
    support_vectors : (k, d) float32 tensor
        Standardised.
    dual_coef : (k,) float32 tensor
        In (0, 1]; each model's sum to nu n.
    gamma, offset : (V,) float32 tensors
    centre, scale : (d,) float32 tensors
        Of the standardisation, common to all models.
    mask : (X, Y, Z) bool tensor
        V voxels of the template have a model; ``np.nonzero`` order.
    affine : (4, 4) float64 tensor
        Template voxel to template mm.
    """

    starts: Tensor
    support_vectors: Tensor
    dual_coef: Tensor
    gamma: Tensor
    offset: Tensor
    centre: Tensor
    scale: Tensor
    mask: Tensor
    affine: Tensor

    def on(self, device: torch.device | str = "cpu") -> VoxelwiseOneClassSVM:
        """Move what scoring reads to a device; on the CPU nothing is copied, and memory maps stay so."""
        tables = {name: value.to(device) for name, value in vars(self).items() if name not in GRID}
        return replace(self, **tables)

    def locate(self, coordinates: NDArray[Any]) -> NDArray[np.int64]:
        """Model of each (n, 3) coordinate in template mm, the nearest voxel's: (n,), -1 = none."""
        inverse = np.linalg.inv(self.affine.numpy())
        at = np.rint(coordinates @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        mask = self.mask.numpy()
        limit = np.asarray(mask.shape)
        inside = ((at >= 0) & (at < limit)).all(axis=1)
        flat = np.ravel_multi_index(tuple(np.clip(at, 0, limit - 1).T), mask.shape)
        number = np.cumsum(mask.ravel()) - 1
        found: NDArray[np.int64] = np.where(inside & mask.ravel()[flat], number[flat], -1)
        return found

    @torch.inference_mode()
    def log_score_samples(self, latents: Tensor, voxels: Tensor) -> Tensor:
        """Natural logarithm of the kernel sums of (n, d) latents under models ``voxels`` (n,).

        NaN where ``voxels`` is negative: there is no model.
        """
        result = torch.full((len(latents),), math.nan, dtype=latents.dtype, device=latents.device)
        known = (voxels >= 0).nonzero()[:, 0]
        for start in range(0, len(known), ROWS_TOGETHER):
            rows = known[start : start + ROWS_TOGETHER]
            features = (latents[rows] - self.centre) / self.scale
            result[rows] = self._log_scores(features, voxels[rows])
        return result

    def _log_scores(self, features: Tensor, voxels: Tensor) -> Tensor:
        """Sum over each row's own support vectors: all pairs in one list, segments added up."""
        first = self.starts[voxels]
        count = self.starts[voxels + 1] - first
        row = torch.repeat_interleave(count)
        vector = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count - first)[row]
        squared = (self.support_vectors.index_select(0, vector) - features[row]).square().sum(1)
        exponent = self.dual_coef[vector].log2() - squared * (LOG2_E * self.gamma[voxels])[row]
        peak = torch.full_like(features[:, 0], -math.inf).scatter_reduce_(0, row, exponent, "amax")
        total = torch.zeros_like(peak).index_add_(0, row, (exponent - peak[row]).exp2_())
        return (peak + total.log2()) * math.log(2.0)

    def decision_function(self, latents: Tensor, voxels: Tensor) -> Tensor:
        """Kernel sums minus offsets of (n, d) latents under models ``voxels`` (n,); NaN without a model."""
        offset = self.offset[voxels.clamp(min=0)]
        return self.log_score_samples(latents, voxels).exp() - offset


def fit_voxelwise(
    latents: NDArray[Any],
    mask: NDArray[np.bool_],
    affine: NDArray[Any],
    *,
    nu: float,
    gamma: float | str = "scale",
    tol: float = TOLERANCE,
    device: str = "cpu",
) -> VoxelwiseOneClassSVM:
    """Fit one One-Class SVM per voxel to the co-located latents of several subjects.

    Parameters
    ----------
    latents : (n, V, d) array
        Of n subjects at the V voxels of `mask`, in ``np.nonzero`` order; may be memory-mapped:
        a few thousand voxels are read at a time.
    mask : (X, Y, Z) bool array
    affine : (4, 4) array
        Template voxel to mm.
    nu : float
        Bound on the fraction of training outliers; for a cohort without controls, its
        expected contamination.
    gamma : float or "scale"
        RBF width in standardised features; "scale" for each model by itself.
    tol : float
    device : str

    Returns
    -------
    VoxelwiseOneClassSVM

    Raises
    ------
    GridMismatchError
        `errors.GRID_MISMATCH`, when mask and latents differ in their number of voxels.
    LatentsError
        `errors.BAD_LATENTS`: NaN, infinite, or no subject at all.
    BadDataError
        `errors.BAD_VALUE`: nu or gamma out of range.
    """
    voxels = int(np.count_nonzero(mask))
    if latents.shape[1] != voxels:
        detail = f"{latents.shape[1]} and {voxels} voxels"
        raise GridMismatchError(GRID_MISMATCH.format(first="latents", second="mask", detail=detail))
    standardiser = _common_standardiser(latents, nu)

    def fit(start: int) -> tuple[NDArray[Any], ...]:
        part = _read(latents, slice(start, start + MODELS_TOGETHER), standardiser)
        width, solution = _solve(part, nu, gamma, tol, device)
        alpha = solution.alpha.cpu()
        support = alpha > 0
        return (
            support.sum(1).numpy(),
            part[support].numpy(),
            alpha[support].numpy(),
            width.numpy(),
            solution.offset.cpu().numpy(),
        )

    parts = parallel_map(fit, range(0, voxels, MODELS_TOGETHER), 1 if device != "cpu" else None)
    counts, *tables = (np.concatenate(column) for column in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts)])
    arrays = (starts, *tables, standardiser.centre.astype(np.float32), standardiser.scale.astype(np.float32))
    grid = np.ascontiguousarray(mask, dtype=bool), np.array(affine, dtype=np.float64)
    return VoxelwiseOneClassSVM(*(torch.from_numpy(array) for array in (*arrays, *grid)))


def leave_one_out(
    latents: NDArray[Any],
    *,
    nu: float,
    gamma: float | str = "scale",
    tol: float = TOLERANCE,
    device: str = "cpu",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score every subject of a cohort with models fitted to all the others: a reference without controls.

    Parameters
    ----------
    latents : (n, V, d) array
        At least two subjects; may be memory-mapped.
    nu : float
        Expected contamination.
    gamma, tol, device
        See `fit_voxelwise`.

    Returns
    -------
    log_score, decision : (n, V) float32 arrays
        See `ocsvm.ScoreOperator`.

    Raises
    ------
    LatentsError, BadDataError
        As `fit_voxelwise`.
    """
    count, voxels = latents.shape[:2]
    if count < 2:
        raise LatentsError(BAD_LATENTS.format(reason=f"{count} subjects; leaving one out needs two"))
    standardiser = _common_standardiser(latents, nu)
    log_score, decision = (np.empty((count, voxels), dtype=np.float32) for _ in range(2))

    def score(start: int) -> None:
        rows = slice(start, start + MODELS_TOGETHER)
        part = _read(latents, rows, standardiser)
        for subject in range(count):
            others = part[:, [k for k in range(count) if k != subject]]
            width, solution = _solve(others, nu, gamma, tol, device)
            own = part[:, subject : subject + 1].to(device)
            scores = _log_scores(own, others.to(device), solution.alpha, width.to(device))
            log_score[subject, rows] = scores.cpu().numpy()
            decision[subject, rows] = (scores.exp() - solution.offset).cpu().numpy()

    parallel_map(score, range(0, voxels, MODELS_TOGETHER), 1 if device != "cpu" else None)
    return log_score, decision


def _log_scores(own: Tensor, others: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """Log kernel sum of one latent per model, (m, 1, d), under its model's (m, n, d) samples: (m,)."""
    squared = (own - others).square().sum(-1)
    return torch.logsumexp(alpha.log() - gamma[:, None] * squared, 1)


def _common_standardiser(latents: NDArray[Any], nu: float) -> Standardiser:
    """Median and MAD of the latents of at most 1,000 voxels, evenly spaced."""
    require_nu(nu)
    if not latents.size:
        raise LatentsError(BAD_LATENTS.format(reason=f"there are none (shape {latents.shape})"))
    step = max(1, latents.shape[1] // 1000)
    sample = np.asarray(latents[:, ::step], dtype=np.float64).reshape(-1, latents.shape[2])
    return Standardiser.fit(sample[np.isfinite(sample).all(axis=1)])


def _read(latents: NDArray[Any], rows: slice, standardiser: Standardiser) -> Tensor:
    """Standardised latents of some voxels: (m, n, d) float32."""
    part = np.array(latents[:, rows], dtype=np.float32)
    broken = int((~np.isfinite(part)).sum())
    if broken:
        where = f"voxels {rows.start} to {rows.start + part.shape[1] - 1}"
        raise LatentsError(BAD_LATENTS.format(reason=f"{broken} values at {where} are NaN or infinite"))
    standardised = torch.from_numpy(np.ascontiguousarray(part.transpose(1, 0, 2)))
    for operation, values in (
        (standardised.sub_, standardiser.centre),
        (standardised.div_, standardiser.scale),
    ):
        operation(torch.from_numpy(values.astype(np.float32)))
    return standardised


@torch.inference_mode()
def _solve(
    part: Tensor, nu: float, gamma: float | str, tol: float, device: str
) -> tuple[Tensor, DualSolution]:
    """Widths (m,) and duals of the models of (m, n, d) samples."""
    if gamma == "scale":
        centred = part.flatten(1) - part.flatten(1).mean(1, keepdim=True)
        variance = torch.linalg.vecdot(centred, centred) / centred.shape[1]  # six times as fast as var
        width = torch.where(variance > 0, 1.0 / (part.shape[2] * variance), 1.0)
    else:
        width = torch.full((len(part),), resolve_gamma(gamma, part[0].numpy()), dtype=part.dtype)
    features = scale_features(part.to(device), width.to(device))
    return width, solve_dual(features, nu * part.shape[1], tol=tol)
