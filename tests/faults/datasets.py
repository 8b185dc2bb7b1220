"""Datasets that are wrong: what is chosen, what is refused, what is said. Mostly ``--dry-run``."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bids_wmh_uad import errors
from faults import ground as grounds
from faults.harness import (
    INTACT,
    REFUSED,
    SURVIVED,
    UNTOUCHED,
    Fault,
    State,
    Tried,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faults.ground import Ground

DRY = ("participant", "--dry-run")
ANAT = Path("sub-02", "anat")
FLAIR, T1W = ANAT / "sub-02_FLAIR.nii.gz", ANAT / "sub-02_T1w.nii.gz"


def chosen(flair: Path | str = FLAIR, t1w: Path | str = T1W) -> State:
    """``--dry-run`` names these two scans of participant 02, and as not used only others beside them."""

    def check(tried: Tried) -> None:
        UNTOUCHED.check(tried)
        part = tried.said.split("\nsub-02")[-1]
        for kind, path in (("FLAIR", flair), ("T1w", t1w)):
            line = next(line for line in part.splitlines() if re.match(rf"  {kind} ", line))
            assert line.endswith(str(tried.ground.bids / path)), part
        others = [line.split()[-1] for line in part.splitlines() if line.startswith("  not used")]
        assert all(Path(other).parent == tried.ground.bids / ANAT for other in others), part

    return State("the right scans are chosen", check)


def with_file(name: str, source: Path, *arguments: str) -> Callable[[Ground], Sequence[str]]:
    """Put a copy of a scan at another place of the dataset too."""

    def make(here: Ground) -> Sequence[str]:
        path = here.bids / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here.bids / source, path)
        return arguments or DRY

    return make


def instead(
    path: Path, *arguments: str | Path
) -> Callable[[Callable[[Path], object]], Callable[[Ground], Sequence[str | Path]]]:
    """Replace a file of the dataset by what a function makes there."""

    def decorate(replace: Callable[[Path], object]) -> Callable[[Ground], Sequence[str | Path]]:
        def make(here: Ground) -> Sequence[str | Path]:
            (here.bids / path).unlink()
            replace(here.bids / path)
            return arguments or DRY

        return make

    return decorate


def _annex(path: Path) -> None:
    path.symlink_to("../../.git/annex/objects/Zz/k2/MD5E-s1--0.nii.gz/MD5E-s1--0.nii.gz")


def _pointer(path: Path) -> None:
    path.write_text("/annex/objects/MD5E-s13000--d41d8cd98f00b204e9800998ecf8427e.nii.gz\n")


def renamed(
    flair: str,
    t1w: str = "sub-02_T1w.nii.gz",
    folder: str = "sub-02/anat",
    filters: dict[str, object] | None = None,
) -> Callable[[Ground], Sequence[str | Path]]:
    """Give participant 02's scans other names, and process them."""

    def make(here: Ground) -> Sequence[str | Path]:
        target = here.bids / folder
        target.mkdir(parents=True, exist_ok=True)
        (here.bids / FLAIR).rename(target / flair)
        (here.bids / T1W).rename(target / t1w)
        options: list[str | Path] = [
            "participant",
            "--participant-label",
            "02",
            "--nprocs",
            "2",
            "--score",
            "brightness",
        ]
        if filters:
            file = here.bids.parent / "filter.json"
            file.write_text(json.dumps(filters))
            options += ["--bids-filter-file", file]
        return options

    return make


def described(text: str | bytes, *more: str) -> Callable[[Ground], Sequence[str]]:
    def make(here: Ground) -> Sequence[str]:
        path = here.bids / "dataset_description.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return (*DRY, *more)

    return make


def participants(content: bytes) -> Callable[[Ground], Sequence[str]]:
    def make(here: Ground) -> Sequence[str]:
        (here.bids / "participants.tsv").write_bytes(content)
        return ("group",)

    return make


def _has_site(tried: Tried) -> None:
    INTACT.check(tried)
    rows = [line.split("\t") for line in (tried.ground.out / "group_wmh.tsv").read_text().splitlines()]
    assert rows[1][rows[0].index("site")] == "Genève", rows


SITE = State("the site is in the table", _has_site)


def _reruns(tried: Tried) -> None:
    """The session is done, under one name, and a second run finds nothing to do."""
    INTACT.check(tried)
    summaries = list(tried.ground.out.glob("sub-02/**/*_summary.json"))
    assert [path.name.endswith("_desc-wmh_summary.json") for path in summaries] == [True], summaries
    again = next(line for line in (tried.ground.bids.parent / "again.txt").read_text().splitlines() if line)
    said = grounds.call(tried.ground.bids, tried.ground.out, *json.loads(again))
    assert "nothing to do" in said, said


def named(make: Callable[[Ground], Sequence[str | Path]]) -> Callable[[Ground], Sequence[str | Path]]:
    """Remember the arguments, for the rerun."""

    def remember(here: Ground) -> Sequence[str | Path]:
        arguments = make(here)
        (here.bids.parent / "again.txt").write_text(json.dumps([str(part) for part in arguments]) + "\n")
        return arguments

    return remember


RERUN = State("done; a second run has nothing to do", _reruns)
UNUSABLE = State("said before anything is written", UNTOUCHED.check)


def broken_control(here: Ground) -> Sequence[str | Path]:
    """A control whose FLAIR was cut off after a first training in the same OUT."""
    arguments = ("train", "-d", here.earlier, "--output-model", here.bids.parent / "model", *grounds.TRAINING)
    grounds.call(here.bids, here.out, *map(str, arguments))
    flair = here.bids / FLAIR
    flair.write_bytes(flair.read_bytes()[:5000])
    return arguments


def two_choices(here: Ground) -> Sequence[str | Path]:
    """Results of another FLAIR of participant 01, older than those there are."""
    for path in [*(here.out / "sub-01").rglob("sub-01_*")]:
        other = path.with_name(path.name.replace("sub-01_", "sub-01_acq-3D_", 1))
        shutil.copy(path, other)
        os.utime(other, (1e9, 1e9))
    return ("group",)


def _one_row(tried: Tried) -> None:
    INTACT.check(tried)
    rows = (tried.ground.out / "group_wmh.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["sub-01"], rows


ONE_ROW = State("one row for the session", _one_row)

FAULTS = (
    Fault(".nii beside .nii.gz", "input", with_file("sub-02/anat/sub-02_FLAIR.nii", FLAIR), SURVIVED, re.compile("not used .*FLAIR"), chosen("sub-02/anat/sub-02_FLAIR.nii")),
    Fault("link that leads to itself", "input", instead(FLAIR)(lambda path: path.symlink_to(path.name)), 1, errors.BROKEN_LINK, UNUSABLE),
    Fault("directory link that leads to its parent", "input", lambda here: [(here.bids / ANAT / "loop").symlink_to(".."), *DRY][1:], SURVIVED, "", chosen()),
    Fault("annex link without content", "input", instead(FLAIR)(_annex), 1, errors.BROKEN_LINK, UNUSABLE),
    Fault("annex pointer without content", "input", instead(T1W)(_pointer), 1, errors.BROKEN_LINK, UNUSABLE),
    Fault("directory named like a scan", "input", instead(FLAIR)(lambda path: path.mkdir()), REFUSED, re.compile(r"sub-02.*(FLAIR|T1w)"), UNUSABLE),
    Fault("no FLAIR", "input", instead(FLAIR)(lambda _: None), 1, errors.MISSING_FLAIR, UNUSABLE),
    Fault("no T1w", "input", instead(T1W)(lambda _: None), 1, errors.MISSING_T1W, UNUSABLE),
    Fault("no such participant", "input", lambda _: (*DRY, "--participant-label", "77"), 18, errors.UNKNOWN_LABELS, UNTOUCHED),
    Fault("derivatives inside the dataset", "input", with_file("fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz", T1W), SURVIVED, "", chosen()),
    Fault("a converter's temporary directory", "input", with_file("tmp_dcm2bids/sub-02/003_sub-02_FLAIR.nii.gz", FLAIR), SURVIVED, "", chosen()),
    Fault("contrast-enhanced T1w beside a plain one", "input", with_file("sub-02/anat/sub-02_ce-gadolinium_T1w.nii.gz", T1W), SURVIVED, re.compile("not used .*gadolinium"), chosen()),
    Fault("contrast-enhanced T1w beside run-1", "input", lambda here: [(here.bids / T1W).rename(here.bids / ANAT / "sub-02_run-1_T1w.nii.gz"), *with_file("sub-02/anat/sub-02_ce-gadolinium_T1w.nii.gz", ANAT / "sub-02_run-1_T1w.nii.gz")(here)][1:], SURVIVED, re.compile("not used .*gadolinium"), chosen(t1w=ANAT / "sub-02_run-1_T1w.nii.gz")),
    Fault("description that is no JSON", "input", described("{"), 16, errors.NOT_BIDS, UNTOUCHED),
    Fault("description that is a list", "input", described("[1]"), 16, errors.NOT_BIDS, UNTOUCHED),
    Fault("description that is a list, validation skipped", "input", described("[1]", "--skip-bids-validation"), frozenset({0, 16}), "", UNTOUCHED),
    Fault("FLAIR named acq-FLAIR_T2w", "input", named(renamed("sub-02_acq-FLAIR_T2w.nii.gz", filters={"flair": {"suffix": "T2w", "acquisition": "FLAIR"}})), SURVIVED, "", RERUN, full=True),
    Fault("T1w named UNIT1", "input", named(renamed("sub-02_FLAIR.nii.gz", "sub-02_UNIT1.nii.gz", filters={"t1w": {"suffix": "UNIT1"}})), SURVIVED, "", RERUN, full=True),
    Fault("entities out of order", "input", named(renamed("sub-02_run-1_acq-3D_FLAIR.nii.gz")), SURVIVED, "", RERUN, full=True),
    Fault("ses-1/anat without ses-1 in the name", "input", renamed("sub-02_FLAIR.nii.gz", folder="sub-02/ses-1/anat"), frozenset({0, 1, 18, 66}), re.compile("ses-1"), INTACT, full=True),
    Fault("control whose FLAIR broke after a first training", "input", broken_control, 66, errors.NOT_ENOUGH_CONTROLS, INTACT, full=True),
    Fault("results of two FLAIR of one session", "input", two_choices, SURVIVED, re.compile("left out"), ONE_ROW, full=True),
    Fault("participants.tsv without sub-", "input", participants("participant_id\tsite\n01\tGenève\n".encode()), SURVIVED, "", SITE, full=True),
    Fault("participants.tsv in Latin-1", "input", participants("participant_id\tsite\nsub-01\tGenève\n".encode("latin-1")), SURVIVED, re.compile("participants.tsv"), SITE, full=True),
    Fault("participants.tsv in UTF-16", "input", participants("participant_id\tsite\nsub-01\tGenève\n".encode("utf-16")), SURVIVED, re.compile("participants.tsv"), SITE),
)  # fmt: skip
