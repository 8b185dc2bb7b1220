"""One-Class SVMs of latents with one model for all voxels: of a patient, or of many controls."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.svm.estimator import require_nu, resolve_gamma
from bids_wmh_uad.core.svm.kernel import KernelSum
from bids_wmh_uad.core.svm.solver import scale_features, solve_dual
from bids_wmh_uad.errors import BAD_LATENTS, TOO_FEW_VOXELS, BadDataError, LatentsError

MINIMUM_SAMPLES = 50
"""Least number of training latents: fewer say nothing about a 16-d distribution."""

POOLED_TOLERANCE = 1e-3
"""Largest violation of the pooled dual, in units of the score: scikit-learn's default."""

NORMAL_RANGE = 2 * NormalDist().inv_cdf(0.95)
"""Width of a normal distribution from its 5th to its 95th percentile, in standard deviations."""

Latents = NDArray[np.float32]
"""Latent vectors, one per row."""


class OneClassModel(Protocol):
    """What scoring needs of a fitted One-Class SVM, whichever voxels it was fitted to.

    Three paradigms fulfil it: *patient* (`fit_patient`) and *pooled* (`fit_pooled`) give one model
    for all voxels (`core.svm.kernel.KernelSum`), *voxel*
    (`core.svm.voxelwise.VoxelwiseOneClassSVM`) one for each.
    """

    def on(self, device: torch.device | str = "cpu") -> ScoreOperator:
        """Lay the model out on a device, for float32 latents."""


class ScoreOperator(Protocol):
    """A model on its device; thread-safe."""

    def log_score_samples(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Natural logarithm of the kernel sum of (n, d) latents: (n,), larger = more normal.

        ``voxels`` (n,) says which model scores which row, where there is more than one.
        """

    def decision_function(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Kernel sum minus offset of (n, d) latents: (n,), inlier > 0."""


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Robust per-feature standardisation: ``x - median`` over a third of the 5-95 % range.

    (A 3.29th, so that a normal feature gets its standard deviation.) The MAD would be blind to
    more, but a feature of a trained encoder may rest at its median nearly everywhere: in units
    of its MAD its variance is a hundred times that of the others, sets gamma, and hides them.

    Parameters
    ----------
    centre, scale : (d,) float64 arrays

    See Also
    --------
    sklearn.preprocessing.RobustScaler : Median and interquartile range.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.svm.paradigms import Standardiser
    >>> latents = np.stack([np.arange(101.0), np.ones(101)], axis=1)
    >>> standardiser = Standardiser.fit(latents)
    >>> standardiser.centre
    array([50.,  1.])
    >>> standardiser(latents[[50, 95]]).round(3)  # the median, and the 95th percentile
    array([[0.   , 0.   ],
           [1.645, 0.   ]], dtype=float32)
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, latents: NDArray[Any]) -> Standardiser:
        """From (n, d) latents; a feature without a range gets its standard deviation, or 1."""
        sample = np.asarray(latents, dtype=np.float64)
        low, centre, high = np.quantile(sample, (0.05, 0.5, 0.95), axis=0)
        scale = (high - low) / NORMAL_RANGE
        scale = np.where(scale > 0, scale, sample.std(axis=0))
        return cls(centre, np.where(scale > 0, scale, 1.0))

    def __call__(self, latents: NDArray[Any]) -> Latents:
        """Standardise (n, d) latents; float32."""
        return ((latents - self.centre) / self.scale).astype(np.float32)

    def apply(self, latents: Tensor, out: Tensor) -> Tensor:
        """Standardise (..., d) float32 latents into `out`, which may be themselves."""
        centre, scale = (torch.from_numpy(values.astype(np.float32)) for values in (self.centre, self.scale))
        return torch.sub(latents, centre, out=out).div_(scale)


def fit_patient(
    samples: NDArray[Any],
    *,
    nu: float,
    gamma: float | str,
    tol: float = DetectionParameters.tolerance,
    device: str = "cpu",
) -> KernelSum:
    """Fit the mean of several One-Class SVMs, each to its own sample of one patient's latents.

    Features are standardised by median and 5-95 % range of all samples: a tail of lesions then
    does not set the scale. The members share features and gamma, so that their mean is one
    kernel sum; their duals are solved side by side.

    Parameters
    ----------
    samples : (k, n, d) array
        One sample per member.
    nu : float
        Bound on the fraction of training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised features.
    tol : float
        Of the duals, in units of the score, which is of the order of nu n.
    device : str
        torch device of the solver.

    Returns
    -------
    KernelSum

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when a sample has fewer than 50 rows; `errors.BAD_VALUE`, when nu or
        gamma is out of range.
    LatentsError
        `errors.BAD_LATENTS`, when latents are NaN or infinite.

    See Also
    --------
    fit_pooled : One model of many controls.
    core.svm.estimator.OneClassSVM : A single model with scikit-learn's contract.

    Notes
    -----
    A One-Class SVM of the patient's own patches follows Pinon et al. (2023), of which the abstract and
    the introduction were read; details are inferred. The mean of several, and the standardisation,
    are this program's.

    References
    ----------
    * N. Pinon, R. Trombetta and C. Lartizien, "One-Class SVM on siamese neural network latent space for
      Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities", MIDL 2023,
      arXiv:2304.08058.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.svm.paradigms import fit_patient
    >>> samples = np.random.default_rng(0).normal(size=(2, 200, 3))  # two members
    >>> model = fit_patient(samples, nu=0.05, gamma="scale")
    >>> (model.decision_function(np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])) > 0).tolist()
    [True, False]
    """
    return _fit_members(samples, nu, gamma, tol, device)


def fit_pooled(
    latents: NDArray[Any],
    *,
    nu: float,
    gamma: float | str,
    tol: float = POOLED_TOLERANCE,
    device: str = "cpu",
) -> KernelSum:
    """Fit one One-Class SVM to the latents of many subjects.

    The kernel is exact at every size: the solver holds a working set, not the matrix. Time
    grows with the samples times the support vectors (at least nu times the samples), scoring
    with the support vectors; `benchmarks/pooled.py` measures both.

    Parameters
    ----------
    latents : (n, d) array
    nu : float
        Bound on the fraction of training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised features (`Standardiser`).
    tol : float
        Of the dual, in units of the score, which is of the order of nu n.
    device : str
        torch device of the solver.

    Returns
    -------
    KernelSum

    Raises
    ------
    BadDataError, LatentsError
        As `fit_patient`.

    See Also
    --------
    fit_patient : The model of one patient.
    core.svm.voxelwise_fit.fit_voxelwise : One model for each voxel.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.svm.paradigms import fit_pooled
    >>> latents = np.random.default_rng(0).normal(size=(400, 3))
    >>> model = fit_pooled(latents, nu=0.05, gamma="scale")
    >>> bool((model.decision_function(latents) < -0.01).mean() <= 0.05)  # at most nu are outliers
    True
    """
    return _fit_members(latents[None], nu, gamma, tol, device)


def _fit_members(samples: NDArray[Any], nu: float, gamma: float | str, tol: float, device: str) -> KernelSum:
    """Fit the mean of the models of (k, n, d) samples, in common features."""
    members, count, width = samples.shape
    pooled = samples.reshape(-1, width)
    standardiser, gamma = _standardise(pooled, count, nu, gamma)
    latents = standardiser(pooled).reshape(samples.shape)
    features = scale_features(torch.from_numpy(latents).to(device, torch.float64), gamma)
    solution = solve_dual(features, nu * count, tol=tol)
    alpha = solution.alpha.cpu().numpy()
    return KernelSum(
        latents[alpha > 0],
        alpha[alpha > 0] / members,
        gamma,
        float(solution.offset.mean()),
        standardiser.centre,
        standardiser.scale,
    )


def _standardise(
    latents: NDArray[Any], count: int, nu: float, gamma: float | str
) -> tuple[Standardiser, float]:
    """Check (n, d) training latents; their standardiser, and gamma in standardised features."""
    require_nu(nu)
    if count < MINIMUM_SAMPLES:
        raise BadDataError(TOO_FEW_VOXELS.format(what="one-class sample", n=count, needed=MINIMUM_SAMPLES))
    broken = int((~np.isfinite(latents)).sum())
    if broken:
        raise LatentsError(BAD_LATENTS.format(reason=f"{broken} values are NaN or infinite"))
    standardiser = Standardiser.fit(latents)
    return standardiser, resolve_gamma(gamma, standardiser(latents))
