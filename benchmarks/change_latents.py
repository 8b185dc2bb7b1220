"""Whether latents tell change: how far a voxel's latent departs from the other session's around the same place."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from change_methods import Bools, Case, Outcome, outcome_of
from numpy.typing import NDArray

from bids_wmh_uad.core.change.compare import Marks, follow
from bids_wmh_uad.core.change.departure import Departure, Pair, against_alike, alike, find_departure
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.tissue import near_fossa, where_lesions_may_be
from bids_wmh_uad.core.image.morphology import and_what_touches
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad
from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder, build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_dense
from bids_wmh_uad.core.network.patches import network_input
from bids_wmh_uad.models import load_model

WHITE = 0.1
"""Voxels whose T1w is so near to white matter's give its spread, in white matter's brightness."""


class WithLatents:
    """The program's comparison with the latents' departure as a second witness.

    The latent of a voxel in one session is compared with those of the other in the 27 voxels around the place: the least distance, so
    that a voxel of misalignment is none; the mean of both directions, so that no session is privileged. Distances are in units of the
    differences that latents have in the pair (`_whiten`), and standardised in the bins of alike tissue as FLAIR's difference is.
    The score is multiplied by the root of its share: ``sign(z) sqrt(|z| max(latent z, 0))``.

    Parameters
    ----------
    trained : bool
        The packaged weights; else random ones.
    """

    def __init__(self, trained: bool) -> None:
        self.model: SiameseAutoencoder = load_model()[0] if trained else build_autoencoder(seed=0)

    def __call__(self, case: Case, params: ChangeParameters) -> Outcome:
        """What is said of a case."""
        lesion = (case.lesions > 0).any(axis=0)
        departure = find_departure(case.pair, lesion, params)
        fossa = case.fossa.any(axis=0)
        below = near_fossa(fossa, case.pair.spacing, params)
        surprise = self.surprise(case.pair, where_lesions_may_be(case.pair, lesion, below, params), params)
        score = np.sign(departure.score) * np.sqrt(np.abs(departure.score) * np.maximum(surprise, 0))
        both: Departure = replace(departure, score=score.astype(np.float32))
        marks = Marks(*case.lesions, fossa)
        return outcome_of(follow(case.pair, both, marks, case.affine, params), case)

    def surprise(self, pair: Pair, field: Bools, params: ChangeParameters) -> NDArray[np.float32]:
        """How far latents depart where lesions may be, in robust standard deviations of what alike voxels do; 0 elsewhere."""
        around = and_what_touches(field) & pair.mask
        latents = _whiten(np.stack([self._embed(pair, around, place) for place in (0, 1)]))
        nearest = [_nearest(latents[k], latents[1 - k], field, around) for k in (0, 1)]
        distance = np.zeros(pair.mask.shape, np.float32)
        distance[field] = np.log(np.mean(nearest, axis=0, dtype=np.float64) + 1e-6)
        kept = field[pair.mask]
        bins = alike(pair, params)
        bins = [part for group in bins if (part := group[kept[group]]).size]
        inside = distance[pair.mask]
        rest, spread = against_alike(inside, np.zeros_like(inside), bins)
        out = np.zeros(pair.mask.shape, np.float32)
        out[pair.mask] = rest / spread
        return out

    def _embed(self, pair: Pair, where: Bools, place: int) -> NDArray[np.float32]:
        z = []
        white = pair.mask & (np.abs(pair.t1w - 1).max(axis=0) < WHITE)
        for images in (pair.flair, pair.t1w):
            spread = np.mean([MAD_TO_SD * float(median_and_mad(image[white])[1]) for image in images])
            z.append((images[place] - 1) / spread)
        return embed_dense(self.model, network_input(*z, pair.mask), where)


def _whiten(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents (2, n, d) in the axes and units in which most voxels' differences are alike and independent."""
    difference = latents[1] - latents[0]
    length = np.linalg.norm(difference / (difference.std(axis=0) + 1e-12), axis=1)
    usual = difference[length <= np.median(length) * 1.5].astype(np.float64)
    values, axes = np.linalg.eigh(usual.T @ usual / len(usual))
    kept = values > 1e-6 * values.max()
    return latents @ (axes[:, kept] / np.sqrt(values[kept])).astype(np.float32)


def _nearest(
    first: NDArray[np.float32], second: NDArray[np.float32], field: Bools, around: Bools
) -> NDArray[np.float32]:
    """Least distance of each voxel's latent from the other session's in the 27 voxels around it."""
    rows = np.full(np.add(field.shape, 2), -1, np.int32)
    inner = (slice(1, -1),) * 3
    rows[inner][around] = np.arange(len(first))
    own = first[rows[inner][field]]
    least = np.full(len(own), np.inf, np.float32)
    for shift in product((-1, 0, 1), repeat=3):
        there = rows[tuple(slice(1 + k, 1 + k + n) for k, n in zip(shift, field.shape, strict=True))][field]
        distance = ((own - second[there]) ** 2).sum(axis=1)
        np.minimum(least, distance, out=least, where=there >= 0)
    return np.sqrt(least)
