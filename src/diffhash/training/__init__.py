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
    one_replica,
    read_checkpoint_file,
    write_checkpoint,
)
from diffhash.training.estimate import ErrorEstimate
from diffhash.training.evaluation import ERRORS, Evaluation, Metrics
from diffhash.training.fit import fit
from diffhash.training.guards import UntrainedError
from diffhash.training.module import FieldTraining, check_devices_of_moving, cosine
from diffhash.training.processes import SharedPoints
from diffhash.training.replica import Outcome, Replica
from diffhash.training.samplers import Sampler
from diffhash.training.steps import Execution
from diffhash.training.weightings import Weighting

__all__ = [
    "ERRORS",
    "LOGGERS",
    "AtomicCheckpoints",
    "DamagedError",
    "ErrorEstimate",
    "Evaluation",
    "Execution",
    "FieldTraining",
    "GracefulStop",
    "HistoryLogger",
    "Metrics",
    "Outcome",
    "ProgressReport",
    "RegularCheckpoints",
    "Replica",
    "Sampler",
    "SharedPoints",
    "UntrainedError",
    "Weighting",
    "check_devices_of_moving",
    "cosine",
    "fit",
    "one_replica",
    "read_checkpoint_file",
    "write_checkpoint",
]
