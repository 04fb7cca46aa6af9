"""Problems and fields that cannot be trained, found before training starts."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.geometry import Periodic
from diffhash.jets import Jet, Row, expanded
from diffhash.networks import Field
from diffhash.networks.ansatz import check_periods
from diffhash.optim import Objective
from diffhash.problems import Problem
from diffhash.problems.tracer import unknowns_read
from diffhash.training.steps import Backward, Rows
from diffhash.training.windows import WindowedField

_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, torch.Generator)
_LIBRARIES = {"numpy", "pandas", "torch", "lightning"}  # their objects hold no trained parameters


def check_objective(objective: Objective, field: Field) -> None:
    """Evaluate an objective on a field of zeros, to find what cannot be trained.

    Raises:
        ValueError: a residual has a wrong shape or type, a target is not finite in the field's
            type, the field's axes and unknowns are not the problem's, its box does not contain the
            problem's domain, it lacks the problem's ansatz or period or has a period that the
            problem has not, a derivative is zero whatever the field's parameters are, or no
            condition reads an unknown.
        UntrainedError: no condition reads a coefficient.
    """
    if field.names != objective.problem.names:
        own, names = field.names, objective.problem.names
        raise ValueError(
            f"field: its axes are {own.axes} and its unknowns {own.unknowns}, the problem's are "
            f"{names.axes} and {names.unknowns}: give it names=problem.names"
        )
    _check_promises(objective.problem, field)
    dtype, replicas = field.network.params.dtype, field.network.params.shape[:-1]
    n_outputs, jets = field.network.widths[-1], []
    for term in objective.terms:
        if not term.in_dtype(dtype)[1].isfinite().all():
            raise ValueError(
                f"{term.name}: its target is not finite in {dtype}; give float64, or scale u"
            )
        shape = (*replicas, len(term.rows), len(term.x), n_outputs)
        zeros = torch.zeros((), dtype=dtype, device=term.x.device).expand(shape)
        jets.append(Jet(zeros.requires_grad_(True), term.rows, field.names))
        check_orders(term.name, term.rows, field)
    loss = objective.loss(jets)
    _check_all_are_read(objective, loss)


def _check_all_are_read(objective: Objective, loss: Tensor) -> None:
    """Refuse unknowns and coefficients that no condition of the loss reads."""
    problem = objective.problem
    read = set().union(
        *(
            unknowns_read(term.condition, term.names, term.x[: len(term)], term.normal)
            for term in objective.terms
        )
    )
    names = ", ".join(term.name for term in objective.terms)
    if unread := [name for name in problem.unknowns if name not in read]:
        raise ValueError(
            f"{type(problem).__name__}.unknowns: no condition reads {', '.join(unread)} (there are "
            f"{names}), so that nothing determines it; use it in a residual, or leave it out"
        )
    trained = {name: p for name, p in problem.named_parameters() if p.requires_grad}
    if not trained:
        return
    found = [None] * len(trained)
    if loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), [*trained.values()], allow_unused=True)
    if unread := [name for name, g in zip(trained, found, strict=True) if g is None]:
        raise UntrainedError(
            f"{type(problem).__name__}.{', '.join(unread)}: no condition reads it (there are "
            f"{names}), so that it would stay as it is; use it in a residual, or freeze it "
            "(requires_grad_(False))"
        )


def _check_promises(problem: Problem, field: Field) -> None:
    """Refuse a field without the ansatz or the period that the problem's conditions rely on, or
    with a period that the problem does not have."""
    axes = problem.domain.axes
    for axis, (low, high), own in zip(axes, problem.domain.bounds, field.domain, strict=True):
        margin = 1e-6 * (high - low)
        if low < own[0] - margin or high > own[1] + margin:
            raise ValueError(
                f"field: its domain along {axis} is {own[0]:g} to {own[1]:g}, the problem's "
                f"{low:g} to {high:g}: give it domain=problem.domain.bounds"
            )
    if problem.ansatz is not None and field.ansatz is None:
        raise ValueError(
            "field: the problem has an ansatz, which the field has not: give it "
            "ansatz=problem.ansatz"
        )
    wraps = periodic_axes(field)
    sides = [c.where.axis for c in problem.checked_conditions() if isinstance(c.where, Periodic)]
    for axis, (low, high), own in zip(axes, problem.domain.bounds, field.domain, strict=True):
        is_periodic, period = axis in (*problem.periodic, *sides), own[1] - own[0]
        is_wider = period > (1 + 1e-6) * (high - low)  # the period is then not one of the domain
        if axis in wraps and is_periodic and is_wider:
            raise ValueError(
                f"field: its period along {axis} is {period:g}, the width of its domain; the "
                f"problem's is {high - low:g}: give it domain=problem.domain.bounds"
            )
        if axis in wraps and not is_periodic and not is_wider:
            raise ValueError(
                f"field: it is periodic along {axis}, and the problem is not: leave "
                f"{axes.index(axis)} out of its encoding's periodic, or give the problem "
                f"periodic=({axis!r},)"
            )
        if axis in problem.periodic and axis not in (*wraps, *sides):
            raise ValueError(
                f"field: the problem is periodic along {axis} without a condition that says so, "
                f"and the field is not: give its encoding periodic=({axes.index(axis)},), or the "
                f"problem a condition on domain.periodic({axis!r})"
            )
    if field.ansatz is not None:
        check_periods(field.ansatz, field.domain, [axes.index(axis) for axis in wraps], field.names)


def periodic_axes(field: Field | WindowedField) -> list[str]:
    """Names of the axes along which a field is periodic by itself."""
    return [field.names.axes[axis] for axis in getattr(field.encoding, "periodic", ())]


def check_orders(what: str, rows: tuple[Row, ...], field: Field | WindowedField) -> None:
    """Refuse derivatives that are zero everywhere in a weighted sum of splines, because their order
    is above the degree.

    Raises:
        ValueError: ``what`` reads such a derivative.
    """
    limit = field.encoding.max_order
    if limit is None or len(field.network.widths) > 2:
        return
    alphas, _ = expanded(rows)
    for alpha in alphas:
        if max(alpha) > limit:
            letters = "".join(axis * m for axis, m in zip(field.names.axes, alpha, strict=True))
            raise ValueError(
                f"{what}: it needs u_{letters}, but derivatives of more than order {limit} "
                "along an axis are zero everywhere in this field, a weighted sum of polynomial "
                "pieces: take an interpolation of a higher degree, such as quintic, or an MLP"
            )


def check_nothing_else_is_trainable(field: Field, problem: Problem, **others: object) -> None:
    """Refuse tensors that require a gradient and are not parameters of the field or the problem.

    The search goes through parameters, buffers, attributes, lists, dictionaries and the closures of
    functions in the field, in the problem and in ``others``.

    Raises:
        ValueError: there are such tensors, which the message names.
    """
    trained = [*field.parameters(), *problem.parameters()]
    seen = {id(parameter) for parameter in trained}
    if not any(parameter.requires_grad for parameter in trained):
        raise ValueError("field: none of its parameters requires a gradient: nothing to train")
    if found := list(_trainable({"field": field, "problem": problem, **others}, seen)):
        raise ValueError(
            f"{', '.join(found)}: requires a gradient, but only parameters of the field and "
            "coefficients of the problem are trained; make it a constant (requires_grad_(False)), "
            "a registered parameter of the encoding or network, or a Coefficient of the problem"
        )


class UntrainedError(ValueError):
    """A parameter that no gradient reaches, so that training would leave it as it is."""


def checked_once(backward: Backward, trained: nn.Module) -> Backward:
    """``backward`` with a check, after its first call, that a gradient has reached all parameters.

    Raises:
        UntrainedError: the first call raises it, and names the parameters.
    """
    is_checked = False

    def checked(rows: Rows) -> Tensor:
        nonlocal is_checked
        losses = backward(rows)
        if not is_checked:
            _check_gradients(trained)
            is_checked = True
        return losses

    return checked


def _check_gradients(trained: nn.Module) -> None:
    parameters = trained.named_parameters()
    missed = [name for name, p in parameters if p.requires_grad and p.grad is None]
    if missed:
        raise UntrainedError(
            f"{', '.join(missed)}: gets no gradient from the loss and would stay as it is; use it "
            "in the jets of its encoding or network, or freeze it (requires_grad_(False))"
        )


def _trainable(roots: Mapping[str, object], seen: set[int]) -> Iterator[str]:
    """Names of the tensors in ``roots`` that require a gradient, but for those ``seen``."""
    left: list[tuple[str, Any]] = list(roots.items())[::-1]
    while left:
        name, value = left.pop()
        if value is None or isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        if not isinstance(value, Tensor):
            left += reversed([(f"{name}{key}", part) for key, part in _parts(value)])
        elif value.requires_grad:
            yield name


def _parts(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, functools.partial):
        yield from (("", part) for part in (value.func, value.args, value.keywords))
    elif isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        for free, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield f".{free}", cell.cell_contents
            except ValueError:  # not yet assigned
                continue
        yield ".defaults", value.__defaults__
    elif isinstance(value, nn.Module):
        own = vars(value)
        for registry in ("_parameters", "_buffers", "_modules"):
            yield from ((f".{key}", part) for key, part in own[registry].items())
        yield from ((f".{key}", part) for key, part in own.items() if key not in _MODULE_ATTRIBUTES)
    elif type(value).__module__.partition(".")[0] not in _LIBRARIES:
        yield from ((f".{key}", part) for key, part in getattr(value, "__dict__", {}).items())


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
