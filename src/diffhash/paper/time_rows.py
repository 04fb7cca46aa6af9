"""The train cost of the tables' rows, measured alone.

Rows run side by side. They share no core, but memory, caches and the heat that a processor may
give off. So when they are done, each is run once more, for a few epochs and by itself;
`diffhash.paper.timing` makes train seconds of it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import config_hash
from diffhash.experiment.checks import checked, choose_accelerator
from diffhash.experiment.environment import describe_environment
from diffhash.experiment.run import run
from diffhash.experiment.trust import check_untrusted
from diffhash.experiment.workers import process_pool
from diffhash.paper.rows import row_records
from diffhash.paper.timing import find_timing, timing_directory
from diffhash.results.reading import read_config
from diffhash.results.record import CONFIG_FILE, RESULT_FILE, RunRecord, read_record

# The first chunk warms up. With the rows' chunks of 100 that leaves three to take the median of.
_EPOCHS = 400
_MACHINE = ("processor", "cpu_count", "device", "torch")


@dataclass(frozen=True)
class _Task:
    """The timing of one row."""

    of: Path  # the record of the row's run
    run: RunRecord
    cfg: DictConfig

    @property
    def directory(self) -> Path:
        return Path(self.cfg.run_dir)

    def done(self) -> bool:
        """Whether the row's run has been timed since, with this config and on this machine."""
        result = self.directory / RESULT_FILE
        if not result.exists():
            return False
        timing = read_record(self.directory)
        here = describe_environment(choose_accelerator(self.cfg.trainer.accelerator.value))
        return (
            timing.status != "interrupted"
            and timing.config_hash == config_hash(self.cfg)
            and all(timing.environment.get(key) == here[key] for key in _MACHINE)
            and result.stat().st_mtime >= (self.of / RESULT_FILE).stat().st_mtime
        )


def time_rows(runs: Path, rows: Iterable[str]) -> list[str]:
    """Time each row that has a completed run and no timing of it yet; return those that failed.

    One that fails does not stop the others; its reason goes to standard error.

    Args:
        runs: folder of the records of all rows.
        rows: experiment names, such as ``table1/cubic``.

    Raises:
        KeyboardInterrupt: interrupted; every finished timing is on disk.
    """
    failed = []
    for row in rows:
        try:
            task = _task(runs, row)
            if task is None or task.done():
                continue
            _run_alone(task.cfg, task.run.overrides)
            status = read_record(task.directory).status
            timing = find_timing(runs, task.run)
        except Exception as error:  # the tables can be written all the same
            print(f"failed   timing of {row}: {error}", file=sys.stderr)
            failed.append(row)
            continue
        if status == "interrupted":
            raise KeyboardInterrupt
        cost = f"{1e3 * timing.seconds_per_epoch:.2f} ms an epoch" if timing else status
        print(f"timed    {row}: {cost}")
    return failed


def _task(runs: Path, row: str) -> _Task | None:
    table, _, name = row.partition("/")
    for directory, record in row_records(table, runs, _pass_over).get(name, []):
        if record.status == "completed":
            return _Task(directory, record, _config(runs, directory, record))
    return None


def _pass_over(problem: ValueError) -> None:
    """A bad record is named where the tables are made."""


def _config(runs: Path, directory: Path, record: RunRecord) -> DictConfig:
    """That of a row's run, but short, with as many threads as it had, and logged nowhere else."""
    path = directory / CONFIG_FILE
    settings = read_config(path)
    check_untrusted(path, settings)
    cfg = OmegaConf.create(settings)
    cfg.trainer.epochs = min(_EPOCHS, record.epochs_requested)
    cfg.trainer.num_threads = record.environment.get("torch_threads")
    cfg.logger, cfg.callbacks = {}, {}
    cfg.ckpt_path = None
    cfg.run_dir = str(timing_directory(runs, record))
    return checked(cfg)


def _run_alone(cfg: DictConfig, overrides: list[str]) -> None:
    """Run in a process of its own, which like the row's has compiled and allocated nothing yet."""
    with process_pool(1) as pool:
        pool.submit(_run, cfg, overrides).result()


def _run(cfg: DictConfig, overrides: list[str]) -> None:
    log = Path(cfg.run_dir).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            run(cfg, overrides)
        except Exception:
            traceback.print_exc()
            raise
