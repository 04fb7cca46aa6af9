"""Every row of the paper's tables; only what is missing or has changed is run, and timed.

Rows run side by side. They share no core, but memory, caches and the heat that a processor may
give off. So when they are done, each is run once more, for a few epochs and by itself;
`diffhash.paper.timing` makes train seconds of it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import ConfigError, config_hash
from diffhash.experiment.checks import checked, choose_accelerator
from diffhash.experiment.composing import one_line
from diffhash.experiment.environment import describe_environment
from diffhash.experiment.folder import take_lock
from diffhash.experiment.resume import hydra_value
from diffhash.experiment.run import run
from diffhash.experiment.schema import register
from diffhash.experiment.trust import check_untrusted
from diffhash.experiment.workers import Command, process_pool, run_side_by_side
from diffhash.paper import printed, second_order
from diffhash.paper.rows import row_records
from diffhash.paper.timing import find_timing, timing_directory
from diffhash.results.reading import read_config
from diffhash.results.record import (
    CONFIG_FILE,
    FINISHED,
    RESULT_FILE,
    RecordError,
    RunRecord,
    read_record,
)

_OURS = ("cubic_best", "cubic_compact")  # not in the paper
ROWS = tuple(f"{table}/{row}" for table, rows in printed.ROWS.items() for row in (*rows, *_OURS))

_MACHINE = ("processor", "cpu_count", "device", "torch")


@dataclass(frozen=True)
class Job:
    """One run of a table row."""

    row: str
    seed: int
    directory: Path
    overrides: tuple[str, ...]
    config_hash: str
    work: float  # in arbitrary units, to order the jobs by

    def finished(self) -> bool:
        """Whether there is a finished record of exactly this config."""
        try:
            record = read_record(self.directory)
        except (OSError, RecordError):  # of a damaged one, the run itself will complain
            return False
        done = record.status in (*FINISHED, "diverged")
        return done and record.config_hash == self.config_hash


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
    register()
    jobs = []
    with initialize_config_dir(str((root / "configs").resolve()), version_base="1.3"):
        for seed in seeds:
            for row in rows:
                if row not in (*ROWS, *second_order.ROWS):
                    known = ", ".join((*ROWS, *second_order.ROWS))
                    raise ConfigError(f"row {row!r} is unknown; rows are {known}")
                overrides = (f"experiment={row}", f"seed={seed}", *extra)
                try:
                    cfg = compose("train", list(overrides))
                except HydraException as error:
                    raise ConfigError(one_line(error)) from error
                # Rows that the network sees: a residual point counts for its u, u_x and u_xx.
                points = cfg.task.get("n_labels", 0) + 3 * cfg.task.get("n_residual", 0)
                work = float(cfg.trainer.epochs * points)
                directory = runs_dir / row / f"seed{seed}"
                jobs.append(Job(row, seed, directory, overrides, config_hash(cfg), work))
    return jobs


def run_jobs(root: Path, jobs: Sequence[Job], workers: int) -> list[Job]:
    """Run what is not finished, ``workers`` runs at a time; return the jobs that failed.

    Raises:
        KeyboardInterrupt: interrupted; every finished run is on disk.
    """
    # The longest first, so that no long one is left alone at the end.
    todo = sorted((job for job in jobs if not job.finished()), key=lambda job: -job.work)
    print(f"{len(jobs)} runs: {len(jobs) - len(todo)} finished already, {len(todo)} to do")
    commands = {
        Command(
            title=f"{job.row} seed {job.seed}",
            script=root / "train.py",
            arguments=(*job.overrides, f"run_dir={hydra_value(str(job.directory))}"),
            log=job.directory.with_name(job.directory.name + ".log"),
            succeeded=job.finished,
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


# ---------------------------------------------------------------------------------------- timing


def time_rows(runs: Path, rows: Iterable[str], epochs: int = 400) -> list[str]:
    """Time each row that has a completed run and no timing of it yet; return those that failed.

    One that fails does not stop the others; its reason goes to standard error.

    Args:
        runs: folder of the records of all rows.
        rows: experiment names, such as ``table1/cubic``.
        epochs: of a timing, at most. The first chunk warms up: with the rows' chunks of 100 three
            are left for the median.

    Raises:
        KeyboardInterrupt: interrupted; every finished timing is on disk.
    """
    failed = []
    for row in rows:
        try:
            table, _, name = row.partition("/")
            # A bad record is named where the tables are made.
            found = row_records(table, runs, lambda problem: None).get(name, [])
            completed = [item for item in found if item[1].status == "completed"]
            if not completed:
                continue
            directory, record = completed[0]
            cfg = _timing_config(runs, directory, record, epochs)
            if _is_timed(cfg, directory):
                continue
            run_alone(cfg, record.overrides)
            status = read_record(cfg.run_dir).status
            timing = find_timing(runs, record)
        except Exception as error:  # the tables can be written all the same
            print(f"failed   timing of {row}: {error}", file=sys.stderr)
            failed.append(row)
            continue
        if status == "interrupted":
            raise KeyboardInterrupt
        cost = f"{1e3 * timing.seconds_per_epoch:.2f} ms an epoch" if timing else status
        print(f"timed    {row}: {cost}")
    return failed


def _timing_config(runs: Path, directory: Path, record: RunRecord, epochs: int) -> DictConfig:
    """That of a row's run, but short, with as many threads as it had, and logged nowhere else."""
    path = directory / CONFIG_FILE
    settings = read_config(path)
    check_untrusted(path, settings)
    cfg = OmegaConf.create(settings)
    cfg.trainer.epochs = min(epochs, record.epochs_requested)
    cfg.trainer.num_threads = record.environment.get("torch_threads")
    cfg.logger, cfg.callbacks = {}, {}
    cfg.ckpt_path = None
    cfg.run_dir = str(timing_directory(runs, record))
    return checked(cfg)


def _is_timed(cfg: DictConfig, of: Path) -> bool:
    """Whether a row's run has been timed since, with this config and on this machine."""
    result = Path(cfg.run_dir) / RESULT_FILE
    if not result.exists():
        return False
    timing = read_record(cfg.run_dir)
    here = describe_environment(choose_accelerator(cfg.trainer.accelerator.value))
    return (
        timing.status != "interrupted"
        and timing.config_hash == config_hash(cfg)
        and all(timing.environment.get(key) == here[key] for key in _MACHINE)
        and result.stat().st_mtime >= (of / RESULT_FILE).stat().st_mtime
    )


def run_alone(cfg: DictConfig, overrides: list[str]) -> None:
    """Run in a process of its own, which like the row's has compiled and allocated nothing yet."""
    with process_pool(1) as pool:
        pool.submit(run_here, cfg, overrides).result()


def run_here(cfg: DictConfig, overrides: list[str]) -> None:
    """Run in this process; what is printed goes to a log beside the run's folder."""
    log = Path(cfg.run_dir).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            run(cfg, overrides)
        except Exception:
            traceback.print_exc()
            raise
