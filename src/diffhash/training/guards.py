"""Problems and fields that cannot be trained, found before training starts."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.geometry import Periodic
from diffhash.jets import Jet, expanded
from diffhash.networks import Field
from diffhash.optim import Objective, Term
from diffhash.problems import Problem
from diffhash.training.steps import Backward, Rows

_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, torch.Generator)
_LIBRARIES = {"numpy", "pandas", "torch", "lightning"}  # whose objects hold no parameters of ours


def check_objective(objective: Objective, field: Field) -> None:
    """Try an objective's residuals on a field of zeros.

    Raises:
        ValueError: a residual of a wrong shape or kind, a target beyond the field's precision,
            axes and unknowns that are not the problem's, a box that does not hold its domain, a
            missing ansatz or period, or derivatives that are zero whatever the field's parameters
            are.
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
        _check_orders(term, field)
    objective.loss(jets)


def _check_promises(problem: Problem, field: Field) -> None:
    """Refuse a field without the ansatz or the period that the problem's conditions rely on."""
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
    for axis in problem.periodic:
        if axis not in (*wraps, *sides):
            raise ValueError(
                f"field: the problem is periodic along {axis} without a condition that says so, "
                f"and the field is not: give its encoding periodic=({axes.index(axis)},), or the "
                f"problem a condition on domain.periodic({axis!r})"
            )


def periodic_axes(field: Field) -> list[str]:
    """Names of the axes along which a field is periodic by itself."""
    return [field.names.axes[axis] for axis in getattr(field.encoding, "periodic", ())]


def _check_orders(term: Term, field: Field) -> None:
    limit = field.encoding.max_order
    if limit is None or len(field.network.widths) > 2:
        return
    alphas, _ = expanded(term.rows)
    for alpha in alphas:
        if max(alpha) > limit:
            letters = "".join(axis * m for axis, m in zip(field.names.axes, alpha, strict=True))
            raise ValueError(
                f"{term.name}: it needs u_{letters}, but derivatives of more than order {limit} "
                "along an axis are zero everywhere in this field, a weighted sum of polynomial "
                "pieces: take an interpolation of a higher degree, such as quintic, or an MLP"
            )


def check_nothing_else_is_trainable(field: Field, problem: Problem, **others: object) -> None:
    """Refuse tensors that require a gradient and are not parameters of the field or the problem.

    Looked for in the field, the problem and in ``others``: parameters, buffers, plain attributes,
    lists, dictionaries, and what functions have closed over.

    Raises:
        ValueError: the message names them.
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
    """Parameters that no gradient reaches."""


def checked_once(backward: Backward, trained: nn.Module) -> Backward:
    """``backward``, whose first call refuses parameters that it has not reached.

    Raises:
        UntrainedError: from that call; the message names them.
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
