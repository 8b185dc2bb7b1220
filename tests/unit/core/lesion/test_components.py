"""Components, size filter, table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.lesion.components import label_lesions, lesion_table, total_volume_ml, voxel_volume

AFFINE = np.array([[-1.0, 0, 0, 90], [0, 0.5, 0, -126], [0, 0, 3.0, -72], [0, 0, 0, 1]])


def scene():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True  # one component by a corner: 26-connected
    mask[6:9, 6:9, 6:9] = True
    mask[11, 0, 0] = True
    return mask


def test_corners_connect_and_the_largest_comes_first():
    labels = label_lesions(scene(), AFFINE)
    assert labels.dtype == np.int32
    assert np.bincount(labels.ravel())[1:].tolist() == [27, 2, 1]
    assert labels[1, 1, 1] == labels[2, 2, 2] == 2


def test_size_filter_is_in_mm3_and_inclusive():
    volume = voxel_volume(AFFINE)
    assert volume == pytest.approx(1.5)
    assert label_lesions(scene(), AFFINE, 2 * volume).max() == 2
    assert label_lesions(scene(), AFFINE, 2 * volume + 0.01).max() == 1
    assert label_lesions(scene(), AFFINE, 1e6).max() == 0


def test_table_matches_the_labels():
    labels = label_lesions(scene(), AFFINE)
    score = np.random.default_rng(0).random(labels.shape)
    rows = lesion_table(labels, score, AFFINE)
    assert [row.index for row in rows] == [1, 2, 3]
    for row in rows:
        inside = labels == row.index
        voxels = np.argwhere(inside)
        assert row.n_voxels == inside.sum()
        assert row.volume_mm3 == pytest.approx(1.5 * inside.sum())
        assert row.mean_score == pytest.approx(score[inside].mean())
        assert row.max_score == pytest.approx(score[inside].max())
        np.testing.assert_allclose(AFFINE @ [*voxels.mean(0), 1.0], [row.x, row.y, row.z, 1.0])
    assert total_volume_ml(labels, AFFINE) == pytest.approx(sum(row.volume_mm3 for row in rows) / 1000)


def test_nothing_found():
    empty = label_lesions(np.zeros((4, 4, 4)), AFFINE)
    assert lesion_table(empty, np.zeros((4, 4, 4)), AFFINE) == []
    assert total_volume_ml(empty, AFFINE) == 0.0


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5), st.floats(0, 12))
def test_labels_partition_the_kept_voxels(seed, density, least):
    mask = np.random.default_rng(seed).random((7, 6, 5)) < density
    labels = label_lesions(mask, AFFINE, least)
    sizes = np.bincount(labels.ravel())[1:]
    assert not labels[~mask].any()
    assert (np.diff(sizes) <= 0).all()
    assert (sizes * 1.5 >= least - 1e-6).all()
    assert (label_lesions(mask, AFFINE) > 0).sum() == mask.sum()
    flipped = label_lesions(mask[::-1, :, ::-1], AFFINE, least)
    assert np.array_equal(flipped[::-1, :, ::-1] > 0, labels > 0)
