"""What changed since last time, on phantoms whose lesions' fates are known; and beside it, two simple ways.

One JSON line. Every phantom person has three sessions: from the first to the second lesions come, grow by a fifth, shrink and go, and the
ventricles widen a little; from the second to the third nothing changes but position, noise, bias field, artefacts and gain. The participant
level runs on them with ``--longitudinal``, once, into a folder that is kept. For each method:

- ``recall`` and ``precision`` of new lesions of 15 mm3 and more: a lesion is found where any voxel of it is called new, and a piece
  that is called new is right where it touches a new lesion;
- ``growth_auc``: lesions of 30 mm3 and more that grew by a fifth told from those that stayed, by the change that the method states; only
  of lesions that the program's masks have in either session, and that are not parts of others there (``grown`` and ``same`` of them): all methods measure at the same places;
- ``enlarging_called_enlarging`` and ``stable_called_enlarging``: share of both kinds at which tissue is said to have come, as much as the program's smallest volume;
- ``quiet``: share of the pairs in which nothing changed that have nothing called new.

``ours`` is the program. ``masks`` takes what the later session's lesion mask has and the earlier one's has not, in the common space;
``subtraction`` the difference of both FLAIRs there, matched in brightness by the program, with the program's threshold
rule. In both, pieces that touch a lesion of the earlier session are growth, not new, and those below the program's smallest volume are dropped.

``--real`` does the same on a patient with the masks of an expert (voxels that only the later one has are new, those that only the
earlier one has are gone): development data, from which nothing was cut into the repository.

``--variant`` makes the second session another scanner's, of other voxels, or of a head that seems larger (gradients calibrated otherwise), all else alike; or
makes pairs in which nothing changed (``rescans``). ``--implants`` puts other patients' lesions into the later raw scan of patients who have two (`change_implants`); what these
people have themselves that is new counts as wrong. ``--latents`` adds two methods: the program's, with how far latents depart as a second witness, by the
packaged encoder (``latents``) and by one with random weights (``random``). ``--sessions`` says what comparing so many sessions of one person costs.

    python benchmarks/change.py --people 10
    python benchmarks/change.py --people 4 --variant scaled
    python benchmarks/change.py --people 10 --variant rescans
    python benchmarks/change.py --sessions 10
    python benchmarks/change.py --implants ../shared/data/ms-raw --masks ../shared/data/ms-masks-mni
    python benchmarks/change.py --real ../shared/data/ms-mni --participant P14 --latents
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from change_implants import make_patients
from change_latents import WithLatents
from change_methods import (
    TOUCHING,
    Bools,
    Case,
    Fate,
    Labels,
    Outcome,
    apart,
    by_masks,
    by_program,
    by_subtraction,
)
from change_phantoms import CHANGE, RESCANS, VARIANTS, make_people, run_program, time_sessions
from scipy import ndimage

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.references import find_reference
from bids_wmh_uad.bids.results import current_summaries, finished
from bids_wmh_uad.core.change.departure import Pair
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.imaging.longitudinal import on_grid
from bids_wmh_uad.participant.comparison import Visit, realign

CACHE = Path(__file__).resolve().parents[1] / "build" / "change"
LEAST_MM3 = 15.0
"""Smallest new lesion that counts."""


@dataclass(frozen=True)
class Count:
    """New lesions of some pairs of sessions: what is true, what was found.

    Attributes
    ----------
    true, hit : int
        New lesions of at least `LEAST_MM3`, and those of them that were found.
    pieces, right : int
        Pieces of at least that size that were called new, and those of them that touch one.
    """

    true: int = 0
    hit: int = 0
    pieces: int = 0
    right: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def measures(self) -> dict[str, float | int | None]:
        """Recall and precision, and what they are counted from."""
        return {
            "recall": round(self.hit / self.true, 3) if self.true else None,
            "precision": round(self.right / self.pieces, 3) if self.pieces else None,
            **asdict(self),
        }


def count_new(truth: Labels, found: Bools, voxel_mm3: float) -> Count:
    """Compare new tissue with the new lesions.

    Parameters
    ----------
    truth : integer array
        Numbers of the new lesions, 0 elsewhere.
    found : bool array
    voxel_mm3 : float
    """
    least = LEAST_MM3 / voxel_mm3
    lesions = {n for n, size in enumerate(np.bincount(truth.ravel())) if n and size >= least}
    pieces = ndimage.label(found, TOUCHING)[0]
    large = {n for n, size in enumerate(np.bincount(pieces.ravel())) if n and size >= least}
    hit = lesions & set(np.unique(truth[found]).tolist())
    right = large & set(np.unique(pieces[truth > 0]).tolist())
    return Count(len(lesions), len(hit), len(large), len(right))


def auc(changed: list[float], same: list[float]) -> float | None:
    """Probability that a lesion that grew has a larger value than one that did not; ties count half."""
    if not changed or not same:
        return None
    more = np.subtract.outer(np.array(changed), np.array(same))
    return round(float(np.mean((more > 0) + 0.5 * (more == 0))), 3)


def read_people(out: Path, truth: Path) -> Iterator[Case]:
    """Pairs of consecutive sessions of the people whose sessions were compared; ends the program if nobody's were."""
    people: dict[str, list[Path]] = {}
    for path, summary in finished(current_summaries(out)).items():
        person = summary["participant_id"]
        if derivatives.longitudinal_path(out, person.removeprefix("sub-")).is_file():
            people.setdefault(person, []).append(path)
    if not people:
        raise SystemExit(f"{out}: nobody's sessions were compared; what the program says of it stands above")
    for person, paths in people.items():
        sessions = [summary.name.split("_")[1] for summary in paths]
        labels = [truth_of(truth, person, session, "desc-lesions_dseg.nii.gz") for session in sessions]
        whole = read_common(person, paths, labels)
        for k in range(len(paths) - 1):
            table = truth_of(truth, person, sessions[k + 1], "desc-lesions_dseg.tsv")
            yield replace(
                between(whole, k, f"{person}_{sessions[k]}_{sessions[k + 1]}"), fates=read_fates(table)
            )


def truth_of(truth: Path, person: str, session: str, name: str) -> Path:
    """A file of the phantoms' truth."""
    return truth / person / session / "anat" / f"{person}_{session}_space-FLAIR_{name}"


def read_patient(out: Path, masks: Path, person: str) -> Iterator[Case]:
    """All pairs of consecutive sessions of a patient, with an expert's masks as truth."""
    paths = [
        path
        for path, summary in finished(current_summaries(out)).items()
        if summary["participant_id"] == person
    ]
    truths = [find_reference(masks, person, path.name.split("_")[1]) for path in paths]
    whole = read_common(person, paths, [truth.path for truth in truths if truth])
    for k in range(len(paths) - 1):
        yield between(whole, k, f"{paths[k].name.split('_')[1]}_{paths[k + 1].name.split('_')[1]}")


def score_patient(case: Case, outcome: Outcome) -> dict[str, dict[str, float | int | None]]:
    """New lesions, and tissue that came and went, against the masks of an expert; the tissue also voxel by voxel."""
    before, after = (truth > 0 for truth in case.truth)
    truths = {"new": apart(after, before), "came": after & ~before, "went": before & ~after}
    measures = {}
    for name, truth in truths.items():
        found: Bools = getattr(outcome, name)
        count = count_new(ndimage.label(truth, TOUCHING)[0], found, case.pair.spacing**3)
        both = int((truth & found).sum())
        parts = {"voxel_recall": int(truth.sum()), "voxel_precision": int(found.sum())}
        shares = {part: round(both / total, 3) if total else None for part, total in parts.items()}
        measures[name] = count.measures | shares
    return measures


def between(whole: Case, k: int, name: str) -> Case:
    """Two consecutive sessions of several."""
    both = slice(k, k + 2)
    return replace(
        whole,
        name=name,
        pair=replace(whole.pair, flair=whole.pair.flair[both], t1w=whole.pair.t1w[both]),
        **{field: getattr(whole, field)[both] for field in ("lesions", "truth", "fossa")},
    )


def read_fates(table: Path) -> dict[int, Fate]:
    """What became of each lesion since the session before."""
    with table.open() as lines:
        return {
            int(row["index"]): Fate(row["fate"], float(row["volume_before_mm3"]))
            for row in csv.DictReader(lines, delimiter="\t")
        }


def read_common(person: str, summaries: Sequence[Path], truths: Sequence[Path]) -> Case:
    """All sessions of a person in their common space, where the program put it."""
    visits = [Visit(path, derivatives.read_summary(path), None) for path in summaries]
    aligned = realign(visits, ChangeParameters())
    space, spacing = aligned.space, ChangeParameters().grid_mm
    truth = on_grid([nib.load(path) for path in truths], space.motions, space.grid, "nearest")
    pair = Pair(aligned.flair, aligned.t1w, aligned.mask, spacing)
    return Case(
        person, pair, aligned.lesions, truth.astype(np.int32), aligned.fossa,
        np.asarray(space.grid.affine), {},
    )  # fmt: skip


@dataclass
class Score:
    """A method's answers, summed over cases."""

    count: Count = Count()
    grown: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    called: dict[str, list[bool]] = field(default_factory=lambda: {"enlarging": [], "stable": []})
    quiet: list[bool] = field(default_factory=list)

    def add(self, case: Case, outcome: Outcome) -> None:
        """Take in what was said of a case."""
        if case.still:
            self.quiet.append(not outcome.new.any())
        else:
            truth = np.where(np.isin(case.truth[1], case.numbers("new")), case.truth[1], 0)
            self.count += count_new(truth, outcome.new, case.pair.spacing**3)
        low, high = CHANGE.lesion_mm3
        for number, fate in case.fates.items():
            if low <= fate.before_mm3 <= high and fate.name in ("enlarging", "stable"):
                place = case.places.get(number)
                if place is not None:
                    (self.grown if fate.name == "enlarging" else self.same).append(outcome.growth(place))
                    came = np.count_nonzero(place.and_what_touches.of(outcome.came))
                    self.called[fate.name].append(came * case.pair.spacing**3 >= ChangeParameters().least_mm3)

    @property
    def measures(self) -> dict[str, Any]:
        """All of them, and what they are counted from."""
        return {
            **self.count.measures,
            "growth_auc": auc(self.grown, self.same),
            "grown": len(self.grown),
            "same": len(self.same),
            **{
                f"{name}_called_enlarging": round(float(np.mean(called)), 3) if called else None
                for name, called in self.called.items()
            },
            "quiet": round(float(np.mean(self.quiet)), 3) if self.quiet else None,
            "still_pairs": len(self.quiet),
        }


Methods = dict[str, Callable[[Case, ChangeParameters], Outcome]]
METHODS: Methods = {
    "ours": by_program,
    "masks": by_masks,
    "subtraction": by_subtraction,
}


def on_phantoms(cases: Iterator[Case], methods: Methods) -> dict[str, Any]:
    """All measures of all methods."""
    scores = {name: Score() for name in methods}
    for case in cases:
        for name, method in methods.items():
            scores[name].add(case, method(case, ChangeParameters()))
    return {name: score.measures for name, score in scores.items()}


def on_patient(cases: Iterator[Case], methods: Methods) -> dict[str, Any]:
    """Recall and precision of all methods, each pair by itself."""
    return {
        case.name: {
            name: score_patient(case, method(case, ChangeParameters())) for name, method in methods.items()
        }
        for case in cases
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10, help="phantoms")
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument(
        "--variant", choices=[*VARIANTS, RESCANS], default="same", help="of the second session"
    )
    parser.add_argument("--latents", action="store_true", help="with latents as well")
    parser.add_argument(
        "--sessions", type=int, metavar="N", help="what comparing so many of one person costs"
    )
    parser.add_argument("--real", type=Path, metavar="DIR", help="a dataset with masks in derivatives/manual")
    parser.add_argument("--participant", default="P14", help="of that dataset")
    parser.add_argument(
        "--implants", type=Path, metavar="DIR", help="real patients with two sessions, who get known lesions"
    )
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="others' lesions, in the template, for --implants"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where phantoms and results are kept")
    parser.add_argument("--results", type=Path, metavar="DIR", help="finished derivatives: nothing is run")
    options = parser.parse_args()
    if options.implants and not options.masks:
        parser.error("--implants needs --masks DIR")
    if options.sessions:
        print(json.dumps(time_sessions(options.cache, options.sessions, options.seed)))
        return
    name = "people" if options.variant == "same" else f"people-{options.variant}"
    bids_dir = options.real or options.cache / ("implants" if options.implants else name)
    out = options.results or options.cache / f"out-{bids_dir.name}"
    if options.implants:
        hosts = options.cache / f"out-{options.implants.name}"
        run_program(options.implants, hosts)
        make_patients(bids_dir, options.implants, hosts, options.masks, options.seed)
    elif options.real is None:
        make_people(bids_dir, options.people, options.seed, options.variant)
    if options.results is None:
        one = ["--participant-label", options.participant] if options.real else []
        run_program(bids_dir, out, "--longitudinal", *one)
    methods = METHODS
    if options.latents:
        methods = METHODS | {"latents": WithLatents(trained=True), "random": WithLatents(trained=False)}
    if options.real:
        masks = bids_dir / "derivatives" / "manual"
        found = on_patient(read_patient(out, masks, f"sub-{options.participant}"), methods)
    else:
        found = on_phantoms(read_people(out, bids_dir / "derivatives" / "truth"), methods)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
