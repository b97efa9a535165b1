"""Lightning callbacks: modules train, callbacks measure and keep."""

from ecgfair.callbacks.anomaly import AnomalyDetection
from ecgfair.callbacks.checkpoints import BEST, LAST, BestCheckpoint, EncoderExport
from ecgfair.callbacks.epoch_line import EpochLine
from ecgfair.callbacks.fairness import Fairness
from ecgfair.callbacks.finite_loss import FiniteLoss
from ecgfair.callbacks.predictions import PredictionTable
from ecgfair.callbacks.preemption import Preemption

__all__ = [
    "BEST",
    "LAST",
    "AnomalyDetection",
    "BestCheckpoint",
    "EncoderExport",
    "EpochLine",
    "Fairness",
    "FiniteLoss",
    "PredictionTable",
    "Preemption",
]
