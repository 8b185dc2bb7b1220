"""Random maps with tissue and ventricles, which the tests of the segmentation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bids_wmh_uad.core.lesion.candidates import Surroundings
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.lesion.landmarks import Landmark, Tissue
from bids_wmh_uad.core.lesion.segmentation import Segmentation, segment
from bids_wmh_uad.core.parameters import DetectionParameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (14, 12, 6)
AFFINE = np.array([[-0.9, 0, 0, 40], [0, 1.1, 0, -50], [0, 0, 4, 10], [0, 0, 0, 1.0]])
SPACING = (0.9, 1.1, 4.0)
VOXEL_ML = 0.9 * 1.1 * 4 / 1000
WEIGHTS = LesionDecision(intercept=-1.9, peak=1.5, white=1.0, fluid=-1.5, contrast=0.2, latent=(1.0, 1.0))
"""Weights by which random candidates are sometimes lesions, and sometimes not."""


@dataclass(frozen=True)
class Scene:
    anomaly: NDArray[Any]
    tissue: Tissue
    landmarks: NDArray[Any]
    evidence: NDArray[Any]
    affine: NDArray[Any]

    @property
    def mask(self) -> NDArray[Any]:
        return self.tissue.mask

    @property
    def filled(self) -> NDArray[Any]:
        return Surroundings.of(self.tissue, self.landmarks, self.affine).filled

    def segment(self, threshold: str, smallest: float = 0.0, **options: Any) -> Segmentation:
        given = {name: options.pop(name) for name in ("decision", "evidence") if name in options}
        parameters = DetectionParameters(threshold=threshold, min_lesion_volume=smallest, **options)
        return segment(self.anomaly, self.tissue, self.landmarks, self.affine, parameters=parameters, **given)

    def judged(self, smallest: float = 0.0, threshold: str = "tail=1", **options: Any) -> Segmentation:
        """By `WEIGHTS`, with the network's evidence; half of the candidates may be lesions."""
        given = {"prior_candidates": 1e9, **options}
        return self.segment(threshold, smallest, decision=WEIGHTS, evidence=self.evidence, **given)


def scene(seed: int, ventricles: bool = True) -> Scene:
    """A skewed random map with a mask smaller than the grid, grey and white matter, and two ventricles with a septum."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1] = True
    anomaly = (rng.gamma(1.0, 1.0, SHAPE) * mask).astype(np.float32)
    grey = rng.random(SHAPE) > 0.5
    t1w = np.where(grey, -4, 0) + rng.normal(0, 0.3, SHAPE)
    flair = np.where(grey, 1, 0) + rng.normal(0, 0.3, SHAPE)
    landmarks = np.zeros(SHAPE, np.uint8)
    if ventricles:
        landmarks[5:9, 4:8, 2:4] = Landmark.VENTRICLES
        landmarks[6, 4:8, 2:4] = 0  # septum
    fluid = landmarks == Landmark.VENTRICLES
    t1w[fluid], flair[fluid] = -10, -8
    t1w[1, 1:3], flair[1, 1:3] = -10, -8
    tissue = Tissue(
        flair.astype(np.float32), t1w.astype(np.float32), mask, np.where(grey, 0.9, 0.1).astype(np.float32)
    )
    return Scene(anomaly, tissue, landmarks, rng.normal(size=SHAPE).astype(np.float32), AFFINE)


def run(seed: int, threshold: str, smallest: float = 0.0) -> Segmentation:
    return scene(seed).segment(threshold, smallest)


def check_numbers(found: Segmentation, smallest: float) -> None:
    """What the summary says is what the image has."""
    measures, lesions = found.measures, found.lesions
    volume = (lesions.labels > 0).sum() * VOXEL_ML
    assert measures["wmh_volume_ml"] == pytest.approx(volume, abs=6e-5)
    assert measures["lesion_count"] == lesions.labels.max() == len(lesions.rows) == len(lesions.places)
    assert measures["rejected_count"] == found.rejected.labels.max() == len(found.rejected.rows)
    assert sum(lesion.volume_mm3 for lesion in lesions.rows) == pytest.approx(1000 * volume)
    assert all(row.volume_mm3 >= smallest * (1 - 1e-9) for row in (*lesions.rows, *found.rejected.rows))
    largest = max((lesion.volume_mm3 for lesion in lesions.rows), default=0) / 1000
    assert measures["largest_lesion_ml"] == pytest.approx(largest, abs=6e-5)
    assert measures["volume_ml_lower"] <= measures["wmh_volume_ml"] <= measures["volume_ml_upper"]
