"""The environment and the process: what a cluster, a container or a user's shell can do to a run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bids_wmh_uad import errors
from faults.harness import DONE, INTACT, SURVIVED, Fault, State, Tried

if TYPE_CHECKING:
    from collections.abc import Sequence

    from faults.ground import Ground

TEN_YEARS = 86_400 * 365 * 10


def again(here: Ground) -> Sequence[str | Path]:
    """Participant 01, which is done: start, checks, page."""
    return ("participant", "--participant-label", "01", *map(str, here.options))


def session(here: Ground) -> Sequence[str | Path]:
    """Participant 02, which is not: a short session."""
    return ("participant", "--participant-label", "02", *map(str, here.options))


def group(here: Ground) -> Sequence[str | Path]:
    return ("group",)


def dry(here: Ground) -> Sequence[str | Path]:
    return ("participant", "--dry-run")


def _worked(*wrapped: str) -> bool:
    try:
        return subprocess.run(wrapped, capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


def no_mounts() -> str:
    works = _worked("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt")
    return "" if works else "file systems cannot be mounted here"


def no_users() -> str:
    return "" if _worked(*STRANGER, "true") else "user namespaces are not allowed here"


STRANGER = ("unshare", "--user", "--map-user=54321", "--map-group=54321", "--")
"""The process has a uid that nobody knows, owns the files, and may not write where the owner may not."""


def mounted(options: str, place: str) -> tuple[str, ...]:
    """Run with another file system at `place`; what is half-written there is listed in ``{root}/halves``."""
    run = f'mount -t tmpfs {options} none "{place}" && "$@"; code=$?'
    halves = r'\( -size 0 -name "*.toml" -o -name ".tmp-*" \)'
    script = f'{run}; find "{place}" -type f {halves} > {{root}}/halves; exit $code'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def shell(script: str) -> tuple[str, ...]:
    return ("bash", "-c", script, "bash")


def signalled(name: str) -> tuple[str, ...]:
    """Send a signal to the program when its session has started."""
    started = "until grep -q started {root}/said.txt || ! kill -0 $pid; do sleep 0.2; done"
    return shell(f'set -m; "$@" & pid=$!; {started}; sleep 1; kill -{name} $pid; wait $pid')


def _no_halves(tried: Tried) -> None:
    listed = (tried.ground.bids.parent / "halves").read_text().split()
    assert listed == [], listed
    INTACT.check(tried)


NO_HALVES = State("nothing half-written", _no_halves)


def from_ahead(here: Ground) -> Sequence[str | Path]:
    """Every file is from ten years ahead: the clock was set back."""
    ahead = time.time() + TEN_YEARS
    for root in (here.bids, here.out):
        for path in root.rglob("*"):
            os.utime(path, (ahead, ahead))
    return session(here)


def accented(here: Ground) -> Sequence[str | Path]:
    """A name that ASCII does not have: it is said, and linked."""
    path = here.bids / "sub-02" / "anat" / "sub-02_acq-größer_FLAIR.nii.gz"
    shutil.copy(here.bids / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz", path)
    return dry(here)


def unreadable(here: Ground) -> Sequence[str | Path]:
    (here.bids / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").chmod(0)
    return session(here)


def without_rights(name: str) -> object:
    def make(here: Ground) -> Sequence[str | Path]:
        path = here.bids.parent / name
        path.mkdir(exist_ok=True)
        path.chmod(0o555)
        return again(here)

    return make


def folder(name: str) -> object:
    def make(here: Ground) -> Sequence[str | Path]:
        (here.bids.parent / name).mkdir(exist_ok=True)
        return again(here)

    return make


ENVIRONMENT = (
    Fault("no HOME", "environment", again, SURVIVED, "", INTACT, environ={"HOME": None}),
    Fault("HOME that is not there", "environment", again, SURVIVED, "", INTACT, environ={"HOME": "/nonexistent/home"}),
    Fault("no USER, no LOGNAME", "environment", again, SURVIVED, "", INTACT, environ={"USER": None, "LOGNAME": None}),
    Fault("uid without an entry, no HOME, no USER", "environment", again, SURVIVED, "", INTACT, wrap=STRANGER,
          environ={"HOME": None, "USER": None, "LOGNAME": None}, needs=no_users),
    Fault("uid without an entry: a session", "environment", session, SURVIVED, "", DONE, wrap=STRANGER, needs=no_users, full=True),
    Fault("LANG=C, a name beyond ASCII", "environment", accented, SURVIVED, re.compile("sub-02_acq-gr"), INTACT,
          environ={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": None, "PYTHONCOERCECLOCALE": None, "PYTHONIOENCODING": None}),
    Fault("LANG=C: the group level", "environment", group, SURVIVED, "", INTACT,
          environ={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": None, "PYTHONCOERCECLOCALE": None}),
    Fault("files from ten years ahead", "environment", from_ahead, SURVIVED, "", DONE),
    Fault("TMPDIR that may not be written", "environment", without_rights("temp"), SURVIVED, "", INTACT, wrap=STRANGER,
          environ={"TMPDIR": "{root}/temp"}, needs=no_users),
    Fault("TMPDIR that is not there", "environment", again, SURVIVED, "", INTACT, environ={"TMPDIR": "/nonexistent/tmp"}),
    Fault("OUT may not be written", "environment", lambda here: [here.out.chmod(0o555), *session(here), "-w", here.bids.parent / "w"][1:], 73, errors.CANNOT_CREATE,
          INTACT, wrap=STRANGER, needs=no_users),
    Fault("work directory may not be written", "environment", lambda here: [*without_rights("w")(here), "-w", here.bids.parent / "w" / "work"], 73, errors.NO_WORK_DIRECTORY,
          INTACT, wrap=STRANGER, needs=no_users),
    Fault("unreadable scan", "environment", unreadable, 66, errors.NOT_READABLE,
          INTACT, wrap=STRANGER, needs=no_users),
)  # fmt: skip

PROCESS = (
    Fault("disk full from the start", "process", session, frozenset({73, 74}), re.compile("error: .*(space|full)"), NO_HALVES,
          wrap=mounted("-o size=4k", "{out}"), needs=no_mounts),
    Fault("disk full in the work directory", "process", lambda here: [*folder("w")(here)[:1], *session(here)[1:], "-w", here.bids.parent / "w"],
          frozenset({1, 73, 74}), re.compile("(?i)space left|disk is full"), INTACT, wrap=mounted("-o size=1m,mode=700", "{root}/w"), needs=no_mounts),
    Fault("TMPDIR full", "process", folder("temp"), frozenset({0, 1, 74}), re.compile("(?i)space left|TMPDIR|nothing to do"), INTACT,
          wrap=mounted("-o size=4k", "{root}/temp"), environ={"TMPDIR": "{root}/temp"}, needs=no_mounts),
    Fault("/dev/shm may not be written", "process", session, frozenset({0, 1, 75}), re.compile("/dev/shm|sessions done"), INTACT,
          wrap=mounted("-o ro", "/dev/shm"), needs=no_mounts),
    Fault("ulimit -v of 500 MB", "process", session, frozenset({1, 75}), re.compile("ulimit -v"), INTACT,
          wrap=("prlimit", "--as=500000000", "--")),
    Fault("OUT with % in its name", "process", session, SURVIVED, "", DONE, out_name="50%_out"),
    Fault("working directory that was deleted", "process", dry, frozenset({0, 66, 73}), re.compile("would be processed|directory"), INTACT,
          wrap=shell('mkdir {root}/gone; cd {root}/gone; rmdir {root}/gone; exec "$@"')),
    Fault("stdout closed", "process", dry, SURVIVED, "", INTACT, wrap=shell('exec "$@" >&-')),
    Fault("broken pipe (--dry-run | true)", "process", dry, frozenset({0, 74, 141}), "", INTACT,
          wrap=shell('"$@" | true; exit ${{PIPESTATUS[0]}}')),
    Fault("SIGTERM in the middle", "process", session, 143, re.compile("Stopped by SIGTERM"), INTACT, wrap=signalled("TERM")),
    Fault("Ctrl-C in the middle", "process", session, 130, re.compile("Stopped by Ctrl-C"), INTACT, wrap=signalled("INT")),
    Fault("no memory by the headers", "process", lambda here: [*session(here), "--mem-gb", "0.01"], frozenset({0, 1, 75}), re.compile("(?i)memory|sessions done"), INTACT, full=True),
)  # fmt: skip

FAULTS = (*ENVIRONMENT, *PROCESS)
