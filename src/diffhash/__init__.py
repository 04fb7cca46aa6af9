"""diffhash: hash encodings with exact derivatives, and the PINN experiments built on them.

A name of this package is imported at its first use, because importing torch takes seconds.
`import diffhash.ops.operators` alone registers the operators with torch, for programs exported by
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffhash.encodings import FourierFeatures, GridEncoding, Identity
    from diffhash.jets import Jet, Sum, autograd_jet
    from diffhash.networks import MLP, SIREN, Field, Linear
    from diffhash.problems import Coefficient, Condition, Problem, stack
    from diffhash.training.fields import default_field
    from diffhash.training.solution import Solution
    from diffhash.training.solve import solve

__version__ = "0.2.0"
__all__ = [
    "MLP",
    "SIREN",
    "Coefficient",
    "Condition",
    "Field",
    "FourierFeatures",
    "GridEncoding",
    "Identity",
    "Jet",
    "Linear",
    "Problem",
    "Solution",
    "Sum",
    "autograd_jet",
    "default_field",
    "solve",
    "stack",
]

_HOMES = {
    "ops": (),
    "geometry": (),
    "optim": (),
    "training": (),
    "encodings": ("FourierFeatures", "GridEncoding", "Identity"),
    "jets": ("Jet", "Sum", "autograd_jet"),
    "networks": ("MLP", "SIREN", "Field", "Linear"),
    "problems": ("Coefficient", "Condition", "Problem", "stack"),
    "training.fields": ("default_field",),
    "training.solution": ("Solution",),
    "training.solve": ("solve",),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES or name in ("ops", "native"):
        return import_module(f"diffhash.{name}")
    for home, names in _HOMES.items():
        if name in names:
            try:
                value = globals()[name] = getattr(import_module(f"diffhash.{home}"), name)
            except ModuleNotFoundError as error:
                if not home.startswith("training.") or str(error.name).startswith("diffhash"):
                    raise
                raise ImportError(
                    f"diffhash.{name} needs {error.name}: pip install 'diffhash[experiments]'"
                ) from error
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES, "ops"})
