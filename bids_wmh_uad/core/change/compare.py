"""Two sessions of one person compared: the map of change, its tissue, and every lesion followed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from bids_wmh_uad.core.change.departure import Departure, Pair, find_departure
from bids_wmh_uad.core.change.evidence import Null, changed_tissue, false_discovery, learn_null, peaks
from bids_wmh_uad.core.change.intensity import normal_tissue
from bids_wmh_uad.core.change.tissue import beside, like_lesions, near_fossa, where_lesions_may_be
from bids_wmh_uad.core.change.tracking import Match, match_lesions, name_status
from bids_wmh_uad.core.change.volume import (
    SumNoise,
    VolumeChange,
    excess,
    measure_sums,
    volume_change,
)
from bids_wmh_uad.core.image.morphology import and_what_touches
from bids_wmh_uad.core.image.volume import cut_affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Labels = NDArray[np.int32]
    Bools = NDArray[np.bool_]

MARGIN = 8
"""Voxels around a lesion that its volume's change is measured in: rim and shell."""
MOVED = 2.0
"""Least score, either way, of a voxel at a lesion's border that one mask has and the other has not."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What two sessions' own results say, on the common grid.

    Parameters
    ----------
    before, after : (X, Y, Z) int32 arrays
        Numbered lesions.
    fossa : (X, Y, Z) bool array
        Brainstem and cerebellum, by either session.
    """

    before: Labels
    after: Labels
    fossa: Bools

    def sides(self, match: Match) -> tuple[Bools, Bools]:
        """Where a match's lesions are, before and after."""
        before, after = (
            np.isin(labels, chosen) & (labels > 0)
            for labels, chosen in ((self.before, match.before), (self.after, match.after))
        )
        return before, after


@dataclass(frozen=True)
class Followed:
    """One lesion through two sessions.

    Attributes
    ----------
    match : Match
        Its labels; both are empty where it is in neither mask and only the change shows it.
    status : str
        One of `tracking.STATUSES`.
    before_mm3, after_mm3 : float
        Volumes on the common grid: of the masks, or of changed tissue that neither has.
    change : VolumeChange
    p_value : float
        Of what the status says; of the more likely direction where it is stable.
    peak : float
        The score that is farthest from 0 in it.
    centre : tuple of float
        Of its voxels in both sessions, common space, mm.
    """

    match: Match
    status: str
    before_mm3: float
    after_mm3: float
    change: VolumeChange
    p_value: float
    peak: float
    centre: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed between two sessions.

    Attributes
    ----------
    departure : Departure
    lesions : tuple of Followed
    new, enlarging : (X, Y, Z) int32 arrays
        Lesion tissue that came: the number of its lesion in `lesions`, from 1.
    gone : (X, Y, Z) int32 array
        Tissue of shrinking and resolved lesions that is lesion no longer, likewise.
    total : VolumeChange
        Of all lesions together.
    """

    departure: Departure
    lesions: tuple[Followed, ...]
    new: Labels
    enlarging: Labels
    gone: Labels
    total: VolumeChange


def compare(pair: Pair, marks: Marks, affine: NDArray[np.float64], params: ChangeParameters) -> Comparison:
    """Compare two sessions: what changed by the images, and what became of each lesion by that.

    A lesion is one that a mask of either session has (or both, where they overlap), or changed tissue beside all of them that looks
    like a lesion in the brighter session (`tissue.like_lesions`). Two families of tests, each at half of the false-discovery rate `fdr`:

    - of every lesion, that it grew and that it shrank (`_p_value`);
    - of every peak where lesions may be (`tissue.where_lesions_may_be`), that it is none of noise. The null is of the same places
      but for the lesions: tissue that changes cannot say what no change is. Around such peaks lies tissue that came or went: beside all lesions
      it is a new lesion or one that is resolved, if its volume changed by at least `edge` of it (of a bright edge that is out of place
      one side gains what the other loses), and a lesion that did not change as a whole grew or shrank if more of it came than went, or less.

    Exchanging the sessions exchanges new and resolved, enlarging and shrinking, merged and split.

    Parameters
    ----------
    pair : Pair
    marks : Marks
    affine : (4, 4) array
        Of the common grid.
    params : ChangeParameters

    Returns
    -------
    Comparison
    """
    departure = find_departure(pair, (marks.before > 0) | (marks.after > 0), params)
    return follow(pair, departure, marks, affine, params)


def follow(
    pair: Pair, departure: Departure, marks: Marks, affine: NDArray[np.float64], params: ChangeParameters
) -> Comparison:
    """What became of each lesion, by a map of change: as `compare`."""
    lesion = (marks.before > 0) | (marks.after > 0)
    below = near_fossa(marks.fossa, pair.spacing, params)
    field = where_lesions_may_be(pair, lesion, below, params)
    quiet = field & normal_tissue(pair.mask, lesion)
    scene = _Scene(
        pair, departure, learn_null(departure, quiet, params), measure_sums(departure, quiet, params),
        marks, lesion, field, below, (ndimage.find_objects(marks.before), ndimage.find_objects(marks.after)), affine, params,
    )  # fmt: skip
    pieces = {sign: _changed(scene, sign) for sign in (1, -1)}
    matches = match_lesions(marks.before, marks.after)
    followed = _judge([_examine(scene, match, pieces) for match in matches], scene)
    alone = {1: np.zeros(lesion.shape, np.int32), -1: np.zeros(lesion.shape, np.int32)}
    for sign, kept in alone.items():
        labels = beside(pieces[sign], and_what_touches(lesion))
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            wide = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
            piece = labels[wide] == number
            one = _of_piece(scene.cut(wide), piece, sign)
            if sign * one.change.mm3 >= params.edge * (one.before_mm3 + one.after_mm3):
                followed.append(one)
                kept[wide][piece] = kept.max() + 1
    return _paint(scene, followed, pieces, alone)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What every step of a comparison looks at."""

    pair: Pair
    departure: Departure
    null: Null
    noise: SumNoise
    marks: Marks
    lesion: Bools
    field: Bools
    below: Bools
    boxes: tuple[list[Any], list[Any]]
    affine: NDArray[np.float64]
    params: ChangeParameters

    @property
    def voxel(self) -> float:
        return self.pair.spacing**3

    def box(self, match: Match) -> tuple[slice, ...]:
        """The voxels of a match's lesions, and `MARGIN` around them."""
        found = [boxes[label - 1] for boxes, labels in zip(self.boxes, (match.before, match.after), strict=True)
                 for label in labels]  # fmt: skip
        return tuple(
            slice(
                max(0, min(box[k].start for box in found) - MARGIN),
                max(box[k].stop for box in found) + MARGIN,
            )
            for k in range(3)
        )

    def around(self, match: Match) -> _Scene:
        """The scene around a match's lesions."""
        return self.cut(self.box(match))

    def cut(self, box: tuple[slice, ...]) -> _Scene:
        """The scene in a box of the grid; views."""
        pair, departure, marks = self.pair, self.departure, self.marks
        return replace(
            self,
            pair=Pair(pair.flair[:, *box], pair.t1w[:, *box], pair.mask[box], pair.spacing),
            departure=Departure(departure.score[box], departure.contrast[box], departure.spread[box]),
            marks=Marks(marks.before[box], marks.after[box], marks.fossa[box]),
            lesion=self.lesion[box],
            field=self.field[box],
            below=self.below[box],
            affine=cut_affine(self.affine, box),
        )

    def place(self, mask: Bools) -> tuple[float, float, float]:
        """Centre of a mask in the common space, mm."""
        x, y, z = (self.affine @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3].tolist()
        return x, y, z

    def change(self, mask: Bools) -> VolumeChange:
        """Change of the volume of a lesion."""
        others = self.lesion & ~mask
        return volume_change(self.pair, self.departure, self.noise, mask, others, self.params)


@dataclass(frozen=True)
class _Part:
    """Tissue at a lesion that came, or went, by its own peaks: its volume, and the p-value of the highest."""

    mm3: float
    p_value: float


@dataclass(frozen=True, eq=False)
class _Examined:
    """A lesion and the evidence, before it is judged: of all of it, and the tissue in its parts that changed by itself."""

    followed: Followed
    up: float
    down: float
    came: _Part
    went: _Part
    whole: bool


def _examine(scene: _Scene, match: Match, pieces: dict[int, Labels]) -> _Examined:
    """Measure a lesion of the masks."""
    box, here = scene.box(match), scene.around(match)
    sides = here.marks.sides(match)
    mask = sides[0] | sides[1]
    change = here.change(mask)
    up, down = (_p_value(here, match, mask, change, sign) for sign in (1, -1))
    score = here.departure.score[mask]
    volumes = [float(side.sum()) * scene.voxel for side in sides]
    peak = float(score[np.argmax(np.abs(score))])
    followed = Followed(
        match, "stable", volumes[0], volumes[1], change, min(up, down), peak, here.place(mask)
    )
    most = scene.params.edge * excess(here.pair, mask, here.lesion & ~mask)
    near = and_what_touches(mask)
    came, went = (
        _part(here, (pieces[sign][box] > 0) & near & ~side, sign, most)
        for sign, side in zip((1, -1), sides, strict=True)
    )
    before, after = (float(image[mask].mean()) for image in here.pair.flair)
    whole = abs(after - before) >= most
    return _Examined(followed, up, down, came, went, whole)


def _part(scene: _Scene, tissue: Bools, sign: int, least: float) -> _Part:
    """What changed by itself at a lesion: by so much at its peak, as no edge does that is out of place by less than half a voxel."""
    if not tissue.any() or np.abs(scene.departure.contrast[tissue]).max() < least:
        return _Part(0.0, 1.0)
    highest = (sign * scene.departure.score[tissue]).max()
    return _Part(float(tissue.sum()) * scene.voxel, float(scene.null.p_values(highest[None])[0]))


def _p_value(scene: _Scene, match: Match, mask: Bools, change: VolumeChange, sign: int) -> float:
    """Probability of so much growth (`sign` 1), or loss (-1), where nothing changed.

    Of a lesion that both masks have, its volume says it. Where only one has it, the images must say so that it was not there before: its mean
    score, as that of so many voxels elsewhere, and its highest peak (the larger p). What a volume's change has of the noise at its rim
    does not matter then.
    """
    if match.before and match.after:
        return float(ndtr(-sign * change.mm3 / change.sd))
    score = sign * scene.departure.score
    heights = score[peaks(score, and_what_touches(mask) & scene.pair.mask)]
    if not heights.size:
        return 1.0
    p = float(scene.null.p_values(heights.max()[None])[0])
    return max(scene.noise.p_value(score[mask]), 1 - (1 - p) ** heights.size)


def _judge(examined: list[_Examined], scene: _Scene) -> list[Followed]:
    """Give every lesion its status: by all of it, at half of the false-discovery rate; or by its parts, which were judged at the other half."""
    p_values = np.array([p for one in examined for p in (one.up, one.down)])
    limit = false_discovery(p_values, scene.params.fdr / 2)
    out = []
    for one in examined:
        grew = one.up <= limit and one.up <= one.down
        shrank = one.down <= limit and one.down < one.up
        p_value = one.followed.p_value
        part = max(one.came, one.went, key=lambda part: part.mm3)
        if not grew and not shrank and part.mm3 >= scene.params.least_mm3 and one.came.mm3 != one.went.mm3:
            grew, shrank, p_value = part is one.came, part is one.went, part.p_value
        status = name_status(one.followed.match, grew=grew, shrank=shrank, whole=one.whole)
        out.append(replace(one.followed, status=status, p_value=p_value))
    return out


def _changed(scene: _Scene, sign: int) -> Labels:
    """Tissue like a lesion's around all peaks of one sign that are change, at half of the false-discovery rate."""
    score = sign * scene.departure.score
    seeds = peaks(score, scene.field)
    p_values = scene.null.p_values(score[seeds])
    limit = false_discovery(p_values, scene.params.fdr / 2)
    seeds[seeds] = p_values <= limit
    contrast = scene.departure.contrast
    found = changed_tissue(score, sign * contrast, seeds, scene.params)
    return like_lesions(found, sign, scene.pair, contrast, scene.below, scene.params)


def _of_piece(scene: _Scene, piece: Bools, sign: int) -> Followed:
    """A lesion that only the change shows."""
    score = scene.departure.score[piece]
    peak = float((sign * score).max())
    p = float(scene.null.p_values(np.array([peak]))[0])
    volume = float(piece.sum()) * scene.voxel
    before, after = (0.0, volume) if sign > 0 else (volume, 0.0)
    status = "new" if sign > 0 else "resolved"
    return Followed(
        Match((), ()), status, before, after, scene.change(piece), p, sign * peak, scene.place(piece)
    )


def _paint(
    scene: _Scene, followed: list[Followed], pieces: dict[int, Labels], alone: dict[int, Labels]
) -> Comparison:
    """Draw the tissue that came and went, numbered like its lesions."""
    new, enlarging, gone = (np.zeros(scene.lesion.shape, np.int32) for _ in range(3))
    marks, score = scene.marks, scene.departure.score
    came = (pieces[1] > 0) | ((marks.after > 0) & (marks.before == 0) & (score > MOVED))
    went = (pieces[-1] > 0) | ((marks.before > 0) & (marks.after == 0) & (score < -MOVED))
    drawn = {1: 0, -1: 0}
    for number, lesion in enumerate(followed, start=1):
        match, status = lesion.match, lesion.status
        if match == Match((), ()):
            sign = 1 if status == "new" else -1
            drawn[sign] += 1
            (new if sign > 0 else gone)[alone[sign] == drawn[sign]] = number
            continue
        box = scene.box(match)
        before, after = scene.around(match).marks.sides(match)
        near = and_what_touches(before | after)
        if status == "new":
            new[box][after] = number
        elif status == "resolved":
            gone[box][before] = number
        elif status != "stable":  # most of these grow at one end and shrink at another
            enlarging[box][came[box] & near & ~before] = number
            gone[box][went[box] & near & ~after] = number
    return Comparison(scene.departure, tuple(followed), new, enlarging, gone, _total(followed))


def _total(followed: list[Followed]) -> VolumeChange:
    """Change of all lesions together.

    Its error has two parts: those of the lesions, as if independent, and what the stable ones share, as a median of change over error, which
    is a difference between the scans rather than growth.
    """
    errors = np.array([lesion.change.sd for lesion in followed])
    stable = [lesion.change.mm3 / lesion.change.sd for lesion in followed if lesion.status == "stable"]
    shared = abs(float(np.median(stable))) * float(errors.sum()) if stable else 0.0
    change = float(sum(lesion.change.mm3 for lesion in followed))
    return VolumeChange(change, float(np.hypot(np.sqrt((errors**2).sum()), shared)))
