"""The options, a group a function; argparse only, for ``--help`` must be fast.

Names are those of fMRIPrep where both have the thing.
"""

from __future__ import annotations

import argparse

from bids_wmh_uad.cli.values import dataset, gamma, label, memory, path, space
from bids_wmh_uad.config import DEBUG_MODES, ENCODERS, PARADIGMS, SPACES, Method, Training
from bids_wmh_uad.core.network.plan import OBJECTIVES
from bids_wmh_uad.core.parameters import SCORES


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options of which sessions and files are read."""
    group = parser.add_argument_group("selection of the data")
    group.add_argument("--participant-label", nargs="+", type=label("sub-"), metavar="LABEL",
                       help="only these participants, with or without 'sub-'")  # fmt: skip
    group.add_argument("--session-label", "--session-id", nargs="+", type=label("ses-"), metavar="LABEL",
                       help="only these sessions, with or without 'ses-'")  # fmt: skip
    group.add_argument("--bids-filter-file", type=path, metavar="FILE",
                       help="JSON file with pybids entity filters under the keys 't1w' and 'flair'")  # fmt: skip
    group.add_argument("-d", "--derivatives", nargs="+", action="extend", type=dataset, metavar="[NAME=]PATH",
                       help="datasets with this program's own results, whose preprocessing is not repeated, or with"
                       " lesion masks of the controls, which the train level leaves out")  # fmt: skip
    group.add_argument("--bids-database-dir", type=path, metavar="DIR",
                       help="pybids database to reuse; made there if absent, to be deleted by hand when the data change")  # fmt: skip
    group.add_argument("--skip-bids-validation", "--skip-bids-validator", action="store_true",
                       help="accept a dataset without a valid dataset_description.json")  # fmt: skip


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the options of how lesions are found."""
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
        "--gamma", type=gamma, default=default.gamma, help="RBF kernel width: 'scale' or a number"
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


def add_performance(parser: argparse.ArgumentParser) -> None:
    """Add the options of what the run may use."""
    group = parser.add_argument_group("performance")
    group.add_argument(
        "--device", default="auto", metavar="{auto,cpu,cuda[:N]}", help="where the network runs"
    )
    group.add_argument("--nprocs", type=int, metavar="N",
                       help="processes at a time; if not given, as many as the CPUs this process may use")  # fmt: skip
    group.add_argument("--n-cpus", "--nthreads", type=int, metavar="N",
                       help="threads of all processes together, as in fMRIPrep: in place of --nprocs, N / --omp-nthreads processes;"
                       " beside it, a limit")  # fmt: skip
    group.add_argument("--omp-nthreads", type=int, default=1, metavar="N",
                       help="threads per process; more than 1 makes registration differ by up to 0.1 mm between runs")  # fmt: skip
    group.add_argument("--mem-gb", type=float, metavar="GIB",
                       help="memory the run may plan with; if not given, what is free for this process")  # fmt: skip
    group.add_argument("--mem", "--mem-mb", type=memory, metavar="MB",
                       help="the same in MB, or with a unit (8G, 8000M), as in fMRIPrep: 1,000 MB count as one GiB")  # fmt: skip
    group.add_argument("--use-plugin", type=path, metavar="FILE", help="nipype plugin settings (YAML)")


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of how the run behaves."""
    group = parser.add_argument_group("running")
    group.add_argument("-w", "--work-dir", type=path, metavar="DIR",
                       help="directory for intermediate files; if not given, work in the current directory")  # fmt: skip
    group.add_argument("--output-spaces", nargs="+", choices=SPACES, type=space, metavar="SPACE",
                       help=f"where probability and mask are written, of {', '.join(SPACES)}: the T1w's own grid, the template's of 1 mm;"
                       " the FLAIR's is always among them")  # fmt: skip
    group.add_argument("--clean-workdir", action="store_true",
                       help="start afresh, and remove the intermediate files of every session that finishes")  # fmt: skip
    group.add_argument("--longitudinal", action="store_true",
                       help="participant level: when its sessions are done, say for each participant with several what changed between them")  # fmt: skip
    group.add_argument(
        "--dry-run", action="store_true", help="print the sessions and files that would be used, and stop"
    )
    group.add_argument(
        "--reports-only", action="store_true", help="only rebuild the pages from the derivatives"
    )
    group.add_argument(
        "--boilerplate-only", action="store_true", help="only write the methods text (CITATION.md)"
    )
    group.add_argument("--md-only-boilerplate", action="store_true",
                       help="write the methods text as Markdown (and its references) only, not as HTML or LaTeX")  # fmt: skip
    group.add_argument("--config-file", type=path, metavar="FILE",
                       help="the config.toml of an earlier run: the same run again, but for what the command line says; BIDS_DIR,"
                       " OUTPUT_DIR and level may be left out")  # fmt: skip
    group.add_argument("--write-graph", action="store_true",
                       help="draw the graph of the run's steps into its log directory: graph.dot, and graph.svg where Graphviz is installed")  # fmt: skip
    group.add_argument("--notrack", action="store_true",
                       help="accepted, for other programs know it; nothing is ever tracked")  # fmt: skip
    group.add_argument("--debug", nargs="+", choices=(*DEBUG_MODES, "all"), metavar="{" + ",".join((*DEBUG_MODES, "all")) + "}",
                       help="nipype: all that nipype logs; pdb: Python's debugger where the program itself fails; all: both")  # fmt: skip
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="stop the run when the first session fails"
    )
    group.add_argument("--resource-monitor", action="store_true", help="nipype's resource monitor")
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv for debugging")


def add_group(parser: argparse.ArgumentParser) -> None:
    """Add the options of what the group level alone knows."""
    group = parser.add_argument_group("group level")
    group.add_argument("--reference", type=path, metavar="DATASET",
                       help="derivatives dataset with label-WMH or label-lesion masks to evaluate against")  # fmt: skip
    group.add_argument("--resample-reference", action="store_true",
                       help="bring references on another grid to the FLAIR's, by nearest neighbour")  # fmt: skip


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of what the train level alone knows."""
    default = Training
    group = parser.add_argument_group("train level")
    group.add_argument("--output-model", type=path, metavar="DIR", help="where the model is written")
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
