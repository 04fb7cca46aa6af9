"""Domains and boundaries: points where they should be, as many as asked for, with their normals."""

from __future__ import annotations

import doctest
import importlib
import math
import pickle
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor
from torch.quasirandom import SobolEngine

import diffhash.geometry
from diffhash.geometry import (
    Ball,
    Box,
    Difference,
    Disc,
    Domain,
    Interface,
    Intersection,
    Interval,
    Mesh,
    Polygon,
    Product,
    Union,
)

RULES = ["sobol", "grid", "midpoint", "uniform", "lhs", "even", "evaluation"]
SQUARE = Box(x=(0, 1), y=(0, 1))
TIME = Interval(t=(0, 2))
HOLES = [Disc(center=(x, y), radius=0.1) for x in (0.25, 0.75) for y in (0.25, 0.75)]
STAR = Polygon(
    [(0, 0), (4, 0), (4, 1), (2.5, 2), (4, 4), (0, 3)],
    holes=[[(1, 1), (2, 1), (1.5, 1.7)], [(0.5, 2), (1, 2.5), (0.5, 2.5)]],
)
FLAT = ("x", "y")
DOMAINS: dict[str, Domain] = {
    "interval": Interval(x=(-1, 2)),
    "box": Box(x=(-1, 1), y=(0, 0.01), t=(0, 1000)),
    "disc": Disc(center=(3, -2), radius=0.5),
    "ball": Ball(center=(1, 2, 3), radius=2),
    "ball in 4 axes": Ball(center=(0, 0, 0, 1), axes=("a", "b", "c", "d")),
    "polygon": STAR,
    "mesh": Mesh(trimesh.creation.torus(1.0, 0.3, major_sections=16, minor_sections=8)),
    "plate with holes": SQUARE - HOLES[0] - HOLES[1] - HOLES[2] - HOLES[3],
    "ell": Box(x=(0, 2), y=(0, 2)) - Box(x=(1, 2), y=(1, 2)),
    "two boxes": SQUARE | Box(x=(1, 2), y=(0, 0.5)),
    "lens": Disc() & Disc(center=(1, 0)),
    "bitten": SQUARE - Disc(center=(1, 0.5), radius=0.3),
    "polygon and disc": STAR | Disc(center=(4, 2), radius=0.7),
    "bore": Mesh(trimesh.creation.box(extents=(2, 2, 2))) - Ball(radius=0.7, center=(0, 0, 0)),
    "two intervals": Interval(x=(0, 1)) | Interval(x=(2, 4)),
    "polygon in time": STAR * TIME,
    "plate in time": (SQUARE - HOLES[0]) * TIME,
    "disc times disc": Disc() * Disc(axes=("z", "w")),
}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


def _extent(domain: Domain) -> Tensor:
    return torch.tensor([high - low for low, high in domain.bounds], dtype=torch.float64)


# ------------------------------------------------------------------------------- of every domain
@every_domain
@pytest.mark.parametrize("rule", RULES)
def test_exactly_n_points_that_lie_in_it(domain: Domain, rule: str) -> None:
    for n in (1, 2, 101):
        x = domain.sample(n, rule, seed=3)
        assert x.shape == (n, domain.n_dims) and x.dtype == torch.float64
        assert domain.contains(x).all()
        assert len(x.unique(dim=0)) == n


@every_domain
def test_the_bounds_are_tight_and_nothing_is_outside_of_them(domain: Domain) -> None:
    low, high = torch.tensor(domain.bounds, dtype=torch.float64).T
    x = domain.sample(2000)
    assert ((x >= low) & (x <= high)).all()
    slack = 0.25 if domain.n_dims > 2 else 0.12
    assert (x.amin(0) - low <= slack * (high - low)).all()
    assert (high - x.amax(0) <= slack * (high - low)).all()
    outside = torch.stack([low - 0.01 * (high - low), high + 0.01 * (high - low)])
    assert not domain.contains(outside).any()


@every_domain
@pytest.mark.parametrize("rule", ["sobol", "grid", "lhs"])
def test_the_boundary_has_n_points_with_outward_unit_normals(domain: Domain, rule: str) -> None:
    boundary = domain.boundary()
    x = boundary.sample(101, rule)
    if domain.n_dims > 1:
        assert x.shape == (101, domain.n_dims)
    normals = boundary.normals(x)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(x), dtype=torch.float64))
    assert domain.contains(x).all()
    step = 1e-6 * _extent(domain) * normals
    assert not domain.contains(x + step).any()
    assert domain.contains(x - step).all()


@every_domain
def test_the_seed_says_which_points(domain: Domain) -> None:
    for of in (domain, domain.boundary()):
        for rule in ("sobol", "uniform", "lhs"):
            x = of.sample(20, rule, seed=1)
            assert torch.equal(x, of.sample(20, rule, seed=1))
            assert len(x) == 2 or not torch.equal(x, of.sample(20, rule, seed=2)) or len(x) == 4
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        of.sample(20, "uniform")
        assert torch.equal(torch.random.get_rng_state(), before)


@every_domain
def test_it_is_a_value(domain: Domain) -> None:
    boundary = domain.boundary()
    for value in (domain, boundary):
        copy = pickle.loads(pickle.dumps(value))
        assert copy == value and hash(copy) == hash(value) and repr(copy) == repr(value)
    assert domain != Box(x=(0, 7)) and boundary != Box(x=(0, 7)).boundary()


@every_domain
def test_no_points_and_float32(domain: Domain) -> None:
    assert domain.contains(torch.zeros(0, domain.n_dims)).shape == (0,)
    boundary = domain.boundary()
    assert boundary.normals(torch.zeros(0, domain.n_dims)).shape == (0, domain.n_dims)
    x = boundary.sample(50, "uniform")
    assert boundary.normals(x.float()).dtype == torch.float64


# ---------------------------------------------------------------------------------------- rules
def test_points_of_training_and_of_evaluation() -> None:
    line = Interval(x=(-1, 2))
    ends = torch.linspace(0, 1, 1000, dtype=torch.float64)[:, None]
    assert torch.equal(line.sample(1000, "even"), -1 + 3 * ends)
    middles = (torch.arange(777, dtype=torch.float64) + 0.5)[:, None] / 777
    assert torch.equal(line.sample(777, "evaluation"), -1 + 3 * middles)
    low, width = torch.tensor([[-1.0, 0.3], [3.0, 0.7 - 0.3]], dtype=torch.float64)
    plane = Box(x=(-1, 2), y=(0.3, 0.7))
    unit = SobolEngine(2).draw(1000, dtype=torch.float64)
    assert torch.equal(plane.sample(1000, "even"), low + width * unit)
    unit = SobolEngine(2, scramble=True, seed=1).draw(777, dtype=torch.float64)
    assert torch.equal(plane.sample(777, "evaluation"), low + width * unit)


@pytest.mark.parametrize("rule", RULES)
def test_more_points_than_fit_in_one_chunk(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Disc().sample(3000, rule, seed=1), SQUARE.sample(3000, rule, seed=1)
    monkeypatch.setattr("diffhash.geometry.rules.CHUNK", 256)
    parts = Disc().sample(3000, rule, seed=1), SQUARE.sample(3000, rule, seed=1)
    for domain, one, other in zip((Disc(), SQUARE), whole, parts, strict=True):
        assert domain.contains(other).all() and len(other.unique(dim=0)) == 3000
        assert rule == "lhs" or torch.equal(one, other)


def test_a_sequence_goes_on_where_points_are_outside() -> None:
    for rule in ("sobol", "uniform"):
        candidates = Box(x=(-1, 1), y=(-1, 1)).sample(1000, rule, seed=5)
        inside = candidates[Disc().contains(candidates)]
        assert torch.equal(Disc().sample(300, rule, seed=5), inside[:300])


def test_a_grid_is_regular() -> None:
    x = SQUARE.sample(36, "grid")
    assert torch.equal(x[::6, 0], torch.linspace(0, 1, 6, dtype=torch.float64))
    assert torch.equal(x[:6, 1], torch.linspace(0, 1, 6, dtype=torch.float64))
    middle = SQUARE.sample(4, "midpoint")
    assert middle.tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    # Thinned from 6 × 5: all of them but two.
    assert set(map(tuple, SQUARE.sample(28, "grid").tolist())) <= set(
        map(tuple, SQUARE.sample(30, "grid").tolist())
    )


@given(n=st.integers(1, 500), dims=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_latin_hypercube_has_a_point_in_each_slice(n: int, dims: int) -> None:
    box = Box(**{axis: (0, n) for axis in "xyzt"[:dims]})
    slices = box.sample(n, "lhs", seed=n).floor().sort(dim=0).values
    assert torch.equal(slices, torch.arange(n, dtype=torch.float64)[:, None].expand(n, dims))


@pytest.mark.parametrize("rule", ["sobol", "grid", "midpoint", "uniform", "lhs"])
def test_points_are_uniform(rule: str) -> None:
    """Means against integrals: ½ and ⅓ of a square's x and x², ¼ of a disc's x²."""
    n = 4000
    tolerance = {"uniform": 4 / math.sqrt(n), "grid": 0.02}.get(rule, 0.01)
    square = SQUARE.sample(n, rule, seed=1)
    for power in (1, 2, 3):
        assert (square**power).mean(0).tolist() == pytest.approx(
            [1 / (power + 1)] * 2, abs=tolerance
        )
    disc = Disc().sample(n, rule, seed=1)
    assert disc.mean(0).tolist() == pytest.approx([0, 0], abs=tolerance)
    assert (disc**2).mean(0).tolist() == pytest.approx([0.25, 0.25], abs=tolerance)


@pytest.mark.parametrize("d", [2, 3, 4, 5])
def test_points_of_a_sphere_are_uniform(d: int) -> None:
    """E x_i = 0, E x_i² = 1/d, E x_i⁴ = 3 / (d (d + 2)), E x_i² x_j² = 1 / (d (d + 2))."""
    axes = tuple("abcde"[:d])
    x = Ball(center=(0,) * d, axes=axes).boundary().sample(2**14, seed=1)
    assert x.mean(0).abs().max() < 2e-3
    moments = x.T**2 @ x**2 / len(x)
    exact = (torch.ones(d, d) + 2 * torch.eye(d)) / (d * (d + 2))
    assert (moments - exact).abs().max() < 2e-3
    assert (x.T @ x / len(x) - torch.eye(d) / d).abs().max() < 2e-3


def test_a_generator_gives_new_points_at_each_call() -> None:
    def two() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(4)
        return SQUARE.sample(50, seed=generator), SQUARE.sample(50, seed=generator)

    first, second = two()
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(two()), torch.stack([first, second]))


# ------------------------------------------------------------------------------------- measures
def test_measures() -> None:
    box = Box(x=(0, 2), y=(0, 3), t=(0, 5))
    assert box.measure == 30 and box.boundary("x").measure == 30
    assert box.boundary().measure == 50 and box.initial().measure == 6
    assert Interval(x=(0, 3)).boundary().measure == 2
    assert Disc(radius=2).measure == pytest.approx(4 * math.pi)
    assert Disc(radius=2).boundary().measure == pytest.approx(4 * math.pi)
    assert Ball(radius=2).measure == pytest.approx(32 / 3 * math.pi)
    four = Ball(center=(0,) * 4, axes=tuple("abcd"))
    assert four.boundary().measure == pytest.approx(2 * math.pi**2)
    assert (Disc() * TIME).boundary().measure == pytest.approx(4 * math.pi)
    frame = Polygon([(0, 0), (3, 0), (3, 3), (0, 3)], holes=[[(1, 1), (1, 2), (2, 2), (2, 1)]])
    assert frame.measure == 8 and frame.boundary().measure == 16
    assert frame.boundary("hole0").measure == 4
    brick = Mesh(trimesh.creation.box(extents=(1, 2, 3)))
    assert brick.measure == pytest.approx(6) and brick.boundary().measure == pytest.approx(22)
    assert (SQUARE - HOLES[0]).measure is None
    assert (SQUARE - HOLES[0]).boundary().measure is None


def test_each_side_has_points_in_proportion_to_its_measure() -> None:
    x = Box(x=(0, 3), y=(0, 1)).boundary().sample(80)
    assert len(x) == 80 and [(x[:, 0] == end).sum().item() for end in (0, 3)] == [10, 10]
    for n in range(1, 9):
        assert len(SQUARE.boundary().sample(n, "midpoint")) == n
    # A disc that is half outside of the square: 0.3 π of its edge, beside 3.4 of straight lines.
    bitten = DOMAINS["bitten"]
    all_of_it = bitten.boundary().sample(4000)
    curved = ((all_of_it - torch.tensor([1, 0.5])).norm(dim=1) - 0.3).abs() < 1e-9
    assert curved.double().mean().item() == pytest.approx(
        0.3 * math.pi / (0.3 * math.pi + 3.4), rel=0.01
    )


# ---------------------------------------------------------------------------------------- parts
def test_sides_and_axes_of_a_box() -> None:
    box = SQUARE * TIME
    assert box == Box(x=(0, 1), y=(0, 1), t=(0, 2)) and box.axes == ("x", "y", "t")
    low = box.boundary("x-").sample(20)
    assert (low[:, 0] == 0).all()
    assert torch.equal(
        box.boundary("x-").normals(low), torch.tensor([-1.0, 0, 0]).expand(20, 3).double()
    )
    both = box.boundary("x").sample(20)
    assert set(both[:, 0].tolist()) == {0, 1}
    walls = box.boundary()
    assert walls.measure == box.boundary("x", "y").measure == 8
    assert (walls.normals(walls.sample(40))[:, 2] == 0).all()
    assert (box.initial().sample(10)[:, 2] == 0).all() and (box.final().sample(10)[:, 2] == 2).all()
    assert Box(x=(0, 1), s=(0, 1)).initial("s") == Box(x=(0, 1), s=(0, 1)).boundary("s-")


def test_an_interval_has_two_ends_whatever_n_is() -> None:
    line = Interval(x=(-1, 2))
    assert line.boundary().sample(1000).tolist() == [[-1.0], [2.0]]
    assert line.boundary("x+").sample(1).tolist() == [[2.0]]
    assert line.boundary().normals([[2.0], [-1.0]]).tolist() == [[1.0], [-1.0]]
    assert TIME.initial().sample(3).tolist() == [[0.0]]
    assert DOMAINS["two intervals"].boundary().sample(9).flatten().tolist() == [0, 1, 2, 4]
    half = line.boundary(where=lambda x: x[:, 0] > 0)
    assert half.sample(5).tolist() == [[2.0]]


def test_parts_of_polygons_and_of_what_a_domain_was_made_of() -> None:
    hole = STAR.boundary("hole1").sample(100)
    assert ((hole[:, 0] >= 0.5) & (hole[:, 0] <= 1) & (hole[:, 1] >= 2)).all()
    assert STAR.boundary("hole0", "hole1").measure == STAR.boundary("holes").measure
    outer, holes = STAR.boundary("outer").measure, STAR.boundary("holes").measure
    assert outer is not None and holes is not None
    assert STAR.boundary().measure == pytest.approx(outer + holes)
    plate = DOMAINS["plate with holes"]
    for hole in HOLES:
        x = plate.boundary(hole).sample(30)
        center = torch.tensor(hole.center)
        torch.testing.assert_close((x - center).norm(dim=1), torch.full((30,), 0.1).double())
    moving = plate * TIME
    x = moving.boundary(HOLES[0], HOLES[1]).sample(30)
    assert (x[:, 0] < 0.5).all()
    assert (moving.boundary("y+").sample(9)[:, 1] == 1).all()
    assert (moving.initial().sample(9, "grid")[:, 2] == 0).all()


def _right(x: Tensor) -> Tensor:
    return x[:, :1] > 0.5


def test_a_boundary_is_restricted_by_a_function() -> None:
    right = Disc().boundary(where=_right)
    x = right.sample(100)
    assert len(x) == 100 and (x[:, 0] > 0.5).all()
    assert pickle.loads(pickle.dumps(right)) == right
    assert repr(right).endswith(".boundary(where=_right)")
    with pytest.raises(ValueError, match="not on"):
        right.normals([[-1.0, 0.0]])
    joined = DOMAINS["two boxes"].boundary()
    with pytest.raises(ValueError, match="not on"):
        joined.normals([[1.0, 0.25]])
    assert joined.normals([[1.0, 0.75]]).tolist() == [[1.0, 0.0]]


@given(
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    shift=st.sampled_from([0.0, -1.0, 1e6, 3.3e8]),
    name=st.sampled_from(["polygon", "bitten", "ell", "lens", "two boxes"]),
)
@settings(max_examples=20, deadline=None)
def test_nothing_changes_far_from_the_origin(scale: float, shift: float, name: str) -> None:
    """Points are correct to the round-off of the coordinates, which must resolve the domain."""
    shift *= scale

    def moved(domain: Domain) -> Domain:
        if isinstance(domain, Box):
            sides = domain.sides.items()
            return Box(
                **{a: (shift + scale * low, shift + scale * high) for a, (low, high) in sides}
            )
        if isinstance(domain, Ball):
            return Ball(
                [shift + scale * c for c in domain.center], scale * domain.radius, domain.axes
            )
        if isinstance(domain, Polygon):
            rings = [[(shift + scale * x, shift + scale * y) for x, y in ring]
                     for ring in (domain.points, *domain.holes)]  # fmt: skip
            return Polygon(rings[0], rings[1:])
        assert isinstance(domain, Difference | Intersection | Union)
        return type(domain)(moved(domain.first), moved(domain.second))

    domain = moved(DOMAINS[name])
    boundary = domain.boundary()
    x = boundary.sample(60, "lhs", seed=1)
    assert domain.contains(x).all()
    step = (1e-4 if shift else 1e-6) * _extent(domain) * boundary.normals(x)
    assert not domain.contains(x + step).any()
    assert domain.contains(x - step).all()


def test_combinations_have_no_leftovers() -> None:
    """A boundary that two domains share is counted once, or removed."""
    ell = DOMAINS["ell"]
    assert ell.contains([[2, 1.5], [2, 2], [1.5, 1], [1, 1], [2, 1]]).tolist() == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert not ell.contains([[2.0, 1.0 + 1e-6]]).any()
    joined = SQUARE | Box(x=(1, 2), y=(0, 1))
    seam = joined.boundary().sample(400, "midpoint")
    assert not ((seam[:, 0] == 1) & (seam[:, 1] > 0) & (seam[:, 1] < 1)).any()
    # Inside of the joined boxes there is no seam to leave behind.
    frame = Box(x=(-1, 3), y=(-1, 2)) - joined
    assert not frame.contains([[1.0, 0.5]]).any() and frame.contains([[1.0, 0.0]]).all()
    twice = SQUARE | SQUARE
    counts = [
        len(twice.boundary(side).sample(4, "midpoint").unique(dim=0)) for side in ("x-", "y+")
    ]
    assert counts == [4, 4]
    assert len(twice.boundary().sample(40, "midpoint").unique(dim=0)) == 40
    with pytest.raises(ValueError, match="empty"):
        (SQUARE - SQUARE).sample(3)
    with pytest.raises(ValueError, match="empty"):
        (SQUARE - Box(x=(-1, 2), y=(-1, 2))).boundary().sample(3)


@given(
    x=st.floats(-0.4, 1.4), y=st.floats(-0.4, 1.4), r=st.floats(0.05, 0.9),
    kind=st.sampled_from(["|", "-", "&"]),
)  # fmt: skip
@example(x=0.8749449, y=0.8749449, r=0.8749449, kind="-")  # touches two sides from within
@settings(max_examples=40, deadline=None)
def test_combinations_follow_set_algebra(x: float, y: float, r: float, kind: str) -> None:
    disc = Disc(center=(x, y), radius=r)
    points = Box(x=(-1, 2), y=(-1, 2)).sample(500, "uniform", seed=1)
    a, b = SQUARE.contains(points), disc.contains(points)
    try:
        domain, expected = {
            "|": lambda: (SQUARE | disc, a | b),
            "-": lambda: (SQUARE - disc, a & ~b),
            "&": lambda: (SQUARE & disc, a & b),
        }[kind]()
    except ValueError:  # the bounding boxes don't overlap
        assert not (a & b).any()
        return
    assert torch.equal(domain.contains(points), expected)
    try:
        edge = domain.boundary().sample(40, "uniform", seed=1)
    except ValueError:
        assert not expected.any()
        return
    # Where circle and side meet or touch, the domain or its outside may be thinner than a step.
    to_circle = ((edge - torch.tensor([x, y])).norm(dim=1) - r).abs()
    to_sides = torch.cat([edge, 1 - edge], 1).abs().amin(1)
    edge = edge[(to_circle > 1e-6) | (to_sides > 1e-6)]
    normals = domain.boundary().normals(edge)
    assert not domain.contains(edge + 1e-7 * normals).any()
    assert domain.contains(edge - 1e-7 * normals).all()


# ----------------------------------------------------------------------- periodic and interfaces
def test_periodic_pairs_are_opposite() -> None:
    for domain in (SQUARE * TIME, DOMAINS["plate in time"]):
        low, high = domain.periodic("x").sample(31, "lhs", seed=2)
        assert low.shape == high.shape == (31, 3)
        assert (low[:, 0] == 0).all() and (high[:, 0] == 1).all()
        assert torch.equal(low[:, 1:], high[:, 1:])
    low, high = Interval(x=(0, 3)).periodic("x").sample(100)
    assert low.tolist() == [[0.0]] and high.tolist() == [[3.0]]
    with pytest.raises(ValueError, match="not alike"):
        DOMAINS["ell"].periodic("x").sample(10)
    with pytest.raises(ValueError, match=r"periodic\('z'\).*'x', 'y'"):
        SQUARE.periodic("z")
    with pytest.raises(ValueError, match="outer"):
        STAR.periodic("x")


def test_an_interface_is_what_two_domains_share() -> None:
    right = Box(x=(1, 2), y=(0.5, 3))
    shared = Interface(SQUARE, right)
    x = shared.sample(50)
    assert (x[:, 0] == 1).all() and (x[:, 1] >= 0.5).all() and (x[:, 1] <= 1).all()
    assert shared.normals(x).tolist() == [[1.0, 0.0]] * 50
    back = Interface(right, SQUARE)
    assert back.normals(back.sample(2)).tolist() == [[-1.0, 0.0]] * 2
    core = Disc(center=(0.5, 0.5), radius=0.2)
    shell = Interface(SQUARE - core, core)
    y = shell.sample(20)
    torch.testing.assert_close(shell.normals(y), -(y - 0.5) / 0.2)
    upper = Polygon([(0, 0), (1, 1), (0, 1)])
    diagonal = Interface(upper, Polygon([(0, 0), (1, 0), (1, 1)]))
    z = diagonal.sample(9)
    torch.testing.assert_close(z[:, 0], z[:, 1])
    in_time = Interface(SQUARE * TIME, right * TIME)
    assert (in_time.normals(in_time.sample(5))[:, 2] == 0).all()
    with pytest.raises(ValueError, match="empty"):
        Interface(SQUARE, Box(x=(3, 4), y=(0, 1)))
    with pytest.raises(ValueError, match="axes"):
        Interface(SQUARE, TIME)


# ----------------------------------------------------------------------------- polygons, meshes
@given(
    angles=st.lists(st.floats(0, 6.28), min_size=4, max_size=9, unique=True),
    radius=st.floats(0.2, 3),
)
@settings(max_examples=25, deadline=None)
def test_polygons_around_a_point_turn_either_way(angles: list[float], radius: float) -> None:
    angles = sorted(angles)
    gaps = [b - a for a, b in zip(angles, [*angles[1:], angles[0] + 2 * math.pi], strict=True)]
    if max(gaps) > 3 or min(gaps) < 0.01:
        return
    ring = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
    polygon, backwards = Polygon(ring), Polygon(ring[::-1])
    assert polygon.measure == pytest.approx(backwards.measure)
    assert polygon.contains([[0.0, 0.0]]).all()
    for each in (polygon, backwards):
        x = each.boundary().sample(30, "midpoint")
        normals = each.boundary().normals(x)
        assert ((normals * x).sum(dim=1) > 0).all()


def test_a_shapely_polygon_is_taken() -> None:
    import shapely

    shape = shapely.Point(0, 0).buffer(2).difference(shapely.box(-1, -1, 1, 1))
    ring = Polygon(shape, axes=("r", "z"))
    assert ring.axes == ("r", "z") and len(ring.holes) == 1
    assert ring.measure == pytest.approx(shape.area)
    assert len(repr(ring)) < 100
    with pytest.raises(ValueError, match="MultiPolygon"):
        Polygon(shapely.union_all([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]))


def test_a_mesh_is_read_from_a_file(tmp_path: Path) -> None:
    for name in ("brick.stl", "brick.obj"):
        trimesh.creation.box(extents=(1, 2, 3)).export(tmp_path / name)
        brick = Mesh(tmp_path / name)
        assert brick.measure == pytest.approx(6)
        x = Box(x=(-1, 1), y=(-2, 2), z=(-2, 2)).sample(500, "uniform")
        inside = Box(x=(-0.5, 0.5), y=(-1, 1), z=(-1.5, 1.5)).contains(x)
        assert torch.equal(brick.contains(x), inside)
        assert Mesh(str(tmp_path / name)) == brick


def test_points_near_edges_and_corners_of_a_mesh() -> None:
    """Where the closest point is a reentrant edge, the nearest triangle alone does not decide."""
    solid = Mesh(trimesh.creation.extrude_polygon(STAR._shape, 1.0))
    x = Box(x=(-1, 5), y=(-1, 5), z=(-0.5, 1.5)).sample(1500, "uniform")
    expected = STAR.contains(x[:, :2]) & (x[:, 2] > 0) & (x[:, 2] < 1)
    assert torch.equal(solid.contains(x), expected)


def test_an_inverted_mesh_is_turned() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    sphere.invert()
    ball = Mesh(sphere)
    x = ball.boundary().sample(20)
    assert ((ball.boundary().normals(x) * x).sum(dim=1) > 0).all()


# ------------------------------------------------------------------------- configs and examples
def test_domains_are_built_from_a_config() -> None:
    from hydra.utils import instantiate

    square = {"_target_": "diffhash.geometry.Box", "x": [0, 1], "y": [0, 1]}
    disc = {"_target_": "diffhash.geometry.Disc", "center": [0.5, 0.5], "radius": 0.2}
    plate = {"_target_": "diffhash.geometry.Difference", "first": square, "second": disc}
    time = {"_target_": "diffhash.geometry.Interval", "t": [0, 2]}
    config = {"_target_": "diffhash.geometry.Product", "first": plate, "second": time}
    domain = instantiate(OmegaConf.create(config))
    assert domain == (SQUARE - Disc(center=(0.5, 0.5), radius=0.2)) * TIME
    assert isinstance(domain, Product) and isinstance(domain.first, Difference)
    corners = {"_target_": "diffhash.geometry.Polygon", "points": [[0, 0], [1, 0], [0, 1]]}
    assert instantiate(OmegaConf.create(corners)) == Polygon([(0, 0), (1, 0), (0, 1)])


@pytest.mark.parametrize(
    "name", ["diffhash.geometry"]
    + [m.name for m in pkgutil.iter_modules(diffhash.geometry.__path__, "diffhash.geometry.")],
)  # fmt: skip
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


# --------------------------------------------------------------------------------------- errors
def _gap() -> Any:
    mesh = trimesh.creation.box()
    mesh.update_faces([True] * 11 + [False])
    return mesh


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Box(), "axes"),
        (lambda: Box(x=(1, 1)), r"x=\(1, 1\): give \(low, high\) with finite low < high"),
        (lambda: Box(x=(0, math.inf)), "finite low < high"),
        (lambda: Box(x=(math.nan, 1)), "finite low < high"),
        (lambda: Box(x=3), r"x=3: give \(low, high\)"),
        (lambda: Interval(x=(0, 1), y=(0, 1)), "one axis"),
        (lambda: SQUARE * Interval(x=(0, 1)), "different names"),
        (lambda: STAR * Interval(x=(0, 1)), "different names"),
        (lambda: SQUARE | TIME, r"\('x', 'y'\) and \('t',\) differ"),
        (lambda: SQUARE & Box(x=(2, 3), y=(0, 1)), "do not overlap"),
        (lambda: (Disc() & Disc(center=(1.9, 1.9))).sample(3), "it is empty, or too thin"),
        (lambda: (Disc() & Disc(center=(1.9, 1.9))).sample(3, "grid"), "it is empty, or too thin"),
        (lambda: (Disc() & Disc(center=(1.9, 1.9))).boundary().sample(3), "is empty"),
        (lambda: Disc(radius=-1), r"radius=-1"),
        (lambda: Disc(center=(0, math.nan)), r"finite coordinates"),
        (lambda: Ball(center=(0,), axes=("x",)), "two or more"),
        (lambda: Ball(center=(0, 0)), "axes="),
        (lambda: Disc(axes=("x", "y", "z")), "axes="),
        (lambda: Disc(center=(0, 0, 0)), r"center=\(0, 0, 0\), .*a coordinate for each axis"),
        (lambda: Interface(Disc(), 3), "Interface of 3: give two domains"),
        (lambda: Interface(None, Disc()), "Interface of None: give two domains"),
        (lambda: Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "Self-intersection.*edges must not"),
        (lambda: Polygon([(0, 0), (1, 1)]), "points=.*three or more"),
        (lambda: Polygon([(0, 0), (1, 1), (0, math.nan)]), "finite"),
        (lambda: Polygon([0, 1, 2]), r"give corners \(x, y\)"),
        (lambda: Polygon(STAR.points, holes=[[(9, 9), (9, 10), (10, 10)]]), "holes lie inside"),
        (lambda: Mesh(_gap()), "not watertight"),
        (lambda: Mesh("nowhere.stl"), "source='nowhere.stl'"),
        (lambda: Mesh(3), "source=3"),
        (lambda: SQUARE.sample(0), "n=0: give a number of points from 1 to"),
        (lambda: SQUARE.sample(2**24 + 1), "n=16777217"),
        (lambda: SQUARE.boundary().sample(2.5), "n=2.5"),  # pyright: ignore
        (lambda: SQUARE.sample(3, "soboll"), "rule='soboll': give one of 'sobol'"),
        (lambda: TIME.boundary().sample(3, "soboll"), "rule='soboll': give one of 'sobol'"),
        (lambda: SQUARE.sample(3, seed=-1), "seed=-1"),
        (lambda: SQUARE.boundary("z"), r"boundary\('z'\): .*'x-', 'x\+', 'y-', 'y\+', 'x', 'y'"),
        (lambda: STAR.boundary("x"), "'outer', 'hole0', 'holes', 'hole1', all of 'x', 'y'"),
        (lambda: Disc().boundary("x"), r"boundary\('x'\): .*'surface', all of 'x', 'y' together$"),
        (lambda: SQUARE.initial(), "no axis 't'"),
        (lambda: STAR.initial("x"), "'outer'"),
        (lambda: SQUARE.contains(torch.zeros(3)), r"shape \[3\]: give \[N, 2\]"),
        (lambda: SQUARE.boundary().normals([[0.5, 0.5]]), r"\[0.5, 0.5\] is not on"),
        (lambda: Disc().boundary().normals([[0.0, 0.0]]), r"\[0.0, 0.0\] is not on"),
        (lambda: SQUARE.boundary(where=lambda x: x[:, 0]).sample(3), "where: .*give booleans"),
        (lambda: SQUARE.boundary(where=lambda x: x[:, 0] > 2).sample(3), "is empty"),
    ],
)  # fmt: skip
def test_one_error_says_what_is_allowed(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
