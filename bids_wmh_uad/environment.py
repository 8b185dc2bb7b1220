"""What the user's machine refused, as typed errors: memory, disks, processes, permissions, a GPU.

Such an error is nobody's mistake in this program, and a traceback does not help. It is known by its
text, because a crash file of nipype is all that a worker's error leaves; so both ways in, an
exception in the program itself and the last line of a crash, read the same table.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from bids_wmh_uad.errors import (
    CannotCreateError,
    MemoryExhaustedError,
    StorageError,
    TemporaryError,
    UsageError,
    WmhUadError,
)

NO_MEMORY = "{where}: memory ran out ({reason}). Give the job more memory, raise its limits ('ulimit -v', the container's or the batch system's), or use a smaller --nprocs, and run it again."
NO_PROCESSES = "{where}: no further process or thread could be started ({reason}). Raise the limits ('ulimit -u', 'ulimit -v', the container's --pids-limit), or use a smaller --nprocs, and run it again."
NO_FILES = "{where}: too many files are open ({reason}). Raise the limit ('ulimit -n'), and run it again."
NO_SPACE = "{where}: a disk or quota is full ({reason}). Make room, or choose another --work-dir, output directory or TMPDIR, and run it again."
STORAGE_BROKE = "{where}: a disk or network file system failed ({reason}). Check it, and run it again."
NOT_WRITABLE = "{where}: may not be written there ({reason}). Check the mount and its permissions, or choose another directory."
NOT_ALLOWED = "{where}: the system does not allow it ({reason}). Check who owns the file, its permissions, and how it is mounted in the container."
NAME_TOO_LONG = (
    "{where}: a path is too long for the file system ({reason}). Use shorter directories or labels."
)
NO_TEMPORARY = "{where}: there is no directory for temporary files ({reason}). Set TMPDIR to one that exists and is writable."
NO_HOME = "{where}: '~' means nothing here ({reason}). Write the whole path, or set HOME."
GPU_REFUSED = "{where}: the GPU failed ({reason}). Run it again, with another GPU or --device cpu."
FILE_VANISHED = "{where}: a file is not there any more ({reason}). Was the work or temporary directory cleaned meanwhile? Run it again."
SYSTEM_REFUSED = "{where}: the system refused ({reason}). Mend that, and run it again."
NO_SHARED_MEMORY = "/dev/shm: processes cannot work together without it ({reason}). Mount it writable (Docker: without --ipc=none, or with --tmpfs /dev/shm; Apptainer: --bind /dev/shm), and run it again."  # noqa: S108
NO_ADDRESS_SPACE = "'ulimit -v' leaves {limit:.2f} GiB of address space, and the libraries alone take {least:.1f} GiB. Raise it, to 4 GiB or more, or remove it."
LEAST_ADDRESS_GB = 1.1
"""Address space that the libraries take before any scan is read, GiB (`benchmarks/memory.py`)."""

REFUSALS: tuple[tuple[re.Pattern[str], type[WmhUadError], str], ...] = tuple(
    (re.compile(pattern), kind, text)
    for pattern, kind, text in (
        (r"CUDA|cuDNN|CUDNN|cuBLAS|CUBLAS", TemporaryError, GPU_REFUSED),
        (r"can't start new thread|Errno 11\]|Thread creation failed", TemporaryError, NO_PROCESSES),
        (r"No usable temporary directory", CannotCreateError, NO_TEMPORARY),
        (r"Could not determine home directory|Can't determine home directory", UsageError, NO_HOME),
        (
            r"MemoryError|Errno 12\]|Cannot allocate memory|bad_alloc|[Ff]ailed to allocate|can't allocate memory|failed to map segment",
            MemoryExhaustedError,
            NO_MEMORY,
        ),
        (r"Errno (23|24)\]|Too many open files", TemporaryError, NO_FILES),
        (
            r"Errno (27|28|122)\]|No space left on device|Disk quota exceeded|requested and \d+ written|database or disk is full",
            StorageError,
            NO_SPACE,
        ),
        (r"Errno (5|107|110|112|116|121)\]", StorageError, STORAGE_BROKE),
        (r"Errno 30\]|Read-only file system", CannotCreateError, NOT_WRITABLE),
        (r"Errno (1|13)\]|Permission denied", StorageError, NOT_ALLOWED),
        (r"Errno 36\]|File name too long", CannotCreateError, NAME_TOO_LONG),
        (r"Errno 2\]", StorageError, FILE_VANISHED),
        (r"^[\w.]*: \[Errno", StorageError, SYSTEM_REFUSED),
    )
)  # fmt: skip
"""What the text of an error looks like, the first that fits; its kind; and what people read."""
LEAST_TEMPORARY_BYTES = 64 * 2**20
"""Free space below which a directory for temporary files counts as full: a page's figures take a tenth of it."""


def refusal(reason: str | BaseException, where: str) -> WmhUadError | None:
    """The typed error of what the environment refused; None of any other error.

    Parameters
    ----------
    reason : str or exception
        An exception, or its type and message as a traceback ends with them.
    where : str
        What was worked on: a step, a session, the program.
    """
    if isinstance(reason, BaseException):
        reason = f"{type(reason).__name__}: {reason}".removesuffix(": ")
    for pattern, kind, text in REFUSALS:
        if pattern.search(reason):
            return kind(text.format(where=where, reason=" ".join(reason.split())))
    return None


def require_address_space() -> None:
    """Raise if the libraries cannot even be loaded: some of them try for ever instead of saying so.

    Raises
    ------
    MemoryExhaustedError
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_GB * 2**30:
        raise MemoryExhaustedError(NO_ADDRESS_SPACE.format(limit=limit / 2**30, least=LEAST_ADDRESS_GB))


def occupy_standard_streams() -> None:
    """Open /dev/null in place of standard streams that the caller closed.

    Otherwise the next files that are opened get their numbers, and what libraries print goes into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def tell(text: str, *, error: bool = False) -> None:
    """Write to standard output or standard error, whatever became of it.

    A reader that went away (``| head -1``) has seen what it wanted.

    Raises
    ------
    OSError
        If standard output cannot take it for another reason, such as a full disk.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as problem:
        with suppress(OSError, ValueError):  # else the interpreter tries again at its end, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not error and not isinstance(problem, BrokenPipeError):
            raise


def leave_lost_directory(refuge: Path) -> None:
    """Go to `refuge` if the working directory was removed, or has a name that nipype's settings cannot quote."""
    try:
        usable = str(Path.cwd()).isprintable()
    except OSError:
        usable = False
    if not usable:
        os.chdir(refuge)


def choose_home() -> None:
    """Let the file system's root be the home of a user who has none, or may not enter it: libraries look for settings there."""
    try:
        usable = os.access(Path.home(), os.X_OK)
    except RuntimeError:  # no HOME, and no entry in the list of users
        usable = False
    if not usable:
        os.environ["HOME"] = "/"


def choose_temporary_directory(spare: Path) -> None:
    """Let temporary files go to `spare` where those of the environment (TMPDIR) cannot: absent, not writable, or full.

    Raises
    ------
    OSError
        If `spare` cannot be made.
    """
    with suppress(OSError):
        status = os.statvfs(tempfile.gettempdir())
        wanted = os.environ.get("TMPDIR")
        lost = wanted is not None and Path(wanted).absolute() != Path(tempfile.gettempdir())
        if not lost and status.f_bavail * status.f_frsize >= LEAST_TEMPORARY_BYTES:
            return
    spare.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(spare)
