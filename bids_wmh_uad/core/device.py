"""The torch device that computes, and what is set for a whole process before it does."""

from __future__ import annotations

from bids_wmh_uad.errors import NO_GPU, TemporaryError


def configure_torch(threads: int | None = None) -> None:
    """Set what holds for a whole process; to be called once, where work with torch begins.

    The functions of `core` leave a process as they found it: nodes and levels call this.

    Parameters
    ----------
    threads : int, optional
        Threads of torch on the CPU; left alone without it.

    Notes
    -----
    cuDNN's convolutions are kept from TF32, whose mantissa of 10 bits costs more than the 1e-4
    within which maps of CPU and GPU agree.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    if threads is not None:
        torch.set_num_threads(threads)


def resolve_device(name: str) -> str:
    """Name the torch device that ``--device`` means here: ``auto`` is a GPU if there is one.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    str
        ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    TemporaryError
        `errors.NO_GPU`, when a GPU is asked for by name and torch sees none.

    Examples
    --------
    >>> from bids_wmh_uad.core.device import resolve_device
    >>> resolve_device("cpu")
    'cpu'
    """
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if name != "cpu" and not available:
        raise TemporaryError(NO_GPU.format(device=name))
    return name


_NO_ROOM = (
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine",
)
"""What CUDA, cuBLAS and cuDNN say for want of memory that torch's allocator did not ask for."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell an exhausted GPU from any other failure.

    torch raises ``OutOfMemoryError`` for its own tensors. On a GPU that other processes have filled, the
    libraries under it can fail first, for a handle or a workspace, as a plain ``RuntimeError``.

    Parameters
    ----------
    error : RuntimeError
        From work on a GPU.

    Examples
    --------
    >>> from bids_wmh_uad.core.device import is_out_of_memory
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    True
    """
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_ROOM)
