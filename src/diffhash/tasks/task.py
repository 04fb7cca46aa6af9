"""A task: which errors, over which points, make the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from diffhash.jets import Jet, Rows, jet_rows

_SPACINGS = 4  # of floating-point numbers in an interval, by which a point may be moved
ErrorFunction = Callable[[Tensor, Jet, Tensor], Tensor]  # (x, jet of u, target) → [.., N, ·]


class Term(nn.Module):
    """One part of the loss: weight · mean(error(x, u, target)²) over fixed points.

    Args:
        name: of its column in the history: ``"residual"`` is in ``loss_residual``, what this term
            adds to the ``loss`` of the same row.
        x: points ``[N, d]``; kept in float64.
        target: what the error compares with at each point, ``[N, E]`` for E equations.
        rows: derivatives of u that ``error`` reads, as in `diffhash.jets.jet_rows`.
        error: pointwise error ``[N, E]``, with a leading axis R for replicas. It gets ``x`` in
            the precision of training, or in float64 where that cannot tell the points apart.
        coefficients: c where the error is Σ_k c_k ∂_k u - target over the rows k of the jet,
            ``[K, C, N, E]``; None where it is not linear in u.
        weight: of this term; a buffer, so that it can change while training.

    Raises:
        ValueError: a tensor of another shape, with an entry that is not finite, or that requires
            a gradient (only a field's parameters are trained); a weight that is negative or not
            finite.
    """

    x: Tensor
    target: Tensor
    weight: Tensor
    coefficients: Tensor | None
    fraction = 1.0  # of the points whose mean this is a part of

    def __init__(
        self,
        name: str,
        x: Tensor,
        target: Tensor,
        rows: Rows,
        error: ErrorFunction,
        weight: float,
        coefficients: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not (isinstance(name, str) and name.isprintable() and name):
            raise ValueError(f"name={name!r}: give a term a name to be printed")
        if not isinstance(weight, Real) or not 0 <= weight < math.inf:
            raise ValueError(f"{name}_weight={weight}: give a finite number of at least 0")
        self.name = name
        # All float64, whatever the precision of training: plans use the points exactly.
        x = self._checked("x", x, "[N, d]", lambda shape: len(shape) == 2 and 0 not in shape)
        self.rows = jet_rows(rows, x.shape[1])
        n_points, n_rows = len(x), len(self.rows)
        target = self._checked(
            *("target", target, f"[{n_points}, E] for the {n_points} points of x"),
            lambda shape: len(shape) == 2 and shape[0] == n_points and shape[1] > 0,
        )
        if coefficients is not None:
            wanted = f"[{n_rows}, components of u, {target.shape[0]}, {target.shape[1]}]"
            coefficients = self._checked(
                *("coefficients", coefficients, wanted),
                lambda shape: len(shape) == 4 and (shape[0], *shape[2:]) == (n_rows, *target.shape),
            )
        self.error = error
        self._converted = x, target
        self.register_buffer("coefficients", coefficients, persistent=False)
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("target", target, persistent=False)
        weight = float(weight)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float64), persistent=False)

    def _checked(
        self, what: str, tensor: Tensor, allowed: str, fits: Callable[[tuple[int, ...]], bool]
    ) -> Tensor:
        """In float64, where it is what this term can be made of."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{self.name}: {what} is {kind}; give a floating-point tensor")
        if not fits(tuple(tensor.shape)):
            raise ValueError(
                f"{self.name}: {what} has the shape {list(tensor.shape)}; give {allowed}"
            )
        if tensor.requires_grad:
            raise ValueError(
                f"{self.name}: {what} requires a gradient, and only a field's parameters are "
                "trained; give it without (detach)"
            )
        finite = tensor.isfinite().movedim(-2, 0).flatten(1).all(dim=1)  # of each point
        if not finite.all():
            raise ValueError(
                f"{self.name}: {what} is not finite at {int((~finite).sum())} of {len(finite)} "
                "points"
            )
        return tensor.to(torch.float64)

    def __len__(self) -> int:
        return len(self.x)

    def in_dtype(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Points and targets in the precision of training; converted once.

        Points stay in float64 where rounding moves them by more than that precision resolves of
        what they span: far from 0.
        """
        x, target = self._converted
        if target.dtype != dtype or target.device != self.x.device:
            x, target = self.x, self.target.to(dtype)
            moved = (x.to(dtype).to(x.dtype) - x).abs().amax(dim=0)
            if (moved <= _SPACINGS * torch.finfo(dtype).eps * (x.amax(0) - x.amin(0))).all():
                x = x.to(dtype)
            self._converted = x, target
        return x, target

    def share(self, index: int, count: int) -> Term:
        """Every ``count``-th point from ``index`` on, as a part of the same mean.

        The weight is this term's own, also when it changes.

        Raises:
            ValueError: fewer points than shares.
        """
        if len(self) < count:
            raise ValueError(
                f"devices={count}: the term {self.name} has {len(self)} points, each device needs "
                "at least one"
            )
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.x, part.target = self.x[index::count], self.target[index::count]
        if self.coefficients is not None:
            part.coefficients = self.coefficients[:, :, index::count]
        part._converted = part.x, part.target
        part.fraction = len(part) / len(self)
        return part


class Task(nn.Module):
    """A weighted sum of terms.

    Args:
        terms: in the order of the history's columns.

    Attributes:
        parts: what each term added to the latest `loss`, without a graph.

    Raises:
        ValueError: no terms, something else than a term, or two terms of one name.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        super().__init__()
        terms = list(terms)
        if not terms or not all(isinstance(term, Term) for term in terms):
            kinds = ", ".join(type(term).__name__ for term in terms) or "none"
            raise ValueError(f"terms: {kinds}; give at least one Term, and nothing else")
        self._terms = nn.ModuleList(terms)
        self.parts: list[Tensor] = []
        names = [term.name for term in self.terms]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} terms are named {name!r}: give each its own")

    @property
    def terms(self) -> list[Term]:
        """The parts of the loss."""
        return [term for term in self._terms if isinstance(term, Term)]

    def share(self, index: int, count: int) -> Task:
        """Part ``index`` of ``count``: their losses, and gradients, add up to this task's.

        Raises:
            ValueError: a term has fewer points than there are parts.
        """
        return Task([term.share(index, count) for term in self.terms])

    def loss(self, jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
        """Σ_i weight_i · mean(error_i²): a scalar, or ``[R]`` for replicas.

        Args:
            jets: of u at each term's points.
            rows: the points of each term that ``jets`` were taken at; all of them if None.

        Raises:
            ValueError: an error that is not one number for each of its term's targets.
        """
        losses = []
        for index, (term, jet) in enumerate(zip(self.terms, jets, strict=True)):
            x, target = term.in_dtype(jet.data.dtype)
            if rows is not None:
                x, target = x[rows[index]], target[rows[index]]
            error = term.error(x, jet, target)
            wanted = (*jet.data.shape[:-3], *target.shape)
            if not isinstance(error, Tensor):
                raise ValueError(
                    f"{term.name}: its error is {type(error).__name__}; give a tensor of shape "
                    f"{list(wanted)}"
                )
            if error.shape != wanted or not error.is_floating_point():
                # Broadcasting would make N² errors of N, silently.
                raise ValueError(
                    f"{term.name}: its error is {error.dtype} of shape {list(error.shape)}, for "
                    f"a target of shape {list(target.shape)} and {jet.data.shape[-1]} component(s) "
                    f"of u; give floating-point numbers of shape {list(wanted)}"
                )
            error = error.to(jet.data.dtype)
            part = term.weight.to(jet.data.dtype) * error.square().mean(dim=(-2, -1))
            if term.fraction != 1:
                part = term.fraction * part
            losses.append(part)
        if not torch.compiler.is_compiling():
            self.parts = [part.detach() for part in losses]
        return sum(losses[1:], losses[0])
