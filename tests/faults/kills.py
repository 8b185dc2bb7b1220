"""Runs that are killed at random moments, run at the same time, or run again and again.

A campaign kills one level's run, by SIGKILL or SIGTERM, at random moments of an undisturbed run's duration, a third of
the times just after its first output appeared. The run is then started again in the same directories, to be killed
again or to end: what is there at the end must be what the undisturbed run left, byte for byte.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from faults import ground as grounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from faults.ground import Ground

PUBLISHING_SECONDS = 0.5
"""How long a publication takes, roughly: kills within it come this soon after its first file."""
PATIENCE = 60.0
"""Seconds until a process that does not end is an orphan, or hangs."""
MARK = "BIDS_WMH_UAD_FAULT"
TERMINATED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit codes of a run that SIGTERM ended: by itself, or before Python had begun, which a shell shows as the same."""


@dataclass(frozen=True)
class Level:
    """One level's run, as a campaign sees it.

    Attributes
    ----------
    name : str
    command : list of str
    target : Path
        Where its outputs go, which `begin` makes as they are before the run.
    begin : callable
    outputs : tuple of str
        Patterns of what it writes below `target`.
    """

    name: str
    command: Sequence[str]
    target: Path
    begin: Callable[[], None]
    outputs: tuple[str, ...]

    def files(self) -> dict[str, bytes]:
        """All files there are, but for temporary ones."""
        found = grounds.files_below(self.target)
        return {name: content for name, content in found.items() if not Path(name).name.startswith(".tmp-")}

    def written(self) -> set[Path]:
        return {path for pattern in self.outputs for path in self.target.glob(pattern)}


@dataclass
class Findings:
    """What a campaign found; all lists are empty if the program keeps its promises."""

    level: str
    kills: int = 0
    while_publishing: int = 0
    ended_first: int = 0
    orphans: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


def start(command: Sequence[str], mark: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, env=grounds.environment(**{MARK: mark}), stdout=stream, stderr=stream,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def alive(mark: str) -> Iterator[int]:
    """Processes, whoever their parent is, that were started with this mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:  # it ended meanwhile, or is not ours
            continue


def orphans(mark: str) -> list[str]:
    """What is still alive after a while; it is killed."""
    deadline = time.monotonic() + PATIENCE
    left = list(alive(mark))
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = list(alive(mark))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return [str(pid) for pid in left]


def undisturbed(level: Level, log: Path) -> tuple[dict[str, bytes], float]:
    """The outputs of a run that nobody kills, and its duration in seconds."""
    level.begin()
    begun = time.monotonic()
    code = start(level.command, "undisturbed", log).wait(timeout=grounds.TIMEOUT)
    assert code == 0, log.read_text()[-3000:]
    return level.files(), time.monotonic() - begun


def campaign(level: Level, kills: int, seed: int, log: Path) -> Findings:
    """Kill a level's runs `kills` times, and let the last of each directory end."""
    found, chance = Findings(level.name), random.Random(seed)
    expected, seconds = undisturbed(level, log)
    while found.kills + found.ended_first < kills:
        level.begin()
        before = level.files()
        ended = False
        while not ended and found.kills + found.ended_first < kills:
            ended = _kill_once(level, seconds, chance, found, log)
            _compare_midway(level, before, expected, found)
        code = 0 if ended else start(level.command, "last", log).wait(timeout=grounds.TIMEOUT)
        _compare_at_the_end(level, code, expected, found)
    return found


def _kill_once(level: Level, seconds: float, chance: random.Random, found: Findings, log: Path) -> bool:
    """Start the run and kill it; whether it ended before."""
    mark, there = uuid.uuid4().hex, level.written()
    running = start(level.command, mark, log)
    within = chance.random() < 1 / 3
    begun = time.monotonic()
    wait = chance.uniform(0, PUBLISHING_SECONDS if within else seconds)
    while within and running.poll() is None and not level.written() - there:
        time.sleep(0.005)
        if time.monotonic() - begun > 20 * seconds:
            break
    try:
        running.wait(timeout=wait)
    except subprocess.TimeoutExpired:
        sent = chance.choice([signal.SIGKILL, signal.SIGTERM])
        running.send_signal(sent)
        try:
            code = running.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            found.codes.append(f"{sent.name}: did not end")
            running.kill()
            code = running.wait()
        found.kills += 1
        found.while_publishing += within
        if sent == signal.SIGTERM and code not in (*TERMINATED, 0):
            found.codes.append(f"SIGTERM: {code}")
        found.orphans += orphans(mark)
        return False
    found.ended_first += 1
    if running.returncode != 0:
        found.codes.append(f"ended by itself: {running.returncode}")
    found.orphans += orphans(mark)
    return True


def _compare_midway(
    level: Level, before: Mapping[str, bytes], expected: Mapping[str, bytes], found: Findings
) -> None:
    """Every file is whole, and what was there before the campaign is still there."""
    now = level.files()
    found.lost += [f"{name} is gone" for name in before if name not in now]
    found.lost += [
        f"{name} is neither as before nor as at the end"
        for name, content in now.items()
        if name in expected and content not in (expected[name], before.get(name))
    ]


def _compare_at_the_end(level: Level, code: int, expected: Mapping[str, bytes], found: Findings) -> None:
    if code != 0:
        found.codes.append(f"last run: {code}")
    now = level.files()
    found.different += sorted(name for name in {*now, *expected} if now.get(name) != expected.get(name))
    found.leftovers += [str(path) for path in level.target.rglob(".tmp-*")]


def participant_level(ground: Ground, root: Path) -> Level:
    """Participant 01 has results, 02 is made."""
    out = root / "participant"

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(ground.out, out, ignore=shutil.ignore_patterns("logs", "sub-02*"))

    return Level(
        "participant",
        grounds.command(ground.bids, out, "participant", *ground.options),
        out,
        begin,
        ("sub-02/**/*",),
    )


def group_level(root: Path) -> Level:
    """Made-up results of four participants, and references for them."""
    from cohorts import reference_path, save, truth_mask, write_session

    out, whole, references = root / "group", root / "cohort", root / "references"
    for number in range(1, 5):
        write_session(whole, f"{number:02d}")
        save(reference_path(references, f"{number:02d}"), truth_mask())

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)

    command = grounds.command(root / "none", out, "group", "--reference", references, "--nprocs", "2")
    return Level("group", command, out, begin, ("group*", ".tmp-*"))


def train_level(ground: Ground, root: Path) -> Level:
    """Two controls whose preprocessing is there."""
    out, model = root / "train", root / "model"

    def begin() -> None:
        for path in (out, model):
            shutil.rmtree(path, ignore_errors=True)
        model.mkdir()

    command = grounds.command(
        ground.bids,
        out,
        "train",
        "-d",
        ground.earlier,
        "--output-model",
        model,
        "--resume",
        *grounds.TRAINING,
    )
    return Level("train", command, model, begin, ("*",))


def crowd(ground: Ground, root: Path, processes: int, log: Path) -> tuple[list[int], dict[str, bytes]]:
    """Start runs at the same time in one OUT, half of them for each participant; their codes, and what is there."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    running = [
        start(
            grounds.command(
                ground.bids, root / "out", "participant", *ground.options, "--participant-label", f"{1 + number % 2:02d}"
            ), f"crowd-{number}", log,
        )
        for number in range(processes)
    ]  # fmt: skip
    codes = [one.wait(timeout=grounds.TIMEOUT) for one in running]
    return codes, grounds.files_below(root / "out")


LOOP = """
import gc, json, os, shutil, sys
from bids_wmh_uad.cli.run import main
count, out, report, *arguments = sys.argv[1:]
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
seen = []
for number in range(int(count)):
    shutil.rmtree(out, ignore_errors=True)
    assert main([arguments[0], out, *arguments[1:]]) == 0
    gc.collect()
    seen.append([resident(), len(os.listdir('/proc/self/fd'))])
open(report, 'w').write(json.dumps(seen))
"""
"""Runs sessions one after the other in one process, and writes resident MiB and open files after each."""


def loop(ground: Ground, root: Path, count: int, log: Path) -> list[tuple[float, int]]:
    """Resident memory in MiB and open files of one process after each of its sessions."""
    import json

    root.mkdir(parents=True, exist_ok=True)
    plugin, report = root / "linear.yml", root / "seen.json"
    plugin.write_text("plugin: Linear\n")
    arguments = [
        ground.bids, "participant", *ground.options, "--participant-label", "01", "--use-plugin", plugin,
    ]  # fmt: skip
    command = [sys.executable, "-c", LOOP, str(count), str(root / "out"), str(report), *map(str, arguments)]
    code = start(command, "loop", log).wait(timeout=count * 120)
    assert code == 0, log.read_text()[-3000:]
    return [(memory, files) for memory, files in json.loads(report.read_text())]
