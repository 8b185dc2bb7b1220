"""The preprocessing graph: two raw scans in, everything on the FLAIR's grid out.

::

    T1w   -> read -> brain -> N4 -+-> affine to the template -+
                                  |                           |
                                  +-> rigid T1w <- FLAIR -----+-> align to FLAIR -> z-scores
    FLAIR -> read -> brain -> N4 -+
"""

from __future__ import annotations

from typing import Any

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.interfaces.preprocess import (
    AlignToFLAIR,
    CorrectBias,
    ExtractBrain,
    NormaliseIntensity,
    ReadScan,
    Register,
)
from bids_wmh_uad.workflows.reuse import Preprocessed

OUTPUT_FIELDS = (
    "flair", "t1w", "flair_z", "t1w_z", "scaling", "brain_mask", "wm", "gm", "template",
    "flair_to_t1w", "t1w_to_template", "overlap", "flair_stripped", "t1w_stripped",
)  # fmt: skip

DESCRIPTION = """
Anatomical preprocessing. Both images were brought to canonical orientation. Brain masks of the
T1w and FLAIR images were computed with *deepbet* [@deepbet]; images that were already
skull-stripped kept their outline. Both were corrected for intensity non-uniformity with N4
[@n4], as distributed with ANTs [@ants]. The FLAIR image was rigidly registered to the T1w
image, and the T1w image was affinely registered to the *ICBM 152 Nonlinear Symmetric template
version 2009a* [@mni; TemplateFlow-style name: MNI152NLin2009aSym], as shipped with *nilearn* [@nilearn], with ANTs. The T1w image and
the template's tissue priors were resampled to the FLAIR image's own grid. Intensities were
expressed as robust z-scores against the mode and median absolute deviation of the white matter.
"""


def init_preprocess_wf(session: Session, config: RunConfig, earlier: Preprocessed | None = None) -> Workflow:
    """Build the preprocessing graph of one session.

    Parameters
    ----------
    session : Session
        Its two files are the graph's only input.
    config : RunConfig
        Seed, threads and device.
    earlier : Preprocessed, optional
        What an earlier run left (`reuse.find_preprocessed`): read instead of made again.

    Returns
    -------
    Workflow
        With an ``outputnode`` whose fields are :data:`OUTPUT_FIELDS`.
    """
    workflow = Workflow(name="preprocess_wf")
    workflow.__desc__ = DESCRIPTION
    outputnode = pe.Node(niu.IdentityInterface(fields=list(OUTPUT_FIELDS)), name="outputnode")
    if earlier is not None:
        reuse = pe.Node(earlier.interface(), name="reuse", mem_gb=1.0)
        workflow.connect([(reuse, outputnode, [(name, name) for name in OUTPUT_FIELDS])])
        return workflow
    flair, t1w = (_init_contrast(workflow, name, session, config) for name in ("flair", "t1w"))
    coregister = _init_register("coregister", "Rigid", config)
    normalise = _init_register("normalise", "Affine", config)
    align = pe.Node(AlignToFLAIR(t1w_scan=str(session.t1w)), name="align", mem_gb=1.5)
    zscore = pe.Node(NormaliseIntensity(), name="zscore", mem_gb=0.5)
    workflow.connect([
        (flair["n4"], coregister, [("out_file", "moving")]),
        (flair["brain"], coregister, [("out_mask", "moving_mask")]),
        (t1w["n4"], coregister, [("out_file", "fixed")]),
        (t1w["brain"], coregister, [("out_mask", "fixed_mask")]),
        (t1w["n4"], normalise, [("out_file", "moving")]),
        (t1w["brain"], normalise, [("out_mask", "moving_mask")]),
        (flair["n4"], align, [("out_file", "flair")]),
        (flair["brain"], align, [("out_mask", "flair_mask"), ("stripped", "flair_stripped")]),
        (t1w["n4"], align, [("out_file", "t1w")]),
        (t1w["brain"], align, [("out_mask", "t1w_mask")]),
        (coregister, align, [("matrix", "flair_to_t1w")]),
        (normalise, align, [("matrix", "t1w_to_template")]),
        (flair["n4"], zscore, [("out_file", "flair")]),
        (align, zscore, [("t1w", "t1w"), ("brain_mask", "brain_mask"), ("wm", "wm")]),
        (flair["n4"], outputnode, [("out_file", "flair")]),
        (align, outputnode, [(name, name) for name in
                             ("t1w", "brain_mask", "wm", "gm", "template", "overlap")]),
        (zscore, outputnode, [("flair", "flair_z"), ("t1w", "t1w_z"), ("scaling", "scaling")]),
        (flair["brain"], outputnode, [("stripped", "flair_stripped")]),
        (t1w["brain"], outputnode, [("stripped", "t1w_stripped")]),
        (coregister, outputnode, [("matrix", "flair_to_t1w")]),
        (normalise, outputnode, [("matrix", "t1w_to_template")]),
    ])  # fmt: skip
    return workflow


def _init_contrast(workflow: Workflow, name: str, session: Session, config: RunConfig) -> dict[str, pe.Node]:
    """Add one contrast's chain: read, brain mask, N4."""
    scan = str(getattr(session, name))
    threads = config.performance.omp_nthreads
    read = pe.Node(ReadScan(in_file=scan), name=f"read_{name}", mem_gb=0.5)
    brain = pe.Node(
        ExtractBrain(scan=scan, threads=threads, device=config.performance.device),
        name=f"brain_{name}", mem_gb=1.2, n_procs=threads,
    )  # fmt: skip
    n4 = pe.Node(CorrectBias(), name=f"n4_{name}", mem_gb=0.8, n_procs=threads)
    workflow.connect([
        (read, brain, [("out_file", "in_file")]),
        (read, n4, [("out_file", "in_file")]),
        (brain, n4, [("out_mask", "in_mask")]),
    ])  # fmt: skip
    return {"read": read, "brain": brain, "n4": n4}


def _init_register(name: str, transform: str, config: RunConfig) -> pe.Node:
    threads = config.performance.omp_nthreads
    interface: Any = Register(transform=transform, seed=config.method.random_seed + 1, threads=threads)
    return pe.Node(interface, name=name, mem_gb=1.0, n_procs=threads)
