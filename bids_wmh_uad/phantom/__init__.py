"""Synthetic BIDS subjects with known lesions, made from nilearn's MNI tissue maps.

Each subject is the ICBM 2009a symmetric brain that nilearn ships, deformed at random,
given random tissue contrasts, normal structures that are as bright as lesions (choroid plexus,
septum, ventricles' lining, dura, vessels), and white matter hyperintensities of a requested volume,
and "scanned" twice, as T1w and as FLAIR: thick slices, oblique grids, head motion
between the scans, pulsation artefacts, bias field and Rician noise. The demo, the tests, the benchmarks
and the training of the shipped model all use these phantoms.

A person may be scanned again (:class:`Change`): in another position, with lesions that came, grew, shrank or went,
with wider ventricles, in another scanner; or with nothing changed.

``python -m bids_wmh_uad.phantom OUT`` writes a dataset with its truth.
"""

from bids_wmh_uad.phantom.dataset import follow_up, main, make_specs, write_dataset
from bids_wmh_uad.phantom.scanner import make_subject
from bids_wmh_uad.phantom.spec import Change, FollowedLesion, PhantomSpec, PhantomSubject

__all__ = [
    "Change",
    "FollowedLesion",
    "PhantomSpec",
    "PhantomSubject",
    "follow_up",
    "main",
    "make_specs",
    "make_subject",
    "write_dataset",
]
