"""The run's settings: frozen dataclasses, validated once, written to the log as TOML.

Nothing here reads global state at import; :func:`available_cpus` and
:func:`available_memory_gb` look at the machine when they are called.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bids_wmh_uad.core.network.plan import OBJECTIVES, Plan
from bids_wmh_uad.core.parameters import SCORES, DetectionParameters
from bids_wmh_uad.errors import BAD_VALUE, KNOWN_SPACES, WORK_INSIDE_INPUT, UsageError
from bids_wmh_uad.files import dump_toml

LEVELS = ("participant", "group", "train")
"""Names of the analysis levels."""
PARADIGMS = ("patient", "pooled", "voxel")
"""Names of whose latents a One-Class SVM is fitted to: the patient's, all controls', the controls' at a voxel."""
ENCODERS = ("compact", "wide")
"""Names of the encoders of `core.network.autoencoder.ENCODERS`, which imports torch."""
TEMPLATE = "MNI152NLin2009aSym"
"""Name of the template that nilearn ships (ICBM 2009a nonlinear symmetric)."""
SPACES = ("FLAIR", "T1w", TEMPLATE)
"""Names of the spaces that results are written in: the FLAIR's own grid, always; the others on demand."""
DEBUG_MODES = ("nipype", "pdb")
"""Names of what ``--debug`` shows: nipype's whole log; a debugger where the program itself fails."""


def _require(condition: bool, option: str, value: object, expected: str) -> None:
    if not condition:
        raise UsageError(BAD_VALUE.format(option=option, value=value, expected=expected))


@dataclass(frozen=True)
class Selection:
    """Which sessions of the dataset are processed, and which other datasets are read."""

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    derivatives: tuple[Path, ...] = ()
    """Datasets whose preprocessing and lesion masks are reused."""
    resample_reference: bool = False
    """Bring lesion masks of other datasets that lie on another grid to the FLAIR's."""
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False


@dataclass(frozen=True)
class Method:
    """How lesions are found, as far as users choose it. Each value changes the results."""

    model: str = "default"
    paradigm: str = "patient"
    score: str = DetectionParameters.score
    nu: float = DetectionParameters.nu
    gamma: str | float = DetectionParameters.gamma
    n_samples: int = DetectionParameters.n_samples
    threshold: str = DetectionParameters.threshold
    accept: float = DetectionParameters.accept
    min_lesion_volume: float = DetectionParameters.min_lesion_volume
    random_seed: int = 0

    def __post_init__(self) -> None:
        _require(self.paradigm in PARADIGMS, "--paradigm", self.paradigm, f"choose from {PARADIGMS}")
        _require(self.score in SCORES, "--score", self.score, f"choose from {SCORES}")
        _require(0 < self.nu <= 1, "--nu", self.nu, "expected 0 < nu <= 1")
        gamma_ok = self.gamma == "scale" if isinstance(self.gamma, str) else self.gamma > 0
        _require(gamma_ok, "--gamma", self.gamma, "expected 'scale' or a positive number")
        _require(self.n_samples >= 100, "--n-samples", self.n_samples, "expected at least 100 patches")
        _require(0 <= self.accept <= 1, "--accept", self.accept, "expected a probability, 0 to 1")
        _require(
            self.min_lesion_volume >= 0, "--min-lesion-volume", self.min_lesion_volume, "expected mm3 >= 0"
        )
        seed_ok = 0 <= self.random_seed < 2**31 - 1  # ITK holds seed + 1 in 32 bits
        _require(seed_ok, "--random-seed", self.random_seed, "expected an integer from 0 to 2147483646")
        _ = self.parameters  # the threshold rule can be read

    @property
    def parameters(self) -> DetectionParameters:
        """All numbers of the score and the lesion mask: the user's, and the defaults of the others."""
        return DetectionParameters(
            score=self.score,
            nu=self.nu,
            gamma=self.gamma,
            n_samples=self.n_samples,
            threshold=self.threshold,
            accept=self.accept,
            min_lesion_volume=self.min_lesion_volume,
        )


@dataclass(frozen=True)
class Performance:
    """What the run may use. None of it but ``omp_nthreads > 1`` changes the results."""

    device: str = "auto"
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float = 4.0
    use_plugin: Path | None = None

    def __post_init__(self) -> None:
        device_ok = self.device in ("auto", "cpu", "cuda") or (
            self.device.startswith("cuda:") and self.device[5:].isdigit()
        )
        _require(device_ok, "--device", self.device, "choose auto, cpu, cuda or cuda:N")
        _require(self.nprocs >= 1, "--nprocs", self.nprocs, "expected at least 1")
        _require(self.omp_nthreads >= 1, "--omp-nthreads", self.omp_nthreads, "expected at least 1")
        _require(self.mem_gb > 0, "--mem-gb", self.mem_gb, "expected GiB > 0")


@dataclass(frozen=True)
class Running:
    """How the run behaves."""

    work_dir: Path = Path("work")
    output_spaces: tuple[str, ...] = SPACES[:1]
    """In which spaces probability and mask are written; the FLAIR's is among them anyway."""
    clean_workdir: bool = False
    longitudinal: bool = False
    """Compare the sessions of each participant when they are done."""
    dry_run: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    md_only_boilerplate: bool = False
    write_graph: bool = False
    debug: tuple[str, ...] = ()
    stop_on_first_crash: bool = False
    resource_monitor: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        for space in self.output_spaces:
            _require(space in SPACES, "--output-spaces", space, KNOWN_SPACES.format(known=", ".join(SPACES)))


@dataclass(frozen=True)
class Training:
    """Settings of the ``train`` level."""

    output_model: Path
    encoder: str = "compact"
    objective: str = Plan.objective
    epochs: int = 10
    patches_per_epoch: int = 38_400
    batch_size: int = 256
    alpha: float = Plan.alpha
    focus: float = Plan.focus
    guidance: float = Plan.guidance
    held_out: float = 0.1
    patience: int = Plan.patience
    resume: bool = False
    paradigm: str | None = None
    """Whose One-Class SVMs are fitted to the controls: both if None."""

    def __post_init__(self) -> None:
        _require(self.encoder in ENCODERS, "--encoder", self.encoder, f"choose from {ENCODERS}")
        _require(self.objective in OBJECTIVES, "--objective", self.objective, f"choose from {OBJECTIVES}")
        _require(self.epochs >= 1, "--epochs", self.epochs, "expected at least 1")
        _require(
            self.patches_per_epoch >= 1, "--patches-per-epoch", self.patches_per_epoch, "expected at least 1"
        )
        _require(self.batch_size >= 2, "--batch-size", self.batch_size, "expected at least 2")
        _require(self.alpha >= 0, "--alpha", self.alpha, "expected a weight >= 0")
        _require(0 <= self.focus < math.inf, "--focus", self.focus, "expected millimetres >= 0")
        _require(self.guidance >= 0, "--guidance", self.guidance, "expected a weight >= 0")
        _require(0 <= self.held_out <= 0.5, "--held-out", self.held_out, "expected 0 <= fraction <= 0.5")
        _require(self.patience >= 1, "--patience", self.patience, "expected at least 1 epoch")


@dataclass(frozen=True)
class Group:
    """Settings of the ``group`` level."""

    reference: Path | None = None
    threshold: str | None = None
    """Another rule than the sessions' own: new masks beside theirs."""


@dataclass(frozen=True)
class RunConfig:
    """Everything one run needs, in one frozen object that is passed down; what one level alone needs is in a subclass."""

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    selection: Selection = field(default_factory=Selection)
    method: Method = field(default_factory=Method)
    performance: Performance = field(default_factory=Performance)
    running: Running = field(default_factory=Running)
    run_uuid: str = ""

    def __post_init__(self) -> None:
        for what, path in {"output": self.output_dir, "work": self.running.work_dir}.items():
            _refuse_inside_raw_data(what, path, self.bids_dir)

    @property
    def log_dir(self) -> Path:
        """The run's own directory of log and crash files: no other run writes there."""
        return self.output_dir / "logs" / self.run_uuid

    def to_toml(self) -> str:
        """The configuration as TOML text, with all numbers of score and mask; unset values are left out."""
        return dump_toml({**asdict(self), "detection": asdict(self.method.parameters)})


@dataclass(frozen=True)
class GroupConfig(RunConfig):
    """A run of the group level."""

    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run of the train level."""

    training: Training = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_inside_raw_data("model", self.training.output_model, self.bids_dir)


def _refuse_inside_raw_data(what: str, path: Path, bids_dir: Path) -> None:
    """Allow ``bids_dir/derivatives/...`` (as fMRIPrep does) but nothing among the raw data."""
    if path == bids_dir or (
        bids_dir in path.parents and path.relative_to(bids_dir).parts[0] != "derivatives"
    ):
        raise UsageError(WORK_INSIDE_INPUT.format(path=path, what=what))


def available_cpus() -> int:
    """CPUs this process may use: affinity and cgroup quota, whichever is smaller."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or quota is "max"
        pass
    return cpus


def available_memory_gb(root: Path = Path("/")) -> float:
    """Memory that is free for this process in GiB: the machine's, or what its control groups leave, whichever is smaller.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are: another place in tests.
    """
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_bytes(root)]
    free += [1024 * value for value in _numbers(root / "proc/meminfo", "MemAvailable:")]
    return max(0, min(free)) / 2**30


def _cgroup_bytes(root: Path) -> Iterator[int]:
    """What the limit of this process's control group, and of each around it, leaves: version 2, then version 1."""
    top = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers in ("", "memory"):
            base, limit, usage = (
                (top, "memory.max", "memory.current")
                if not controllers
                else (top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            )
            group = base / name.strip("/")
            for place in (group, *group.parents):  # a container sees its own group as the top one
                used = sum(_numbers(place / usage))
                cached = sum(_numbers(place / "memory.stat", "inactive_file", "active_file"))
                yield from (number - used + cached for number in _numbers(place / limit))
                if place == base:
                    break


def _numbers(path: Path, *names: str) -> list[int]:
    """The numbers after `names` in a file of the kernel, or the only one; none if it is absent, or says "max"."""
    words = [line.split() for line in _lines(path)]
    if names:
        words = [row[1:2] for row in words if row and row[0] in names]
    return [int(word) for row in words for word in row if word.isdigit()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
