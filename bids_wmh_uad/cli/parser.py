"""The command line, argparse only: no other import may slow down ``--help``.

The usage page of the documentation is generated from :func:`build_parser`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from bids_wmh_uad import __version__
from bids_wmh_uad.config import (
    ENCODERS,
    LEVELS,
    PARADIGMS,
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
from bids_wmh_uad.core.network.plan import OBJECTIVES
from bids_wmh_uad.core.parameters import SCORES
from bids_wmh_uad.errors import BAD_VALUE, UnknownLevelError, UsageError

DESCRIPTION = """\
bids-wmh-uad finds white matter hyperintensities (WMH) in T1w + FLAIR MRI without lesion labels.
A siamese patch auto-encoder embeds every voxel's patch, and a One-Class SVM in that latent space
scores how unusual it is (following Pinon, Trombetta and Lartizien, MIDL 2023)."""


PRINTABLE = (
    "expected a path of printable characters in this locale's encoding ({encoding}). Rename the directory, give a link to it,"
    " or set LC_ALL=C.UTF-8"
)
"""What is wrong with a path that cannot be quoted."""
WHOLE_PATH = "give the whole path, from /"
"""What to do where a path depends on a working directory or a home that is not there."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are typed (exit code 64, not argparse's 2)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See 'bids-wmh-uad --help'.")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _level(value: str) -> str:
    if value not in LEVELS:
        raise UnknownLevelError(
            BAD_VALUE.format(option="analysis level", value=value, expected=f"choose from {LEVELS}")
        )
    return value


def _path(value: str) -> Path:
    """An absolute path. Crash files, tables and sidecars quote it, a line each, in UTF-8."""
    if any(
        not sign.isprintable() for sign in value
    ):  # line breaks, control characters, bytes that are no text
        shown = value.encode("utf-8", "backslashreplace").decode()
        raise UsageError(
            BAD_VALUE.format(
                option="path", value=shown, expected=PRINTABLE.format(encoding=sys.getfilesystemencoding())
            )
        )
    try:
        return Path(value).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # the working directory is gone; there is no home
        raise UsageError(
            BAD_VALUE.format(option="path", value=value, expected=f"{WHOLE_PATH} ({error})")
        ) from error


def _label(prefix: str) -> Callable[[str], str]:
    """A converter that drops the optional ``sub-``/``ses-`` prefix of a label."""

    def convert(value: str) -> str:
        return value.removeprefix(prefix)

    return convert


def _dataset(value: str) -> Path:
    """The path of ``PATH`` or fMRIPrep's ``NAME=PATH``; the name is not used."""
    name, equals, path = value.partition("=")
    return _path(path) if equals and name.isidentifier() and not _path(value).exists() else _path(value)


def _gamma(value: str) -> str | float:
    return value if value == "scale" else float(value)


def build_parser() -> argparse.ArgumentParser:
    """The argument parser; every option also answers to its underscore form."""
    parser = _Parser(prog="bids-wmh-uad", description=DESCRIPTION, formatter_class=_HelpFormatter)
    parser.add_argument(
        "bids_dir", type=_path, help="BIDS dataset (with --reports-only and group: may be absent)"
    )
    parser.add_argument("output_dir", type=_path, help="directory for the derivatives")
    parser.add_argument(
        "analysis_level", type=_level, metavar="{participant,group,train}", help="what to run"
    )
    parser.add_argument("--version", action="version", version=f"bids-wmh-uad {__version__}")
    _add_selection(parser)
    _add_method(parser)
    _add_performance(parser)
    _add_running(parser)
    _add_group(parser)
    _add_train(parser)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection of the data")
    group.add_argument("--participant-label", nargs="+", type=_label("sub-"), metavar="LABEL",
                       help="only these participants, with or without 'sub-'")  # fmt: skip
    group.add_argument("--session-label", nargs="+", type=_label("ses-"), metavar="LABEL",
                       help="only these sessions, with or without 'ses-'")  # fmt: skip
    group.add_argument("--bids-filter-file", type=_path, metavar="FILE",
                       help="JSON file with pybids entity filters under the keys 't1w' and 'flair'")  # fmt: skip
    group.add_argument("-d", "--derivatives", nargs="+", action="extend", type=_dataset, metavar="[NAME=]PATH",
                       help="datasets with this program's own results, whose preprocessing is not repeated, or with"
                       " lesion masks of the controls, which the train level leaves out")  # fmt: skip
    group.add_argument("--bids-database-dir", type=_path, metavar="DIR",
                       help="pybids database to reuse; made there if absent, to be deleted by hand when the data change")  # fmt: skip
    group.add_argument("--skip-bids-validation", "--skip-bids-validator", action="store_true",
                       help="accept a dataset without a valid dataset_description.json")  # fmt: skip


def _add_method(parser: argparse.ArgumentParser) -> None:
    default = Method()
    group = parser.add_argument_group("method")
    group.add_argument("--model", default=default.model, metavar="NAME|DIR",
                       help="shipped model or a directory written by the train level")  # fmt: skip
    group.add_argument("--paradigm", choices=PARADIGMS,
                       help="patient: One-Class SVMs of the session's own patches; pooled: one of all controls; voxel: one of the"
                       " controls for each place in the template. The last two need a model that the train level made; there the option says which of them to fit"
                       f" (default: {default.paradigm}; train level: both)")  # fmt: skip
    group.add_argument("--score", choices=SCORES, default=default.score,
                       help="directed: unusual, and brighter on FLAIR than white matter and than tissue of the same T1w around it; brightness: its"
                       " second half alone, without a model; latent: its first half alone; faithful: the paper's")  # fmt: skip
    group.add_argument(
        "--nu",
        type=float,
        default=default.nu,
        help="One-Class SVM: bound on the training outliers (pooled and voxel: given to the train level)",
    )
    group.add_argument(
        "--gamma", type=_gamma, default=default.gamma, help="RBF kernel width: 'scale' or a number"
    )
    group.add_argument("--n-samples", type=int, default=default.n_samples,
                       help="patches that one One-Class SVM learns from")  # fmt: skip
    group.add_argument("--threshold", metavar="NAME[=VALUE]",
                       help="label-free rule for the lesion mask (docs/method.md lists them); group level:"
                       f" new masks and tables from the anomaly maps there are (default: {default.threshold})")  # fmt: skip
    group.add_argument("--accept", type=float, default=default.accept, metavar="P",
                       help="candidates of at least this probability are lesions (threshold rule 'tail'); 0 keeps all but"
                       " those inside the ventricles")  # fmt: skip
    group.add_argument("--min-lesion-volume", type=float, default=default.min_lesion_volume, metavar="MM3",
                       help="lesions smaller than this are dropped")  # fmt: skip
    group.add_argument(
        "--random-seed", type=int, default=default.random_seed, help="the one seed of every random step"
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("performance")
    group.add_argument(
        "--device", default="auto", metavar="{auto,cpu,cuda[:N]}", help="where the network runs"
    )
    group.add_argument("--nprocs", type=int, metavar="N",
                       help="processes at a time; if not given, as many as the CPUs this process may use")  # fmt: skip
    group.add_argument("--omp-nthreads", type=int, default=1, metavar="N",
                       help="threads per process; more than 1 makes registration differ by up to 0.1 mm between runs")  # fmt: skip
    group.add_argument("--mem-gb", type=float, metavar="GIB",
                       help="memory the run may plan with; if not given, what is free for this process")  # fmt: skip
    group.add_argument("--use-plugin", type=_path, metavar="FILE", help="nipype plugin settings (YAML)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    group.add_argument("-w", "--work-dir", type=_path, metavar="DIR",
                       help="directory for intermediate files; if not given, OUTPUT_DIR/work")  # fmt: skip
    group.add_argument("--clean-workdir", action="store_true",
                       help="start afresh, and remove the intermediate files of every session that finishes")  # fmt: skip
    group.add_argument(
        "--dry-run", action="store_true", help="print the sessions and files that would be used, and stop"
    )
    group.add_argument(
        "--reports-only", action="store_true", help="only rebuild the pages from the derivatives"
    )
    group.add_argument(
        "--boilerplate-only", action="store_true", help="only write the methods text (CITATION.md)"
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="stop the run when the first session fails"
    )
    group.add_argument("--resource-monitor", action="store_true", help="nipype's resource monitor")
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv for debugging")


def _add_group(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("group level")
    group.add_argument("--reference", type=_path, metavar="DATASET",
                       help="derivatives dataset with label-WMH or label-lesion masks to evaluate against")  # fmt: skip
    group.add_argument("--resample-reference", action="store_true",
                       help="bring references on another grid to the FLAIR's, by nearest neighbour")  # fmt: skip


def _add_train(parser: argparse.ArgumentParser) -> None:
    default = Training
    group = parser.add_argument_group("train level")
    group.add_argument("--output-model", type=_path, metavar="DIR", help="where the model is written")
    group.add_argument("--encoder", choices=ENCODERS, default=default.encoder,
                       help="compact: 16-d latents; wide: 400-d latents, some twenty times as slow to score")  # fmt: skip
    group.add_argument("--objective", choices=OBJECTIVES, default=default.objective,
                       help="ocsvm-guided: a One-Class SVM solved in every step (with --nu) shapes the latent space too")  # fmt: skip
    group.add_argument("--epochs", type=int, default=default.epochs,
                       help="at most so many passes of --patches-per-epoch patch pairs")  # fmt: skip
    group.add_argument(
        "--patches-per-epoch", type=int, default=default.patches_per_epoch, help="patch pairs per epoch"
    )
    group.add_argument("--batch-size", type=int, default=default.batch_size,
                       help="patch pairs per step, of all processes together")  # fmt: skip
    group.add_argument("--alpha", type=float, default=default.alpha,
                       help="weight of the siamese (cosine) term; 0: a plain auto-encoder")  # fmt: skip
    group.add_argument("--focus", type=float, default=default.focus, metavar="MM",
                       help="standard deviation of the Gaussian around a patch's centre that weighs its reconstruction error; 0: the whole patch alike")  # fmt: skip
    group.add_argument("--guidance", type=float, default=default.guidance, metavar="WEIGHT",
                       help="weight of the One-Class SVM's term of --objective ocsvm-guided")  # fmt: skip
    group.add_argument("--held-out", type=float, default=default.held_out, metavar="FRACTION",
                       help="of five or more participants, the share that decides when to stop (at least two); 0: none")  # fmt: skip
    group.add_argument("--patience", type=int, default=default.patience, metavar="EPOCHS",
                       help="stop after so many epochs without a lower loss on the held-out participants")  # fmt: skip
    group.add_argument("--resume", action="store_true",
                       help="go on from the checkpoint in --output-model, if there is one")  # fmt: skip


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
        If an option is unknown or its value is not valid.
    UnknownLevelError
        If the analysis level does not exist.
    """
    args = build_parser().parse_args(normalise_argv(argv))
    bids_dir, output_dir = args.bids_dir.resolve(), args.output_dir.resolve()
    common = {
        "bids_dir": bids_dir,
        "output_dir": output_dir,
        "analysis_level": args.analysis_level,
        "selection": _selection(args),
        "method": _method(args),
        "performance": _performance(args),
        "running": _running(args, output_dir),
        "run_uuid": f"{datetime.now():%Y%m%d-%H%M%S}_{uuid4()}",
    }
    training = _training(args)  # an impossible value is said at every level
    if args.analysis_level == "group":
        return GroupConfig(**common, group=Group(args.reference, args.threshold))
    if args.analysis_level == "train":
        return TrainConfig(**common, training=training)
    return RunConfig(**common)


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


def _running(args: argparse.Namespace, output_dir: Path) -> Running:
    work_dir = (args.work_dir or output_dir / "work").resolve()
    names = set(Running.__dataclass_fields__) - {"work_dir"}
    return Running(work_dir=work_dir, **{name: getattr(args, name) for name in names})


def _training(args: argparse.Namespace) -> Training:
    if args.analysis_level == "train" and args.output_model is None:
        raise UsageError(
            BAD_VALUE.format(
                option="--output-model", value=None, expected="the train level needs a directory"
            )
        )
    settings = {name: getattr(args, name) for name in Training.__dataclass_fields__}
    return Training(**{**settings, "output_model": args.output_model or Path()})
