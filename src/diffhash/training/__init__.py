"""Training fields with Lightning."""

from diffhash.training.callbacks import GracefulStop, HistoryLogger, ProgressReport
from diffhash.training.evaluation import Evaluation, Metrics
from diffhash.training.module import FieldTraining, Outcome

__all__ = [
    "Evaluation",
    "FieldTraining",
    "GracefulStop",
    "HistoryLogger",
    "Metrics",
    "Outcome",
    "ProgressReport",
]
