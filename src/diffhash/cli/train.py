"""``diffhash train`` and ``train.py``: compose a config, and train its run."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffhash.cli.command import without_collection
from diffhash.cli.lean_lightning import import_lightning
from diffhash.experiment.composing import config_folder, explained, raises_errors_of_composing
from diffhash.experiment.schema import register
from diffhash.experiment.sweep import job_task

register()


def run_train() -> None:
    """Train the run of the command line (``sys.argv``); see its ``--help``.

    Settings that cannot be composed give one line on standard error and the exit code 1.
    """
    overrides = [one for one in sys.argv[1:] if one not in ("-m", "--multirun")]
    if not any(one.startswith("-") for one in overrides):  # no other flag
        raises_errors_of_composing(True)
    folder = config_folder()
    try:
        hydra.main(version_base="1.3", config_path=str(folder), config_name="train")(job)()
    except Exception as error:
        if not raises_errors_of_composing(False):
            raise
        print(f"error: {explained(error, folder, overrides)}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        raises_errors_of_composing(False)


def job(cfg: DictConfig) -> float | None:
    """Run a composed config, and return the value for an optimising sweeper."""
    raises_errors_of_composing(False)
    _import_all()
    return job_task(cfg, HydraConfig.get().overrides.task)


def _import_all() -> None:
    """Import the training code, if it is not imported yet."""
    if "diffhash.experiment.run" in sys.modules:
        return
    with without_collection():
        import_lightning()
        import_module("diffhash.experiment.run")
        gc.freeze()  # no later collection of these objects
    atexit.register(gc.freeze)  # no collection when the process ends
