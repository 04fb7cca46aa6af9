"""Jobs of a sweep: errors and signals as for a run on the command line.

Hydra's launchers pass an exception of a job on to the command line, once all jobs have ended. They
do not handle a `SystemExit`, which would end the other jobs, or count as a crash and be retried.
A `JobExitError` therefore takes its place until the jobs have ended.
The training code is imported only in the process of a job, and not by a command line that starts
jobs.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig

from diffhash.experiment.composing import (
    config_folder,
    explained,
    full_errors,
    raises_errors_of_composing,
)
from diffhash.experiment.workers import end_with_parent

_INTERRUPTED = 130
_validate = Sweeper.validate_batch_is_legal
_interrupted = False  # whether Ctrl-C has come during a job of this process, or between two jobs
_is_command_line = False
_follows = False  # whether this process ends with its parent process


class JobExitError(Exception):
    """Carries a `SystemExit` to the command line's process, where it is unpickled as a
    `SystemExit`."""

    def __reduce__(self) -> tuple[type[SystemExit], tuple[Any, ...]]:
        return SystemExit, self.args


class LocalJobs(Callback):
    """A callback for a launcher that starts its jobs as child processes: the jobs handle Ctrl-C.

    A terminal sends Ctrl-C to the children as well. They inherit that it is ignored until
    `job_task` handles it; the command line waits for their records. A SIGTERM that ends the command
    line also ends the jobs.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _is_command_line
        _is_command_line = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _follow_in_joblib()


class OneLineErrors(Callback):
    """Errors of one line for every sweep: of a folder that cannot be written, of settings that
    cannot be composed, and of jobs that have ended with such a line."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        raises_errors_of_composing(False)  # jobs in other processes inherit the environment
        # Hydra has no callback between reading a sweep and composing its jobs.
        Sweeper.validate_batch_is_legal = _validated  # type: ignore[method-assign]
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(
                f"error: hydra.sweep.dir={folder}: cannot be written ({error.strerror})",
                file=sys.stderr,
            )
            raise SystemExit(1) from None

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        value = vars(job_return)["_return_value"]  # the property raises it
        if isinstance(value, JobExitError):
            job_return.return_value = SystemExit(*value.args)


def _validated(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    """`Sweeper.validate_batch_is_legal` with an error of one line."""
    for overrides in batch:
        try:
            _validate(sweeper, [overrides])
        except Exception as error:
            if full_errors():
                raise
            print(f"error: {explained(error, config_folder(), overrides)}", file=sys.stderr)
            raise SystemExit(1) from None


def job_task(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """`run.main_task`, in any process of a launcher.

    Raises:
        JobExitError: instead of a `SystemExit`, in a sweep. In the command line's own process,
            Ctrl-C remains a `SystemExit`, which ends the sweep.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return _run(cfg, overrides)
    is_here = _is_command_line or hydra.runtime.choices["hydra/launcher"] == "basic"
    try:
        return (_run if is_here else _interruptible)(cfg, overrides)
    except SystemExit as stop:
        if is_here and stop.code != 1:
            raise
        raise JobExitError(f"error: {stop.__context__}" if stop.code == 1 else stop.code) from None
    except Exception as error:
        if not is_here:
            error.add_note(traceback.format_exc())  # a traceback cannot be pickled
        raise


def _run(cfg: DictConfig, overrides: Sequence[str]) -> float | None:
    from diffhash.experiment.run import main_task

    return main_task(cfg, overrides)


def _interruptible(cfg: DictConfig, overrides: Sequence[str]) -> float | None:
    """Run a job. Ctrl-C ends this job, and this process then starts no other."""
    global _interrupted
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, _interrupt):
        return _run(cfg, overrides)  # `LocalJobs` did not start this job
    try:
        _follow_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _interrupted:
            raise KeyboardInterrupt
        return _run(cfg, overrides)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != _INTERRUPTED:
            raise
        _interrupted = True
        raise SystemExit(_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, _interrupt)


def _follow_parent(parent_id: int | None = None) -> None:
    """When the command line has ended, stop this process as SIGTERM does, with a record."""
    global _follows
    if not _follows:
        _follows = True
        end_with_parent(signal.SIGTERM, parent_id)


def _follow_in_joblib() -> None:
    """Make joblib's processes end with this process, also those without a job at that time."""
    try:
        from joblib.parallel import LokyBackend, register_parallel_backend
    except ImportError:  # another launcher is used
        return
    parent_id = os.getpid()

    class Following(LokyBackend):
        def configure(self, *arguments: Any, **options: Any) -> int:
            options |= {"initializer": _follow_parent, "initargs": (parent_id,)}
            return super().configure(*arguments, **options)

    register_parallel_backend("loky", Following)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
