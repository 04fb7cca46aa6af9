"""Every row of the paper's tables; only what is missing or has changed is run, and timed.

Rows run side by side. They share no core, but memory, caches and the heat that a processor may
give off. So when they are done, each is run once more, for a few epochs and by itself;
`diffhash.paper.timing` makes train seconds of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from diffhash.experiment.build import ConfigError, accelerator_of, config_hash
from diffhash.experiment.composing import one_line
from diffhash.experiment.environment import describe_environment
from diffhash.experiment.folder import take_lock
from diffhash.experiment.resume import hydra_value
from diffhash.experiment.schema import register
from diffhash.experiment.workers import Command, run_side_by_side
from diffhash.paper import printed, second_order
from diffhash.paper.timing import timing_directory
from diffhash.results.record import FINISHED, RESULT_FILE, RecordError, RunRecord, read_record

_OURS = ("cubic_best", "cubic_compact")  # not in the paper
ROWS = tuple(f"{table}/{row}" for table, rows in printed.ROWS.items() for row in (*rows, *_OURS))

_MACHINE = ("processor", "cpu_count", "device", "torch")


@dataclass(frozen=True)
class Job:
    """One run of a table row, or the short run that times it.

    Attributes:
        title: for display.
        row: its experiment, such as ``table1/cubic``.
        directory: of its record.
        overrides: of the command line.
        config: the hash of the config that they make.
        work: in arbitrary units, to order jobs by.
        machine: what its record's environment must say.
        since: the time before which its record must not have been written.
    """

    title: str
    row: str
    directory: Path
    overrides: tuple[str, ...]
    config: str
    work: float
    machine: Mapping[str, Any] = field(default_factory=dict)
    since: float = 0.0

    def record(self) -> RunRecord | None:
        """Its finished record, if there is one of exactly this config."""
        try:
            record = read_record(self.directory)
        except (OSError, RecordError):  # of a damaged one, the run itself will complain
            return None
        is_it = (
            record.status in (*FINISHED, "diverged")
            and record.config_hash == self.config
            and self.machine.items() <= record.environment.items()
            and _written(self.directory) >= self.since
        )
        return record if is_it else None


def plan(
    root: Path, runs_dir: Path, rows: Sequence[str], seeds: Sequence[int], extra: Sequence[str] = ()
) -> list[Job]:
    """The jobs of ``rows`` × ``seeds``, finished or not.

    Args:
        root: folder of ``train.py`` and ``configs/``.
        runs_dir: where records of rows live: ``<runs_dir>/<table>/<row>/seed<seed>``.
        rows: experiment names, such as ``table1/cubic``.
        seeds: of every row.
        extra: Hydra overrides for every row.

    Raises:
        ConfigError: an unknown row, or overrides that do not fit the config.
    """
    known = (*ROWS, *second_order.ROWS)
    if unknown := [row for row in rows if row not in known]:
        raise ConfigError(f"row {unknown[0]!r} is unknown; rows are {', '.join(known)}")
    jobs = []
    with _configs(root):
        for seed in seeds:
            for row in rows:
                overrides = (f"experiment={row}", f"seed={seed}", *extra)
                cfg = _composed(overrides)
                # Rows that the network sees: a residual point counts for its u, u_x and u_xx.
                points = cfg.task.get("n_labels", 0) + 3 * cfg.task.get("n_residual", 0)
                work, directory = float(cfg.trainer.epochs * points), runs_dir / row / f"seed{seed}"
                title, config = f"{row} seed {seed}", config_hash(cfg)
                jobs.append(Job(title, row, directory, overrides, config, work))
    return jobs


def plan_timings(root: Path, runs_dir: Path, jobs: Sequence[Job], epochs: int = 400) -> list[Job]:
    """A short run for each row of ``jobs`` with a completed one: the first of these, but short.

    It has as many threads as that run had, and is logged nowhere else. It is done again where the
    run was, or on another machine.

    Args:
        root: folder of ``train.py`` and ``configs/``.
        runs_dir: of the records of all rows.
        jobs: those that may have been run.
        epochs: at most. The first chunk warms up: with the rows' chunks of 100 three are left for
            the median.
    """
    timings: dict[str, Job] = {}
    with _configs(root):
        for job in jobs:
            record = job.record()
            if job.row in timings or record is None or record.status != "completed":
                continue
            overrides = (
                *(text for text in job.overrides if not text.startswith("logger")),
                f"trainer.epochs={min(epochs, record.epochs_requested)}",
                f"trainer.num_threads={record.environment['torch_threads']}",
            )
            cfg = _composed(overrides)
            here = describe_environment(accelerator_of(cfg))
            timings[job.row] = replace(
                job,
                title=f"timing of {job.row}",
                directory=timing_directory(runs_dir, record),
                overrides=overrides,
                config=config_hash(cfg),
                machine={key: here[key] for key in _MACHINE},
                since=_written(job.directory),
            )
    return list(timings.values())


@contextmanager
def _configs(root: Path) -> Iterator[None]:
    register()
    with initialize_config_dir(str((root / "configs").resolve()), version_base="1.3"):
        yield


def _composed(overrides: Sequence[str]) -> DictConfig:
    try:
        return compose("train", list(overrides))
    except HydraException as error:
        raise ConfigError(one_line(error)) from error


def _written(directory: Path) -> float:
    return (directory / RESULT_FILE).stat().st_mtime


def run_jobs(root: Path, jobs: Sequence[Job], workers: int, what: str = "runs") -> list[Job]:
    """Run what is not finished, ``workers`` runs at a time; return the jobs that failed.

    Raises:
        KeyboardInterrupt: interrupted; every finished run is on disk.
    """
    # The longest first, so that no long one is left alone at the end.
    todo = sorted((job for job in jobs if job.record() is None), key=lambda job: -job.work)
    print(f"{len(jobs)} {what}: {len(jobs) - len(todo)} finished already, {len(todo)} to do")
    commands = {
        Command(
            title=job.title,
            script=root / "train.py",
            arguments=(*job.overrides, f"run_dir={hydra_value(str(job.directory))}"),
            log=job.directory.with_name(job.directory.name + ".log"),
            succeeded=lambda job=job: job.record() is not None,
        ): job
        for job in todo
    }
    return [commands[command] for command in run_side_by_side(list(commands), workers)]


@contextmanager
def exclusive(runs_dir: Path) -> Iterator[None]:
    """Keep a second process from writing the same runs.

    Raises:
        ConfigError: another process holds ``runs_dir``, or it cannot be written.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        lock = (runs_dir / ".lock").open("w")
    except OSError as error:
        reason = error.strerror
        raise ConfigError(f"runs folder {runs_dir}: cannot be written ({reason})") from error
    with lock:
        taken = f"runs folder {runs_dir}: another process is using it"
        take_lock(lock.fileno(), runs_dir, "reproduction", taken)
        yield
