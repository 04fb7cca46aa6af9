"""The loss: a weighted sum of terms, and the problem whose coefficients are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from diffhash.jets import Jet
from diffhash.optim.term import Term
from diffhash.problems import Problem


class Objective(nn.Module):
    """The loss: the sum of its terms.

    Args:
        problem: the problem whose coefficients are trained with the field.
        terms: the terms, in the order of the history's columns.

    Attributes:
        parts: the value that each term added to the latest `loss`, without a graph.

    Raises:
        ValueError: there are no terms, one is not a `Term`, or two have the same name.
    """

    def __init__(self, problem: Problem, terms: Iterable[Term]) -> None:
        super().__init__()
        terms = list(terms)
        if not terms or not all(isinstance(term, Term) for term in terms):
            kinds = ", ".join(type(term).__name__ for term in terms) or "none"
            raise ValueError(f"terms: {kinds}; give at least one Term, and nothing else")
        self.problem = problem
        self._terms = nn.ModuleList(terms)
        self.parts: list[Tensor] = []
        names = [term.name for term in self.terms]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} terms are named {name!r}: give each its own")

    @property
    def terms(self) -> list[Term]:
        """The terms of the loss."""
        return [term for term in self._terms if isinstance(term, Term)]

    def chosen(self, conditions: Sequence[str] | str | None, but: bool = False) -> list[int]:
        """Indices of the terms that belong to chosen conditions.

        Args:
            conditions: names of conditions, or one name; None for all of the kind ``"residual"``.
            but: whether None means all conditions that are not of that kind.

        Raises:
            ValueError: no condition has a given name, there is no condition of the kind, or
                `conditions` is no list of names.
        """
        names = [term.name for term in self.terms]
        if conditions is None:
            kinds = [term.condition.kind == "residual" for term in self.terms]
            found = [index for index, is_residual in enumerate(kinds) if is_residual != but]
            wanted = "other than" if but else "that is"
            if not found:
                raise ValueError(
                    f"conditions=None: there is none {wanted} an equation in the domain; give "
                    f"names, there are {', '.join(names)}"
                )
            return found
        given = [conditions] if isinstance(conditions, str) else conditions
        if not isinstance(given, Iterable) or not (given := list(given)):
            raise ValueError(
                f"conditions={conditions!r}: give a list of names; there are {', '.join(names)}"
            )
        for name in given:
            if name not in names:
                raise ValueError(
                    f"conditions={given}: no condition is named {name!r}; there are "
                    f"{', '.join(names)}"
                )
        return [names.index(name) for name in given]

    def shard(self, index: int, count: int) -> Objective:
        """Part ``index`` of ``count`` of the loss. The losses of all parts add up to the whole, and
        so do their gradients.

        Raises:
            ValueError: a term has fewer points than there are parts.
        """
        return Objective(self.problem, [term.shard(index, count) for term in self.terms])

    def loss(self, jets: Sequence[Jet], rows: Sequence[Tensor | None] | None = None) -> Tensor:
        """Σ_i weight_i · mean(error_i²): a scalar, or ``[R]`` for replicas.

        Args:
            jets: the jet of u at each term's points.
            rows: indices of the points of each term at which ``jets`` were taken; None for all.

        Raises:
            ValueError: a residual is not one number for each of its term's targets.
        """
        indices = [None] * len(jets) if rows is None else rows
        parts = [
            term.loss(jet, index)
            for term, jet, index in zip(self.terms, jets, indices, strict=True)
        ]
        if not torch.compiler.is_compiling():
            self.parts = [part.detach() for part in parts]
        return sum(parts[1:], parts[0])
