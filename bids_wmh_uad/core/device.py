"""The torch device that computes."""

from __future__ import annotations

from bids_wmh_uad.errors import (
    NO_GPU,
    TemporaryError,
)


def torch_device(name: str) -> str:
    """The device that ``--device`` means here: ``auto`` is a GPU where there is one.

    Raises
    ------
    TemporaryError
        If a GPU was asked for by name and torch sees none.
    """
    import torch

    available = torch.cuda.is_available()
    torch.backends.cudnn.allow_tf32 = False  # its 10-bit mantissa costs more than the 1e-4 promised
    if name == "auto":
        return "cuda" if available else "cpu"
    if name != "cpu" and not available:
        raise TemporaryError(NO_GPU.format(device=name))
    return name
