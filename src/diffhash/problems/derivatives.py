"""u and its derivatives by name, as a problem's residuals read them."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from diffhash.jets import Jet, Names
from diffhash.ops.backends import MultiIndex


class NotReadError(ValueError):
    """A residual reads a derivative that it has not read when its derivatives were found."""


class Derivatives:
    """The unknowns and their derivatives by name, as a residual reads them: ``d.u``, ``d.v_xt`` …

    Each is a column ``[N]``, or ``[R, N]`` for R replicas. On a boundary ``d.u_n`` is the
    derivative along the outward normal, n·∇u, and ``d.normal`` is the normal itself, ``[N, d]``.

    Args:
        jet: the jet of all unknowns, with names.
        normal: the outward normals ``[N, d]`` on a boundary.

    Raises:
        AttributeError: a name is no derivative's, or the normal is read where there is no boundary.
        NotReadError: the jet does not have the derivative.
    """

    normal: Tensor

    def __init__(self, jet: Jet, normal: Tensor | None = None) -> None:
        assert jet.names is not None
        self._names = jet.names
        # All at once: the gradient of a single selected column has the size of the whole jet.
        rows = zip(jet.rows, jet.data.unbind(-3), strict=True)
        self._columns = {row: values.unbind(-1) for row, values in rows}
        if normal is not None:
            self.normal = normal

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "normal":
            raise AttributeError("there is no normal here: give a condition on a boundary")
        if (
            name[-2:] == "_n"
            and name[:-2] in self._names.unknowns
            and name not in self._names.unknowns
        ):
            return self._along_normal(name[:-2])
        try:
            component, alpha = self._names.find(name)
        except ValueError as error:
            raise AttributeError(str(error)) from None
        return self._derivative(component, alpha)

    def __getitem__(self, name: object) -> Tensor:
        raise TypeError(f"d[{name!r}]: derivatives are attributes of d, as d.u or d.u_x")

    def _along_normal(self, unknown: str) -> Tensor:
        normal = self.normal
        slopes = [getattr(self, f"{unknown}_{axis}") for axis in self._names.axes]
        parts = [normal[:, j].to(slope.dtype) * slope for j, slope in enumerate(slopes)]
        return torch.stack(parts).sum(dim=0)

    def _derivative(self, component: int, alpha: MultiIndex) -> Tensor:
        try:
            return self._columns[alpha][component]
        except KeyError:
            letters = "".join(axis * m for axis, m in zip(self._names.axes, alpha, strict=True))
            raise NotReadError(
                f"its residual reads {self._names.unknowns[component]}_{letters} only at some "
                "points or for some values of u; it must read the same derivatives at all points, "
                "whatever their values are: select with torch.where, or read all before an if"
            ) from None


class Recorder(Derivatives):
    """Derivatives that are random numbers, with a record of the ones that were read.

    Attributes:
        read: the numbers, by component and multi-index.
    """

    def __init__(
        self,
        names: Names,
        n_points: int,
        normal: Tensor | None,
        device: torch.device | None = None,
    ) -> None:
        shape = (1, n_points, len(names.unknowns))
        empty = torch.empty(shape, dtype=torch.float64, device=device)
        super().__init__(Jet(empty, ((0,) * len(names.axes),), names), normal)
        self._n_points, self._device = n_points, device
        self._generator = torch.Generator().manual_seed(0)
        self.read: dict[tuple[int, MultiIndex], Tensor] = {}

    def _derivative(self, component: int, alpha: MultiIndex) -> Tensor:
        if (component, alpha) not in self.read:
            value = torch.rand(self._n_points, dtype=torch.float64, generator=self._generator) + 0.5
            # It requires a gradient, as in training, so that operations without a graph fail here.
            self.read[component, alpha] = value.to(device=self._device).requires_grad_(True)
        return self.read[component, alpha]


def stack(*equations: Tensor | float) -> Tensor:
    """Join columns ``[N]`` of E equations or unknowns to ``[N, E]``; a number is a constant column.

    >>> import torch
    >>> stack(torch.ones(3), torch.zeros(3)).shape
    torch.Size([3, 2])

    Raises:
        TypeError: an equation is neither a tensor nor a number.
    """
    for equation in equations:
        if not isinstance(equation, (Tensor, Real)):
            given = type(equation).__name__
            raise TypeError(f"stack({given}): give each equation as an argument, as stack(a, b)")
    tensors = [equation for equation in equations if isinstance(equation, Tensor)]
    device = tensors[0].device if tensors else None
    columns: list[Any] = [torch.as_tensor(equation, device=device) for equation in equations]
    dtype = columns[0].dtype
    for column in columns[1:]:
        dtype = torch.promote_types(dtype, column.dtype)
    return torch.stack(torch.broadcast_tensors(*(c.to(dtype) for c in columns)), dim=-1)
