"""One session on its working grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.image.template import GM_LIKELY
from bids_wmh_uad.core.network.patches import network_input
from bids_wmh_uad.errors import GRID_MISMATCH, GridMismatchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.image.volume import WorkingGrid
    from bids_wmh_uad.core.lesion.landmarks import Tissue


@dataclass(frozen=True, eq=False)
class Scan:
    """One session on its working grid.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) array
        Robust z-scores against white matter.
    mask : (X, Y, Z) bool array
        Brain.
    grey_matter : (X, Y, Z) bool array, optional
        From a registered prior; the brain when not given.
    voxels : (X, Y, Z) integer array, optional
        For voxel-wise models: which one scores which voxel, -1 = none.
    zooms : three floats
        Voxel edges, mm.

    Raises
    ------
    GridMismatchError
        `errors.GRID_MISMATCH`, when the arrays differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad import Scan
    >>> flair, t1w = np.zeros((2, 20, 20, 10), dtype=np.float32)
    >>> scan = Scan(flair, t1w, mask=flair == 0, zooms=(1, 1, 3))
    >>> scan.network_input(slice(4, 6)).shape
    (2, 20, 20, 2)
    """

    flair_z: NDArray[Any]
    t1w_z: NDArray[Any]
    mask: NDArray[np.bool_]
    grey_matter: NDArray[np.bool_] | None = None
    voxels: NDArray[np.integer[Any]] | None = None
    zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        arrays = (self.flair_z, self.t1w_z, self.mask, self.grey_matter, self.voxels)
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) > 1:
            detail = f"shapes {sorted(shapes)}"
            raise GridMismatchError(GRID_MISMATCH.format(first="FLAIR", second="T1w or mask", detail=detail))

    @classmethod
    def on_grid(cls, grid: WorkingGrid, tissue: Tissue) -> Scan:
        """Bring a session from the FLAIR's own grid to the one it is scored on; `AnomalyMap.from_grid` is the way back.

        Parameters
        ----------
        grid : WorkingGrid
            Of the FLAIR.
        tissue : Tissue
            On the FLAIR's own grid.

        Raises
        ------
        GridMismatchError
            `errors.GRID_MISMATCH`, when the grid is another image's.
        """
        return cls(
            grid.forward(tissue.flair_z),
            grid.forward(tissue.t1w_z),
            grid.forward(tissue.mask, order=0),
            grid.forward(tissue.grey) > GM_LIKELY,
            zooms=grid.zooms,
        )

    def inside(self, box: tuple[slice, ...]) -> Scan:
        """The part of a scan inside a box; views."""
        return replace(
            self,
            flair_z=self.flair_z[box],
            t1w_z=self.t1w_z[box],
            mask=self.mask[box],
            grey_matter=None if self.grey_matter is None else self.grey_matter[box],
            voxels=None if self.voxels is None else self.voxels[box],
        )

    def network_input(
        self, slab: slice = slice(None), upper: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Network input of some axial slices.

        Parameters
        ----------
        slab : slice
            Of the third axis.
        upper : (X, Y, Z) float32 array, optional
            FLAIR is cut where it is above, z.

        Returns
        -------
        (2, X, Y, S) float32 array
            FLAIR and T1w as the network takes them (`patches.network_input`).
        """
        flair = self.flair_z[..., slab]
        flair = flair if upper is None else np.minimum(flair, upper[..., slab])
        return network_input(flair, self.t1w_z[..., slab], self.mask[..., slab])
