"""White matter hyperintensities in T1w + FLAIR MRI, found without lesion labels.

Importing the package does no work and pulls in no numerical library.
"""

try:
    from bids_wmh_uad._version import __version__
except ImportError:  # a source tree that was never built: no version file yet
    __version__ = "0.0.0+unknown"

__all__ = ["__version__"]
