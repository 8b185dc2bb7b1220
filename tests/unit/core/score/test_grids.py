"""From the FLAIR's own grid to the one it is scored on, and back: what the program and the benchmarks share."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.core.image.volume import WorkingGrid
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.lesion.threshold import tail_point
from bids_wmh_uad.core.score.latent import AnomalyMap
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.errors import GridMismatchError

SHAPE = (30, 20, 8)


def session(zooms, orientation="LPS", seed=0):
    """Random z-scores in a box of brain, stored in an order of its own; the working grid."""
    rng = np.random.default_rng(seed)
    flair, t1w, grey = rng.random((3, *SHAPE), dtype=np.float32)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:-4, 3:-3, 1:-1] = True
    to_stored = nib.orientations.inv_ornt_aff(
        nib.orientations.axcodes2ornt(orientation), SHAPE
    )  # stored to RAS voxels, whose sizes follow
    affine = np.diag([*zooms, 1.0]) @ np.linalg.inv(to_stored)
    return Tissue(flair, t1w, mask, grey), WorkingGrid.from_affine(SHAPE, affine)


def test_a_grid_that_needs_no_resampling_gives_the_same_values_back():
    tissue, grid = session((1.0, 1.0, 3.0))
    scan = Scan.on_grid(grid, tissue)
    assert not np.array_equal(scan.flair_z, tissue.flair_z)  # another order of the axes
    np.testing.assert_array_equal(scan.grey_matter, grid.forward(tissue.likely_grey, order=0))
    own = AnomalyMap(scan.flair_z, "cpu", (), evidence=scan.t1w_z).from_grid(grid, tissue.mask)
    np.testing.assert_array_equal(own.scores, np.where(tissue.mask, tissue.flair_z, 0))
    np.testing.assert_array_equal(own.evidence, np.where(tissue.mask, tissue.t1w_z, 0))
    assert own.brightness is None
    assert (own.device, own.warnings) == ("cpu", ())


@pytest.mark.parametrize("zooms", [(0.9, 0.9, 4.0), (0.5, 0.5, 1.0)])
def test_what_stands_out_comes_back_to_its_place(zooms):
    tissue, grid = session(zooms)
    tissue.flair_z[...] = 0
    tissue.flair_z[14:19, 8:13, 3:6] = 5
    scan = Scan.on_grid(grid, tissue)
    assert scan.zooms == pytest.approx(grid.zooms)
    assert scan.mask.dtype == bool
    assert scan.mask.shape == grid.shape != SHAPE
    own = AnomalyMap(scan.flair_z, "cpu", (), brightness=scan.flair_z).from_grid(grid, tissue.mask)
    assert own.scores.dtype == np.float32
    assert np.unravel_index(own.scores.argmax(), SHAPE)[0] in range(14, 19)
    assert own.scores[16, 10, 4] > 4
    assert not own.scores[~tissue.mask].any()
    np.testing.assert_array_equal(own.brightness, own.scores)


@pytest.mark.parametrize("zooms", [(0.9, 0.9, 1.0), (0.7, 0.7, 3.0)])
def test_the_threshold_does_not_depend_on_the_flairs_voxels(zooms):
    tissue, grid = session(zooms)
    tissue.mask[...] = True
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=grid.shape), (0.7, 0.7, 0.3))
    scores = np.where(noise > 0.3 * noise.std(), noise / noise.std() + 0.5, 0).astype(np.float32)
    there = tail_point(scores, grid.forward(tissue.mask, order=0), None, 3.5, edge=0.7).value
    own = AnomalyMap(scores, "cpu", ()).from_grid(grid, tissue.mask)
    assert tail_point(own.scores, tissue.mask, None, 3.5, edge=0.7).value == pytest.approx(there, rel=0.05)


def test_maps_of_another_grid_are_refused():
    tissue, grid = session((0.9, 0.9, 4.0))
    with pytest.raises(GridMismatchError):
        AnomalyMap(np.zeros(SHAPE, np.float32), "cpu", ()).from_grid(grid, tissue.mask)
    with pytest.raises(GridMismatchError):
        Scan.on_grid(WorkingGrid.from_affine((5, 5, 5), np.eye(4)), tissue)
