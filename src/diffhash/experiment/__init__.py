"""Compose a config into objects, run them, record the outcome."""

from diffhash.experiment.build import ConfigError, build, config_hash
from diffhash.experiment.run import main_task, run
from diffhash.experiment.schema import register

__all__ = ["ConfigError", "build", "config_hash", "main_task", "register", "run"]
