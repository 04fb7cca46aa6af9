"""Training fields with Lightning."""

from diffhash.training.callbacks import GracefulStop, HistoryLogger, ProgressReport
from diffhash.training.checkpoint import LOGGERS, one_replica
from diffhash.training.evaluation import Evaluation, Metrics
from diffhash.training.guards import UntrainedError
from diffhash.training.module import FieldTraining
from diffhash.training.processes import SharedPoints
from diffhash.training.replica import Outcome, Replica
from diffhash.training.steps import Execution

__all__ = [
    "LOGGERS",
    "Evaluation",
    "Execution",
    "FieldTraining",
    "GracefulStop",
    "HistoryLogger",
    "Metrics",
    "Outcome",
    "ProgressReport",
    "Replica",
    "SharedPoints",
    "UntrainedError",
    "one_replica",
]
