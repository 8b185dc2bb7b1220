"""The preprocessing graph: two raw scans in, everything on the FLAIR's grid out; or read from an earlier run.

::

    T1w   -> read -> brain -> N4 -+-> affine to the template -+
                                  |                           |
                                  +-> rigid T1w <- FLAIR -----+-> align to FLAIR, z-scores
    FLAIR -> read -> brain -> N4 -+
"""

from __future__ import annotations

from typing import Any

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.interfaces.preprocess import (
    AlignToFLAIR,
    CorrectBias,
    ExtractBrain,
    ReadScan,
    Register,
)
from bids_wmh_uad.interfaces.reuse import ReusePreprocessed
from bids_wmh_uad.workflows.reuse import REUSED_IMAGES, REUSED_TRANSFORMS, Preprocessed

INPUT_FIELDS = ("flair", "t1w")
"""The user's two files."""
OUTPUT_FIELDS = (
    "flair", "t1w", "flair_z", "t1w_z", "scaling", "brain_mask", "wm", "gm", "template",
    "flair_to_t1w", "t1w_to_template", "overlap", "flair_stripped", "t1w_stripped", "flair_shift", "t1w_shift",
)  # fmt: skip
"""On the FLAIR's grid: both contrasts, as corrected and as z-scores, mask, priors; transforms; what is known of the scans."""

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


def init_preprocess_wf(config: RunConfig) -> Workflow:
    """Build the preprocessing graph of one session.

    1. *read_flair*, *read_t1w*: check each scan and bring it into the canonical form
    2. *brain_flair*, *brain_t1w*: its brain mask
    3. *n4_flair*, *n4_t1w*: its bias field
    4. *coregister*: FLAIR to T1w, rigid; *normalise*: T1w to the template, affine
    5. *align*: T1w, mask and tissue priors on the FLAIR's grid, both contrasts as z-scores against white matter

    Parameters
    ----------
    config : RunConfig
        Seed, threads and device.

    Returns
    -------
    Workflow
        With an ``inputnode`` (:data:`INPUT_FIELDS`) and an ``outputnode`` (:data:`OUTPUT_FIELDS`).
    """
    workflow, inputnode, outputnode = _empty_wf()
    (read_flair, brain_flair, n4_flair), (read_t1w, brain_t1w, n4_t1w) = (
        _contrast_nodes(contrast, config) for contrast in INPUT_FIELDS
    )
    coregister, normalise = (
        _register_node("coregister", "Rigid", config),
        _register_node("normalise", "Affine", config),
    )
    align = pe.Node(AlignToFLAIR(), name="align")
    workflow.connect([
        (inputnode, read_flair, [("flair", "in_file")]),
        (inputnode, read_t1w, [("t1w", "in_file")]),
        (inputnode, brain_flair, [("flair", "scan")]),
        (inputnode, brain_t1w, [("t1w", "scan")]),
        (inputnode, align, [("t1w", "t1w_scan")]),
        (read_flair, brain_flair, [("out_file", "in_file")]),
        (read_t1w, brain_t1w, [("out_file", "in_file")]),
        (read_flair, n4_flair, [("out_file", "in_file")]),
        (read_t1w, n4_t1w, [("out_file", "in_file")]),
        (brain_flair, n4_flair, [("out_mask", "in_mask")]),
        (brain_t1w, n4_t1w, [("out_mask", "in_mask")]),
        (n4_flair, coregister, [("out_file", "moving")]),
        (brain_flair, coregister, [("out_mask", "moving_mask")]),
        (n4_t1w, coregister, [("out_file", "fixed")]),
        (brain_t1w, coregister, [("out_mask", "fixed_mask")]),
        (n4_t1w, normalise, [("out_file", "moving")]),
        (brain_t1w, normalise, [("out_mask", "moving_mask")]),
        (n4_flair, align, [("out_file", "flair")]),
        (brain_flair, align, [("out_mask", "flair_mask"), ("stripped", "flair_stripped")]),
        (n4_t1w, align, [("out_file", "t1w")]),
        (brain_t1w, align, [("out_mask", "t1w_mask")]),
        (coregister, align, [("matrix", "flair_to_t1w")]),
        (normalise, align, [("matrix", "t1w_to_template")]),
        (n4_flair, outputnode, [("out_file", "flair")]),
        (brain_flair, outputnode, [("stripped", "flair_stripped")]),
        (brain_t1w, outputnode, [("stripped", "t1w_stripped")]),
        (read_flair, outputnode, [("shift", "flair_shift")]),
        (read_t1w, outputnode, [("shift", "t1w_shift")]),
        (coregister, outputnode, [("matrix", "flair_to_t1w")]),
        (normalise, outputnode, [("matrix", "t1w_to_template")]),
        (align, outputnode, [(name, name) for name in
                             ("t1w", "brain_mask", "wm", "gm", "template", "overlap", "flair_z", "t1w_z", "scaling")]),
    ])  # fmt: skip
    return workflow


def init_reuse_wf(earlier: Preprocessed) -> Workflow:
    """Build the graph that reads what an earlier run left, in place of :func:`init_preprocess_wf`.

    Parameters
    ----------
    earlier : Preprocessed
        From `reuse.find_preprocessed`.

    Returns
    -------
    Workflow
        With the same ``inputnode``, which leads nowhere, and the same ``outputnode``.
    """
    workflow, _, outputnode = _empty_wf()
    reuse = pe.Node(
        ReusePreprocessed(
            scaling=earlier.scaling,
            stripped=earlier.stripped,
            shift=earlier.shift,
            overlap=earlier.overlap,
            **{name: str(earlier.path(name)) for name in (*REUSED_IMAGES, *REUSED_TRANSFORMS)},
        ),
        name="reuse",
    )
    workflow.connect([(reuse, outputnode, [(name, name) for name in OUTPUT_FIELDS])])
    return workflow


def _empty_wf() -> tuple[Workflow, pe.Node, pe.Node]:
    """What both graphs share: their name, the methods text, ``inputnode`` and ``outputnode``."""
    workflow = Workflow(name="preprocess_wf")
    workflow.__desc__ = DESCRIPTION
    inputnode = pe.Node(niu.IdentityInterface(fields=list(INPUT_FIELDS)), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=list(OUTPUT_FIELDS)), name="outputnode")
    workflow.add_nodes([inputnode, outputnode])
    return workflow, inputnode, outputnode


def _contrast_nodes(contrast: str, config: RunConfig) -> tuple[pe.Node, pe.Node, pe.Node]:
    """One contrast's steps: read, brain mask, N4."""
    threads = config.performance.omp_nthreads
    return (
        pe.Node(ReadScan(), name=f"read_{contrast}"),
        pe.Node(
            ExtractBrain(threads=threads, device=config.performance.device),
            name=f"brain_{contrast}",
            n_procs=threads,
        ),
        pe.Node(CorrectBias(), name=f"n4_{contrast}", n_procs=threads),
    )


def _register_node(name: str, transform: str, config: RunConfig) -> pe.Node:
    threads = config.performance.omp_nthreads
    interface: Any = Register(transform=transform, seed=config.method.random_seed, threads=threads)
    return pe.Node(interface, name=name, n_procs=threads)
