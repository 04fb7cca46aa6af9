"""Losses over points and their gradients, with little or no autograd.

A graph of the field would cost as much as a small step. A term that is linear in u is one C kernel,
if the kernel supports it. For any other term autograd records only the arithmetic of the loss, a
few numbers at each point.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffhash.encodings.encoding import add_gradient
from diffhash.jets import Jet
from diffhash.networks import FieldPlan
from diffhash.optim import Objective, Term
from diffhash.training.steps import Rows


class PlannedBackward:
    """Computes the loss of a task over all points or a minibatch, and adds its gradients to the
    parameters' ``grad``.

    Args:
        objective: the loss.
        plans: the plan of the field at each term's points.
    """

    def __init__(self, objective: Objective, plans: Sequence[FieldPlan]) -> None:
        self._problem = objective.problem
        self._terms = list(map(_PlannedTerm, objective.terms, plans))
        self._groups: dict[tuple[bool, ...], _Group] = {}
        self._all: _Group | None = None
        self._latest: _Group

    def __call__(self, rows: Rows = None) -> Tensor:
        """Compute the loss, a scalar or ``[R]`` for replicas, and add its gradients.

        Args:
            rows: indices of the points of each term; None for all points.
        """
        if rows is not None:
            group = self._group([t.part(index) for t, index in zip(self._terms, rows, strict=True)])
        else:
            if self._all is None:
                self._all = self._group([planned.whole for planned in self._terms])
            group = self._all
        self._latest = group
        return group.backward()

    def update(self, index: int) -> None:
        """Update the linear form of a term, after its points and their plan have moved."""
        self._terms[index].update()

    @property
    def parts(self) -> list[Tensor]:
        """The value that each term added to the latest loss, in the order of the terms."""
        return self._latest.losses

    def _group(self, parts: list[_Part]) -> _Group:
        key = tuple(part.least_squares is not None for part in parts)
        if key not in self._groups:
            others = [part.term for part in parts if part.least_squares is None]
            self._groups[key] = _Group(Objective(self._problem, others) if others else None)
        group = self._groups[key]
        group.parts = parts
        group.linear = [part for part in parts if part.least_squares is not None]
        return group


class _Part:
    """A term at all of its points, or at some of them.

    Args:
        term: the term.
        plan: the plan of the field at these points.
        form: the coefficients and the target of the term's linear form; None if it has none.
        index: the indices of these points; None for all.
    """

    def __init__(
        self,
        term: Term,
        plan: FieldPlan,
        form: tuple[Tensor, Tensor] | None,
        index: Tensor | None = None,
    ) -> None:
        self.term, self.plan, self.index = term, plan, index
        self.least_squares = None if form is None else plan.least_squares(*form)

    def backward(self) -> Tensor:
        """Compute the loss of a linear term, and add its gradients."""
        term, index = self.term, self.index
        assert self.least_squares is not None
        weight = term.present_weight
        if term.is_plain:
            return self.least_squares(weight)
        errors = term.kept_errors
        if errors is not None and index is not None:
            errors = errors.new_empty((*errors.shape[:-2], len(index), errors.shape[-1]))
        weights = term.weights_of_points(self.least_squares.dtype, index)
        loss = self.least_squares(weight, weights, errors)
        if errors is not None and index is not None:
            term.keep_errors(errors, index)
        return loss


class _Group:
    """The terms of a step: those that the kernel computes, and the others."""

    def __init__(self, others: Objective | None) -> None:
        self._others = others
        self.parts: list[_Part] = []
        self.linear: list[_Part] = []
        self._latest: list[Tensor] = []  # losses of the linear terms

    def backward(self) -> Tensor:
        """Compute the loss, and add its gradients."""
        losses = self._latest = [part.backward() for part in self.linear]
        if self._others is not None:
            losses = [*losses, self._through_jets(self._others)]
        return sum(losses[1:], losses[0])

    @property
    def losses(self) -> list[Tensor]:
        """The latest loss of each term."""
        linear = iter(self._latest)
        others = iter(self._others.parts if self._others is not None else ())
        return [next(others if part.least_squares is None else linear) for part in self.parts]

    def _through_jets(self, objective: Objective) -> Tensor:
        parts = [part for part in self.parts if part.least_squares is None]
        fields = [part.plan.jet_and_vjp() for part in parts]
        jets = [Jet(jet.data.requires_grad_(True), jet.rows, jet.names) for jet, _ in fields]
        loss = objective.loss(jets, [part.index for part in parts])
        coefficients = list(objective.problem.parameters())
        leaves = [*(jet.data for jet in jets), *coefficients]
        ones = torch.ones_like(loss)
        gradients = torch.autograd.grad(loss, leaves, ones, allow_unused=True)
        for (_, vjp), jet, gradient in zip(fields, jets, gradients, strict=False):
            vjp(torch.zeros_like(jet.data) if gradient is None else gradient)
        for coefficient, gradient in zip(coefficients, gradients[len(jets) :], strict=True):
            if gradient is not None:
                add_gradient(coefficient, gradient)
        return loss.detach()


class _PlannedTerm:
    """A term with a plan of its points, and plans of minibatches of each size."""

    def __init__(self, term: Term, plan: FieldPlan) -> None:
        self._term, self._plan = term, plan
        self._form = term.kernel_form()
        self._whole: _Part | None = None
        self._parts: dict[int, _Part] = {}

    @property
    def whole(self) -> _Part:
        """The term at all points."""
        if self._whole is None:
            self._whole = _Part(self._term, self._plan, self._form)
        return self._whole

    def part(self, index: Tensor) -> _Part:
        """The term at the points ``index``. It replaces an earlier part with as many points."""
        part, form = self._parts.get(len(index)), self._form
        if form is not None:
            coefficients, target = form
            form = coefficients[:, :, index], target[index]
        if part is None:
            plan = self._plan.at(self._of_jet(index))
            part = self._parts[len(index)] = _Part(self._term, plan, form, index)
            return part
        part.index = index
        part.plan.take(self._of_jet(index))
        if part.least_squares is not None and form is not None:
            part.least_squares.put(*form)
        return part

    def update(self) -> None:
        """Update the linear form, after the term and its plan have moved."""
        self._form = self._term.kernel_form()
        kernel = None if self._whole is None else self._whole.least_squares
        if kernel is not None and self._form is not None:
            kernel.put(*self._form)

    def _of_jet(self, index: Tensor) -> Tensor:
        """The points of the jet for the term's points ``index``: both points of each pair."""
        term = self._term
        return torch.cat([index, index + len(term)]) if term.is_paired else index
