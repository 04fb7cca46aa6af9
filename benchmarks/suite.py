"""Problems × methods × optimizers in equal seconds: the jobs, their runs and the outcomes.

A run is ``python train.py`` on one thread, with the settings that `Job.overrides` lists; its record
is the usual one. A run that leaves no record, because it is refused, fails, or needs too much
memory or time, leaves an `Outcome` with the reason, next to the place of the record. Both are kept,
and a job that has one is not run again while its settings are the same.

**Each method has one set of hyper-parameters for all problems.** They were chosen on the problems
of `CHOSEN_ON` alone, and sizes by the cost of a step of Gauss–Newton.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from diffhash._files import write_text_atomically
from diffhash.cli.command import INTERRUPTED
from diffhash.experiment.checks import ConfigError, physical_memory
from diffhash.experiment.locks import exclusive
from diffhash.experiment.resume import hydra_value
from diffhash.experiment.workers import Command, run_side_by_side
from diffhash.results import RecordError, RunRecord
from diffhash.results.record import FINISHED, read_record

_LATEST = 2.0  # the multiple of the seconds for training after which a run is killed
_START_SECONDS = 45.0  # added to that, for what precedes and follows training
_ASKED_TO_END = (INTERRUPTED, -signal.SIGTERM)  # exit codes after a signal from outside
_MEMORY = 0.9  # the fraction of the machine's memory for all simultaneous runs


@dataclass(frozen=True)
class Case:
    """A problem with settings of its own.

    Attributes:
        problem: the name of a problem of the package.
        settings: the problem's settings by name, as on a command line.
    """

    problem: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name, such as ``cavity reynolds=400``."""
        return " ".join([self.problem, *(f"{k}={v}" for k, v in self.settings.items())])

    @property
    def word(self) -> str:
        """The name as one word."""
        return self.name.replace(" ", "_")

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides on a command line."""
        return (
            f"problem={self.problem}",
            *(f"problem.{k}={v}" for k, v in self.settings.items()),
        )


CASES = [
    Case("poisson1d"),
    Case("heat1d"),
    Case("wave1d"),
    Case("convection"),
    Case("burgers1d"),
    Case("allen_cahn"),
    Case("kdv"),
    Case("kdv_cosine"),
    Case("kuramoto_sivashinsky"),
    Case("gray_scott"),
    Case("helmholtz2d", {"a": "10"}),
    Case("helmholtz2d", {"a": "20"}),
    Case("helmholtz2d", {"a": "100"}),
    Case("helmholtz2d", {"a": "[1,4]", "low": "-1"}),
    Case("multiscale_poisson2d"),
    Case("biharmonic2d"),
    Case("poisson_holes"),
    Case("poisson_interface"),
    Case("kovasznay"),
    Case("cavity"),
    Case("cavity", {"reynolds": "400"}),
    Case("heat2d"),
    Case("flow_mixing"),
    Case("taylor_green"),
    Case("helmholtz3d"),
    Case("poisson_mesh"),
    Case("inverse_poisson"),
    Case("inverse_burgers"),
    Case("inverse_burgers", {"noise": "0.01"}),
    Case("inverse_poisson_field", {"noise": "0.1"}),
    Case("inverse_heat_field", {"noise": "0.1"}),
]
"""The problems, with the settings for which others have published numbers."""

CHOSEN_ON = ("heat1d", "wave1d", "helmholtz2d a=4")
"""The problems on which the hyper-parameters were chosen; the last one is not scored."""

# A network alone, of a size whose second-order steps cost as much as those of a grid.
_NETWORK = (
    *("encoder.network.width=20", "encoder.network.depth=3", "encoder.network.init=xavier"),
    *("task.n_residual=3072", "task.n_boundary=384"),
)
# Grids of 12 and 48 cells per axis in 2-D, and of 12 in 3-D, with a network.
_GRID = ("recipe=neural",)
METHODS: dict[str, tuple[str, ...]] = {
    "mlp": ("recipe=neural", "encoder=mlp", *_NETWORK),
    "ff": ("recipe=neural", "encoder=ff", *_NETWORK),
    "linear": (*_GRID, "encoder=linear"),
    "hermite": (*_GRID, "encoder=hermite"),
    "cubic": (*_GRID, "encoder=cubic"),
    "quintic": (*_GRID, "encoder=quintic"),
    # Tables of 512 rows: in 2-D, 5 vertices of the finest level share a row.
    "quintic hashed": (
        *(*_GRID, "encoder=quintic", "encoder.name=quintic_hashed"),
        *("encoder.encoding.n_levels=2", "encoder.encoding.log2_hashmap_size=9"),
    ),
    # Coefficients of splines without a network, the classical counterpart of grids: 12 and 48 cells
    # per axis in 2-D, 12 in 3-D.
    "spline": (
        *("recipe=pde", "encoder=quintic", "encoder.name=spline"),
        *("encoder.encoding.interpolation=septic", "encoder.encoding.n_features_per_level=1"),
        "encoder.encoding.per_level_scale=4",
    ),
}
GRIDS = ("linear", "hermite", "cubic", "quintic", "quintic hashed")  # with a network

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adam": ("optimizer=adam",),
    "gauss_newton": ("optimizer=gauss_newton", "trainer.chunk=1", "trainer.epochs=1000000"),
}


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        case: the problem.
        method: a key of `METHODS`.
        optimizer: a key of `OPTIMIZERS`.
        seed: the seed of the run.
        seconds: the time limit of training, in seconds.
    """

    case: Case
    method: str
    optimizer: str
    seed: int
    seconds: float

    @property
    def name(self) -> str:
        """The name, unique among the jobs."""
        return f"{self.case.name}, {self.method}, {self.optimizer}, seed {self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the method and the optimizer."""
        return (*METHODS[self.method], *OPTIMIZERS[self.optimizer])

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings on the command line of ``train.py``."""
        return (
            *self.case.overrides,
            *self.settings,
            f"trainer.max_seconds={self.seconds:g}",
            *("trainer.accelerator=cpu", "trainer.num_threads=1", "logger=none"),
            f"seed={self.seed}",
        )

    def directory(self, runs: Path) -> Path:
        """The folder of the record."""
        names = (self.case.name, f"{self.method} {self.optimizer}", f"seed{self.seed}")
        return runs.joinpath(*(re.sub(r"[^\w.=-]+", "_", name) for name in names))


Failure = Literal["not possible", "out of memory", "killed", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run that left no record.

    Attributes:
        status: ``not possible`` where the settings were refused; ``killed`` where the run went on
            long after its seconds were over. A run that a signal has ended leaves no outcome.
        reason: the reason in a line; for ``not possible``, the package's own error.
        overrides: the settings of the run.
    """

    status: Failure
    reason: str
    overrides: list[str]


def jobs(
    seeds: Sequence[int], only: str, seconds: float, cases: Sequence[Case] = tuple(CASES)
) -> list[Job]:
    """All jobs in the order in which they run, or only those that the words of ``only`` select.

    A word is a problem (``helmholtz2d``, or ``helmholtz2d_a=10`` with one choice of settings), a
    method (``quintic_hashed``) or an optimizer; several words of a kind select the jobs of each.
    Splines without a network are not trained by Adam.

    Raises:
        ConfigError: a word is not the name of a problem, method or optimizer.
    """
    words = only.split()
    problems = {case.problem for case in cases} | {case.word for case in cases}
    methods = {method.replace(" ", "_") for method in METHODS}
    for word in words:
        if word not in problems | methods | {*OPTIMIZERS}:
            raise ConfigError(
                f"ONLY={only}: there is no problem, method or optimizer {word!r}; there are "
                f"{', '.join([*sorted(problems), *sorted(methods), *OPTIMIZERS])}"
            )

    def is_wanted(names: set[str], kind: set[str]) -> bool:
        of_kind = kind & {*words}
        return not of_kind or bool(names & of_kind)

    made = [
        Job(case, method, optimizer, seed, seconds)
        for seed in seeds
        for case in cases
        for method in METHODS
        for optimizer in OPTIMIZERS
        if (method, optimizer) != ("spline", "adam")
    ]
    return [
        job
        for job in made
        if is_wanted({job.case.problem, job.case.word}, problems)
        and is_wanted({job.method.replace(" ", "_")}, methods)
        and is_wanted({job.optimizer}, {*OPTIMIZERS})
    ]


def result(job: Job, runs: Path) -> RunRecord | Outcome | None:
    """The record or outcome of a job; None if it has not been run with these settings."""
    directory = job.directory(runs)
    try:
        record = read_record(directory)
        own = [o for o in record.overrides if not o.startswith("run_dir=")]
        if own == [*job.overrides] and record.status in (*FINISHED, "diverged"):
            return record
    except (OSError, RecordError):
        pass
    try:
        outcome = msgspec.json.decode(_outcome_file(directory).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
    return outcome if outcome.overrides == [*job.overrides] else None


def run_jobs(root: Path, wanted: Sequence[Job], runs: Path, workers: int) -> None:
    """Run the jobs that have not been run, ``workers`` at a time, each on one thread.

    Raises:
        ConfigError: another process runs jobs in ``runs``.
        KeyboardInterrupt: the process was interrupted; finished runs stay.
    """
    memory = int(_MEMORY * physical_memory() / workers)
    with exclusive(runs):
        todo = [job for job in wanted if result(job, runs) is None]
        print(f"{len(wanted)} runs: {len(wanted) - len(todo)} finished, {len(todo)} to do")
        run_side_by_side([_command(root, job, runs, memory) for job in todo], workers)


def _command(root: Path, job: Job, runs: Path, memory: int) -> Command:
    directory = job.directory(runs)
    log = directory.with_suffix(".log")

    def failed(code: int | None, is_late: bool) -> str:
        if code in _ASKED_TO_END and not is_late:
            return "it was asked to end, and is run again by the same command"
        outcome = _outcome(job, log, code, is_late)
        write_text_atomically(_outcome_file(directory), json.dumps(asdict(outcome), indent=2))
        return f"{outcome.status}: {outcome.reason}"

    return Command(
        title=job.name,
        script=root / "train.py",
        arguments=(*job.overrides, f"run_dir={hydra_value(str(directory))}"),
        log=log,
        succeeded=lambda: isinstance(result(job, runs), RunRecord),
        limit=_limit(job),
        memory=memory,
        failed=failed,
    )


def _limit(job: Job) -> float:
    return _LATEST * job.seconds + _START_SECONDS


def _outcome_file(directory: Path) -> Path:
    return directory.with_suffix(".json")


def _outcome(job: Job, log: Path, code: int | None, is_late: bool) -> Outcome:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"it ended with the exit code {code} and said nothing"
    status: Failure = "failed"
    if is_late:
        status = "killed"
        last = (
            f"still running after {_limit(job):g} s: {_LATEST:g} times its seconds and "
            f"{_START_SECONDS:g} for what comes before and after"
        )
    elif last.startswith("error: "):
        status, last = "not possible", last.removeprefix("error: ")
    elif re.search(r"out of memory: |MemoryError|can't allocate memory|Unable to allocate", last):
        status = "out of memory"
    return Outcome(status, last, [*job.overrides])
