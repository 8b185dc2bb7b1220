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
from bids_wmh_uad.core.change.tracking import Match, and_what_touches, match_lesions, name_status
from bids_wmh_uad.core.change.volume import SumNoise, VolumeChange, measure_sums, volume_change
from bids_wmh_uad.core.image.intensity import smooth_inside

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
    like a lesion in the brighter session (`_like_lesions`). Two families of tests, each at half of the false-discovery rate `fdr`:

    - of every lesion, that it grew and that it shrank (`_p_values`);
    - of every peak where lesions may be (`where_lesions_may_be`), that it is none of noise. The null is of the same places
      but for the lesions: tissue that changes cannot say what no change is.

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
    field = where_lesions_may_be(pair, lesion, marks.fossa, params)
    quiet = field & normal_tissue(pair.mask, lesion)
    scene = _Scene(
        pair, departure, learn_null(departure, quiet, params), measure_sums(departure, quiet, params),
        marks, lesion, field, (ndimage.find_objects(marks.before), ndimage.find_objects(marks.after)), affine, params,
    )  # fmt: skip
    pieces = {sign: _changed(scene, sign) for sign in (1, -1)}
    matches = match_lesions(marks.before, marks.after)
    followed = _judge([_examine(scene, match) for match in matches], scene)
    beside = {sign: _like_lesions(scene, pieces[sign], sign) for sign in (1, -1)}
    for sign, labels in beside.items():
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            wide = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
            followed.append(_of_piece(scene.cut(wide), labels[wide] == number, sign))
    return _paint(scene, followed, pieces, beside)


def where_lesions_may_be(pair: Pair, lesion: Bools, fossa: Bools, params: ChangeParameters) -> Bools:
    """White matter by T1w in both sessions, away from the posterior fossa; and lesions of the masks.

    Peaks elsewhere can be no lesions: they are not tested, and those of fluid's edges and cortex are not the null.
    """
    zooms = (pair.spacing,) * 3
    dark = np.minimum(*(smooth_inside(image, pair.mask, zooms, params.smooth_mm) for image in pair.t1w))
    white = (dark >= params.least_t1w) & ~_within(fossa, params.fossa_mm / pair.spacing)
    return np.asarray(pair.mask & (white | and_what_touches(lesion)))


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
        corner = np.eye(4)
        corner[:3, 3] = [side.start for side in box]
        pair, departure, marks = self.pair, self.departure, self.marks
        return replace(
            self,
            pair=Pair(pair.flair[:, *box], pair.t1w[:, *box], pair.mask[box], pair.spacing),
            departure=Departure(departure.score[box], departure.contrast[box], departure.spread[box]),
            marks=Marks(marks.before[box], marks.after[box], marks.fossa[box]),
            lesion=self.lesion[box],
            field=self.field[box],
            affine=self.affine @ corner,
        )

    def place(self, mask: Bools) -> tuple[float, float, float]:
        """Centre of a mask in the common space, mm."""
        x, y, z = (self.affine @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3].tolist()
        return x, y, z

    def change(self, mask: Bools) -> VolumeChange:
        """Change of the volume of a lesion."""
        others = self.lesion & ~mask
        return volume_change(self.pair, self.departure, self.noise, mask, others, self.params)


@dataclass(frozen=True, eq=False)
class _Examined:
    """A lesion and the evidence, before it is judged."""

    followed: Followed
    up: float
    down: float


def _examine(scene: _Scene, match: Match) -> _Examined:
    """Measure a lesion of the masks."""
    here = scene.around(match)
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
    return _Examined(followed, up, down)


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
    """Give every lesion its status, at half of the false-discovery rate."""
    p_values = np.array([p for one in examined for p in (one.up, one.down)])
    limit = false_discovery(p_values, scene.params.fdr / 2)
    out = []
    for one in examined:
        grew = one.up <= limit and one.up <= one.down
        shrank = one.down <= limit and one.down < one.up
        out.append(replace(one.followed, status=name_status(one.followed.match, grew=grew, shrank=shrank)))
    return out


def _changed(scene: _Scene, sign: int) -> Labels:
    """Tissue around all peaks of one sign that are change, at half of the false-discovery rate."""
    score = sign * scene.departure.score
    seeds = peaks(score, scene.field)
    p_values = scene.null.p_values(score[seeds])
    limit = false_discovery(p_values, scene.params.fdr / 2)
    seeds[seeds] = p_values <= limit
    return changed_tissue(score, sign * scene.departure.contrast, seeds, scene.params)


def _like_lesions(scene: _Scene, pieces: Labels, sign: int) -> Labels:
    """Changed tissue beside all lesions of the masks that is like one in the session where it is brighter: numbered anew.

    It is large enough and changed enough; T1w is that of white matter in both sessions, and did not become brighter with it, as with
    other partial volume and vessels. In and near the posterior fossa, where FLAIR's pulsation artefacts come and go, only the
    masks tell lesions.
    """
    params, there = scene.params, 1 if sign > 0 else 0
    excluded = and_what_touches(scene.lesion) | _within(
        scene.marks.fossa, params.fossa_mm / scene.pair.spacing
    )
    out = np.zeros_like(pieces)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[box] == number
        t1w = scene.pair.t1w[:, *box][:, piece].mean(axis=1)
        if (
            not (piece & excluded[box]).any()
            and piece.sum() * scene.voxel >= params.least_mm3
            and np.abs(scene.departure.contrast[box][piece]).max() >= params.least_contrast
            and t1w.min() >= params.least_t1w
            and t1w[there] - t1w[1 - there] <= params.most_t1w
        ):
            out[box][piece] = out.max() + 1
    return out


def _within(mask: Bools, voxels: float) -> Bools:
    """A mask, and what is so near to it."""
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= voxels)


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
    scene: _Scene, followed: list[Followed], pieces: dict[int, Labels], beside: dict[int, Labels]
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
            (new if sign > 0 else gone)[beside[sign] == drawn[sign]] = number
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
