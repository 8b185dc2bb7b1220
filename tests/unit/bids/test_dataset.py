"""The dataset walk: which sessions, which files, what is said of the others, and what is left unopened."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_wmh_uad.bids.dataset import Session, find_sessions, read_filters
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import (
    BAD_FILTER_FILE,
    BROKEN_LINK,
    EMPTY_SELECTION,
    MISSING_FLAIR,
    MISSING_T1W,
    NO_SUCH_DIRECTORY,
    NOT_BIDS,
    UNKNOWN_LABELS,
    EmptySelectionError,
    InvalidBIDSError,
    MissingInputError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Maker = Callable[..., Path]

T1W, FLAIR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"


def anat(session: str, suffix: str, *, subject: str = "01", entities: str = "") -> str:
    prefix = f"sub-{subject}_ses-{session}{entities}"
    return f"sub-{subject}/ses-{session}/anat/{prefix}_{suffix}.nii.gz"


def names(sessions: Sequence[Session]) -> list[tuple[str, str, str]]:
    return [(found.label, found.flair.name, found.t1w.name) for found in sessions]


def write_filters(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


# ------------------------------------------------------------------ pairing


def test_a_dataset_without_sessions(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    assert find_sessions(root, Selection()) == ([Session("01", None, root / FLAIR, root / T1W)], [])


def test_the_t1w_of_the_same_session_comes_first(tmp_path: Path, make_dataset: Maker) -> None:
    files = [anat(session, suffix) for session in "12" for suffix in ("T1w", "FLAIR")]
    sessions, unusable = find_sessions(make_dataset(tmp_path / "ds", *files), Selection())
    assert unusable == []
    assert [(found.session, found.t1w.name) for found in sessions] == [
        ("1", "sub-01_ses-1_T1w.nii.gz"), ("2", "sub-01_ses-2_T1w.nii.gz"),
    ]  # fmt: skip


def test_a_session_without_t1w_borrows_the_only_one(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", anat("1", "T1w"), anat("2", "FLAIR"), anat("3", "FLAIR"))
    sessions, unusable = find_sessions(root, Selection())
    assert {found.t1w for found in sessions} == {root / anat("1", "T1w")}
    assert [found.session for found in sessions] == ["2", "3"]
    assert unusable == []  # session 1 lends, it did not fail


def test_a_choice_of_t1w_is_not_guessed(tmp_path: Path, make_dataset: Maker) -> None:
    files = [anat("1", "T1w"), anat("2", "T1w"), anat("3", "FLAIR")]
    root = make_dataset(tmp_path / "ds", *files)
    sessions, unusable = find_sessions(root, Selection())
    assert sessions == []
    assert [str(entry.error) for entry in unusable] == [
        MISSING_T1W.format(where="sub-01/ses-3", flair=root / files[2]),
        MISSING_FLAIR.format(where="sub-01/ses-1", t1w=root / files[0]),
        MISSING_FLAIR.format(where="sub-01/ses-2", t1w=root / files[1]),
    ]


@pytest.mark.parametrize(
    ("present", "message", "key"), [(T1W, MISSING_FLAIR, "t1w"), (FLAIR, MISSING_T1W, "flair")]
)
def test_a_missing_contrast_names_the_other(
    tmp_path: Path, make_dataset: Maker, present: str, message: str, key: str
) -> None:
    root = make_dataset(tmp_path / "ds", present)
    sessions, (entry,) = find_sessions(root, Selection())
    assert sessions == []
    assert isinstance(entry.error, MissingInputError)
    assert str(entry.error) == message.format(where="sub-01", **{key: root / present})


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.sets(st.integers(1, 120), min_size=1, max_size=4))
def test_the_lowest_run_is_taken_and_the_rest_is_said(
    tmp_path_factory: pytest.TempPathFactory, make_dataset: Maker, runs: set[int]
) -> None:
    files = [f"sub-01/anat/sub-01_run-{run}_FLAIR.nii.gz" for run in runs]
    root = make_dataset(tmp_path_factory.mktemp("runs") / "ds", T1W, *files)
    (found,), unusable = find_sessions(root, Selection())
    ordered = [root / f"sub-01/anat/sub-01_run-{run}_FLAIR.nii.gz" for run in sorted(runs)]
    assert (found.flair, *found.unused) == tuple(ordered)
    assert unusable == []


def test_no_run_counts_as_the_first_then_the_name_decides(tmp_path: Path, make_dataset: Maker) -> None:
    stems = ["run-1_T1w", "acq-b_T1w", "acq-a_T1w", "acq-a_run-2_T1w"]
    files = [f"sub-01/anat/sub-01_{stem}.nii.gz" for stem in stems]
    (found,), _ = find_sessions(make_dataset(tmp_path / "ds", FLAIR, *files), Selection())
    order = [path.name.removesuffix(".nii.gz")[7:] for path in (found.t1w, *found.unused)]
    assert order == ["acq-a_T1w", "acq-b_T1w", "run-1_T1w", "acq-a_run-2_T1w"]


def test_phase_images_are_not_scans(tmp_path: Path, make_dataset: Maker) -> None:
    phase, magnitude = (f"sub-01/anat/sub-01_part-{part}_FLAIR.nii.gz" for part in ("imag", "mag"))
    (found,), _ = find_sessions(make_dataset(tmp_path / "ds", T1W, phase, magnitude), Selection())
    assert (found.flair.name, found.unused) == ("sub-01_part-mag_FLAIR.nii.gz", ())


def test_uncompressed_files_count_too(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W[:-3], FLAIR[:-3])
    (found,), _ = find_sessions(root, Selection())
    assert (found.flair, found.prefix) == (root / FLAIR[:-3], "sub-01")


def test_prefix_and_workflow_name_follow_the_flair(tmp_path: Path, make_dataset: Maker) -> None:
    file = anat("1", "FLAIR", entities="_acq-3D+x_run-02")
    (found,), _ = find_sessions(make_dataset(tmp_path / "ds", file, anat("1", "T1w")), Selection())
    assert found.prefix == "sub-01_ses-1_acq-3D+x_run-02"
    assert found.workflow_name.isidentifier()


def test_a_dangling_link_names_the_file_and_datalad(tmp_path: Path, make_dataset: Maker) -> None:
    good = ["sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz"]
    root = make_dataset(tmp_path / "ds", T1W, *good, links={FLAIR: "../../.git/annex/objects/none"})
    (found,), (entry,) = find_sessions(root, Selection())
    assert found.subject == "02"
    assert isinstance(entry.error, MissingInputError)
    assert str(entry.error) == BROKEN_LINK.format(path=root / FLAIR, name=FLAIR)


def test_links_that_lead_somewhere_are_files(tmp_path: Path, make_dataset: Maker) -> None:
    make_dataset(tmp_path / "store", T1W, FLAIR)
    link = {"sub-01": str(tmp_path / "store" / "sub-01")}
    (found,), _ = find_sessions(make_dataset(tmp_path / "ds", links=link), Selection())
    assert found.flair == tmp_path / "ds" / FLAIR


# ---------------------------------------------------------------- selection


def test_only_the_labels_asked_for(tmp_path: Path, make_dataset: Maker) -> None:
    files = [anat(s, c, subject=p) for p in ("a", "ab", "b") for s in "12" for c in ("T1w", "FLAIR")]
    root = make_dataset(tmp_path / "ds", *files)
    for selection, expected in (
        (
            Selection(),
            {"sub-a/ses-1", "sub-a/ses-2", "sub-ab/ses-1", "sub-ab/ses-2", "sub-b/ses-1", "sub-b/ses-2"},
        ),
        (Selection(participant_label=("a",)), {"sub-a/ses-1", "sub-a/ses-2"}),
        (Selection(session_label=("2",)), {"sub-a/ses-2", "sub-ab/ses-2", "sub-b/ses-2"}),
        (Selection(participant_label=("b", "a"), session_label=("1",)), {"sub-a/ses-1", "sub-b/ses-1"}),
    ):
        sessions, unusable = find_sessions(root, selection)
        assert {found.label for found in sessions} == expected
        assert unusable == []


def test_an_unasked_session_still_lends_its_t1w(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", anat("1", "T1w"), anat("2", "FLAIR"))
    (found,), unusable = find_sessions(root, Selection(session_label=("2",)))
    assert (found.t1w, unusable) == (root / anat("1", "T1w"), [])


def test_unknown_labels_list_the_known_ones(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, "sub-02/anat/sub-02_T1w.nii.gz")
    with pytest.raises(EmptySelectionError) as raised:
        find_sessions(root, Selection(participant_label=("01", "x", "9")))
    assert str(raised.value) == UNKNOWN_LABELS.format(path=root, labels="9, x", known="01, 02")
    assert raised.value.exit_code == 18


def test_many_known_labels_are_cut_short(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds")
    for number in range(50):
        (root / f"sub-{number:02d}").mkdir()
    with pytest.raises(EmptySelectionError, match=r"00, .*, 19 and 30 more\.$"):
        find_sessions(root, Selection(participant_label=("none",)))


@pytest.mark.parametrize(
    "selection",
    [Selection(session_label=("9",)), Selection(participant_label=("02",)), Selection(participant_label=("01",), session_label=("9",))],
)  # fmt: skip
def test_a_selection_of_nothing_says_what_was_asked(
    tmp_path: Path, make_dataset: Maker, selection: Selection
) -> None:
    root = make_dataset(
        tmp_path / "ds", anat("1", "T1w"), anat("1", "FLAIR"), "sub-02/func/sub-02_bold.nii.gz"
    )
    with pytest.raises(EmptySelectionError) as raised:
        find_sessions(root, selection)
    asked = [
        f"{kind}={', '.join(labels)}"
        for kind, labels in (
            ("participants", selection.participant_label),
            ("sessions", selection.session_label),
        )
        if labels
    ]
    assert str(raised.value) == EMPTY_SELECTION.format(path=root, filters="; ".join(asked))
    assert raised.value.exit_code == 18


def test_a_participant_without_anything_does_not_stop_the_others(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, "sub-02/func/sub-02_task-rest_bold.nii.gz")
    (found,), (entry,) = find_sessions(root, Selection(participant_label=("01", "02")))
    assert (found.subject, entry.subject) == ("01", "02")
    assert isinstance(entry.error, EmptySelectionError)


# ------------------------------------------------------------------ filters


@pytest.mark.parametrize(
    ("entities", "chosen"),
    [
        ({"acquisition": "a"}, "acq-a_T1w"),
        ({"acquisition": ["b", "none"]}, "acq-b_run-1_T1w"),
        ({"acquisition": None}, "T1w"),
        ({"acquisition": "*"}, "acq-a_T1w"),
        ({"run": "*"}, "acq-b_run-1_T1w"),
        ({"run": 2}, "acq-b_run-2_T1w"),
        ({"reconstruction": None}, "T1w"),
    ],
)
def test_a_filter_chooses_the_t1w(
    tmp_path: Path, make_dataset: Maker, entities: dict[str, Any], chosen: str
) -> None:
    stems = ["T1w", "acq-a_T1w", "acq-b_run-1_T1w", "acq-b_run-2_T1w"]
    root = make_dataset(tmp_path / "ds", FLAIR, *(f"sub-01/anat/sub-01_{stem}.nii.gz" for stem in stems))
    filters = write_filters(tmp_path / "filters.json", {"t1w": entities})
    (found,), _ = find_sessions(root, Selection(bids_filter_file=filters))
    assert found.t1w.name == f"sub-01_{chosen}.nii.gz"
    assert found.flair == root / FLAIR


def test_a_filter_that_matches_nothing_is_said(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    content = {"t1w": {"acquisition": "x"}, "flair": {"acquisition": "x"}}
    with pytest.raises(EmptySelectionError, match=r"t1w filter \{'acquisition': 'x'\}"):
        find_sessions(root, Selection(bids_filter_file=write_filters(tmp_path / "f.json", content)))


@pytest.mark.parametrize(
    "content",
    [
        [],
        3,
        {"t1w": 3},
        {"bold": {}},
        {"t1w": {"acq": "a"}},
        {"t1w": {"return_type": "id"}},
        {"t1w": {"run": {}}},
    ],
)
def test_an_unusable_filter_file_is_a_usage_error(tmp_path: Path, make_dataset: Maker, content: Any) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    path = write_filters(tmp_path / "f.json", content)
    with pytest.raises(UsageError) as raised:
        find_sessions(root, Selection(bids_filter_file=path))
    assert str(raised.value).startswith(BAD_FILTER_FILE.format(path=path, reason="#").split("#")[0])


def test_a_filter_file_must_exist_and_be_json(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("{'t1w'")
    for path in (tmp_path / "f.json", tmp_path / "none.json"):
        with pytest.raises(UsageError, match="filter file"):
            read_filters(path)
    assert read_filters(None) == {}


# ------------------------------------------------------------- the dataset


def test_what_is_not_bids_ends_with_16(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, described=False)
    with pytest.raises(InvalidBIDSError) as raised:
        find_sessions(root, Selection())
    assert str(raised.value) == NOT_BIDS.format(path=root, reason="no dataset_description.json")
    assert raised.value.exit_code == 16
    sessions, _ = find_sessions(root, Selection(skip_bids_validation=True))
    assert len(sessions) == 1


@pytest.mark.parametrize("content", ["", "{", "3", "[]", '{"Name": "x"}'])
def test_a_bad_description_is_not_bids(tmp_path: Path, make_dataset: Maker, content: str) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    (root / "dataset_description.json").write_text(content)
    with pytest.raises(InvalidBIDSError, match=r"dataset_description\.json"):
        find_sessions(root, Selection())


def test_a_missing_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as raised:
        find_sessions(tmp_path / "none", Selection())
    assert str(raised.value) == NO_SUCH_DIRECTORY.format(path=tmp_path / "none")


@pytest.mark.parametrize(
    "where", ["sub-99/ses-7/anat/ds", "run-3_acq-x/part-phase/ds", ".cache/derivatives/ds", "a(b+[c"]
)
def test_where_the_dataset_lies_does_not_matter(tmp_path: Path, make_dataset: Maker, where: str) -> None:
    root = make_dataset(
        tmp_path / where, T1W, FLAIR, anat("1", "FLAIR", subject="02"), anat("1", "T1w", subject="02")
    )
    for labels in ((), ("01", "02")):
        sessions, unusable = find_sessions(root, Selection(participant_label=labels))
        assert [found.label for found in sessions] == ["sub-01", "sub-02/ses-1"]
        assert unusable == []


def test_results_and_sources_are_not_scans(tmp_path: Path, make_dataset: Maker) -> None:
    places = ["derivatives/x", "sourcedata", "code", ".git", "sub-01/anat/.hidden", "sub-01/misc"]
    others = [f"{place}/sub-01/anat/sub-01_acq-{n}_FLAIR.nii.gz" for n, place in enumerate(places)]
    (found,), unusable = find_sessions(make_dataset(tmp_path / "ds", T1W, FLAIR, *others), Selection())
    assert (found.unused, unusable) == ((), [])


def opened_directories(monkeypatch: pytest.MonkeyPatch, root: Path) -> set[str]:
    """Record which directories below `root` are listed from now on."""
    seen: set[str] = set()
    scan = os.scandir

    def watched(path: Any = ".") -> Any:
        text = os.fspath(path)
        if str(text).startswith(str(root)):
            seen.add(os.path.relpath(text, root))
        return scan(path)

    monkeypatch.setattr(os, "scandir", watched)
    return seen


def test_only_the_participants_asked_for_are_opened(
    tmp_path: Path, make_dataset: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"sub-{p}/{kind}/sub-{p}_{name}.nii.gz" for p in ("1", "10", "2") for kind, name in
             (("anat", "T1w"), ("anat", "FLAIR"), ("func", "bold"))]  # fmt: skip
    root = make_dataset(tmp_path / "ds", *files, "derivatives/x/sub-1/anat/sub-1_FLAIR.nii.gz")
    seen = opened_directories(monkeypatch, root)
    sessions, _ = find_sessions(root, Selection(participant_label=("1",)))
    assert len(sessions) == 1
    assert seen == {".", "sub-1", "sub-1/anat"}


def test_a_locked_participant_matters_only_if_asked_for(tmp_path: Path, make_dataset: Maker) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, "sub-02/anat/sub-02_FLAIR.nii.gz")
    (root / "sub-02" / "anat").chmod(0)
    try:
        sessions, unusable = find_sessions(root, Selection(participant_label=("01",)))
    finally:
        (root / "sub-02" / "anat").chmod(0o755)
    assert (len(sessions), unusable) == (1, [])


def test_a_database_knows_every_participant(tmp_path: Path, make_dataset: Maker) -> None:
    files = [f"sub-{p}/anat/sub-{p}_{c}.nii.gz" for p in ("01", "02") for c in ("T1w", "FLAIR")]
    root, database = make_dataset(tmp_path / "ds", *files), tmp_path / "db"
    for label in ("01", "02", "01"):
        sessions, _ = find_sessions(root, Selection(participant_label=(label,), bids_database_dir=database))
        assert [found.subject for found in sessions] == [label]
    assert database.is_dir()


def test_no_index_is_kept(tmp_path, make_dataset):
    import gc

    from bids import BIDSLayout

    root = make_dataset(tmp_path / "ds", "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_FLAIR.nii.gz")
    find_sessions(root, Selection())
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is BIDSLayout]
