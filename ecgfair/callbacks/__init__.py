"""Lightning callbacks: modules train, callbacks measure and keep."""

from ecgfair.callbacks.anomaly import AnomalyDetection
from ecgfair.callbacks.checkpoints import BEST, BestCheckpoint, EncoderExport
from ecgfair.callbacks.epoch_line import EpochLine
from ecgfair.callbacks.fairness import Fairness
from ecgfair.callbacks.predictions import PredictionTable

__all__ = ["BEST", "AnomalyDetection", "BestCheckpoint", "EncoderExport", "EpochLine", "Fairness", "PredictionTable"]
