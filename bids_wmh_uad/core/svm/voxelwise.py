"""One One-Class SVM for every voxel of a template: the group's "localised" paradigm, in batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.parallel import parallel_map, process_map
from bids_wmh_uad.core.svm.estimator import require_nu, resolve_gamma
from bids_wmh_uad.core.svm.paradigms import Standardiser
from bids_wmh_uad.core.svm.solver import LOG2_E, DualSolution, solve_dual
from bids_wmh_uad.errors import BAD_LATENTS, GRID_MISMATCH, GridMismatchError, LatentsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bids_wmh_uad.core.svm.kernel import KernelSum


MODELS_TOGETHER = 4096
"""Models in one piece of work: about 20 MB of latents for a hundred subjects of 16 features."""
ROWS_TOGETHER = 2048
"""Latents scored at a time: their support vectors take about 4 MB."""
ROWS_ON_GPU = 2**16
TOLERANCE = 2e-4
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

    def check(self) -> None:
        """Check that a model from a file is one, without reading its support vectors.

        Raises
        ------
        ValueError
        """
        count, total = len(self.starts) - 1, len(self.dual_coef)
        vectors, shapes = self.support_vectors.shape, (self.gamma.shape, self.offset.shape)
        fits = len(vectors) == 2 and vectors[0] == total and shapes == ((count,), (count,))
        fits = fits and self.centre.shape == self.scale.shape == vectors[1:]
        fits = fits and self.mask.ndim == 3 and self.affine.shape == (4, 4)
        if not fits or self.mask.dtype != torch.bool or int(self.mask.sum()) != count:
            raise ValueError("the shapes of its arrays do not fit")
        ordered = self.starts[0] == 0 and self.starts[-1] == total and bool((self.starts.diff() >= 0).all())
        if not (ordered and bool((self.gamma > 0).all()) and bool((self.scale > 0).all())):
            raise ValueError("numbers are out of range")

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

    def log_score_samples(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Natural logarithm of the kernel sums of (n, d) latents under models ``voxels`` (n,).

        NaN where ``voxels`` is negative: there is no model.
        """
        assert voxels is not None  # optional only where one model scores all
        result = torch.full((len(latents),), math.nan, dtype=latents.dtype, device=latents.device)
        known = (voxels >= 0).nonzero()[:, 0]
        together = ROWS_TOGETHER if latents.device.type == "cpu" else ROWS_ON_GPU

        @torch.inference_mode()
        def score(start: int) -> None:
            rows = known[start : start + together]
            features = (latents[rows] - self.centre) / self.scale
            result[rows] = self._log_scores(features, voxels[rows])

        parallel_map(score, range(0, len(known), together), 1 if together == ROWS_ON_GPU else None)
        return result

    def _log_scores(self, features: Tensor, voxels: Tensor) -> Tensor:
        """Sum over each row's own support vectors: all pairs in one list, segments added up."""
        first = self.starts[voxels]
        count = self.starts[voxels + 1] - first
        row = torch.repeat_interleave(count)
        vector = torch.arange(len(row), device=row.device) + (first - count.cumsum(0) + count).index_select(
            0, row
        )
        squared = self.support_vectors.index_select(0, vector).sub_(features.index_select(0, row)).square_()
        exponent = torch.mv(squared, squared.new_ones(squared.shape[1]))  # the fastest sum of rows
        exponent.mul_((-LOG2_E * self.gamma[voxels]).index_select(0, row))
        exponent.add_(self.dual_coef.index_select(0, vector).log2_())
        peak = torch.full_like(features[:, 0], -math.inf).scatter_reduce_(0, row, exponent, "amax")
        total = torch.zeros_like(peak).index_add_(0, row, exponent.sub_(peak.index_select(0, row)).exp2_())
        return (peak + total.log2()) * math.log(2.0)

    def decision_function(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Kernel sums minus offsets of (n, d) latents under models ``voxels`` (n,); NaN without a model."""
        assert voxels is not None
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
    n_jobs: int | None = None,
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
    n_jobs : int, optional
        See `parallel.process_map`; processes pay from about 200,000 models on. Not used on a GPU.

    Returns
    -------
    VoxelwiseOneClassSVM
        The same, bit for bit, whatever `n_jobs`.

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
    fit = partial(_fit_part, latents, standardiser, _Dual(nu, gamma, tol, device))
    parts = _map(fit, voxels, n_jobs, device)
    counts, sample, *tables = (np.concatenate(column) for column in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts)])
    support_vectors = _support_vectors(latents, standardiser, starts, sample)
    arrays = (
        starts,
        support_vectors,
        *tables,
        standardiser.centre.astype(np.float32),
        standardiser.scale.astype(np.float32),
    )
    grid = np.ascontiguousarray(mask, dtype=bool), np.array(affine, dtype=np.float64)
    return VoxelwiseOneClassSVM(*(torch.from_numpy(array) for array in (*arrays, *grid)))


def _fit_part(
    latents: NDArray[Any], standardiser: Standardiser, dual: _Dual, start: int
) -> tuple[NDArray[Any], ...]:
    """Models of the voxels from `start` on: counts and numbers of their support vectors, and what goes with them.

    Not the vectors themselves, which would be most of what a worker process sends.
    """
    width, solution = dual.solve(_read(latents, slice(start, start + MODELS_TOGETHER), standardiser))
    alpha = solution.alpha.cpu().numpy()
    support = alpha > 0
    sample = np.flatnonzero(support) % alpha.shape[1]
    offset = solution.offset.cpu().numpy()
    return support.sum(1), sample.astype(np.int32), alpha[support], width.cpu().numpy(), offset


def _support_vectors(
    latents: NDArray[Any], standardiser: Standardiser, starts: NDArray[np.int64], sample: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Standardised latents of each model's support vectors: (k, d)."""
    table = np.empty((len(sample), latents.shape[2]), dtype=np.float32)

    def fill(start: int) -> None:
        ends = starts[start : start + MODELS_TOGETHER + 1]
        span = slice(ends[0], ends[-1])
        voxel = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        table[span] = latents[sample[span], voxel]
        vectors = torch.from_numpy(table[span])
        standardiser.apply(vectors, out=vectors)

    parallel_map(fill, range(0, len(starts) - 1, MODELS_TOGETHER))
    return table


def leave_one_out(
    latents: NDArray[Any],
    *,
    nu: float,
    gamma: float | str = "scale",
    tol: float = TOLERANCE,
    device: str = "cpu",
    n_jobs: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score every subject of a cohort with models fitted to all the others: a reference without controls.

    Parameters
    ----------
    latents : (n, V, d) array
        At least two subjects; may be memory-mapped.
    nu : float
        Expected contamination.
    gamma, tol, device, n_jobs
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
    score = partial(_leave_out_of_part, latents, standardiser, _Dual(nu, gamma, tol, device))
    parts = _map(score, voxels, n_jobs, device)
    log_score, decision = (np.concatenate(column, axis=1) for column in zip(*parts, strict=True))
    return log_score, decision


def _leave_out_of_part(
    latents: NDArray[Any], standardiser: Standardiser, dual: _Dual, start: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`leave_one_out` of the voxels from `start` on."""
    part = _read(latents, slice(start, start + MODELS_TOGETHER), standardiser).to(dual.device)
    log_score, decision = (np.empty((part.shape[1], len(part)), dtype=np.float32) for _ in range(2))
    for subject in range(part.shape[1]):
        others = part[:, [k for k in range(part.shape[1]) if k != subject]]
        width, solution = dual.solve(others)
        scores = _log_scores(part[:, subject : subject + 1], others, solution.alpha, width)
        log_score[subject] = scores.cpu().numpy()
        decision[subject] = (scores.exp() - solution.offset).cpu().numpy()
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


def _map(
    function: Callable[[int], tuple[NDArray[Any], ...]], voxels: int, n_jobs: int | None, device: str
) -> list[tuple[NDArray[Any], ...]]:
    """Apply to the first voxel of every part: one part at a time on a GPU."""
    starts = range(0, voxels, MODELS_TOGETHER)
    if device != "cpu":
        return parallel_map(function, starts, threads=1)
    return process_map(function, starts, n_jobs)


def _read(latents: NDArray[Any], rows: slice, standardiser: Standardiser) -> Tensor:
    """Standardised latents of some voxels: (m, n, d) float32."""
    part = np.array(latents[:, rows], dtype=np.float32)
    if not np.isfinite(part.sum()):  # of finite values the sum may overflow: then count
        broken = int((~np.isfinite(part)).sum())
        if broken:
            where = f"voxels {rows.start} to {rows.start + part.shape[1] - 1}"
            raise LatentsError(BAD_LATENTS.format(reason=f"{broken} values at {where} are NaN or infinite"))
    by_voxel = torch.from_numpy(part).transpose(0, 1)
    return standardiser.apply(by_voxel, out=torch.empty(by_voxel.shape))


@dataclass(frozen=True)
class _Dual:
    """How the duals are posed and solved; see `fit_voxelwise`."""

    nu: float
    gamma: float | str
    tol: float
    device: str

    @torch.inference_mode()
    def solve(self, part: Tensor) -> tuple[Tensor, DualSolution]:
        """Widths (m,) and duals of the models of (m, n, d) samples."""
        part = part.to(self.device)
        means = part.mean(1, keepdim=True)
        features = part - means
        if self.gamma == "scale":
            flat = features.flatten(1)
            # of all values together, from the variances within and between features
            variance = torch.linalg.vecdot(flat, flat) / flat.shape[1] + means[:, 0].var(1, unbiased=False)
            width = torch.where(variance > 0, 1.0 / (part.shape[2] * variance), 1.0)
        else:
            width = part.new_full((len(part),), resolve_gamma(self.gamma, part[0].cpu().numpy()))
        features *= (width * LOG2_E).sqrt()[:, None, None]
        return width, solve_dual(features, self.nu * part.shape[1], tol=self.tol)


def model_numbers(
    model: KernelSum | VoxelwiseOneClassSVM | None,
    mask: NDArray[np.bool_],
    to_template: NDArray[np.float64],
) -> NDArray[np.int32] | None:
    """Which voxel-wise model scores which voxel of a scan: see `scoring.Scan`; None if there is one for all.

    Parameters
    ----------
    model : KernelSum, VoxelwiseOneClassSVM or None
    mask : (X, Y, Z) bool array
        The brain, on the working grid.
    to_template : (4, 4) array
        Its voxels to template mm.
    """
    if not isinstance(model, VoxelwiseOneClassSVM):
        return None
    numbers = np.full(mask.shape, -1, dtype=np.int32)
    numbers[mask] = model.locate(np.argwhere(mask) @ to_template[:3, :3].T + to_template[:3, 3])
    return numbers
