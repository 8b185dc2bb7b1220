from bids_wmh_uad.api.detect import detect as detect
from bids_wmh_uad.api.detection import Detection as Detection
from bids_wmh_uad.api.evaluate import evaluate as evaluate
from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder as SiameseAutoencoder
from bids_wmh_uad.core.parameters import DetectionParameters as DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map as anomaly_map
from bids_wmh_uad.core.score.latent import AnomalyMap as AnomalyMap
from bids_wmh_uad.core.score.scan import Scan as Scan
from bids_wmh_uad.core.svm.estimator import OneClassSVM as OneClassSVM
from bids_wmh_uad.errors import BadDataError as BadDataError
from bids_wmh_uad.errors import BadImageError as BadImageError
from bids_wmh_uad.errors import GridMismatchError as GridMismatchError
from bids_wmh_uad.errors import ModelError as ModelError
from bids_wmh_uad.errors import SessionError as SessionError
from bids_wmh_uad.errors import TemporaryError as TemporaryError
from bids_wmh_uad.errors import UsageError as UsageError
from bids_wmh_uad.errors import WmhUadError as WmhUadError
from bids_wmh_uad.models import load_model as load_model

__version__: str
