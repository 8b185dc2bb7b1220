"""The command line, argparse only: no other import may slow down ``--help``.

The usage page of the documentation is generated from :func:`build_parser`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from bids_wmh_uad import __version__
from bids_wmh_uad.cli import options, values
from bids_wmh_uad.config import (
    DEBUG_MODES,
    SPACES,
    Group,
    GroupConfig,
    Method,
    Performance,
    RunConfig,
    Running,
    Selection,
    TrainConfig,
    Training,
    available_cpus,
    available_memory_gb,
)
from bids_wmh_uad.errors import BAD_VALUE, BOTH_GIVEN, NO_WORK_DIRECTORY, UsageError

DESCRIPTION = """\
bids-wmh-uad finds white matter hyperintensities (WMH) in T1w + FLAIR MRI without lesion labels.
A siamese patch auto-encoder embeds every voxel's patch, and a One-Class SVM in that latent space
scores how unusual it is (following Pinon, Trombetta and Lartizien, MIDL 2023)."""


PLACES = ("bids_dir", "output_dir", "analysis_level")
"""Arguments by their place."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are typed (exit code 64, not argparse's 2)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See 'bids-wmh-uad --help'.")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """The argument parser; every option also answers to its underscore form, and none to half its name."""
    parser = _Parser(
        prog="bids-wmh-uad", description=DESCRIPTION, formatter_class=_HelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "bids_dir", type=values.path, help="BIDS dataset (with --reports-only and group: may be absent)"
    )
    parser.add_argument("output_dir", type=values.path, help="directory for the derivatives")
    parser.add_argument(
        "analysis_level", type=values.level, metavar="{participant,group,train}", help="what to run"
    )
    parser.add_argument("--version", action="version", version=f"bids-wmh-uad {__version__}")
    options.add_selection(parser)
    options.add_method(parser)
    options.add_performance(parser)
    options.add_running(parser)
    options.add_group(parser)
    options.add_train(parser)
    return parser


def normalise_argv(argv: Sequence[str]) -> list[str]:
    """Turn ``--participant_label`` into ``--participant-label``; values are left alone."""
    out = []
    for item in argv:
        option, equals, value = item.partition("=")
        out.append(option.replace("_", "-") + equals + value if option.startswith("--") else item)
    return out


def parse_args(argv: Sequence[str]) -> RunConfig:
    """Parse and validate the command line.

    Raises
    ------
    UsageError
        If an option is unknown or its value is not valid, in the command line or in ``--config-file``.
    UnknownLevelError
        If the analysis level does not exist.
    """
    args = _read(normalise_argv(argv))
    output_dir = args.output_dir.resolve()
    common = {
        "bids_dir": args.bids_dir.resolve(),
        "output_dir": output_dir,
        "analysis_level": args.analysis_level,
        "run_uuid": f"{datetime.now():%Y%m%d-%H%M%S}_{uuid4()}",
        **_settings(args),
    }
    training = _training(args)  # an impossible value is said at every level
    if args.analysis_level == "group":
        return GroupConfig(**common, group=Group(args.reference, args.threshold))
    if args.analysis_level == "train":
        return TrainConfig(**common, training=training)
    return RunConfig(**common)


def _read(argv: Sequence[str]) -> argparse.Namespace:
    """All options: what the command line says, else what ``--config-file`` says, else their defaults."""
    parser = build_parser()
    actions = {action.dest: action for action in parser._actions if action.default != argparse.SUPPRESS}
    unset = argparse.Namespace(**dict.fromkeys(actions))  # argparse fills in no default for what is there
    from_file = any(item.partition("=")[0] == "--config-file" for item in argv)
    if from_file:  # places may be left out, and stand anywhere
        for name in PLACES:
            actions[name].nargs = "?"
        parsed = parser.parse_intermixed_args(argv, unset)
    else:
        parsed = parser.parse_args(argv, unset)
    given = {name: value for name, value in vars(parsed).items() if value is not None}
    defaults = {name: action.default for name, action in actions.items()}
    filed = _read_file(given, defaults, actions) if from_file else {}
    return argparse.Namespace(**{**defaults, **filed, **_one_name(given, {**defaults, **filed})})


def _read_file(
    given: Mapping[str, Any], defaults: Mapping[str, Any], actions: Mapping[str, argparse.Action]
) -> dict[str, Any]:
    """What ``--config-file`` says, after checking it; the places that neither it nor the command line names are an error."""
    from bids_wmh_uad.cli.config_file import check_settings, option_values, read_config_file

    path = given["config_file"]
    content = read_config_file(path)
    filed = option_values(path, content, given.get("analysis_level"), actions)
    missing = [name for name in PLACES if name not in given and name not in filed]
    if missing:
        raise UsageError(
            BAD_VALUE.format(option=", ".join(missing), value=None, expected=f"neither here nor in {path}")
        )
    alone = argparse.Namespace(**{**defaults, **option_values(path, content, None, actions)})

    def make() -> Method:
        _performance(alone)
        _training(alone)
        return _method(alone)

    check_settings(path, content, make)
    return filed


def _one_name(given: Mapping[str, Any], otherwise: Mapping[str, Any]) -> dict[str, Any]:
    """Give fMRIPrep's ``--mem`` and ``--n-cpus`` as this program's ``mem_gb`` and ``nprocs``.

    Raises
    ------
    UsageError
        If both are given and contradict each other.
    """
    found = dict(given)
    if "mem" in found:
        found["mem_gb"] = found.pop("mem")
        if given.get("mem_gb", found["mem_gb"]) != found["mem_gb"]:
            raise UsageError(BOTH_GIVEN.format(first="--mem", second="--mem-gb"))
    if "n_cpus" in found:
        total, threads = found.pop("n_cpus"), given.get("omp_nthreads", otherwise["omp_nthreads"])
        if total < 1:
            raise UsageError(BAD_VALUE.format(option="--n-cpus", value=total, expected="expected at least 1"))
        if threads > total:
            raise UsageError(BOTH_GIVEN.format(first="--n-cpus", second="--omp-nthreads"))
        found.setdefault("nprocs", total // max(1, threads))
        if found["nprocs"] * threads > total:
            raise UsageError(BOTH_GIVEN.format(first="--n-cpus", second="--nprocs (x --omp-nthreads)"))
    return found


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What every level has."""
    return {
        "selection": _selection(args),
        "method": _method(args),
        "performance": _performance(args),
        "running": _running(args),
    }


def _selection(args: argparse.Namespace) -> Selection:
    return Selection(
        tuple(dict.fromkeys(args.participant_label or ())),
        tuple(dict.fromkeys(args.session_label or ())),
        args.bids_filter_file,
        tuple(dict.fromkeys(args.derivatives or ())),
        args.resample_reference,
        args.bids_database_dir,
        args.skip_bids_validation,
    )


def _method(args: argparse.Namespace) -> Method:
    names = set(Method.__dataclass_fields__) - {"threshold", "paradigm"}
    threshold = Method.threshold if args.threshold is None else args.threshold
    own = {name: getattr(args, name) for name in names}
    return Method(threshold=threshold, paradigm=args.paradigm or Method.paradigm, **own)


def _performance(args: argparse.Namespace) -> Performance:
    cpus = args.nprocs if args.nprocs is not None else max(1, available_cpus() // max(1, args.omp_nthreads))
    memory = args.mem_gb if args.mem_gb is not None else round(available_memory_gb(), 1)
    return Performance(args.device, cpus, args.omp_nthreads, memory, args.use_plugin)


def _running(args: argparse.Namespace) -> Running:
    try:
        work_dir = (args.work_dir or Path("work").absolute()).resolve()
    except OSError as error:  # the working directory is gone
        raise UsageError(NO_WORK_DIRECTORY.format(path="work", reason=error.strerror or error)) from error
    debug = DEBUG_MODES if "all" in (args.debug or ()) else tuple(args.debug or ())
    made: dict[str, Any] = {
        "work_dir": work_dir,
        "debug": tuple(mode for mode in DEBUG_MODES if mode in debug),
        "output_spaces": tuple(
            space for space in SPACES if space in {*SPACES[:1], *(args.output_spaces or ())}
        ),
    }
    names = set(Running.__dataclass_fields__) - set(made)
    return Running(**made, **{name: getattr(args, name) for name in names})


def _training(args: argparse.Namespace) -> Training:
    if args.analysis_level == "train" and args.output_model is None:
        raise UsageError(
            BAD_VALUE.format(
                option="--output-model", value=None, expected="the train level needs a directory"
            )
        )
    settings = {name: getattr(args, name) for name in Training.__dataclass_fields__}
    return Training(**{**settings, "output_model": args.output_model or Path()})
