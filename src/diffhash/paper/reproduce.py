"""Run every row of the paper's tables that is missing or has changed, and time it.

Rows run side by side. They share no cores, but memory, caches and the processor's limit of heat.
When all are done, each row is therefore run once more by itself for a few epochs, from which
`diffhash.paper.timing` computes its train seconds.
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
        title: a title for display.
        row: the row's experiment, such as ``table1/cubic``.
        directory: the folder of the job's record.
        overrides: the overrides of the command line.
        config: the hash of the config with these overrides.
        work: the amount of work in arbitrary units, by which jobs are ordered.
        machine: entries that the record's environment must have.
        since: the earliest time at which the record may have been written.
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
        """The finished record of exactly this config, or None."""
        try:
            record = read_record(self.directory)
        except (OSError, RecordError):  # the run itself will report a damaged record
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
        root: the folder of ``train.py`` and ``configs/``.
        runs_dir: the folder of the records: ``<runs_dir>/<table>/<row>/seed<seed>``.
        rows: the names of experiments, such as ``table1/cubic``.
        seeds: the seeds of every row.
        extra: Hydra overrides for every row.

    Raises:
        ConfigError: a row is unknown, or overrides do not fit the config.
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
                # Rows through the network: a residual point has three, for u, u_x and u_xx.
                points = cfg.task.get("n_labels", 0) + 3 * cfg.task.get("n_residual", 0)
                work, directory = float(cfg.trainer.epochs * points), runs_dir / row / f"seed{seed}"
                title, config = f"{row} seed {seed}", config_hash(cfg)
                jobs.append(Job(title, row, directory, overrides, config, work))
    return jobs


def plan_timings(root: Path, runs_dir: Path, jobs: Sequence[Job], epochs: int = 400) -> list[Job]:
    """A short run for each row of ``jobs`` that has a completed run: that run with fewer epochs.

    It has as many threads as the completed run, and no loggers. It is repeated if the completed run
    was repeated, or on another machine.

    Args:
        root: the folder of ``train.py`` and ``configs/``.
        runs_dir: the folder of the records of all rows.
        jobs: the jobs, which may have been run.
        epochs: the largest number of epochs. The first chunk is a warm-up; with the rows' chunks of
            100 epochs, three chunks remain for the median.
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
    """Run the jobs that are not finished, ``workers`` at a time; return the jobs that failed.

    Raises:
        KeyboardInterrupt: interrupted; every finished run is on disk.
    """
    # The longest first, so that no long run is alone at the end.
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
