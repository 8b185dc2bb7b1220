"""What the machine refuses is said as such: never a traceback, never a bug to report."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bids_wmh_uad import environment
from bids_wmh_uad.errors import (
    BAD_DESCRIPTION,
    BAD_VALUE,
    CANNOT_CREATE,
    EXIT_OK,
    NO_WORK_DIRECTORY,
    CannotCreateError,
    InvalidBIDSError,
    MemoryExhaustedError,
    StorageError,
    TemporaryError,
    UsageError,
)

ROOT = Path(__file__).parents[2]
T1W, FLAIR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"
SYSTEM = {
    errno.ENOSPC: (StorageError, environment.NO_SPACE), errno.EDQUOT: (StorageError, environment.NO_SPACE),
    errno.EFBIG: (StorageError, environment.NO_SPACE), errno.EIO: (StorageError, environment.STORAGE_BROKE),
    errno.ESTALE: (StorageError, environment.STORAGE_BROKE), errno.ENOTCONN: (StorageError, environment.STORAGE_BROKE),
    errno.EROFS: (CannotCreateError, environment.NOT_WRITABLE), errno.EACCES: (StorageError, environment.NOT_ALLOWED),
    errno.EPERM: (StorageError, environment.NOT_ALLOWED), errno.ENAMETOOLONG: (CannotCreateError, environment.NAME_TOO_LONG),
    errno.ENOMEM: (MemoryExhaustedError, environment.NO_MEMORY), errno.EMFILE: (TemporaryError, environment.NO_FILES),
    errno.ENFILE: (TemporaryError, environment.NO_FILES), errno.EAGAIN: (TemporaryError, environment.NO_PROCESSES),
    errno.ENOENT: (StorageError, environment.FILE_VANISHED), errno.EISDIR: (StorageError, environment.SYSTEM_REFUSED),
    errno.EBUSY: (StorageError, environment.SYSTEM_REFUSED), errno.ENODEV: (StorageError, environment.SYSTEM_REFUSED),
}  # fmt: skip
TEXTS = {
    "MemoryError": environment.NO_MEMORY,
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB": environment.NO_MEMORY,
    "RuntimeError: [enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you tried": environment.NO_MEMORY,
    "RuntimeError: std::bad_alloc": environment.NO_MEMORY,
    "RuntimeError: itk::MemoryAllocationError: Failed to allocate memory for image.": environment.NO_MEMORY,
    "ImportError: libtorch.so: failed to map segment from shared object": environment.NO_MEMORY,
    "RuntimeError: can't start new thread": environment.NO_PROCESSES,
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB": environment.GPU_REFUSED,
    "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED": environment.GPU_REFUSED,
    "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']": environment.NO_TEMPORARY,
    "RuntimeError: Could not determine home directory.": environment.NO_HOME,
}


@pytest.mark.parametrize("number", SYSTEM, ids=errno.errorcode.get)
def test_the_systems_errors_name_cause_and_remedy(number: int) -> None:
    error = OSError(number, os.strerror(number), "/data/x")
    kind, text = SYSTEM[number]
    found = environment.refusal(error, "score")
    assert type(found) is kind
    assert str(found) == text.format(where="score", reason=f"{type(error).__name__}: {error}")
    crash = f"{type(error).__name__}: {error}"
    assert str(environment.refusal(crash, "score")) == str(found)  # a crash file says the same


@pytest.mark.parametrize("text", TEXTS)
def test_libraries_errors_are_known_by_their_text(text: str) -> None:
    found = environment.refusal(text, "score")
    assert str(found) == TEXTS[text].format(where="score", reason=text)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError(2),
        RuntimeError("itk::ERROR: mask is empty"),
        AssertionError(),
        IndexError("[12]"),
    ],
)
def test_an_error_of_the_program_is_none_of_the_environments(error: Exception) -> None:
    assert environment.refusal(error, "score") is None


def run(
    *arguments: str | Path, shell: str = "exec {}", **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run the program below a shell that breaks its surroundings."""
    quoted = " ".join(f"'{argument}'" for argument in (sys.executable, "-m", "bids_wmh_uad", *arguments))
    settings["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **settings.get("env", {})}  # type: ignore[dict-item]
    return subprocess.run(
        ["bash", "-c", shell.format(quoted)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **settings,
    )  # type: ignore[call-overload]


@pytest.fixture
def dataset(tmp_path: Path, make_dataset) -> Path:
    return make_dataset(tmp_path / "ds", T1W, FLAIR)


STREAMS = {
    "a reader that went": ("{} | true; exit ${{PIPESTATUS[0]}}", EXIT_OK),
    "one line": ("{} | head -1; exit ${{PIPESTATUS[0]}}", EXIT_OK),
    "closed output": ("{} >&-", EXIT_OK),
    "all closed": ("{} <&- >&- 2>&-", EXIT_OK),
    "a full disk": ("{} > /dev/full", StorageError.exit_code),
    "a full disk for errors": ("{} 2> /dev/full", EXIT_OK),
}


@pytest.mark.parametrize(
    ("option", "name"),
    [*(("--dry-run", name) for name in STREAMS), ("--version", "closed output"), ("--help", "a full disk")],
)
def test_lost_streams(option: str, name: str, dataset: Path, tmp_path: Path) -> None:
    shell, code = STREAMS[name]
    ran = run(dataset, tmp_path / "out", "participant", option, shell=shell)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert "report" not in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_removed_working_directory(dataset: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    shell = f"mkdir '{gone}' && cd '{gone}' && rmdir '{gone}' && exec {{}}"
    for option in ("--dry-run", "--boilerplate-only"):
        options = [dataset, tmp_path / "out", "participant", option]
        assert run(*options, "-w", tmp_path / "work", shell=shell).returncode == EXIT_OK
        refused = run(*options, shell=shell)
        assert refused.returncode == UsageError.exit_code
        assert NO_WORK_DIRECTORY.split("(")[0].format(path="work") in refused.stderr
    relative = run("ds", "out", "participant", "--dry-run", shell=shell)
    assert relative.returncode == UsageError.exit_code
    assert "give the whole path" in relative.stderr


SURROUNDINGS: dict[str, dict[str, str]] = {
    "no home": {"HOME": "/nowhere"}, "a file for a home": {"HOME": "/dev/null"}, "no user": {"USER": "", "LOGNAME": ""},
    "C": {"LC_ALL": "C", "LANG": "C"}, "no temporary directory": {"TMPDIR": "/nowhere"},
    "temporary directory that cannot be written": {"TMPDIR": "/proc"},
}  # fmt: skip


@pytest.mark.usefixtures("own_directory")
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_odd_surroundings_change_nothing(name: str, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out é %s {x} 'a"
    ran = run(
        dataset, str(out).replace("'", "'\\''"), "participant", "--boilerplate-only", env=SURROUNDINGS[name]
    )
    assert (ran.returncode, ran.stderr.count("Traceback")) == (EXIT_OK, 0)
    assert (out / "CITATION.md").is_file()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("home", ["/root", None])
def test_a_user_nobody_knows(home: str | None, dataset: Path, tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o777)
    dataset.rename(place / "ds")
    shell = (
        "unset USER LOGNAME HOME; "
        + (f"export HOME={home}; " if home else "")
        + "exec setpriv --reuid 54321 --clear-groups {}"
    )
    ran = run(place / "ds", place / "out", "participant", "--boilerplate-only", shell=shell, cwd=place)
    assert (ran.returncode, ran.stderr.count("Traceback")) == (EXIT_OK, 0), ran.stderr
    refused = run(place / "ds", "/root/none/out", "participant", "--boilerplate-only", shell=shell, cwd=place)
    assert refused.returncode == CannotCreateError.exit_code
    assert CANNOT_CREATE.format(path="/root/none/out", reason="Permission denied") in refused.stderr


@pytest.mark.parametrize("kib", [180_000, 250_000, 1_000_000])
def test_an_address_space_too_small_for_the_libraries(kib: int, dataset: Path, tmp_path: Path) -> None:
    shell = f"ulimit -v {kib}; exec {{}}"
    ran = run(dataset, tmp_path / "out", "participant", "--boilerplate-only", shell=shell, cwd=tmp_path)
    assert ran.returncode == MemoryExhaustedError.exit_code
    text = environment.NO_ADDRESS_SPACE.format(limit=kib / 2**20, least=environment.LEAST_ADDRESS_GB)
    assert ran.stderr == f"bids-wmh-uad: error: {text}\n"


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31m", os.fsdecode(b"a\xff")])
def test_paths_that_cannot_be_quoted_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from bids_wmh_uad.cli.run import main
    from bids_wmh_uad.cli.values import PRINTABLE

    assert main(["/ds", f"/out/{name}", "participant"]) == UsageError.exit_code
    shown = f"/out/{name}".encode("utf-8", "backslashreplace").decode()
    expected = PRINTABLE.format(encoding=sys.getfilesystemencoding())
    assert BAD_VALUE.format(option="path", value=shown, expected=expected) in capsys.readouterr().err


@pytest.mark.usefixtures("own_directory")
def test_paths_that_are_too_long(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bids_wmh_uad.cli.run import main

    assert main([str(dataset), f"/tmp/{'a' * 300}", "participant"]) == CannotCreateError.exit_code
    assert main([f"/tmp/{'a' * 300}", "/tmp/out", "participant", "--dry-run"]) == CannotCreateError.exit_code
    assert main([str(dataset), "/tmp" + "/b" * 3000, "participant"]) == CannotCreateError.exit_code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[1]", "[]", "3", '"x"', "null", "true", "[" * 100_000])
def test_a_description_that_is_no_object(
    text: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bids_wmh_uad.cli.run import main

    path = dataset / "dataset_description.json"
    path.write_text(text)
    arguments = [str(dataset), str(tmp_path / "out"), "participant", "--dry-run", "--skip-bids-validation"]
    assert main(arguments) == InvalidBIDSError.exit_code
    assert BAD_DESCRIPTION.split(" (")[0].format(path=path) in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "{}", '{"DatasetType": "derivative"}', "\x00"])
def test_a_description_that_is_none(text: str, dataset: Path, tmp_path: Path) -> None:
    from bids_wmh_uad.cli.run import main

    (dataset / "dataset_description.json").write_text(text)
    assert (
        main([str(dataset), str(tmp_path / "out"), "participant", "--dry-run", "--skip-bids-validation"])
        == EXIT_OK
    )


def test_temporary_files_go_to_the_work_directory_if_theirs_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    environment.choose_temporary_directory(tmp_path / "spare")
    assert tempfile.gettempdir() == str(tmp_path)
    monkeypatch.setattr(environment, "LEAST_TEMPORARY_BYTES", 2**62)  # no disk is as large
    environment.choose_temporary_directory(tmp_path / "spare")
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path / "spare")
