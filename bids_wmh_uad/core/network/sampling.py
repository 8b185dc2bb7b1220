"""Training batches: co-located patches of two different subjects, from more subjects than memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.network.patches import (
    PATCH_SIZE,
    Patches,
    change_contrast,
    extract_patches,
    patch_views,
)
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BLOCK_SUBJECTS = 32
"""Number of subjects open at a time: about 0.5 GB of memory-mapped heads at 1 mm."""

BLOCK_STEPS = 32
"""Number of steps on a block of subjects: opening one costs reading its pages anew."""

MAX_PROPOSALS = 100
"""Largest number of rounds of rejection: masks that overlap at all need a few."""


@dataclass(frozen=True, eq=False)
class TrainingSubject:
    """One subject on its working grid.

    Parameters
    ----------
    image : (C, X, Y, Z) array
        Network input; float16 where it is memory-mapped (`imaging.controls`).
    mask : (X, Y, Z) bool array
        Where patch centres may lie (the brain, without known lesions).
    mni_to_voxel : (4, 4) array
        MNI mm to voxel indices.
    """

    image: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_]
    mni_to_voxel: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairSampler:
    """Draws patches at the same MNI location of two different subjects.

    Parameters
    ----------
    subjects : sequence of TrainingSubject
        At least two.
    mni_coordinates : (m, 3) array
        Brain locations to draw from, MNI mm; jittered by up to half of `spread_mm`.
    size : int
        Patch edge, voxels.
    spread_mm : float
        Grid step of `mni_coordinates`.
    contrast, shift : float
        Standard deviations of the log of the gain and of the offset of `change_contrast`,
        drawn afresh for each patch and channel; 0 and 0 = off.
    """

    subjects: Sequence[TrainingSubject]
    mni_coordinates: NDArray[np.float64]
    size: int = PATCH_SIZE
    spread_mm: float = 1.0
    contrast: float = 0.2
    shift: float = 0.15

    def __post_init__(self) -> None:
        if len(self.subjects) < 2:
            raise BadDataError(
                TOO_FEW_VOXELS.format(what="training subjects", n=len(self.subjects), needed=2)
            )

    def __call__(
        self, n: int, rng: np.random.Generator, rows: slice = slice(None)
    ) -> tuple[Patches, Patches]:
        """Draw `n` pairs.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
        rows : slice
            Pairs that are cut and returned: one process's share of a batch that all of them draw.

        Returns
        -------
        first, second : (n, C, size, size) float32 arrays

        Raises
        ------
        BadDataError
            `errors.TOO_FEW_VOXELS`, when (almost) no location lies in both masks.
        """
        subject, voxel = self.draw_locations(n, rng)
        channels = self.subjects[0].image.shape[0]
        noise = rng.standard_normal((2, n, 2, channels))[:, rows].reshape(2, -1, channels)
        patches = self._cut(subject[rows].reshape(-1), voxel[rows].reshape(-1, 3))
        if self.contrast or self.shift:
            patches = change_contrast(patches, np.exp(self.contrast * noise[0]), self.shift * noise[1])
        return patches[0::2], patches[1::2]

    def draw_locations(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw which subjects and which voxels, by rejection.

        Returns
        -------
        subject : (n, 2) int64 array
            Subject indices, different within a row.
        voxel : (n, 2, 3) int64 array
            Their voxels nearest to one common MNI location, both inside their masks.
        """
        subjects: list[NDArray[np.int64]] = []
        voxels: list[NDArray[np.int64]] = []
        accepted, rounds = 0, 0
        while accepted < n:
            rounds += 1
            if rounds > MAX_PROPOSALS:
                raise BadDataError(TOO_FEW_VOXELS.format(what="common brain locations", n=accepted, needed=n))
            subject, voxel = self._propose(n + n // 4 + 8, rng)
            subjects.append(subject)
            voxels.append(voxel)
            accepted += len(subject)
        return np.concatenate(subjects)[:n], np.concatenate(voxels)[:n]

    def _propose(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = len(self.subjects)
        mni = self.mni_coordinates[rng.integers(len(self.mni_coordinates), size=n)]
        mni = np.repeat(mni + self.spread_mm * (rng.random((n, 3)) - 0.5), 2, axis=0)
        first = rng.integers(count, size=n)
        subject = np.stack([first, (first + rng.integers(1, count, size=n)) % count], axis=1).reshape(-1)
        to_voxel, limit = self._to_voxel[subject], self._shape[subject]
        exact = (to_voxel[:, :, :3] @ mni[:, :, None])[..., 0] + to_voxel[:, :, 3]
        voxel = np.rint(exact).astype(np.int64)
        valid = np.asarray(((voxel >= 0) & (voxel < limit)).all(axis=1))
        voxel = np.minimum(np.maximum(voxel, 0), limit - 1)
        for index, places in _by_subject(subject):
            x, y, z = voxel[places].T
            valid[places] &= self.subjects[index].mask[x, y, z]
        usable = valid.reshape(n, 2).all(axis=1)
        return subject.reshape(n, 2)[usable], voxel.reshape(n, 2, 3)[usable]

    @cached_property
    def _to_voxel(self) -> NDArray[np.float64]:
        return np.stack([subject.mni_to_voxel[:3] for subject in self.subjects])

    @cached_property
    def _shape(self) -> NDArray[np.int64]:
        return np.array([subject.mask.shape for subject in self.subjects])

    @cached_property
    def _views(self) -> dict[int, NDArray[Any]]:
        return {
            index: patch_views(subject.image, self.size)
            for index, subject in enumerate(self.subjects)
            if min(subject.image.shape[1:3]) >= self.size
        }

    def _cut(self, subject: NDArray[np.int64], voxel: NDArray[np.int64]) -> Patches:
        half = self.size // 2
        patches = np.empty(
            (len(subject), len(self.subjects[0].image), self.size, self.size), dtype=np.float32
        )
        margin = self._shape[subject, :2] - half
        inner = np.asarray(((voxel[:, :2] >= half) & (voxel[:, :2] < margin)).all(axis=1))
        for index, places in _by_subject(subject):
            if inner[places].all():
                x, y, z = voxel[places].T
                patches[places] = self._views[index][x - half, y - half, z]
            else:
                patches[places] = extract_patches(self.subjects[index].image, voxel[places], self.size)
        return patches


def _by_subject(subject: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Every subject of an (n,) array of indices, with its places in it."""
    order = np.argsort(subject, kind="stable")
    starts = np.flatnonzero(np.diff(subject[order], prepend=-1))
    for places in np.split(order, starts[1:]) if len(order) else ():
        yield int(subject[places[0]]), places


class BatchSampler:
    """The batch of every training step, from more subjects than memory holds.

    A step's batch is a function of the seed and the step alone: it can be drawn ahead, again after
    an interruption, and in shares by several processes. `block_steps` steps in a row draw from a
    block of at most `block_subjects` subjects, and only these are open: what is mapped at a
    time is bounded, and a page that was read is used again. A pass over the blocks takes
    every subject once, in another order each time.

    Parameters
    ----------
    count : int
        Subjects; at least two.
    open_subject : callable
        From a subject's index to a `TrainingSubject`.
    mni_coordinates : (m, 3) array
        See `PairSampler`.
    batch_size, seed : int
    rows : slice
        Of the batch: what this process takes.
    block_subjects, block_steps : int
    spread_mm : float
        See `PairSampler`.
    """

    def __init__(  # noqa: PLR0913 (all but the first three are keywords)
        self,
        count: int,
        open_subject: Callable[[int], TrainingSubject],
        mni_coordinates: NDArray[np.float64],
        *,
        batch_size: int,
        seed: int,
        rows: slice = slice(None),
        block_subjects: int = BLOCK_SUBJECTS,
        block_steps: int = BLOCK_STEPS,
        spread_mm: float = 1.0,
    ) -> None:
        self._count = count
        self._open = open_subject
        self._batch_size, self._seed, self._rows = batch_size, seed, rows
        self._blocks = -(-count // block_subjects)
        self._block_steps = block_steps
        self._members: list[int] = []
        self._coordinates, self._spread_mm = mni_coordinates, spread_mm
        self._sampler: PairSampler | None = None

    def __call__(self, step: int) -> tuple[Patches, Patches]:
        """Draw this process's share of a step's pairs: two (n, C, size, size) float32 arrays.

        Raises
        ------
        BadDataError
            As `PairSampler`.
        """
        members = self.members(step)
        if self._sampler is None or members != self._members:
            self._sampler = None  # closes the last block's files before the next one's are opened
            subjects = [self._open(index) for index in members]
            self._sampler = PairSampler(subjects, self._coordinates, spread_mm=self._spread_mm)
            self._members = members
        return self._sampler(self._batch_size, np.random.default_rng([self._seed, 0, step]), self._rows)

    def members(self, step: int) -> list[int]:
        """Subjects that a step draws from."""
        if self._blocks == 1:
            return list(range(self._count))
        turn, block = divmod(step // self._block_steps, self._blocks)
        order = np.random.default_rng([self._seed, 1, turn]).permutation(self._count)
        return [int(index) for index in np.array_split(order, self._blocks)[block]]
