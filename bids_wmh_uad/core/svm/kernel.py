"""Sums of Gaussian kernels: what a One-Class SVM's score is, at whole-brain scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.core.svm.solver import LOG2_E

SCORE_ELEMENTS = 2**17
"""Kernel values computed at a time in scoring: with the matrix product's operands they stay in a core's cache."""
CHUNK_ROWS = 2**14
"""Latents of one piece of work: few enough that all threads are busy to the end, and that their memory is
kept from one piece to the next: 2 ** 16 took a fifth more processor time, for pages that are new each time."""
SCORE_ELEMENTS_ON_GPU, CHUNK_ROWS_ON_GPU = 2**26, 2**20
"""The same on another device, which has no use for small pieces: 256 MB and, with 16-d latents, 75 MB."""
SINGLE_PRECISION_LIMIT = 100.0
"""Largest ``gamma |x|^2`` of a support vector, from their mean, for which float32 arithmetic serves:
expanded squared distances lose about 1e-7 of it, and so 1e-5 of the kernel."""

OVERFLOW = 1e30
"""Largest squared distance that is left to float32, whose range ends at 3e38."""


@dataclass(frozen=True, eq=False)
class KernelSum:
    """``sum_i a_i exp(-gamma |x - s_i|^2) - offset``, scikit-learn's sign law: larger = more normal.

    Parameters
    ----------
    support_vectors : (m, d) array
    dual_coef : (m,) array
        Positive.
    gamma : float
    offset : float
    centre, scale : (d,) array or float
        Latents are standardised to ``(x - centre) / scale`` before the kernel.

    See Also
    --------
    core.svm.paradigms.fit_patient, core.svm.paradigms.fit_pooled : Fit one.
    core.svm.voxelwise.VoxelwiseOneClassSVM : One kernel sum for each voxel.

    Notes
    -----
    The exponent is expanded, ``-gamma (|x|^2 - 2 x.s + |s|^2)``, so that all kernel values of a block
    come from one matrix product; `precision` says where that costs too many digits of float32.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.svm.kernel import KernelSum
    >>> model = KernelSum(np.array([[0.0], [1.0]]), np.array([0.5, 0.5]), gamma=1.0, offset=0.6)
    >>> model.score_samples(np.array([[0.0], [0.5], [2.0]])).round(4)
    array([0.6839, 0.7788, 0.1931])
    >>> model.decision_function(np.array([[0.0], [0.5], [2.0]])).round(4)
    array([ 0.0839,  0.1788, -0.4069])
    """

    support_vectors: NDArray[Any]
    dual_coef: NDArray[Any]
    gamma: float
    offset: float
    centre: NDArray[Any] | float = 0.0
    scale: NDArray[Any] | float = 1.0

    def check(self) -> None:
        """Check that a model from a file is one.

        Raises
        ------
        ValueError
        """
        count, width = self.support_vectors.shape if np.ndim(self.support_vectors) == 2 else (0, 0)
        common = np.shape(self.centre) == np.shape(self.scale) == (width,)
        if not count or np.shape(self.dual_coef) != (count,) or not common:
            raise ValueError("the shapes of its arrays do not fit")
        finite = all(np.isfinite(value).all() for value in vars(self).values())
        if not (finite and self.gamma > 0 and np.min(self.dual_coef) > 0 and np.min(self.scale) > 0):
            raise ValueError("numbers are out of range")

    def on(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> KernelSumOperator:
        """Lay out for a device and a type."""
        vectors = np.asarray(self.support_vectors, dtype=np.float64)
        origin = vectors.mean(axis=0)  # small numbers keep expanded squared distances accurate
        vectors = vectors - origin
        width = self.gamma * LOG2_E
        constant = np.log2(np.asarray(self.dual_coef, dtype=np.float64))
        constant -= width * np.square(vectors).sum(axis=1)
        weights = [2.0 * width * vectors.T, constant[None], np.full((1, len(vectors)), -width)]
        centre = np.broadcast_to(self.centre + np.asarray(self.scale) * origin, origin.shape)
        scale = np.broadcast_to(self.scale, origin.shape)
        arrays = (np.concatenate(weights), np.array(centre, dtype=float), np.array(scale, dtype=float))
        laid_out = [torch.from_numpy(array).to(device=device, dtype=dtype) for array in arrays]
        return KernelSumOperator(laid_out[0], laid_out[1], laid_out[2], self.offset)

    def precision(self, latents: NDArray[Any]) -> torch.dtype:
        """Choose the arithmetic: float32 for float32 latents, where that is accurate enough."""
        vectors = np.asarray(self.support_vectors, dtype=np.float64)
        spread = self.gamma * np.square(vectors - vectors.mean(axis=0)).sum(axis=1).max(initial=0.0)
        if latents.dtype != np.float32 or spread > SINGLE_PRECISION_LIMIT:
            return torch.float64
        largest = float(np.abs(latents).max(initial=0.0)) + float(np.abs(self.centre).max())
        largest = (largest / float(np.min(self.scale))) ** 2
        single = max(self.gamma, largest, largest * self.gamma * vectors.shape[1]) < OVERFLOW
        return torch.float32 if single else torch.float64

    def log_score_samples(self, latents: NDArray[Any], device: torch.device | str = "cpu") -> NDArray[Any]:
        """Natural logarithm of the kernel sum, which does not underflow far from all support vectors.

        Parameters
        ----------
        latents : (n, d) array
            float32 is computed in float32 where that is accurate (to about 1e-5 of the
            sum); anything else in float64.
        device : torch.device or str

        Returns
        -------
        (n,) array of the arithmetic's type.
        """
        dtype = self.precision(latents)
        operator = self.on(device, dtype)
        result = np.empty(len(latents), dtype=np.float32 if dtype == torch.float32 else np.float64)
        chunk = CHUNK_ROWS if torch.device(device).type == "cpu" else CHUNK_ROWS_ON_GPU

        def score(start: int) -> None:
            rows = slice(start, start + chunk)
            part = torch.tensor(latents[rows], device=device, dtype=dtype)
            result[rows] = operator.log_score_samples(part).cpu().numpy()

        parallel_map(score, range(0, len(latents), chunk))
        return result

    def score_samples(self, latents: NDArray[Any], device: torch.device | str = "cpu") -> NDArray[Any]:
        """Kernel sum of (n, d) latents: (n,), larger = more normal."""
        score: NDArray[Any] = np.exp(self.log_score_samples(latents, device))
        return score

    def decision_function(self, latents: NDArray[Any], device: torch.device | str = "cpu") -> NDArray[Any]:
        """``score_samples - offset``: (n,), inlier > 0."""
        scores = self.score_samples(latents, device)
        decision: NDArray[Any] = scores - scores.dtype.type(self.offset)
        return decision


@dataclass(frozen=True, eq=False)
class KernelSumOperator:
    """A `KernelSum` laid out as one matrix product: features, a one and the squared norm times `weights`.

    The exponents come out in base 2, whose exponential is three times as fast as base e's.
    """

    weights: Tensor
    centre: Tensor
    scale: Tensor
    offset: float

    @torch.inference_mode()
    def log_score_samples(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Natural logarithm of the kernel sum: (n, d) -> (n,), both of the operator's type and device."""
        features = (latents - self.centre) / self.scale
        norm = features.square().sum(1, keepdim=True)
        features = torch.cat([features, torch.ones_like(norm), norm], 1)
        result = torch.empty(len(features), dtype=features.dtype, device=features.device)
        elements = SCORE_ELEMENTS if features.device.type == "cpu" else SCORE_ELEMENTS_ON_GPU
        rows = max(1, elements // self.weights.shape[1])
        for start in range(0, len(features), rows):
            part = features[start : start + rows]
            torch.sum(torch.mm(part, self.weights).exp2_(), 1, out=result[start : start + rows])
        tiny = torch.finfo(result.dtype).tiny / torch.finfo(result.dtype).eps
        result.log_()
        underflowing = (result < math.log(tiny)).nonzero()[:, 0]
        for start in range(0, len(underflowing), rows):
            batch = underflowing[start : start + rows]
            exponents = torch.mm(features[batch], self.weights) * math.log(2.0)
            result[batch] = torch.logsumexp(exponents, 1)
        return result

    def decision_function(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Kernel sum minus offset: (n, d) -> (n,), inlier > 0."""
        return self.log_score_samples(latents).exp() - self.offset
