"""When sessions were scanned: ``sessions.tsv`` first, the FLAIR's line of ``scans.tsv`` else, and nothing that cannot be read."""

from datetime import datetime

from bids_wmh_uad.bids.participants import acquisition_times

WHO = {("sub-1", f"ses-{number}"): f"sub-1_ses-{number}_FLAIR.nii.gz" for number in range(1, 5)}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_times_of_sessions_and_of_scans(tmp_path):
    write(
        tmp_path / "sub-1/sub-1_sessions.tsv",
        "session_id\tacq_time\nses-1\t2020-05-01T10:00:00\nses-2\tlast summer\n",
    )
    for session in (1, 2, 3):
        lines = f"filename\tacq_time\nanat/sub-1_ses-{session}_T1w.nii.gz\t1999-01-01T00:00:00\n"
        lines += f"anat/sub-1_ses-{session}_FLAIR.nii.gz\t2021-0{session}-01T10:00:00.25Z\n"
        write(tmp_path / f"sub-1/ses-{session}/sub-1_ses-{session}_scans.tsv", lines)
    assert acquisition_times([tmp_path / "absent", tmp_path], WHO) == {
        ("sub-1", "ses-1"): datetime(2020, 5, 1, 10),
        ("sub-1", "ses-2"): datetime(2021, 2, 1, 10, 0, 0, 250000),
        ("sub-1", "ses-3"): datetime(2021, 3, 1, 10, 0, 0, 250000),
    }


def test_without_sessions_the_table_lies_beside_the_participant(tmp_path):
    write(
        tmp_path / "sub-1/sub-1_scans.tsv",
        "filename\tacq_time\nanat/sub-1_FLAIR.nii.gz\t2021-02-03T04:05:06\n",
    )
    found = acquisition_times([tmp_path], {("sub-1", "n/a"): "sub-1_FLAIR.nii.gz"})
    assert found == {("sub-1", "n/a"): datetime(2021, 2, 3, 4, 5, 6)}
    assert acquisition_times([tmp_path / "absent"], WHO) == {}
