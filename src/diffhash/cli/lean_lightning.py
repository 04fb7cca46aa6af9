"""Lightning without the imports that a run does not use.

These imports take half of the time of a short run: torch's compiler, Triton, matplotlib's pyplot,
and torchmetrics with the parts of SciPy that it needs. Only command lines leave them out; other
programs import Lightning unchanged.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def import_lightning() -> None:
    """Import Lightning if it is not imported yet; the omitted modules are imported at their first
    use."""
    if "lightning" in sys.modules:
        return
    stand_ins = [
        _stand_in(
            "torch._dynamo", OptimizedModule=_later("torch._dynamo", "OptimizedModule"),
            disable=_disable,
        ),
        _stand_in(
            "torch.utils.flop_counter",
            FlopCounterMode=_later("torch.utils.flop_counter", "FlopCounterMode"),
        ),
        _stand_in(
            "torchmetrics.utilities.plot", _AX_TYPE=_later("matplotlib.axes", "Axes"),
            _PLOT_OUT_TYPE=tuple, plot_single_or_multi_val=_plot,
        ),
    ]  # fmt: skip
    added = {module.__name__: module for module in stand_ins if module.__name__ not in sys.modules}
    sys.modules |= added
    try:
        _defer_metrics()
        import_module("lightning")
    except Exception:  # another release of Lightning uses more of these modules
        _forget("lightning", "torchmetrics")
    finally:
        for name, module in added.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    import_module("lightning")


def _stand_in(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


class _Later(type):
    """The metaclass of a stand-in for a class in a module that may be imported later."""

    home: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(cls.home), cls.__name__)(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        module = sys.modules.get(cls.home)  # no instances exist without the module
        return module is not None and isinstance(instance, getattr(module, cls.__name__))


def _later(home: str, name: str) -> type:
    return _Later(name, (), {"home": home})


def _disable(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """A stand-in for `torch._dynamo.disable`: until that is imported, nothing compiles the
    function."""

    @functools.wraps(function)
    def disabled(*call: Any, **settings: Any) -> Any:
        if dynamo := sys.modules.get("torch._dynamo"):
            return dynamo.disable(function, *args, **kwargs)(*call, **settings)
        return function(*call, **settings)

    return disabled


def _plot(*args: Any, **kwargs: Any) -> Any:
    return import_module("torchmetrics.utilities.plot").plot_single_or_multi_val(*args, **kwargs)


class _Metrics(ModuleType):
    """A stand-in for torchmetrics, which is imported when anything but Lightning's base classes is
    read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # other packages inspect all modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _defer_metrics() -> None:
    name = "torchmetrics"
    spec = find_spec(name)
    if spec is None or name in sys.modules:
        return
    module: Any = module_from_spec(spec)
    module.__class__ = _Metrics
    module.__version__ = version(name)
    module._logger = logging.getLogger(name)  # the submodules import it
    sys.modules[name] = module
    import_module(f"{name}.utilities")
    module.Metric = import_module(f"{name}.metric").Metric
    module.MetricCollection = import_module(f"{name}.collections").MetricCollection


def _forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
