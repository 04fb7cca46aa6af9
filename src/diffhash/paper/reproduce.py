"""Every row of the paper's tables; only what is missing or has changed is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from diffhash.experiment.build import ConfigError, config_hash
from diffhash.experiment.composing import one_line
from diffhash.experiment.folder import take_lock
from diffhash.experiment.resume import hydra_value
from diffhash.experiment.schema import register
from diffhash.experiment.workers import Command, run_side_by_side
from diffhash.paper import printed
from diffhash.results.record import RecordError, RunRecord, read_record

_FINISHED = ("completed", "diverged")
_OURS = ("cubic_best", "cubic_compact")  # not in the paper
ROWS = tuple(f"{table}/{row}" for table, rows in printed.ROWS.items() for row in (*rows, *_OURS))


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
        record = self.record()
        return (
            record is not None
            and record.status in _FINISHED
            and record.config_hash == self.config_hash
        )

    def record(self) -> RunRecord | None:
        """What is recorded for this row and seed, of whatever config."""
        try:
            return read_record(self.directory)
        except (OSError, RecordError):  # of a damaged one, the run itself will complain
            return None


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
                if row not in ROWS:
                    raise ConfigError(f"row {row!r} is unknown; rows are {', '.join(ROWS)}")
                directory = runs_dir / row / f"seed{seed}"
                overrides = (f"experiment={row}", f"seed={seed}", *extra)
                try:
                    cfg = compose("train", list(overrides))
                except HydraException as error:
                    raise ConfigError(one_line(error)) from error
                jobs.append(Job(row, seed, directory, overrides, config_hash(cfg), _work(cfg)))
    return jobs


def run_jobs(root: Path, jobs: Sequence[Job], workers: int) -> list[Job]:
    """Run what is not finished, ``workers`` runs at a time; return the jobs that failed.

    Raises:
        KeyboardInterrupt: interrupted; every finished run is on disk.
    """
    # The longest first, so that no long one is left alone at the end.
    todo = sorted((job for job in jobs if not job.finished()), key=lambda job: -job.work)
    print(f"{len(jobs)} runs: {len(jobs) - len(todo)} finished already, {len(todo)} to do")
    commands = {_command(root, job): job for job in todo}
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


def _work(cfg: DictConfig) -> float:
    """Rows that the network sees in a run: a residual point counts for its u, u_x and u_xx."""
    points = cfg.task.get("n_labels", 0) + 3 * cfg.task.get("n_residual", 0)
    return float(cfg.trainer.epochs * points)


def _command(root: Path, job: Job) -> Command:
    return Command(
        title=f"{job.row} seed {job.seed}",
        script=root / "train.py",
        arguments=(*job.overrides, f"run_dir={hydra_value(str(job.directory))}"),
        log=job.directory.with_name(job.directory.name + ".log"),
        succeeded=job.finished,
    )
