"""Every number that change between sessions depends on: one frozen object, passed down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChangeParameters:
    """How the sessions of a person are compared.

    Numbers without a source were chosen on phantoms' follow-ups (`benchmarks/change.py`), never on the patients of
    acceptance.

    Parameters
    ----------
    grid_mm : float
        Voxel edge of the common space: that of the working grid of the scores.
    margin_mm : float
        What the common space has around the brains: smoothing and slopes need neighbours.
    align_mm : float
        Voxel edge of the mean that every session is aligned with: that of the other registrations of a head with itself.
    rigid_rounds, affine_rounds : int
        Times that sessions are aligned with their mean, which is made anew each time, and sharper.
    size_limit : float
        Largest stretch of one session's head against another's, along any direction, up to which motions stay rigid, as a share: a voxel of the common grid at the
        brain's edge (80 mm). Sizes of the two patients of `ms-raw` with two sessions differ by 0.4 and 0.9 %, as estimated.

        *Intensities*
    quantiles : (float, float)
        Part of the brain's distribution by which the linear match goes: the ends are fluid, lesions and noise.
    field_mm : float
        Gaussian (standard deviation) of the slow difference between sessions: wider than lesions and their
        surroundings, narrower than what bias correction leaves.
    field_limit : float
        How far a voxel counts for it at most, robust standard deviations: change must not move it.
    fluid : float
        Least brightness of a voxel that counts for it, in white matter's: below is fluid, whose ratio is noise.

        *Departure*
    smooth_mm : float
        Gaussian smoothing of both contrasts before they are compared, mm: about the smallest lesion's radius.
    tissue_bins, edge_bins : int
        Bins of equal size, by T1w and then by the steepness of FLAIR and of T1w, in which the null is learnt: misaligned edges differ more than
        flat tissue.
    bin_voxels : int
        At least so many voxels make a bin.
    local_mm : float
        Gaussian neighbourhood of the local spread, mm: pulsation and motion are regional.
    local_limit : float
        How far a voxel counts for it at most, spreads.

        *Evidence*
    tail : float
        Share of the null's local maxima that its tail is fitted to, in (0, 1).
    fdr : float
        False-discovery rate of what is called change (Benjamini and Hochberg, 1995).
    edge : float
        Changed tissue goes from a significant peak down to this share of it; a lesion that only one mask has is new, or resolved, if at
        least this share of its brightness came or went: else it was there, too faint for the mask; and tissue at a lesion came, or went, if it changed by as much.
        And tissue beside all lesions is one only if its volume changed by at least this share of it.
    least_contrast : float
        Least change of FLAIR at a peak, in white matter's brightness: what is smaller is no lesion, however sure.
    least_mm3 : float
        Smallest volume of change beside all lesions of the masks that is called a new lesion, or one that went.
    fossa_mm : float
        Within so many mm of brainstem and cerebellum, such change is none: on phantoms with pulsation
        artefacts 19 of 21 that were wrong lay there, and 1 of 21 that were right.
    least_t1w : float
        Least T1w of both sessions in it, in white matter's brightness: below are cortex's rim and fluid.
    most_t1w : float
        Largest rise of T1w with it, as a share of FLAIR's: lesions are dark on T1w, or not to be seen, and few enhance; less fluid in a
        voxel makes both brighter.

        *Volumes*
    rim_mm : float
        So far around a lesion FLAIR's difference is summed.
    volume_inflation : float
        Standard deviation of a volume's change where nothing changed, in units of what noise explains.
    level : float
        Of the interval of a lesion's change, in (0, 1).
    """

    grid_mm: float = 1.0
    margin_mm: float = 2.0
    align_mm: float = 2.0
    rigid_rounds: int = 3
    affine_rounds: int = 2
    size_limit: float = 0.01

    quantiles: tuple[float, float] = (0.1, 0.9)
    field_mm: float = 18.0
    field_limit: float = 2.0
    fluid: float = 0.5

    smooth_mm: float = 1.0
    tissue_bins: int = 10
    edge_bins: int = 5
    bin_voxels: int = 500
    local_mm: float = 10.0
    local_limit: float = 3.0

    tail: float = 0.1
    fdr: float = 0.05
    edge: float = 0.5
    least_contrast: float = 0.08
    least_mm3: float = 5.0
    fossa_mm: float = 10.0
    least_t1w: float = 0.75
    most_t1w: float = 0.25

    rim_mm: float = 2.0
    volume_inflation: float = 1.3
    level: float = 0.95
