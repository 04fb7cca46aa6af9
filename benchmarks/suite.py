"""Problem × method × optimizer, all in equal seconds: what runs, and what becomes of each run.

A run is ``python train.py`` with the settings that `Job.overrides` lists, on one thread, and its
record the usual one. One that leaves no record (it cannot be, it needs too much memory or too long)
leaves an `Outcome` with the reason beside where the record would be. Either is kept, and not run
again while the settings are the same.

**One default a method for all problems.** They were chosen on `CHOSEN_ON` alone, sizes by what a
step of Gauss–Newton costs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from diffhash._files import write_text_atomically
from diffhash.experiment.checks import ConfigError, physical_memory
from diffhash.experiment.locks import exclusive
from diffhash.experiment.resume import hydra_value
from diffhash.experiment.workers import Command, run_side_by_side
from diffhash.results import RecordError, RunRecord
from diffhash.results.record import FINISHED, read_record

_LATEST = 2.0  # times the seconds for training, after which a run is killed
_START_SECONDS = 45.0  # and so many for what comes before and after
_MEMORY = 0.9  # of the machine's, for all runs of a time together


@dataclass(frozen=True)
class Case:
    """A problem with settings of its own.

    Attributes:
        problem: of the package.
        settings: of it, by name, as on a command line.
    """

    problem: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``cavity reynolds=400``."""
        return " ".join([self.problem, *(f"{k}={v}" for k, v in self.settings.items())])

    @property
    def word(self) -> str:
        """The name as one word."""
        return self.name.replace(" ", "_")

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of a command line."""
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
"""With the settings that others print numbers for."""

CHOSEN_ON = ("heat1d", "wave1d", "helmholtz2d a=4")
"""Problems on which the hyper-parameters were chosen; the last one is not scored."""

# A network alone: of a size whose second-order steps cost as much as those of a grid.
_NETWORK = (
    *("encoder.network.width=20", "encoder.network.depth=3", "encoder.network.init=xavier"),
    *("task.n_residual=3072", "task.n_boundary=384"),
)
# 12 and 48 cells an axis in 2-D, 12 in 3-D.
_GRID = ("recipe=neural",)
METHODS: dict[str, tuple[str, ...]] = {
    "mlp": ("recipe=neural", "encoder=mlp", *_NETWORK),
    "ff": ("recipe=neural", "encoder=ff", *_NETWORK),
    "linear": (*_GRID, "encoder=linear"),
    "hermite": (*_GRID, "encoder=hermite"),
    "cubic": (*_GRID, "encoder=cubic"),
    "quintic": (*_GRID, "encoder=quintic"),
    # Tables of 512 rows: in 2-D, 5 vertices of the finest level share one.
    "quintic hashed": (
        *(*_GRID, "encoder=quintic", "encoder.name=quintic_hashed"),
        *("encoder.encoding.n_levels=2", "encoder.encoding.log2_hashmap_size=9"),
    ),
    # Coefficients of splines, without a network: the classical relative. 12 and 48 cells an axis in
    # 2-D, 12 in 3-D.
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
        optimizer: of `OPTIMIZERS`.
        seed: of it.
        seconds: of training.
    """

    case: Case
    method: str
    optimizer: str
    seed: int
    seconds: float

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.case.name}, {self.method}, {self.optimizer}, seed {self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """Of the method and the optimizer."""
        return (*METHODS[self.method], *OPTIMIZERS[self.optimizer])

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings: those of a command line that runs it alone."""
        return (
            *self.case.overrides,
            *self.settings,
            f"trainer.max_seconds={self.seconds:g}",
            *("trainer.accelerator=cpu", "trainer.num_threads=1", "logger=none"),
            f"seed={self.seed}",
        )

    def directory(self, runs: Path) -> Path:
        """Of its record."""
        names = (self.case.name, f"{self.method} {self.optimizer}", f"seed{self.seed}")
        return runs.joinpath(*(re.sub(r"[^\w.=-]+", "_", name) for name in names))


Failure = Literal["not possible", "out of memory", "killed", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run that left no record.

    Attributes:
        status: ``not possible``: its settings were refused; ``killed``: it was still running long
            after its seconds were over.
        reason: a line; of ``not possible`` the package's own error.
        overrides: its settings.
    """

    status: Failure
    reason: str
    overrides: list[str]


def jobs(
    seeds: Sequence[int], only: str, seconds: float, cases: Sequence[Case] = tuple(CASES)
) -> list[Job]:
    """All of them, in the order in which they run; of ``only``, those of its words.

    A word is a problem (``helmholtz2d``, or of its settings one: ``helmholtz2d_a=10``), a method
    (``quintic_hashed``) or an optimizer; several of a kind add up. Coefficients of splines are for
    a solver alone.

    Raises:
        ConfigError: a word is none of these.
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
    """What a job came to, if it has been run with these settings."""
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
    """Run those that have not been run, ``workers`` at a time, each on one thread.

    Raises:
        ConfigError: another process runs jobs there.
        KeyboardInterrupt: interrupted; what is finished stays.
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
