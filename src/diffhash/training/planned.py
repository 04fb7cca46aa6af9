"""Losses over fixed points and their gradients, with little or no autograd.

A graph of the field would cost as much as a small step. A term that is linear in u is one C kernel,
where it can be had; of any other, autograd sees the loss's own arithmetic alone, a few numbers a
point.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffhash.jets import Jet
from diffhash.networks import FieldPlan, FieldSquares
from diffhash.tasks import Task, Term


class PlannedBackward:
    """The loss of a task, its gradients added to the parameters' ``grad``.

    Args:
        task: what is minimised.
        plans: of the field at each term's points.
    """

    def __init__(self, task: Task, plans: Sequence[FieldPlan]) -> None:
        self._squares: list[tuple[Term, FieldSquares]] = []
        self._latest: list[Tensor] = []  # losses of those terms
        others: list[Term] = []
        self._plans: list[FieldPlan] = []
        for term, plan in zip(task.terms, plans, strict=True):
            squares = None
            if term.coefficients is not None:
                squares = plan.squares(term.coefficients, term.target)
            if squares is not None:
                self._squares.append((term, squares))
            else:
                others.append(term)
                self._plans.append(plan)
        self._others = Task(others) if others else None
        ordered = [*(term for term, _ in self._squares), *others]
        self._order = [ordered.index(term) for term in task.terms]

    def __call__(self, rows: object = None) -> Tensor:
        """The loss before the step, or ``[R]`` of replicas."""
        # The weight is read at every step: it may change.
        losses = [squares(term.fraction * term.weight.item()) for term, squares in self._squares]
        self._latest = losses
        if self._others is not None:
            losses = [*losses, self._through_jets(self._others)]
        return sum(losses[1:], losses[0])

    @property
    def parts(self) -> list[Tensor]:
        """What each term added to the latest loss, in the task's order."""
        parts = [*self._latest, *(self._others.parts if self._others else ())]
        return [parts[index] for index in self._order]

    def _through_jets(self, task: Task) -> Tensor:
        fields = [plan.jet_and_vjp() for plan in self._plans]
        jets = [Jet(jet.data.requires_grad_(True), jet.rows, jet.names) for jet, _ in fields]
        loss = task.loss(jets)
        gradients = torch.autograd.grad(
            loss, [jet.data for jet in jets], torch.ones_like(loss), materialize_grads=True
        )
        for (_, vjp), gradient in zip(fields, gradients, strict=True):
            vjp(gradient)
        return loss.detach()
