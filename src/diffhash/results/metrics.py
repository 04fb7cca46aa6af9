"""Names of metrics and models, and their labels in tables, figures and W&B.

A metric is named ``<kind>_<quantity>``, as ``mse_u`` or ``l2_v_xy``. This name is its key in
records, its column in histories and in W&B, and a value of ``objective=``; its labels are derived
from the name. A name without a known kind, such as that of a coefficient, is its own label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KINDS = {"mse": "MSE", "l2": "relative L2", "max": "max"}
"""Errors by the first part of a name: mean squared, relative L2, largest; never negative."""

ENCODERS = {"mlp": "MLP", "siren": "SIREN", "ff": "FF", "linear": "Linear", "s1": "S1", "s2": "S2",
            "cubic": "Cubic"}  # fmt: skip
"""Encoders as the paper names them."""
TASKS = {"data": "data-driven", "pinn": "physics-informed"}

_SHORT = re.compile("([a-z])([xyzt]+)")  # quantities whose derivative has no underscore


@dataclass(frozen=True)
class Metric:
    """The name of a metric and its labels.

    Attributes:
        name: the name, which is its key everywhere.
        kind: the kind of error, in short; empty for the loss and for metrics that are no errors.
        quantity: the quantity with the error, as predictions name it: ``u_x``; or the name itself.
    """

    name: str
    kind: str
    quantity: str

    @property
    def label(self) -> str:
        """The label in running text: ``MSE u_x``, ``loss``."""
        return f"{self.kind} {self.quantity}".strip()

    @property
    def heading(self) -> str:
        """The label as the head of a column: ``MSE u_x``, ``Loss``."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def title(self) -> str:
        """The heading of a plot by matplotlib: ``MSE of $u_x$``, ``Loss``."""
        return f"{self.kind} of {symbol(self.quantity)}" if self.kind else self.heading

    @property
    def html(self) -> str:
        """The quantity as HTML: ``u<sub>x</sub>``."""
        base, _, axes = self.quantity.partition("_")
        return f"{base}<sub>{axes}</sub>" if self.kind and axes else self.quantity

    @property
    def is_positive(self) -> bool:
        """Whether a value below zero can only come from a damaged record."""
        return bool(self.kind) or self.name == "loss"


def metric(name: str) -> Metric:
    """The metric with a name."""
    kind, _, quantity = name.partition("_")
    if kind in KINDS and quantity:
        short = _SHORT.fullmatch(quantity)
        return Metric(name, KINDS[kind], "_".join(short.groups()) if short else quantity)
    return Metric(name, "", name)


def metric_names(metrics: Iterable[Mapping[str, object]]) -> list[str]:
    """The names of all metrics that any of several records has, in order; the loss is last."""
    names = dict.fromkeys(name for one in metrics for name in one)
    return sorted(names, key=lambda name: name == "loss")


def symbol(quantity: str) -> str:
    """A quantity for matplotlib and LaTeX: ``$u_x$``, ``$u_{xx}$``, ``$u_{x_0}$``."""
    base, _, axes = quantity.partition("_")
    axes = re.sub(r"([a-z])(\d+)", r"\1_\2", axes)
    return f"${base}_{{{axes}}}$" if len(axes) > 1 else f"${base}_{axes}$" if axes else f"${base}$"
