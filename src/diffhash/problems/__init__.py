"""Differential equations; a new one is a subclass of `Problem` and one config file.

A subclass in a file of this folder is found automatically: ``from diffhash.problems import KdV``.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from diffhash._warnings import warn
from diffhash.problems.coefficient import Coefficient
from diffhash.problems.condition import EXACT, Condition, Measured, measured
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.poisson1d import Poisson1D
from diffhash.problems.problem import Problem
from diffhash.problems.reference import Reference

__all__ = [
    "EXACT",
    "Coefficient",
    "Condition",
    "Derivatives",
    "Measured",
    "Poisson1D",
    "Problem",
    "Reference",
    "measured",
    "references",
    "stack",
    "zoo",
]
_NAMES = list(__all__)
if not TYPE_CHECKING:
    del __all__  # `import *` asks `__getattr__` for it, which imports the problems only then


def zoo() -> dict[str, type[Problem]]:
    """The classes of the package's problems, by the names of their files."""
    found = {}
    for module in iter_modules(__path__):
        path = f"{__name__}.{module.name}"
        for value in vars(import_module(path)).values():
            is_problem = isinstance(value, type) and issubclass(value, Problem)
            if is_problem and value.__module__ == path and value is not Problem:
                found[module.name] = value
    return found


_OTHERS: dict[str, list[dict[str, Any]]] = {"cavity": [{"reynolds": 400.0}]}  # not the defaults


def references() -> dict[str, Reference]:
    """The references of the problems' exact solutions, by name; a name includes settings other than
    the defaults, as in ``cavity reynolds=400.0``.

    A problem whose domain needs a package that is not installed is left out, with a warning.
    """
    found = {}
    for name, kind in zoo().items():
        for settings in ({}, *_OTHERS.get(name, [])):
            label = " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
            try:
                reference = kind(**settings).reference
            except ImportError as error:
                warn(f"{label} is left out: {error}")
                continue
            if reference is not None:
                found[label] = reference
    return found


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted({*_NAMES, *(problem.__name__ for problem in zoo().values())})
    if not name.startswith("_"):
        for problem in zoo().values():
            if problem.__name__ == name:
                return problem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
