"""The page's sample of patches and latents: seeded, of the right tissue, in a plane of the usual ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.score.explain import EXAMPLES, POINTS, explain
from bids_wmh_uad.core.score.scan import Scan

SHAPE = (30, 28, 6)


def make_scan() -> tuple[Scan, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    flair, t1w = rng.normal(0, 1, (2, *SHAPE)).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[3:27, 3:25] = True
    lesions = np.zeros(SHAPE, bool)
    lesions[10:12, 10:12, 2] = True
    flair[lesions] += 8
    return Scan(flair, t1w, mask), {"tissue": mask & ~lesions, "nothing": ~mask, "lesions": lesions}


def test_the_sample_is_what_it_says() -> None:
    scan, kinds = make_scan()
    model = build_autoencoder(0).eval()
    found = explain(model, scan, kinds, np.random.default_rng(1))
    assert found.kinds == ("tissue", "lesions")  # a kind without a voxel in the brain is left out
    assert np.bincount(found.kind).tolist() == [POINTS, 4]
    assert found.plane.shape == (POINTS + 4, 2)
    assert np.bincount(found.patch_kind).tolist() == [EXAMPLES, EXAMPLES]
    at_lesions = extract_patches(scan.network_input(), np.argwhere(kinds["lesions"]))
    for patch in found.patches[found.patch_kind == 1]:
        assert any(np.array_equal(patch, other) for other in at_lesions)
    with torch.inference_mode():
        again = model.decode(torch.from_numpy(embed_patches(model, found.patches))).numpy()
    np.testing.assert_allclose(found.reconstructions, again, atol=1e-5)


def test_the_plane_is_the_tissues_and_the_seed_decides() -> None:
    scan, kinds = make_scan()
    model = build_autoencoder(0).eval()
    first, second = (explain(model, scan, kinds, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first.plane, second.plane)
    usual = first.plane[first.kind == 0]
    np.testing.assert_allclose(usual.mean(axis=0), 0, atol=1e-4)
    assert abs(np.corrcoef(usual.T)[0, 1]) < 1e-3
    assert usual[:, 0].var() >= usual[:, 1].var()
    assert 0 < first.share[1] <= first.share[0] <= 1


def test_only_lesions_or_nothing() -> None:
    scan, kinds = make_scan()
    model = build_autoencoder(0).eval()
    alone = explain(model, scan, {"lesions": kinds["lesions"]}, np.random.default_rng(0))
    assert alone.kinds == ("lesions",)
    with pytest.raises(ValueError, match="no voxel"):
        explain(model, scan, {"lesions": ~scan.mask}, np.random.default_rng(0))
