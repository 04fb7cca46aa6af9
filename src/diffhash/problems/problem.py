"""Differential equations: a domain, unknowns, conditions and, if known, the exact solution."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffhash.geometry import Domain, Periodic, Surface
from diffhash.jets import Jet, Names, Row, Sum, autograd_jet, jet_rows, varies
from diffhash.problems.coefficient import Coefficient
from diffhash.problems.condition import EXACT, Condition, Measured
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.reference import CLOSED_FORM, Reference
from diffhash.problems.tracer import computed, equations, trace


class Problem(nn.Module, ABC):
    """A differential equation: unknowns on a domain, and the conditions that they satisfy.

    A subclass gives the domain, the names of the unknowns, the conditions and, if it is known, the
    exact solution. Points and exact values are float64. Numbers in a residual that are not a
    `Coefficient` are constants, which are read when training is prepared.

    >>> from diffhash.geometry import Interval
    >>> class Oscillator(Problem):
    ...     unknowns = ("u",)
    ...     domain = Interval(t=(0, 1))
    ...     def conditions(self):
    ...         return [
    ...             Condition("motion", self.domain, lambda x, d: d.u_tt + d.u),
    ...             Condition("start", self.domain.initial(), lambda x, d: stack(d.u - 1, d.u_t)),
    ...         ]
    ...     def solution(self, x):
    ...         return x[:, 0].cos()
    >>> sorted(Oscillator().derivatives)
    ['u', 'u_t', 'u_tt']

    Attributes:
        unknowns: the names of the components of u, ``("u",)`` by default.
        periodic: the names of the axes along which the unknowns have the domain's length as their
            period. The default field is periodic there, with all its derivatives.
        domain: the domain of the unknowns. Its axes, in their order, are the columns of points.
        parts: parts of the domain, by the names of the unknowns that are defined only there, such
            as on one side of an interface. Errors of these unknowns are computed there.
    """

    unknowns: tuple[str, ...] = ("u",)
    periodic: tuple[str, ...] = ()
    domain: Domain
    parts: Mapping[str, Domain] = MappingProxyType({})

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # A subclass may set coefficients without a call of super().__init__() before.
        made = super().__new__(cls)
        nn.Module.__init__(made)
        return made

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        for name, value in vars(cls).items():
            if isinstance(value, nn.Parameter):
                raise ValueError(
                    f"{cls.__name__}.{name}: a coefficient of the class would not be trained; set "
                    f"it in __init__, self.{name} = {type(value).__name__}(…)"
                )

    def __init__(self) -> None:
        """Do nothing, because ``__new__`` has initialised the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            TypeError: the attribute is a `Coefficient`, and the value is none, such as a number.
        """
        try:
            super().__setattr__(name, value)
        except TypeError as error:
            if not isinstance(self._parameters.get(name), Coefficient):
                raise
            raise TypeError(
                f"{type(self).__name__}.{name}={value!r}: it is a Coefficient; set its value by "
                f"problem.{name}.data.fill_(…), or give another Coefficient(…)"
            ) from error

    @abstractmethod
    def conditions(self) -> Sequence[Condition]:
        """The conditions that the unknowns have to satisfy."""

    def solution(self, x: Tensor) -> Tensor:
        """The exact unknowns at points ``x [N, d]``, computed by torch operations: ``[N]`` for one,
        or ``[N, C]`` joined by `stack`. A subclass need not define it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no exact solution: define `solution`, or give its "
            "conditions a target"
        )

    #: A method of points ``x [N, d]`` that gives g and φ, each ``[N]`` or ``[N, C]``, for fields
    #: u = g + φ · network that satisfy conditions where φ = 0 exactly; None without.
    ansatz: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    @property
    def reference(self) -> Reference | None:
        """The methods by which `solution` was obtained, and its error; None without a solution."""
        return None if type(self).solution in (None, Problem.solution) else CLOSED_FORM

    @property
    def has_solution(self) -> bool:
        """Whether the exact solution is known."""
        return self.reference is not None

    @property
    def names(self) -> Names:
        """The names of the axes and of the unknowns.

        Raises:
            ValueError: there is no domain, two unknowns have the same name, a derivative would have
                the name of another or of an unknown, or an axis of `periodic` is none.
        """
        if not isinstance(getattr(self, "domain", None), Domain):
            got = getattr(self, "domain", None)
            raise ValueError(
                f"{type(self).__name__}.domain={got!r}: give a domain of diffhash.geometry, such "
                "as Box(x=(0, 1), y=(0, 1))"
            )
        unknowns = tuple(self.unknowns)
        fits = all(isinstance(name, str) and name.isidentifier() for name in unknowns)
        taken = isinstance(self.unknowns, str) and len(unknowns) > 1
        if not unknowns or taken or not fits or len(set(unknowns)) < len(unknowns):
            raise ValueError(
                f"{type(self).__name__}.unknowns={self.unknowns!r}: give different names, "
                "('u',) or ('u', 'v')"
            )
        axes = self.domain.axes
        for axis in axes:
            others = "|".join(map(re.escape, {*axes} - {axis}))
            if axis == "n" or (others and re.fullmatch(f"({others})+", axis)):
                read = "along the normal of a boundary" if axis == "n" else f"along {others}"
                raise ValueError(
                    f"{type(self).__name__}.domain: the axis {axis!r} needs another name: "
                    f"{unknowns[0]}_{axis} is a derivative {read.replace('|', ', ')}"
                )
        for one in unknowns:
            if one in axes or one.startswith("exact_"):
                column = "an axis" if one in axes else "exact values"
                raise ValueError(
                    f"{type(self).__name__}.unknowns={self.unknowns!r}: {one!r} is the name of "
                    f"{column} in files of values; give it another name"
                )
            derivatives = rf"({'|'.join(map(re.escape, unknowns))})_(n|({'|'.join(axes)})+)"
            if re.fullmatch(derivatives, one):
                raise ValueError(
                    f"{type(self).__name__}.unknowns={self.unknowns!r}: {one!r} is a derivative of "
                    "another unknown as well; give it another name"
                )
        periodic = self.periodic
        if not isinstance(periodic, Iterable) or any(axis not in axes for axis in periodic):
            raise ValueError(
                f"{type(self).__name__}.periodic={periodic!r}: give names of the domain's axes, "
                f"{axes}, as ({axes[0]!r},)"
            )
        return Names(axes, unknowns)

    def checked_conditions(self) -> list[Condition]:
        """The list of `conditions`, after a check that there is one and that names differ.

        Raises:
            ValueError: there is no condition, one is no `Condition`, two have the same name, or the
                domain has no two sides across an axis of `periodic`.
        """
        _ = self.names
        for axis in self.periodic:
            self.domain.periodic(axis)
        made: Any = self.conditions()
        made = list(made) if isinstance(made, Iterable) else [made]
        if not made or not all(isinstance(condition, Condition) for condition in made):
            kinds = ", ".join(type(condition).__name__ for condition in made) or "none"
            raise ValueError(
                f"{type(self).__name__}.conditions: {kinds}; give a list of at least one Condition"
            )
        names = [condition.name for condition in made]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"{names.count(name)} conditions are named {name!r}: give each its own"
                )
        return made

    @property
    def n_dims(self) -> int:
        """The number of axes of the domain."""
        return len(self.domain.axes)

    def labels(self, where: Domain | None = None, name: str = "data") -> Condition:
        """The exact values of all unknowns as a condition, in the whole domain or a part of it."""
        return Condition(name, where or self.domain, self._all_unknowns, EXACT, kind="labels")

    def _all_unknowns(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(*(getattr(d, unknown) for unknown in self.unknowns))

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of a jet with every derivative that the conditions read.

        Raises:
            ValueError: a condition cannot be evaluated.
        """
        rows: set[Row] = set()
        for condition in self.checked_conditions():
            x, normal = points_of(condition, self.domain, _SAMPLE)
            rows.update(trace(condition, self.names, x, normal)[0])
        return jet_rows(frozenset(rows), self.n_dims)

    @property
    def derivatives(self) -> list[str]:
        """Names of the unknowns and of their derivatives that the conditions read, as in `rows`."""
        return self.derivatives_of(self.rows)

    def derivatives_of(self, rows: Sequence[Row]) -> list[str]:
        """The names of the derivatives ``rows`` of every unknown, one unknown after the other."""
        return [
            derivative_name(unknown, row, self.domain.axes)
            for unknown in self.unknowns
            for row in rows
        ]

    def exact_jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        """The jet of the exact solution at points ``x [N, d]``, without a graph.

        Raises:
            ValueError: `solution` cannot be computed, does not return ``[N]`` or ``[N, C]``, or is
                not computed by operations that autograd can differentiate.
        """
        n_components = len(self.unknowns)

        def checked(x: Tensor) -> Tensor:
            with computed(f"{type(self).__name__}.solution", x):
                u = self._columns(x)
            # Broadcasting would silently turn N errors into N².
            if not isinstance(u, Tensor) or u.shape != (len(x), n_components):
                got = list(u.shape) if isinstance(u, Tensor) else type(u).__name__
                raise ValueError(
                    f"{type(self).__name__}.solution must return the shape "
                    f"{[len(x), n_components]}, got {got}"
                )
            if len(rows) > 1 and not u.requires_grad and varies(self._columns, x, u):
                raise ValueError(
                    f"{type(self).__name__}.solution varies with x where autograd cannot see it, "
                    "and its derivatives would be 0: compute it by torch operations, without "
                    "numpy and detach()"
                )
            return u

        jet = autograd_jet(checked, x.cpu(), rows).only(rows)
        return Jet(jet.data.detach().to(x.device), rows, self.names)

    def _columns(self, x: Tensor) -> Tensor:
        """The solution as columns ``[N, C]``, also for one unknown."""
        u = self.solution(x)
        return u[:, None] if isinstance(u, Tensor) and u.shape == (len(x),) else u

    def target(self, condition: Condition, x: Tensor, normal: Tensor | None = None) -> Tensor:
        """The target of a condition's residual at ``x``, ``[N, E]`` in float64.

        Raises:
            ValueError: the target has another shape than the residual, or is ``"exact"`` where the
                solution, or the true value of a coefficient, is not known.
        """
        rows, n_equations = trace(condition, self.names, x, normal)
        target = condition.target
        if isinstance(target, str):
            if target != EXACT:
                raise ValueError(f"{condition.name}: target={target!r}: the only word is 'exact'")
            if not self.has_solution:
                raise ValueError(
                    f"{condition.name}: target=exact needs the exact solution of "
                    f"problem={type(self).__name__}, which has none: define `solution`, or give a "
                    "number or a function of x"
                )
            return self._exact_residual(condition, x, rows, normal)
        # Functions of a problem are called with points on the CPU, whatever the training device.
        value = target
        if callable(target):
            with computed(f"{condition.name}: its target", x):
                value = target(x.cpu())
        if isinstance(value, (int, float)):
            shape = (len(x), n_equations)
            return torch.full(shape, float(value), dtype=torch.float64, device=x.device)
        if isinstance(value, Tensor) and value.shape == (len(x),):
            value = value[:, None]
        if not isinstance(value, Tensor) or value.shape != (len(x), n_equations):
            got = type(value).__name__
            if isinstance(value, Tensor):
                got = f"of the shape {list(value.shape)}"
            raise ValueError(
                f"{condition.name}: its target is {got} at {len(x)} points, its residual of the "
                f"shape {[len(x), n_equations]}: give a number, or a tensor of that shape"
            )
        if value.is_complex():
            raise ValueError(f"{condition.name}: its target is {value.dtype}; give real numbers")
        if value.requires_grad:
            raise ValueError(
                f"{condition.name}: its target requires a gradient, but only its residual is "
                "trained; subtract it there"
            )
        return value.to(x.device, torch.float64)

    def _exact_residual(
        self, condition: Condition, x: Tensor, rows: tuple[Row, ...], normal: Tensor | None
    ) -> Tensor:
        """The residual of the exact solution, with the true values of trained coefficients."""
        named = {name: p for name, p in self.named_parameters() if p.requires_grad}
        true = {
            name: torch.full_like(p, p.true)
            for name, p in named.items()
            if isinstance(p, Coefficient) and p.true is not None
        }
        jet = self.exact_jet(x, rows)
        with torch.enable_grad():
            start = equations(condition, x, jet, normal)
        if not start.requires_grad:
            return start
        with _values(self, true):
            value = equations(condition, x, jet, normal)
        unknown = [name for name in named if name not in true]
        if value.requires_grad and unknown:
            of = [named[name] for name in unknown]
            found = torch.autograd.grad(value.sum(), of, allow_unused=True)
            read = [name for name, g in zip(unknown, found, strict=True) if g is not None]
            if read:
                raise ValueError(
                    f"{condition.name}: target=exact needs the true value of {', '.join(read)}, "
                    "which is trained: give Coefficient(…, true=…), or a target of numbers"
                )
        return value.detach()


_SAMPLE = 8  # the number of points at which a residual is traced
_MARGIN = 1e-6  # the distance beyond the domain that is allowed, relative to its width


@contextmanager
def _values(problem: Problem, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Set parameters of the problem to other values within the block."""
    own = {name: parameter.data for name, parameter in problem.named_parameters()}
    parameters = dict(problem.named_parameters())
    try:
        for name, value in values.items():
            parameters[name].data = value
        yield
    finally:
        for name in values:
            parameters[name].data = own[name]


def derivative_name(unknown: str, row: Row, axes: Sequence[str]) -> str:
    """The name of a derivative, such as ``u_xy``, from its unknown and its multi-index."""
    assert not isinstance(row, Sum)
    letters = "".join(axis * m for axis, m in zip(axes, row, strict=True))
    return f"{unknown}_{letters}" if letters else unknown


def points_of(
    condition: Condition, domain: Domain, n: int, rule: str = "even", seed: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Draw ``n`` points ``[n, d]`` of a condition, and their outward normals on a boundary.

    Measured points are all taken, whatever ``n`` is. Pairs of points are ``[2n, d]``, with the
    first points of all pairs before the second ones.

    Raises:
        ValueError: points are not finite, have other axes than the domain, or lie beyond its
            bounds.
    """
    where, normal = condition.where, None
    if where.axes not in (None, domain.axes):
        rename = "; columns of data can be renamed" * isinstance(where, Measured)
        raise ValueError(
            f"{condition.name}: its points are of the axes {where.axes}; give those of the "
            f"problem's domain, {domain.axes}{rename}"
        )
    if isinstance(where, Measured):
        x = where.x
    elif isinstance(where, Periodic):
        x = torch.cat(where.sample(n, rule, seed))
    else:
        x = where.sample(n, rule, seed)
        normal = where.normals(x) if isinstance(where, Surface) else None
    if x.shape[1] != domain.n_dims:
        raise ValueError(
            f"{condition.name}: its points have the shape {list(x.shape)}; give "
            f"[N, {domain.n_dims}], a column for each of the axes {domain.axes}"
        )
    check_within(condition.name, domain, x)
    return x, normal


def check_within(name: str, domain: Domain, x: Tensor, but: Sequence[str] = ()) -> None:
    """Check that points ``x [N, d]`` lie between the bounds of a domain.

    Args:
        name: the name with which the message begins.
        domain: the domain, with axes in the order of the columns.
        x: the points.
        but: names of axes along which a point may lie anywhere.

    Raises:
        ValueError: a point lies beyond the bounds, or is NaN.
    """
    low, high = torch.tensor(domain.bounds, dtype=x.dtype, device=x.device).T
    margin = _MARGIN * (high - low)
    outside = ~((x >= low - margin) & (x <= high + margin))  # NaN is outside as well
    for axis in but:
        outside[:, domain.axes.index(axis)] = False
    if outside.any():
        point, axis = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: {domain.axes[axis]} = {x[point, axis].item():g} of its point {point + 1} is "
            f"not in the problem's domain, {low[axis]:g} to {high[axis]:g}"
        )
