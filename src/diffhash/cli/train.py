"""``diffhash train`` and ``train.py``: compose a config, and train its run."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib import import_module

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffhash.cli.lean_lightning import import_lightning
from diffhash.experiment.composing import config_folder, explained
from diffhash.experiment.schema import register
from diffhash.experiment.sweep import job_task

register()

_FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra then raises its errors instead of printing them
_is_composing = False


def run_train() -> None:
    """Train the run of the command line (``sys.argv``); see its ``--help``.

    Settings that cannot be composed give one line on standard error and the exit code 1; a sweep
    composes its own jobs.
    """
    global _is_composing
    overrides = sys.argv[1:]
    is_plain = not any(one.startswith("-") for one in overrides)
    if is_plain and os.environ.get(_FULL_ERROR) != "1":
        _is_composing = True
        os.environ[_FULL_ERROR] = "1"
    folder = config_folder()
    try:
        hydra.main(version_base="1.3", config_path=str(folder), config_name="train")(job)()
    except Exception as error:
        if not _is_composing:
            raise
        print(f"error: {explained(error, folder, overrides)}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        _composed()


def job(cfg: DictConfig) -> float | None:
    """Run a composed config, and return the value for an optimising sweeper."""
    _composed()
    _import_all()
    return job_task(cfg, HydraConfig.get().overrides.task)


def _import_all() -> None:
    """Import the training code without garbage collection, which takes a third of the time."""
    if "diffhash.experiment.run" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    import_lightning()
    import_module("diffhash.experiment.run")
    gc.freeze()  # no later collection of these objects
    atexit.register(gc.freeze)  # no collection when the process ends
    if was_enabled:
        gc.enable()


def _composed() -> None:
    """Note that the config is composed: later errors are no errors of composing."""
    global _is_composing
    if _is_composing:
        _is_composing = False
        del os.environ[_FULL_ERROR]
