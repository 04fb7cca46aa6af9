"""What a differential equation has to say about itself to be trained on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from diffhash.jets import Jet, Row, autograd_jet, axis_rows

Box = Sequence[tuple[float, float]]


class Problem(ABC):
    """A differential equation D[u](x) = f(x) for a scalar u on a box.

    A subclass gives the operator and, if there is one, the exact solution; the source term f
    then follows from it. Points and reference values are float64.

    Attributes:
        domain: (low, high) of each axis.
        order: highest derivative along each axis that `operator` reads (at most 2).
        linear: whether `operator` is linear in u. Its residual's squares then train in one kernel.
    """

    domain: Box
    order: int | tuple[int, ...]
    linear: bool = False

    @abstractmethod
    def operator(self, x: Tensor, u: Jet) -> Tensor:
        """D[u] at ``x [N, d]``, shape ``[N, equations]``, from the jet of u.

        Replicas of u have a leading axis R, which broadcasting takes along.
        """

    def solution(self, x: Tensor) -> Tensor:
        """The exact u at ``x [N, d]``, shape ``[N, 1]``, from torch operations; optional."""
        raise NotImplementedError(
            f"{type(self).__name__} has neither a solution nor a source of its own: define one"
        )

    @property
    def has_solution(self) -> bool:
        """Whether this problem defines `solution`."""
        return type(self).solution is not Problem.solution

    @property
    def n_dims(self) -> int:
        """Axes of x."""
        return len(self.domain)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the jet that `operator` reads."""
        orders = self.order if isinstance(self.order, tuple) else (self.order,) * self.n_dims
        if len(orders) != self.n_dims or any(m not in range(3) for m in orders):
            raise ValueError(
                f"order={self.order!r}: give one derivative order of 0 to 2, or one for each of "
                f"the {self.n_dims} axes"
            )
        return axis_rows(orders)

    def source(self, x: Tensor) -> Tensor:
        """f = D[u_exact] by automatic differentiation; without `solution`, override it.

        Raises:
            ValueError: `operator` does not have the shape ``[N, equations]``.
        """
        jet = self.solution_jet(x, self.rows)
        return self._checked(self.operator(x, jet), x, jet).detach()

    def _checked(self, value: Tensor, x: Tensor, u: Jet) -> Tensor:
        """``value``, what `operator` gave, if its shape is right."""
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{type(self).__name__}.operator is {type(value).__name__}; give a tensor of shape "
                "[N, equations]"
            )
        *replicas, _, n_points, _ = u.data.shape
        fits = value.shape[:-1] == (*replicas, n_points) and value.shape[-1] > 0
        if fits and value.shape[-1] >= n_points > 1:
            # As many equations as points: or [N] and [N, 1] were mixed, and broadcast to [N, N].
            fewer = self.operator(x[1:], Jet(u.data[..., 1:, :], u.rows))
            fits = fewer.shape[-1] == value.shape[-1]
        if not fits:
            raise ValueError(
                f"{type(self).__name__}.operator has the shape {list(value.shape)} at {n_points} "
                f"points of a u with {u.data.shape[-1]} component(s): give [N, equations], and "
                "columns of x as x[:, :1]"
            )
        return value

    def solution_jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        """The exact solution and its derivatives along each axis, without a graph.

        Raises:
            ValueError: `solution` does not have the shape ``[N, 1]``, or autograd cannot see how
                it depends on ``x``.
        """

        def checked(x: Tensor) -> Tensor:
            u = self.solution(x)
            # Broadcasting against [N, 1] would make N² errors of N, silently.
            if not isinstance(u, Tensor) or u.shape != (len(x), 1):
                got = list(u.shape) if isinstance(u, Tensor) else type(u).__name__
                raise ValueError(
                    f"{type(self).__name__}.solution must return the shape {[len(x), 1]}, got {got}"
                )
            if len(rows) > 1 and not u.requires_grad and self._varies(x, u):
                raise ValueError(
                    f"{type(self).__name__}.solution varies with x where autograd cannot see it, "
                    "and its derivatives would be 0: compute it by torch operations, without "
                    "numpy and detach()"
                )
            return u

        jet = autograd_jet(checked, x, rows)
        return Jet(jet.data.detach(), rows)

    def _varies(self, x: Tensor, u: Tensor) -> bool:
        """Whether the solution ``u`` is another close to most of the points; a step's is not."""
        x = x.detach()
        close = x + 1e-6 * (x.amax(dim=0) - x.amin(dim=0))
        return (self.solution(close) != u).double().mean().item() > 0.5

    def residual(self, x: Tensor, u: Jet, source: Tensor | None = None) -> Tensor:
        """D[u] - f; pass ``source`` where f is already known at ``x``.

        Raises:
            ValueError: `operator` and `source` differ in shape.
        """
        right = self.source(x) if source is None else source
        left = self.operator(x, u)
        if isinstance(left, Tensor) and left.shape[-2:] != right.shape:
            raise ValueError(
                f"{type(self).__name__}.operator has the shape {list(left.shape)}, "
                f"its source {list(right.shape)}: give both [N, equations]"
            )
        return self._checked(left, x, u) - right

    def coefficients(self, x: Tensor) -> Tensor | None:
        """c of D[u] = Σ_k c_k(x) ∂_k u, ``[K, 1, N, equations]``, for the rows k of u's jet.

        None for an operator that is not `linear`.

        Raises:
            ValueError: it is said to be linear, and is not; or `operator` has a wrong shape.
        """
        if not self.linear:
            return None
        n_rows = len(self.rows)
        unit = torch.eye(n_rows, dtype=x.dtype)[:, :, None, None].expand(-1, -1, len(x), 1)
        jets = [Jet(row, self.rows) for row in unit]
        c = torch.stack([self._checked(self.operator(x, jet), x, jet) for jet in jets]).detach()
        generator = torch.Generator().manual_seed(0)
        jet = torch.randn(n_rows, len(x), 1, dtype=x.dtype, generator=generator)
        value = self.operator(x, Jet(jet, self.rows)).detach()
        tolerance = 1e-9 * c.abs().max().item()
        if not torch.allclose((c * jet).sum(dim=0), value, rtol=1e-9, atol=tolerance):
            raise ValueError(
                f"{type(self).__name__}.linear=True: its operator is not linear in u; "
                "leave linear at False"
            )
        return c[:, None]

    def domain_points(self, n: int) -> Tensor:
        """``n`` points spread evenly over the domain, ``[n, d]``: see `even_points`."""
        return even_points(self.domain, n)

    def label_points(self, n: int) -> Tensor:
        """``n`` points where the PINN task is told u; the whole domain unless overridden."""
        return self.domain_points(n)

    def evaluation_points(self, n: int) -> Tensor:
        """``n`` points of the whole domain that are not the training points: ``[n, d]``.

        In one dimension the midpoints of n equal intervals, else a scrambled Sobol' sequence.
        """
        if self.n_dims == 1:
            unit = (torch.arange(n, dtype=torch.float64) + 0.5)[:, None] / n
        else:
            unit = SobolEngine(self.n_dims, scramble=True, seed=1).draw(n, dtype=torch.float64)
        return _into(self.domain, unit)


def even_points(box: Box, n: int) -> Tensor:
    """``n`` points spread evenly over ``box``, ``[n, d]`` in float64.

    Equidistant with both ends in one dimension, a Sobol' sequence in more.
    """
    if len(box) == 1:
        unit = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    else:
        unit = SobolEngine(len(box)).draw(n, dtype=torch.float64)
    return _into(box, unit)


def check_box(box: Box) -> None:
    """Raise `ValueError` for a box without a finite width along each axis."""
    try:
        fits = len(box) > 0 and all(0 < high - low < math.inf for low, high in box)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"domain={box}: give (low, high) with finite low < high for each axis")


def _into(box: Box, unit: Tensor) -> Tensor:
    check_box(box)
    low, high = torch.tensor([tuple(axis) for axis in box], dtype=torch.float64).T
    return low + (high - low) * unit
