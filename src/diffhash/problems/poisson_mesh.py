"""Poisson's equation in a solid body of triangles."""

from __future__ import annotations

from math import pi
from typing import Any

from torch import Tensor

from diffhash.geometry import Mesh
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.problem import Problem

_TORUS = {"major_radius": 1.0, "minor_radius": 0.4, "major_sections": 32, "minor_sections": 16}


class PoissonMesh(Problem):
    """-Δu = f in a body within a closed surface of triangles, u given on the surface, with the
    exact solution

    u(x, y, z) = sin(kx) sin(ky) cos(kz),  f = 3k² u.

    Needs trimesh and rtree: ``pip install 'diffhash[geometry]'``.

    Args:
        mesh: a file that trimesh reads (STL, OBJ, PLY …), or a trimesh mesh; None for trimesh's
            torus of 1024 triangles with the radii 1 and 0.4.
        k: the wave number of u.

    Raises:
        ValueError: k is not finite and positive, or the surface has gaps.
    """

    def __init__(self, mesh: Any = None, k: float = pi) -> None:
        check_positive(k=k)
        super().__init__()
        self.k, self.domain = k, Mesh(_torus() if mesh is None else mesh)

    def conditions(self) -> list[Condition]:
        """The equation, and u on the surface."""
        surface = self.domain.boundary()
        return [
            Condition(
                "equation",
                self.domain,
                lambda x, d: -(d.u_xx + d.u_yy + d.u_zz),
                lambda x: 3 * self.k**2 * self.solution(x),
            ),
            Condition("surface", surface, lambda x, d: d.u, self.solution),
        ]

    def solution(self, x: Tensor) -> Tensor:
        """sin(kx) sin(ky) cos(kz)."""
        x, y, z = (self.k * x).T
        return x.sin() * y.sin() * z.cos()


def _torus() -> Any:
    try:
        from trimesh.creation import torus
    except ImportError as error:
        raise ImportError(
            "PoissonMesh needs trimesh and rtree: pip install 'diffhash[geometry]'"
        ) from error
    return torus(**_TORUS)
