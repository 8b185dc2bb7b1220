"""Pairs of sessions with their truth, and three ways to say what changed: the program's, and two simple ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.change.compare import Comparison, Marks, compare
from bids_wmh_uad.core.change.departure import Departure, Pair
from bids_wmh_uad.core.change.evidence import changed_tissue, false_discovery, learn_null, peaks
from bids_wmh_uad.core.change.intensity import normal_tissue
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.tissue import near_fossa, where_lesions_may_be
from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.morphology import and_what_touches
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad

TOUCHING = np.ones((3, 3, 3), dtype=bool)

Labels = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Fate:
    """What became of a true lesion, and its volume before, mm3."""

    name: str
    before_mm3: float


@dataclass(frozen=True, eq=False)
class Place:
    """Voxels in a box of the common grid.

    Attributes
    ----------
    box : three slices
    mask : bool array
        Of the box, which may reach beyond the grid.
    """

    box: tuple[slice, ...]
    mask: Bools

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """An image's values there."""
        part = image[self.box]
        return np.asarray(part[self.mask[tuple(slice(0, size) for size in part.shape)]])

    @property
    def and_what_touches(self) -> Place:
        """They and the voxels that touch them."""
        padded = and_what_touches(np.pad(self.mask, 1))
        kept = tuple(slice(1 if side.start == 0 else 0, None) for side in self.box)
        wide = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in self.box)
        return Place(wide, padded[kept])


@dataclass(frozen=True, eq=False)
class Case:
    """Two consecutive sessions of one person in their common space, with the truth.

    Attributes
    ----------
    name : str
    pair : Pair
        Matched in brightness.
    lesions, truth : (2, X, Y, Z) integer arrays
        The program's lesions, and the true ones by number, before and after.
    fossa : (2, X, Y, Z) bool array
        Brainstem and cerebellum, by the program.
    affine : (4, 4) array
        Of the common grid.
    fates : mapping of int to Fate
    """

    name: str
    pair: Pair
    lesions: Labels
    truth: Labels
    fossa: Bools
    affine: NDArray[np.float64]
    fates: Mapping[int, Fate]

    @property
    def still(self) -> bool:
        """Whether nothing changed."""
        return {fate.name for fate in self.fates.values()} <= {"stable"}

    def numbers(self, name: str) -> list[int]:
        """Lesions of a fate."""
        return [number for number, fate in self.fates.items() if fate.name == name]

    @cached_property
    def places(self) -> dict[int, Place]:
        """The program's lesions, of either session, that are at a true one; none where none is, or most of what they hold is of other lesions."""
        truths, lesions = (
            [ndimage.find_objects(image) for image in both] for both in (self.truth, self.lesions)
        )
        found = {}
        for number in self.fates:
            boxes = []
            chosen: list[set[int]] = [set(), set()]
            for k in (0, 1):
                box = truths[k][number - 1] if number <= len(truths[k]) else None
                if box is not None:
                    labels = self.lesions[k][box][self.truth[k][box] == number]
                    chosen[k] = set(np.unique(labels[labels > 0]).tolist())
                    boxes += [lesions[k][label - 1] for label in chosen[k]]
            if boxes:
                box = tuple(
                    slice(min(one[k].start for one in boxes), max(one[k].stop for one in boxes))
                    for k in range(3)
                )
                mask = np.any([np.isin(self.lesions[k][box], [*chosen[k]]) for k in (0, 1)], axis=0)
                inside = self.truth[:, *box][:, mask]
                own = np.count_nonzero((inside == number).any(axis=0))
                if own > np.count_nonzero(inside.max(axis=0)) / 2:
                    found[number] = Place(box, mask)
        return found


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method says of a case.

    Attributes
    ----------
    new : (X, Y, Z) bool array
        Tissue that is called a new lesion.
    came, went : (X, Y, Z) bool array
        All that became lesion, and all that is lesion no longer.
    growth : callable
        How surely the lesion at a place grew.
    """

    new: Bools
    came: Bools
    went: Bools
    growth: Callable[[Place], float]


def by_program(case: Case, params: ChangeParameters) -> Outcome:
    """The program's comparison."""
    return outcome_of(
        compare(case.pair, Marks(*case.lesions, case.fossa.any(axis=0)), case.affine, params), case
    )


def outcome_of(found: Comparison, case: Case) -> Outcome:
    """What a comparison says of a case."""
    sides = [
        index_of(
            {label: n for n, lesion in enumerate(found.lesions, start=1) for label in labels_of(lesion)},
            labels,
        )
        for labels_of, labels in (
            (lambda lesion: lesion.match.before, case.lesions[0]),
            (lambda lesion: lesion.match.after, case.lesions[1]),
        )
    ]

    def growth(place: Place) -> float:
        seen = np.concatenate([place.of(side) for side in sides])
        lesion = found.lesions[int(np.argmax(np.bincount(seen[seen > 0]))) - 1]
        return lesion.change.mm3 / lesion.change.sd

    return Outcome(found.new > 0, (found.new > 0) | (found.enlarging > 0), found.gone > 0, growth)


def index_of(numbers: Mapping[int, int], labels: Labels) -> Labels:
    """Labels renamed; 0 where they have no new name."""
    table = np.zeros(int(labels.max()) + 1, dtype=int)
    for label, number in numbers.items():
        table[label] = number
    return table[labels]


def by_masks(case: Case, params: ChangeParameters) -> Outcome:
    """The difference of the two masks."""
    before, after = case.lesions > 0

    def growth(place: Place) -> float:
        first, second = int(place.of(before).sum()), int(place.of(after).sum())
        return (second - first) / (second + first)

    came, went = (large(tissue, params, case.pair.spacing) for tissue in (after & ~before, before & ~after))
    return Outcome(apart(came, before), came, went, growth)


def by_subtraction(case: Case, params: ChangeParameters) -> Outcome:
    """The difference of the two FLAIRs, by the program's threshold rule."""
    pair = case.pair
    smooth = [smooth_inside(image, pair.mask, (pair.spacing,) * 3, params.smooth_mm) for image in pair.flair]
    contrast = np.where(pair.mask, smooth[1] - smooth[0], np.float32(0))
    centre, deviation = median_and_mad(contrast[pair.mask])
    contrast = np.where(pair.mask, contrast - centre, np.float32(0))
    spread = np.full(contrast.shape, MAD_TO_SD * float(deviation), np.float32)
    departure = Departure(contrast / spread, contrast, spread)
    lesion = (case.lesions > 0).any(axis=0)
    below = near_fossa(case.fossa.any(axis=0), pair.spacing, params)
    field = where_lesions_may_be(pair, lesion, below, params)
    null = learn_null(departure, field & normal_tissue(pair.mask, lesion), params)
    found = []
    for sign in (1, -1):
        score = sign * departure.score
        seeds = peaks(score, field)
        p_values = null.p_values(score[seeds])
        seeds[seeds] = p_values <= false_discovery(p_values, params.fdr / 2)
        seeds &= sign * contrast >= params.least_contrast
        tissue = changed_tissue(score, sign * contrast, seeds, params) > 0
        found.append(large(tissue, params, pair.spacing))
    return Outcome(
        apart(found[0], case.lesions[0] > 0),
        *found,
        lambda place: float(place.of(contrast).mean()),
    )


def large(tissue: Bools, params: ChangeParameters, spacing: float) -> Bools:
    """Pieces as large as the program's least."""
    pieces = ndimage.label(tissue, TOUCHING)[0]
    fine = np.bincount(pieces.ravel()) * spacing**3 >= params.least_mm3
    fine[0] = False
    return np.asarray(fine[pieces])


def apart(tissue: Bools, before: Bools) -> Bools:
    """Pieces that touch no lesion of the earlier session."""
    pieces = ndimage.label(tissue, TOUCHING)[0]
    fine = np.ones(int(pieces.max()) + 1, dtype=bool)
    fine[np.unique(pieces[and_what_touches(before)])] = False
    fine[0] = False
    return np.asarray(fine[pieces])
