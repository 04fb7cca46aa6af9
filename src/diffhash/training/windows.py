"""Time windows: a problem solved interval by interval, each from the end of the previous one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.geometry import Box, Domain
from diffhash.geometry.boundary import Boundary
from diffhash.geometry.product import Product
from diffhash.jets import Jet, Rows, jet_rows
from diffhash.networks import Field
from diffhash.ops.sizes import check_sizes
from diffhash.problems import Condition, Problem
from diffhash.problems.condition import Measured
from diffhash.problems.tracer import equations, trace

TIME = "t"
_MAX_WINDOWS = 1000

Windows = int | Sequence[float]
"""How many windows of the same length, or the times between windows."""


class Window(Problem):
    """A problem between two times.

    The target of an initial condition is the residual of the previous window's field: u starts with
    the values at the end of that field, and so does u_t where the problem has a condition for it.

    Args:
        problem: the whole problem. Its domain is a box with the axis t or a product with such a
            box, and its conditions use ``self.domain``.
        times: the first and the last time of the window.
        before: the field of the previous window; None for the first window.
        earlier_size: the largest root mean square of u in earlier windows.

    Attributes:
        earlier_size: that of the arguments.

    Raises:
        ValueError: the problem cannot be divided, because it has no axis t, or has unknown
            coefficients, an ansatz, parts, measured values, a condition on the end, one on the
            start and something else, or one on another domain than ``self.domain``.
    """

    def __init__(
        self,
        problem: Problem,
        times: tuple[float, float],
        before: Field | None = None,
        earlier_size: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(problem).__name__
        for what, is_there in {
            "coefficients that are trained": any(True for _ in problem.parameters()),
            "an ansatz": problem.ansatz is not None,
            "parts": bool(problem.parts),
        }.items():
            if is_there:
                raise ValueError(f"windows: {name} has {what}; give windows=1")
        self.unknowns, self.periodic = problem.unknowns, problem.periodic
        self.domain = _between(problem.domain, times)
        self._whole = copy.copy(problem)
        self._whole.domain = self.domain
        if before is not None:
            before = copy.deepcopy(before).requires_grad_(False)
        self._before = (before,)  # in a tuple, so that it is no submodule
        self._times, self.earlier_size = times, earlier_size

    @property
    def is_first(self) -> bool:
        """Whether the window begins with the initial conditions of the whole problem."""
        return self._before[0] is None

    @property
    def title(self) -> str:
        """The first and the last time, in words."""
        return f"{TIME} from {self._times[0]:.6g} to {self._times[1]:.6g}"

    @property
    def has_solution(self) -> bool:
        """Whether the whole problem has an exact solution."""
        return self._whole.has_solution

    def solution(self, x: Tensor) -> Tensor:
        """The exact solution of the whole problem."""
        return self._whole.solution(x)

    def conditions(self) -> Sequence[Condition]:
        """The conditions of the whole problem in this window."""
        return [self._continued(condition) for condition in self._whole.checked_conditions()]

    def _continued(self, condition: Condition) -> Condition:
        where, (before,) = condition.where, self._before
        if isinstance(where, Measured):
            raise ValueError(f"windows: {condition.name} is of measured values; give windows=1")
        self._check_times(condition)
        if not isinstance(where, Boundary):
            return condition
        if TIME in where.parts or f"{TIME}+" in where.parts:
            raise ValueError(
                f"windows: {condition.name} is of the end of the time, which the first windows do "
                "not reach; give windows=1"
            )
        if f"{TIME}-" not in where.parts:
            return condition
        if where.parts != (f"{TIME}-",):
            raise ValueError(
                f"windows: {condition.name} is of the start and of {where.parts}; give each a "
                "condition of its own"
            )
        if before is None:
            return condition

        def target(x: Tensor) -> Tensor:
            normal = where.normals(x)
            rows, _ = trace(condition, self.names, x, normal)
            with torch.no_grad():
                jet = before.jet(x.to(before.network.params.device), rows)
                values = Jet(jet.data.to("cpu", torch.float64), jet.rows, jet.names)
            return equations(condition, x, values, normal).detach()

        return replace(condition, target=target)

    def _check_times(self, condition: Condition) -> None:
        """Refuse a condition over the whole time, which was made from another domain than
        `domain`."""
        where = condition.where
        domain = getattr(where, "domain", where)
        if not isinstance(domain, Domain) or TIME not in domain.axes:
            return
        own = self.domain.bounds[self.domain.axes.index(TIME)]
        low, high = domain.bounds[domain.axes.index(TIME)]
        margin = 1e-9 * (own[1] - own[0])
        if low < own[0] - margin or high > own[1] + margin:
            raise ValueError(
                f"windows: {condition.name} is from {TIME} = {low:g} to {high:g} in the window "
                f"{own[0]:g} to {own[1]:g}: let `conditions` use self.domain, which is the window's"
            )


def _between(domain: Domain, times: tuple[float, float]) -> Domain:
    """The part of a domain between two times."""
    if isinstance(domain, Box) and TIME in domain.axes:
        return Box(**(domain.sides | {TIME: times}))
    if isinstance(domain, Product):
        parts = (domain.first, domain.second)
        first, second = (_between(p, times) if TIME in p.axes else p for p in parts)
        if TIME in domain.axes:
            return Product(first, second)
    raise ValueError(
        f"windows: {domain} has no axis {TIME!r} that could be cut; give a Box with it, or a "
        "product with an Interval, or windows=1"
    )


def n_windows(windows: Windows) -> int:
    """The number of windows: the given number, or one more than the number of given times."""
    return len(windows) + 1 if isinstance(windows, Sequence) else windows


def times(domain: Domain, windows: Windows) -> list[float]:
    """The times at which windows of the same length begin and end, or windows between given times.

    >>> from diffhash.geometry import Interval
    >>> times(Interval(t=(0, 3)), 2), times(Interval(t=(0, 3)), [0.5])
    ([0.0, 1.5, 3.0], [0.0, 0.5, 3.0])

    Raises:
        ValueError: the number is out of range, the domain has no time, or given times are not
            ascending numbers between its first and its last time.
    """
    if isinstance(windows, str) or not isinstance(windows, Sequence):
        check_sizes(1, _MAX_WINDOWS, windows=windows)
    check_sizes(1, _MAX_WINDOWS, windows=n_windows(windows))
    if TIME not in domain.axes:
        raise ValueError(f"windows={windows}: {domain} has no axis {TIME!r}; give 1")
    low, high = map(float, domain.bounds[domain.axes.index(TIME)])
    if not isinstance(windows, Sequence):
        return [low + (high - low) * k / windows for k in range(windows)] + [high]
    inner = [*windows]
    are_numbers = all(isinstance(t, Real) and not isinstance(t, bool) for t in inner)
    ends = [low, *inner, high]
    if not inner or not are_numbers or not all(first < second for first, second in pairwise(ends)):
        raise ValueError(
            f"windows={windows}: give the times at which windows end and others begin, ascending "
            f"numbers above {low:g} and below {high:g}"
        )
    return [*map(float, ends)]


class WindowedField(nn.Module):
    """The fields of consecutive windows as one field: at each point the field of that window.

    Args:
        fields: the field of each window, in the order of time.
        times: the times at which the windows begin and end, one more than there are fields.
    """

    def __init__(self, fields: Sequence[Field], times: Sequence[float]) -> None:
        super().__init__()
        self.fields = nn.ModuleList(fields)
        first = fields[0]
        self.names, self.network, self.encoding = first.names, first.network, first.encoding
        self.n_replicas = None
        self.times = list(times)
        self._axis = self.names.axes.index(TIME)
        self.register_buffer("inner_times", torch.tensor(times[1:-1], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """The unknowns ``[N, C]`` at points ``x [N, d]``."""
        return self._joined(x, lambda field, x: field(x))

    def jet(self, x: Tensor, rows: Rows = 2) -> Jet:
        """The unknowns and their derivatives; see `Field.jet`."""
        rows = jet_rows(rows, x.shape[1], self.names)
        data = self._joined(x, lambda field, x: field.jet(x, rows).data)
        return Jet(data, rows, self.names)

    def plan(self, x: Tensor, rows: Rows = 2) -> _Fixed:
        """The field at fixed points; see `Field.plan`."""
        return _Fixed(self, x, rows)

    def _joined(self, x: Tensor, values: Callable[[Any, Tensor], Tensor]) -> Tensor:
        times = self.inner_times
        assert isinstance(times, Tensor)
        window = torch.bucketize(x[:, self._axis].double().detach().contiguous(), times, right=True)
        if torch.compiler.is_exporting():  # the program must be the same for any number of points
            every = torch.stack([values(field, x) for field in self.fields])
            chosen = window[:, None].expand(every.shape[1:])
            return every.gather(0, chosen[None])[0]
        order = window.argsort(stable=True)
        counts = window.bincount(minlength=len(self.fields)).tolist()
        parts = [
            values(field, part)
            for field, part in zip(self.fields, x[order].split(counts), strict=True)
        ]
        return torch.cat(parts, dim=-2)[..., order.argsort(), :]


class _Fixed:
    def __init__(self, field: WindowedField, x: Tensor, rows: Rows) -> None:
        self._field, self._x, self._rows = field, x, rows

    def jet(self) -> Jet:
        with torch.no_grad():
            return self._field.jet(self._x, self._rows)
