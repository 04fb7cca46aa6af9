"""Problems of every kind, each with its loss written out by hand with nested autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffhash import MLP, Field, GridEncoding, Identity
from diffhash.geometry import Box, Disc, Interface, Interval
from diffhash.optim import Objective
from diffhash.problems import EXACT, Coefficient, Condition, Derivatives, Problem, measured, stack

D = torch.float64
Function = Callable[[Tensor], Tensor]  # of points [N, d], values [.., N, C]
Losses = dict[str, Tensor]


def diff(f: Function, x: Tensor, *axes: int, c: int = 0) -> Tensor:
    """∂/∂x_axes… of component c at ``x``, ``[.., N]``."""
    x = x.detach().requires_grad_(True)
    values = f(x)[..., c]

    def along(y: Tensor, left: tuple[int, ...]) -> Tensor:
        if not left:
            return y
        if y.ndim == 2:  # replicas
            return torch.stack([along(one, left) for one in y])
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return along(gradient[:, left[0]], left[1:])

    return along(values, axes)


def mean(*errors: Tensor) -> Tensor:
    """Mean square over points and equations."""
    return torch.stack(errors, dim=-1).square().mean(dim=(-2, -1))


class Heat(Problem):
    """u_t = a(x) u_xx with values at the left wall, a flux at the right one, and a start."""

    domain = Box(x=(0, 2)) * Interval(t=(0, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("heat", self.domain, lambda x, d: d.u_t - (1 + x[:, 0]) * d.u_xx, 0.5),
            Condition("left", self.domain.boundary("x-"), lambda x, d: d.u, lambda x: x[:, 1]),
            Condition("right", self.domain.boundary("x+"), lambda x, d: d.u_n, weight=2.0),
            Condition("start", self.domain.initial(), lambda x, d: d.u - x[:, 0].sin()),
        ]

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        heat, left, right, start = x.values()
        return {
            "heat": mean(diff(f, heat, 1) - (1 + heat[:, 0]) * diff(f, heat, 0, 0) - 0.5),
            "left": mean(diff(f, left) - left[:, 1]),
            "right": 2 * mean(diff(f, right, 0)),
            "start": mean(diff(f, start) - start[:, 0].sin()),
        }


class Robin(Problem):
    """Δu = x on a disc, 2 u + ∂u/∂n = 1 on its edge: collapsed, with slanting normals."""

    domain = Disc(radius=1.5)

    def conditions(self) -> list[Condition]:
        return [
            Condition("poisson", self.domain, lambda x, d: d.u_xx + d.u_yy, lambda x: x[:, :1]),
            Condition("edge", self.domain.boundary(), lambda x, d: 2 * d.u + d.u_n, 1),
        ]

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        inside, edge = x.values()
        normal = edge / 1.5
        slope = normal[:, 0] * diff(f, edge, 0) + normal[:, 1] * diff(f, edge, 1)
        laplacian = diff(f, inside, 0, 0) + diff(f, inside, 1, 1)
        return {
            "poisson": mean(laplacian - inside[:, 0]),
            "edge": mean(2 * diff(f, edge) + slope - 1),
        }


class Periodic(Problem):
    """u_t + u_x = 0 with u and u_x equal at both ends, and u³ given at the start."""

    domain = Box(x=(0, 1)) * Interval(t=(0, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("convection", self.domain, lambda x, d: d.u_t + d.u_x),
            Condition("ends", self.domain.periodic("x"), lambda x, d: stack(d.u, d.u_x)),
            Condition("start", self.domain.initial(), lambda x, d: d.u**3, lambda x: x[:, 0]),
        ]

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        inside, ends, start = x.values()
        low, high = ends.tensor_split(2)
        assert (low[:, 0] == 0).all() and (high[:, 0] == 1).all()
        assert torch.equal(low[:, 1], high[:, 1])
        return {
            "convection": mean(diff(f, inside, 0) + diff(f, inside, 1)),
            "ends": mean(diff(f, low) - diff(f, high), diff(f, low, 0) - diff(f, high, 0)),
            "start": mean(diff(f, start) ** 3 - start[:, 0]),
        }


class Layers(Problem):
    """Two unknowns, one on each side of an interface, with what each side hands to the other."""

    unknowns = ("u", "v")
    first, second = Box(x=(0, 1), y=(0, 1)), Box(x=(1, 2), y=(0, 1))
    domain = Box(x=(0, 2), y=(0, 1))

    def conditions(self) -> list[Condition]:
        between = Interface(self.first, self.second)
        return [
            Condition("left", self.first, lambda x, d: d.u_xx + d.u_yy, 1.0),
            Condition("right", self.second, lambda x, d: 3 * (d.v_xx + d.v_yy), 1.0),
            Condition("between", between, lambda x, d: stack(d.u - d.v, d.u_n - 3 * d.v_n)),
        ]

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        left, right, between = x.values()
        assert (left[:, 0] <= 1).all() and (right[:, 0] >= 1).all() and (between[:, 0] == 1).all()
        jump = diff(f, between, c=0) - diff(f, between, c=1)
        flux = diff(f, between, 0, c=0) - 3 * diff(f, between, 0, c=1)
        return {
            "left": mean(diff(f, left, 0, 0) + diff(f, left, 1, 1) - 1),
            "right": mean(3 * (diff(f, right, 0, 0, c=1) + diff(f, right, 1, 1, c=1)) - 1),
            "between": mean(jump, flux),
        }


TABLE = {
    "t": torch.tensor([0.1, 0.2, 0.9, 0.4, 0.5, 0.77], dtype=D),
    "u": torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, 0.25], dtype=D),
    "v_t": torch.tensor([0.0, 1.0, 0.1, -0.5, 0.2, 0.3], dtype=D),
    "w": torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 3.0], dtype=D),
}


class Inverse(Problem):
    """u_t = ω v, v_t = -ω³ u with ω to be found from measurements with weights, and a condition
    that is linear in the unknowns except for trained coefficients."""

    unknowns = ("u", "v")
    domain = Interval(t=(0, 1))

    def __init__(self) -> None:
        self.omega = Coefficient(1.5, true=2.0)
        self.shift = Coefficient(0.5)

    def conditions(self) -> list[Condition]:
        return [
            measured("told", TABLE, ("t",), ("u", "v_t"), weights="w", weight=3.0),
            Condition("motion", self.domain, self._motion),
            Condition("end", self.domain.final(), lambda x, d: d.u - self.shift, -1.0),
        ]

    def _motion(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(d.u_t - self.omega * d.v, d.v_t + self.omega**3 * d.u)

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        told, motion, end = x.values()
        omega, shift = self.omega, self.shift
        errors = torch.stack(
            [diff(f, told) - TABLE["u"], diff(f, told, 0, c=1) - TABLE["v_t"]], dim=-1
        )
        weights = (TABLE["w"] / TABLE["w"].mean())[:, None]
        first = diff(f, motion, 0) - omega * diff(f, motion, c=1)
        second = diff(f, motion, 0, c=1) + omega**3 * diff(f, motion)
        return {
            "told": 3 * (weights * errors.square()).mean(dim=(-2, -1)),
            "motion": mean(first, second),
            "end": mean(diff(f, end) - shift + 1),
        }


class Solitons(Problem):
    """u_t + 6 u u_x + u_xxx = 0: a third derivative and a product."""

    domain = Box(x=(-1, 1)) * Interval(t=(0, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("kdv", self.domain, lambda x, d: d.u_t + 6 * d.u * d.u_x + d.u_xxx, EXACT)
        ]

    def solution(self, x: Tensor) -> Tensor:
        return (x[:, 0] - x[:, 1]).sin()

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        (p,) = x.values()
        s = p[:, 0] - p[:, 1]
        exact = -s.cos() + 6 * s.sin() * s.cos() - s.cos()
        kdv = diff(f, p, 1) + 6 * diff(f, p) * diff(f, p, 0) + diff(f, p, 0, 0, 0)
        return {"kdv": mean(kdv - exact)}


class Plate(Problem):
    """u_xxxx + 2 u_xxyy + u_yyyy = 1, and u_xy times an unknown field of stiffness."""

    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self) -> None:
        torch.manual_seed(4)
        self.stiffness = nn.Linear(2, 1, dtype=D)

    def conditions(self) -> list[Condition]:
        return [
            Condition("plate", self.domain, lambda x, d: d.u_xxxx + 2 * d.u_xxyy + d.u_yyyy, 1),
            Condition("twist", self.domain, self._twist),
        ]

    def _twist(self, x: Tensor, d: Derivatives) -> Tensor:
        return self.stiffness(x)[:, 0] * d.u_xy

    def written(self, f: Function, x: dict[str, Tensor]) -> Losses:
        plate, twist = x.values()
        fourth = [diff(f, plate, *axes) for axes in ((0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1))]
        return {
            "plate": mean(fourth[0] + 2 * fourth[1] + fourth[2] - 1),
            "twist": mean(self.stiffness(twist)[:, 0] * diff(f, twist, 0, 1)),
        }


@dataclass(frozen=True)
class Expected:
    """A problem, the number of rows of each term's jet, and whether each term is a linear form."""

    make: Callable[[], Any]
    n_rows: tuple[int, ...]
    linear: tuple[bool, ...]


EXPECTED = {
    # u, u_x, u_t, u_xx; u; u, u_x, u_t (∂/∂n reads both axes)
    "heat": Expected(Heat, (4, 1, 3, 1), (True, True, True, True)),
    "robin": Expected(Robin, (4, 3), (True, True)),  # u, u_x, u_y, Δu
    # u_t + u_x as one row; pairs and u³ are no linear forms
    "periodic": Expected(Periodic, (2, 2, 1), (True, False, False)),
    "layers": Expected(Layers, (4, 4, 3), (True, True, True)),
    "inverse": Expected(Inverse, (2, 2, 1), (True, False, False)),
    "solitons": Expected(Solitons, (4,), (False,)),  # u, u_x, u_xx, u_t + u_xxx
    # below 4 in both axes: 1, 2, 3, 4 rows of order 0 … 3, but u_xxx and u_yyy are needed as well
    "plate": Expected(Plate, (11, 4), (True, False)),
}


def make_field(problem: Any, seed: int = 0, encoding: str = "identity") -> Field:
    torch.manual_seed(seed)
    layer: Any = Identity(problem.n_dims, dtype=D)
    if encoding == "quintic":
        layer = GridEncoding(
            problem.n_dims, n_levels=2, base_resolution=3, log2_hashmap_size=8,
            interpolation="quintic", init_scale=0.5, dtype=D,
        )  # fmt: skip
    network = MLP(layer.n_output_dims, len(problem.unknowns), width=5, depth=2, dtype=D)
    return Field(layer, network, problem.domain.bounds, problem.names)


def parameters(field: Field, problem: Any) -> list[Tensor]:
    return [*field.parameters(), *problem.parameters()]


def by_hand(problem: Any, objective: Objective, f: Function) -> dict[str, Tensor]:
    return problem.written(f, {term.name: term.x for term in objective.terms})
