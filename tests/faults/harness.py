"""What a fault is, how it is tried, and what is written down of it.

A fault is one entry: the situation it makes, the command, and what is expected: the exit code, the message, the state
afterwards. Trying it gives an `Outcome`; outcomes go to ``build/faults/outcomes.jsonl``, of which `table` makes the
table of ``docs/reliability.md``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_wmh_uad.errors import WarningText
from faults import ground as grounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faults.ground import Ground

REPORTS = grounds.REPOSITORY / "build" / "faults"
RECORD = REPORTS / "outcomes.jsonl"
NOTHING = "none"
"""Message of a run that has nothing to say."""
SURVIVED = 0
REFUSED = frozenset({1, 16, 18, 64, 65, 66, 73, 74, 75})
"""Any typed failure: of no code a traceback's, a signal's or a shell's."""
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?:INFO|WARNING|ERROR) |^bids-wmh-uad: error: ")
_RUN = re.compile(r"\d{8}-\d{6}_[0-9a-f-]{36}")
_FREE = re.compile(r"[\d.]+ GiB are free")
_CHECKSUM = re.compile(r"0x[0-9a-f]{4,}")
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class State:
    """What must be true afterwards: words for the table, and a check that raises AssertionError."""

    words: str
    check: Callable[[Tried], None]


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    Attributes
    ----------
    name, family : str
        What is wrong, in words; input, security, environment or process.
    make : callable
        Makes the situation of an intact ground; returns the arguments after BIDS_DIR and OUTPUT_DIR.
    code : int or set of int
        Exit codes that are right.
    message : str, WarningText or compiled pattern
        A constant of `errors`, whose places may hold anything; or a pattern. ``""``: nothing to say.
    state : State
    wrap : tuple of str
        Command in front of the program's; ``{root}``, ``{bids}`` and ``{out}`` are filled in.
    environ : dict
        Changes to the environment; None takes a variable away; filled in likewise.
    full : bool
        Left to ``make test-faults``: it takes a whole session.
    done : tuple of str
        Participants that have results before.
    needs : callable
        Why it cannot be tried here; empty if it can.
    out_name : str
        Name of the output directory.
    alike : bool
        Both scans of the participant are wrong; which is named first is chance.
    """

    name: str
    family: str
    make: Callable[[Ground], Sequence[str | Path]]
    code: int | frozenset[int]
    message: str | WarningText | re.Pattern[str]
    state: State
    wrap: tuple[str, ...] = ()
    environ: dict[str, str | None] = field(default_factory=dict)
    full: bool = False
    done: tuple[str, ...] = ("01",)
    needs: Callable[[], str] = lambda: ""
    out_name: str = "out"
    alike: bool = False


@dataclass(frozen=True)
class Outcome:
    """One row of the table, as it happened."""

    name: str
    family: str
    code: int
    message: str
    state: str


@dataclass(frozen=True)
class Tried:
    """A fault that was tried: where, and what came of it.

    Attributes
    ----------
    ground : Ground
    before : dict
        Files of the output directory before.
    code : int
    said : str
        All that was written to the terminal.
    peak_gib : float
        Largest resident memory of any of its processes, GiB.
    """

    ground: Ground
    before: dict[str, bytes]
    code: int
    said: str
    peak_gib: float

    @property
    def after(self) -> dict[str, bytes]:
        return grounds.files_below(self.ground.out)


def try_fault(fault: Fault, whole: Ground, root: Path) -> Tried:
    """Make the situation on a copy of the ground, and run the command."""
    root.mkdir(parents=True, exist_ok=True)
    here = grounds.copy(whole, root, done=fault.done, out_name=fault.out_name)
    arguments = fault.make(here)
    names = {"root": str(root), "bids": str(here.bids), "out": str(here.out)}
    wrap = [part.format(**names) for part in fault.wrap]
    environ = {key: value and value.format(**names) for key, value in fault.environ.items()}
    before = grounds.files_below(here.out)
    run = [*wrap, *grounds.command(here.bids, here.out, *map(str, arguments))]
    return run_command(run, here, before, environ)


def run_command(
    run: Sequence[str],
    here: Ground,
    before: dict[str, bytes],
    environ: dict[str, str | None],
    *,
    seconds: int = 300,
) -> Tried:
    """Run a command with a deadline: one that hangs is killed with all of its own group, and its code is -9."""
    with (here.bids.parent / "said.txt").open("wb+") as stream:
        running = subprocess.Popen(
            run, env=grounds.environment(**environ), stdout=stream, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        code, usage = _wait(running, seconds)
        stream.seek(0)
        said = stream.read().decode(errors="replace")
    return Tried(here, before, code, said, usage)


def _wait(running: subprocess.Popen[bytes], seconds: int) -> tuple[int, float]:
    """The exit code, and the peak memory in GiB of the process and the children it waited for."""
    timer = threading.Timer(seconds, lambda: os.killpg(running.pid, signal.SIGKILL))
    timer.start()
    try:
        _, status, usage = os.wait4(running.pid, 0)
    finally:
        timer.cancel()
    running.returncode = os.waitstatus_to_exitcode(status)
    return running.returncode, usage.ru_maxrss / 2**20


def pattern_of(message: str | WarningText | re.Pattern[str]) -> re.Pattern[str]:
    """What finds a message of the program: anything may stand in its places."""
    if isinstance(message, re.Pattern):
        return message
    text = message.template if isinstance(message, WarningText) else message
    parts = re.split(r"\{[^}]*\}", text)
    return re.compile(".+?".join(map(re.escape, parts)))


def find_message(fault: Fault, tried: Tried) -> str | None:
    """The line that says what is wrong, without times and this machine's paths; None if there is none."""
    if fault.message == "":
        return NOTHING
    pattern = pattern_of(fault.message)
    line = next((line for line in tried.said.splitlines() if pattern.search(line)), None)
    if line is None:
        return None
    return without_contrast(anonymous(line, tried.ground)) if fault.alike else anonymous(line, tried.ground)


def without_contrast(message: str) -> str:
    """A message about either of two scans that are wrong alike: which is read first is not the same in every run."""
    return message.replace("_T1w.nii", "_FLAIR.nii")


def anonymous(line: str, here: Ground) -> str:
    """A line as it would be anywhere: no time, no run's name, directories by their role."""
    line = _STAMP.sub("", line.strip())
    for path, role in (
        (here.bids, "BIDS"),
        (here.out, "OUT"),
        (here.bids.parent, "DIR"),
        (here.earlier.parent, "DIR"),
    ):
        line = line.replace(str(path), role)
    line = line.replace(here.bids.parent.name, "DIR")
    for pattern, stand_in in ((_RUN, "RUN"), (_CHECKSUM, "0x..."), (_FREE, "... GiB are free")):
        line = pattern.sub(stand_in, line)
    return line


def judge(fault: Fault, tried: Tried) -> Outcome:
    """Compare what happened with what is expected.

    Raises
    ------
    AssertionError
        With everything that the program said.
    """
    expected = fault.code if isinstance(fault.code, frozenset) else frozenset({fault.code})
    assert tried.code in expected, f"exit code {tried.code}, not {sorted(expected)}:\n{tried.said[-3000:]}"
    assert _TRACEBACK not in tried.said, tried.said[-3000:]
    assert "please report it" not in tried.said, tried.said[-3000:]
    message = find_message(fault, tried)
    assert message is not None, f"not said: {pattern_of(fault.message).pattern}\n{tried.said[-3000:]}"
    fault.state.check(tried)
    return Outcome(fault.name, fault.family, tried.code, message, fault.state.words)


def record(outcomes: Sequence[Outcome]) -> None:
    """Write outcomes as JSON lines; those of earlier runs that were not tried again stay."""
    merged = {(one.family, one.name): one for one in [*read_record(), *outcomes]}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text("".join(json.dumps(asdict(one)) + "\n" for one in merged.values()))


def read_record() -> list[Outcome]:
    if not RECORD.is_file():
        return []
    return [Outcome(**json.loads(line)) for line in RECORD.read_text().splitlines()]


def both(first: State, second: State) -> State:
    """Two states at once."""

    def check(tried: Tried) -> None:
        first.check(tried)
        second.check(tried)

    return State(f"{first.words}; {second.words}", check)


def renamed(state: State, words: str) -> State:
    """The same check under other words."""
    return replace(state, words=words)


def _intact(tried: Tried) -> None:
    """Results that were there before are there, byte for byte, and no temporary file lies about."""
    after = tried.after
    for name, content in tried.before.items():
        if name.startswith("sub-") and not name.endswith(".html"):
            assert after.get(name) == content, f"{name} was lost or changed"
    assert not list(tried.ground.out.rglob(".tmp-*"))


def _untouched(tried: Tried) -> None:
    assert tried.after == tried.before


def _refused(tried: Tried) -> None:
    """Nothing of participant 02, which had no results, and 01 as it was."""
    _intact(tried)
    made = [name for name in grounds.results_of(tried.after, "02") if name not in tried.before]
    assert all(name.endswith("_desc-failed_summary.json") for name in made), made


def _done(tried: Tried) -> None:
    _intact(tried)
    assert any(name.endswith("_desc-wmh_summary.json") for name in grounds.results_of(tried.after, "02"))


INTACT = State("earlier results as they were", _intact)
UNTOUCHED = State("nothing written", _untouched)
REASON_LEFT = State("no results of this session; earlier results as they were", _refused)
DONE = State("all sessions done", _done)
