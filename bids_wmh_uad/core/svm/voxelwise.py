"""One One-Class SVM for every voxel of a template, in one table: the *voxel* paradigm.

The "localised" One-Class SVM of Pinon, Trombetta and Lartizien's group (see MIDL 2023,
arXiv:2304.08058); `core.svm.voxelwise_fit` fits it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.core.svm.solver import LOG2_E

if TYPE_CHECKING:
    from bids_wmh_uad.core.svm.kernel import KernelSum


SCORED_ROWS = 2048
"""Latents scored at a time on the CPU: their support vectors take about 4 MB."""
SCORED_ROWS_ON_GPU = 2**16
"""Latents scored at a time on a GPU, which wants large batches."""
GRID_FIELDS = ("mask", "affine")
"""Attributes that say where the models lie: what scoring does not need on its device."""


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

    See Also
    --------
    core.svm.voxelwise_fit.fit_voxelwise : Fits it to the latents of controls.
    core.svm.kernel.KernelSum : One model for all voxels.

    Examples
    --------
    One voxel with one support vector at the origin:

    >>> import numpy as np
    >>> import torch
    >>> from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM
    >>> model = VoxelwiseOneClassSVM(
    ...     starts=torch.tensor([0, 1]), support_vectors=torch.zeros(1, 2), dual_coef=torch.ones(1),
    ...     gamma=torch.ones(1), offset=torch.tensor([0.5]), centre=torch.zeros(2), scale=torch.ones(2),
    ...     mask=torch.ones(1, 1, 1, dtype=torch.bool), affine=torch.eye(4, dtype=torch.float64),
    ... )
    >>> model.check()
    >>> model.locate(np.zeros((1, 3)))
    array([0])
    >>> model.decision_function(torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).tolist()
    [0.5, -0.48168...]
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
        """Check that a model from a file is one; its support vectors are read once, and not kept.

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
        types = {"starts": torch.int64, "mask": torch.bool, "affine": torch.float64}
        for name, tensor in vars(self).items():
            if tensor.dtype != types.get(name, torch.float32):
                raise ValueError(f"{name} is {tensor.dtype}")
            if not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):  # NaN and infinity stay in a sum
                raise ValueError(f"{name} holds NaN or infinite numbers")
        if not (bool((self.dual_coef > 0).all()) and float(torch.linalg.det(self.affine).abs()) > 0):
            raise ValueError("numbers are out of range")

    def on(self, device: torch.device | str = "cpu") -> VoxelwiseOneClassSVM:
        """Move what scoring reads to a device; on the CPU nothing is copied, and memory maps stay so."""
        tables = {name: value.to(device) for name, value in vars(self).items() if name not in GRID_FIELDS}
        return replace(self, **tables)

    def locate(self, coordinates: NDArray[Any]) -> NDArray[np.int64]:
        """Model of each (n, 3) coordinate in template mm, the nearest voxel's: (n,), -1 = none."""
        inverse = np.linalg.inv(self.affine.numpy())
        index = np.rint(coordinates @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        mask = self.mask.numpy()
        limit = np.asarray(mask.shape)
        inside = ((index >= 0) & (index < limit)).all(axis=1)
        flat = np.ravel_multi_index(tuple(np.clip(index, 0, limit - 1).T), mask.shape)
        number = np.cumsum(mask.ravel()) - 1
        model: NDArray[np.int64] = np.where(inside & mask.ravel()[flat], number[flat], -1)
        return model

    def log_score_samples(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Natural logarithm of the kernel sums of (n, d) latents under models ``voxels`` (n,).

        NaN where ``voxels`` is negative: there is no model.
        """
        assert voxels is not None  # optional only where one model scores all
        result = torch.full((len(latents),), math.nan, dtype=latents.dtype, device=latents.device)
        known = (voxels >= 0).nonzero()[:, 0]
        rows_at_once = SCORED_ROWS if latents.device.type == "cpu" else SCORED_ROWS_ON_GPU

        @torch.inference_mode()
        def score(start: int) -> None:
            rows = known[start : start + rows_at_once]
            features = (latents[rows] - self.centre) / self.scale
            result[rows] = self._log_scores(features, voxels[rows])

        parallel_map(
            score, range(0, len(known), rows_at_once), 1 if rows_at_once == SCORED_ROWS_ON_GPU else None
        )
        return result

    def _log_scores(self, features: Tensor, voxels: Tensor) -> Tensor:
        """Sum over the support vectors of each row's model: rows times vectors in one list, segments added up."""
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


def model_numbers(
    model: KernelSum | VoxelwiseOneClassSVM | None,
    mask: NDArray[np.bool_],
    to_template: NDArray[np.float64],
) -> NDArray[np.int32] | None:
    """Which voxel-wise model scores which voxel of a scan: see `core.score.scan.Scan`; None if there is one for all.

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
