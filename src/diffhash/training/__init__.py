"""Training fields with Lightning."""

from diffhash.training.callbacks import (
    GracefulStop,
    HistoryLogger,
    ProgressReport,
    RegularCheckpoints,
)
from diffhash.training.checkpoint import (
    LOGGERS,
    AtomicCheckpoints,
    DamagedError,
    flush,
    one_replica,
    read_checkpoint_file,
    write_checkpoint,
)
from diffhash.training.evaluation import METRICS, Evaluation
from diffhash.training.guards import UntrainedError
from diffhash.training.module import FieldTraining, cosine
from diffhash.training.processes import SharedPoints
from diffhash.training.replica import Outcome, Replica
from diffhash.training.steps import Execution

__all__ = [
    "LOGGERS",
    "METRICS",
    "AtomicCheckpoints",
    "DamagedError",
    "Evaluation",
    "Execution",
    "FieldTraining",
    "GracefulStop",
    "HistoryLogger",
    "Outcome",
    "ProgressReport",
    "RegularCheckpoints",
    "Replica",
    "SharedPoints",
    "UntrainedError",
    "cosine",
    "flush",
    "one_replica",
    "read_checkpoint_file",
    "write_checkpoint",
]
