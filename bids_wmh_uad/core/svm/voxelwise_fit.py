"""Fitting one One-Class SVM for every voxel of a template, thousands of them side by side.

The duals are small, one sample a subject, and are solved in batches on the CPU's caches or on a GPU;
see `core.svm.solver`. The fitted models are a `core.svm.voxelwise.VoxelwiseOneClassSVM`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.parallel import parallel_map, process_map
from bids_wmh_uad.core.svm.estimator import require_nu, resolve_gamma
from bids_wmh_uad.core.svm.paradigms import Standardiser
from bids_wmh_uad.core.svm.solver import (
    LOG2_E,
    WORKING_SET,
    DualSolution,
    models_at_once,
    solve_batches,
    solve_dual,
)
from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM
from bids_wmh_uad.errors import BAD_LATENTS, GRID_MISMATCH, GridMismatchError, LatentsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MODELS_PER_PART = 4096
"""Models in one piece of work: about 20 MB of latents for a hundred subjects of 16 features."""
MODELS_PER_COPY = 512
"""Models whose support vectors are copied at a time: they stay in a core's cache."""
TOLERANCE = 2e-4
"""Largest violation of every dual's optimality conditions, in units of the score; scikit-learn's default is 1e-3."""
STANDARDISING_VOXELS = 1000
"""Voxels whose latents set the common standardisation: with all subjects' they are more than enough for quantiles."""


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
        Of every dual, in units of the score.
    device : str
        torch device of the solver.
    n_jobs : int, optional
        See `core.parallel.process_map`; processes pay from about 200,000 models on. Not used on a GPU.

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

    See Also
    --------
    leave_one_out : Scores of the same subjects, each under models of the others.
    core.svm.paradigms.fit_pooled : One model of all subjects for all voxels.

    Notes
    -----
    One One-Class SVM a voxel is the "localised" model of Pinon et al.'s group. Of the paper the abstract and
    the introduction were read: that it was used so is inferred. The batches, the common
    standardisation and the float32 arithmetic are this program's.

    References
    ----------
    * N. Pinon, R. Trombetta and C. Lartizien, "One-Class SVM on siamese neural network latent space for
      Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities", MIDL 2023,
      arXiv:2304.08058.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from bids_wmh_uad.core.svm.voxelwise_fit import fit_voxelwise
    >>> latents = np.random.default_rng(0).normal(size=(30, 2, 3)).astype(np.float32)  # 30 subjects, 2 voxels
    >>> model = fit_voxelwise(latents, np.ones((2, 1, 1), dtype=bool), np.eye(4), nu=0.1)
    >>> model.locate(np.array([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [5.0, 0.0, 0.0]]))
    array([ 0,  1, -1])
    >>> patient = torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    >>> (model.decision_function(patient, torch.tensor([0, 1])) > 0).tolist()  # inlier, outlier
    [True, False]
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
    batches = _read_batches(latents, start, standardiser, models_at_once(len(latents), dual.device))
    width, solution = dual.solve(batches, len(latents))
    alpha = solution.alpha.cpu().numpy()
    support = alpha > 0
    sample = np.flatnonzero(support) % alpha.shape[1]
    offset = solution.offset.cpu().numpy()
    return support.sum(1), sample.astype(np.int32), alpha[support], width.cpu().numpy(), offset


def _support_vectors(
    latents: NDArray[Any], standardiser: Standardiser, starts: NDArray[np.int64], sample: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Standardised latents of each model's support vectors: (k, d)."""
    voxels, width = latents.shape[1:]
    table = np.empty((len(sample), width), dtype=np.float32)
    contiguous = latents.flags.c_contiguous

    def fill(start: int) -> None:
        ends = starts[start : start + MODELS_PER_COPY + 1]
        span = slice(ends[0], ends[-1])
        voxel = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        if contiguous:  # one index for two is five times as fast
            row = sample[span].astype(np.int64) * voxels + voxel
            table[span] = latents.reshape(-1, width).take(row, axis=0)
        else:
            table[span] = latents[sample[span], voxel]
        vectors = torch.from_numpy(table[span])
        standardiser.apply(vectors, out=vectors)

    parallel_map(fill, range(0, len(starts) - 1, MODELS_PER_COPY))
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
        See `core.svm.paradigms.ScoreOperator`.

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
    models, count = models_at_once(len(latents) - 1, dual.device), len(latents)
    part = torch.cat(list(_read_batches(latents, start, standardiser, models))).to(dual.device)
    log_score, decision = (np.empty((count, len(part)), dtype=np.float32) for _ in range(2))
    for subject in range(count):
        others = part[:, [k for k in range(count) if k != subject]]
        width, solution = dual.solve(torch.split(others, models), count - 1)
        scores = _score_left_out(part[:, subject : subject + 1], others, solution.alpha, width)
        log_score[subject] = scores.cpu().numpy()
        decision[subject] = (scores.exp() - solution.offset).cpu().numpy()
    return log_score, decision


def _score_left_out(latents: Tensor, others: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """Log kernel sum of one latent per model, (m, 1, d), under its model's samples, the (m, n, d) others: (m,)."""
    squared = (latents - others).square().sum(-1)
    return torch.logsumexp(alpha.log() - gamma[:, None] * squared, 1)


def _common_standardiser(latents: NDArray[Any], nu: float) -> Standardiser:
    """Median and range of the latents of about `STANDARDISING_VOXELS` voxels, evenly spaced."""
    require_nu(nu)
    if not latents.size:
        raise LatentsError(BAD_LATENTS.format(reason=f"there are none (shape {latents.shape})"))
    step = max(1, latents.shape[1] // STANDARDISING_VOXELS)
    sample = np.asarray(latents[:, ::step], dtype=np.float64).reshape(-1, latents.shape[2])
    return Standardiser.fit(sample[np.isfinite(sample).all(axis=1)])


def _map(
    function: Callable[[int], tuple[NDArray[Any], ...]], voxels: int, n_jobs: int | None, device: str
) -> list[tuple[NDArray[Any], ...]]:
    """Apply to the first voxel of every part: one part at a time on a GPU."""
    starts = range(0, voxels, MODELS_PER_PART)
    if device != "cpu":
        return parallel_map(function, starts, threads=1)
    return process_map(function, starts, n_jobs)


def _read_batches(
    latents: NDArray[Any], start: int, standardiser: Standardiser, models: int
) -> Iterator[Tensor]:
    """Standardised latents of one part's voxels, some models' at a time: (m, n, d) float32."""
    end = min(start + MODELS_PER_PART, latents.shape[1])
    for first in range(start, end, models):
        yield _read(latents, slice(first, min(first + models, end)), standardiser)


def _read(latents: NDArray[Any], rows: slice, standardiser: Standardiser) -> Tensor:
    """Standardised latents of some voxels: (m, n, d) float32."""
    part = np.array(latents[:, rows], dtype=np.float32)
    if not np.isfinite(part.sum()):  # of finite values the sum may overflow: then count
        broken = int((~np.isfinite(part)).sum())
        if broken:
            span = f"voxels {rows.start} to {rows.stop - 1}"
            raise LatentsError(BAD_LATENTS.format(reason=f"{broken} values at {span} are NaN or infinite"))
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
    def solve(self, batches: Iterable[Tensor], count: int) -> tuple[Tensor, DualSolution]:
        """Widths (m,) and duals of the models of (m, n, d) samples, which come in batches; `count` is n."""
        widths: list[Tensor] = []

        def scale(part: Tensor) -> Tensor:
            features, width = self._scale(part.to(self.device))
            widths.append(width)
            return features

        total = self.nu * count
        if count <= WORKING_SET:
            solution = solve_batches(map(scale, batches), total, tol=self.tol)
        else:
            solution = solve_dual(torch.cat(list(map(scale, batches))), total, tol=self.tol)
        return torch.cat(widths), solution

    def _scale(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Features as the solver takes them, and widths."""
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
        return features, width
