"""White matter hyperintensities in T1w + FLAIR MRI, found without lesion labels.

Importing the package does no work and pulls in no numerical library: what it exports is imported when it is first
asked for. Type checkers read what it is from ``__init__.pyi``.
"""

from importlib import import_module as _import_module

try:
    from bids_wmh_uad._version import __version__
except ImportError:  # a source tree that was never built: no version file yet
    __version__ = "0.0.0+unknown"

_EXPORTS = {
    "AnomalyMap": "core.score.latent",
    "BadDataError": "errors",
    "BadImageError": "errors",
    "DetectionParameters": "core.parameters",
    "Detection": "api.detection",
    "GridMismatchError": "errors",
    "ModelError": "errors",
    "OneClassSVM": "core.svm.estimator",
    "Scan": "core.score.scan",
    "SessionError": "errors",
    "SiameseAutoencoder": "core.network.autoencoder",
    "TemporaryError": "errors",
    "UsageError": "errors",
    "WmhUadError": "errors",
    "anomaly_map": "core.score.anomaly",
    "detect": "api.detect",
    "evaluate": "api.evaluate",
    "load_model": "models",
}
"""The module of each exported name, below this package."""

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604 (strings)


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(_import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
