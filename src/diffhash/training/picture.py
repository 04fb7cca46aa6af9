"""The picture of a solution: unknowns, errors, residual, points of training, convergence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from diffhash.geometry import Domain
from diffhash.jets import Jet, jet_rows
from diffhash.problems import Problem
from diffhash.problems.tracer import equations, trace
from diffhash.training.windows import TIME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffhash.training.solution import Solution

Part = Literal["solution", "error", "residual", "points", "convergence"]
_CURVE, _MAP, _SLICE = 401, 201, 121  # points along an axis
_CHUNK = 2**13  # points whose jets are computed at a time
_DOTS = 800  # the largest number of points that are drawn for a condition
_DECADES = 6.0  # the range of a logarithmic scale below its largest value
_COLUMN, _ROW = 3.1, 2.7  # inches
_SMALL, _TEXT = 7, 9  # pt
_LETTERS = 14  # of the size _TEXT in an inch
_LABEL, _BELOW = 17, 30  # pt from an axis to its label, and to below it
# Okabe & Ito (2008): colours that can be distinguished with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c8c8c")


History = Sequence[Mapping[str, float]]


def draw(
    solution: Solution, history: History, parts: Sequence[str], fixed: Mapping[str, float]
) -> Figure:
    """Draw a solution and the rows of its history; see `Solution.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install 'diffhash[experiments]'") from error

    wanted = _checked_parts(solution, history, parts)
    view = _view(solution.problem.domain, fixed)
    rows = _arranged(solution, history, view, wanted)
    n_columns = max(map(len, rows))
    width = _COLUMN * n_columns
    title = textwrap.wrap(solution.title, int(_LETTERS * width), break_on_hyphens=False)
    height = _ROW * len(rows) + 0.4 + 0.15 * (len(title) - 1)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(rows), n_columns, squeeze=False)
    for line, panels in zip(grid, rows, strict=True):
        for panel in line[len(panels) :]:
            panel.remove()
        for panel, drawing in zip(line, panels, strict=False):
            panel.tick_params(labelsize=_SMALL)
            drawing.draw(panel)
            _keep_places(panel)
    figure.suptitle("\n".join(title), fontsize=_TEXT, parse_math=False)
    return figure


def _keep_places(panel: Axes) -> None:
    """Give the title and labels fixed places. By default matplotlib searches all ticks for free
    places in each of several passes, which takes as long as drawing."""
    from matplotlib.transforms import ScaledTranslation

    panel.set_title(panel.get_title(), fontsize=_TEXT, y=1.0)
    figure = panel.get_figure()
    assert figure is not None
    below = ScaledTranslation(0, -_LABEL / 72, figure.dpi_scale_trans)
    panel.xaxis.set_label_coords(0.5, 0, transform=panel.transAxes + below)
    if not panel.get_ylabel():
        panel.yaxis.set_label_coords(0, 0.5)


def _checked_parts(solution: Solution, history: History, parts: Sequence[str]) -> Sequence[str]:
    available = {
        "solution": True,
        "error": solution.problem.has_solution,
        "residual": any(True for _ in _in_the_domain(solution)),
        "points": bool(solution.points),
        "convergence": len(history) > 0,
    }
    reasons = {
        "error": "the exact solution is not known",
        "residual": "no condition is an equation in the domain",
        "points": "they are not kept in files",
        "convergence": "there is no history",
    }
    for part in parts:
        if part not in get_args(Part):
            raise ValueError(
                f"{part!r}: no part of the picture; those are {', '.join(get_args(Part))}"
            )
        if not available[part]:
            raise ValueError(f"{part}: cannot be drawn: {reasons[part]}")
    return parts or [part for part in get_args(Part) if available[part]]


# ------------------------------------------------------------------------------------ views
@dataclass(frozen=True)
class _View:
    """The axes and slices of a domain that are drawn.

    Attributes:
        across: one axis for curves, or two for maps: horizontal and vertical.
        slices: for each of one or three slices, the values of all other axes.
        sliced: the axis along which there are three slices; None for one slice.
        last: the slice of panels that are drawn once: the end of time or the middle of space.
    """

    domain: Domain
    across: tuple[str, ...]
    slices: tuple[dict[str, float], ...]
    sliced: str | None

    @property
    def last(self) -> dict[str, float]:
        return self.slices[-1 if self.sliced in (None, TIME) else 1]

    def points(self, others: Mapping[str, float]) -> tuple[Tensor, list[np.ndarray]]:
        """The points of a slice, ``[n, d]`` or ``[n_1 · n_2, d]``, and the coordinates of
        `across`."""
        n = _CURVE if len(self.across) == 1 else _MAP if self.sliced is None else _SLICE
        along = [np.linspace(*self.bounds(axis), n) for axis in self.across]
        grids = dict(zip(self.across, np.meshgrid(*along, indexing="ij"), strict=True))
        like = grids[self.across[0]]
        columns = [
            grids[axis] if axis in grids else np.full_like(like, others[axis])
            for axis in self.domain.axes
        ]
        return torch.from_numpy(np.stack([c.ravel() for c in columns], axis=1)), along

    def bounds(self, axis: str) -> tuple[float, float]:
        return self.domain.bounds[self.domain.axes.index(axis)]

    @property
    def is_in_space(self) -> bool:
        return TIME not in self.across

    def at(self, others: Mapping[str, float]) -> str:
        """The part of a title that names a slice."""
        told = [f"{axis} = {value:.3g}" for axis, value in others.items()]
        return f" at {', '.join(told)}" if told else ""


def _view(domain: Domain, fixed: Mapping[str, float]) -> _View:
    if unknown := [axis for axis in fixed if axis not in domain.axes]:
        raise ValueError(f"{', '.join(unknown)}: not an axis; those are {', '.join(domain.axes)}")
    bounds = dict(zip(domain.axes, domain.bounds, strict=True))
    for axis, value in fixed.items():
        low, high = bounds[axis]
        if not low <= value <= high:
            raise ValueError(f"{axis}={value}: not in the domain, {low:g} to {high:g}")
    free = [axis for axis in domain.axes if axis not in fixed]
    if not free:
        raise ValueError(f"{', '.join(fixed)}: all axes are fixed; leave one or two of them out")
    space = [axis for axis in free if axis != TIME]
    others: dict[str, float] = dict(fixed)
    if len(free) <= 2:  # time goes from left to right
        across = tuple(sorted(free, key=lambda axis: axis != TIME))
        return _View(domain, across, (others,), None)
    across = tuple(space[:2])
    sliced = TIME if TIME in free else space[2]
    for axis in space[2:]:
        others[axis] = sum(bounds[axis]) / 2
    low, high = bounds[sliced]
    parts = (0.0, 0.5, 1.0) if sliced == TIME else (0.25, 0.5, 0.75)
    slices = tuple(others | {sliced: low + (high - low) * part} for part in parts)
    return _View(domain, across, slices, sliced)


# ------------------------------------------------------------------------------------ panels
class _Drawing:
    """A panel, which `draw` draws into axes of matplotlib."""

    def draw(self, panel: Axes) -> None:
        raise NotImplementedError


def _arranged(
    solution: Solution, history: History, view: _View, parts: Sequence[str]
) -> list[list[_Drawing]]:
    """The panels, row by row: values above their errors, or beside them where there are slices."""
    unknowns = solution.problem.unknowns
    fields = (
        [_Unknown(solution, view, c) for c in range(len(unknowns))]
        if ({"solution", "error"} & set(parts))
        else []
    )
    values = [[_Values(f, s) for s in view.slices] for f in fields] if "solution" in parts else []
    errors = [_Error(f) for f in fields] if "error" in parts else []
    rest: list[_Drawing] = []
    if "solution" in parts:
        if (pair := _velocity(solution, view)) is not None:
            rest.append(_Stream(*(_Unknown(solution, view, c) for c in pair)))
        if view.sliced is None and len(view.across) == 2 and not view.is_in_space:
            rest += [_Times(f) for f in fields[: 1 if errors else None]]
    residual = [_Residual(solution, view)] if "residual" in parts else []
    points = [_Points(solution, view)] if "points" in parts else []
    convergence = [_Convergence(solution.problem, history)] if "convergence" in parts else []
    if view.sliced is None:
        above: list[_Drawing] = [v for row in values for v in row]
        rows = [[*above, *residual, *convergence], [*errors, *points, *rest]]
    else:
        rows = [[*(values[c] if values else []), *(errors[c : c + 1])] for c in range(len(fields))]
        rows.append([*rest, *residual, *points, *convergence])
    return [row for row in rows if row]


class _Unknown:
    """An unknown and its exact values on slices; NaN outside the part where it is defined."""

    def __init__(self, solution: Solution, view: _View, component: int) -> None:
        self.solution, self.view, self.component = solution, view, component
        self.name = solution.problem.unknowns[component]
        problem = solution.problem
        self._home = problem.parts.get(self.name, problem.domain)

    def on(self, others: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray | None]:
        """The values and the exact values on a slice, each ``[n]`` or ``[n_1, n_2]``."""
        x, along = self.view.points(others)
        shape, problem, c = [len(a) for a in along], self.solution.problem, self.component
        outside = ~self._home.contains(x)
        values = torch.cat([self.solution(part) for part in x.split(_CHUNK)])[:, c].double().cpu()
        values[outside] = float("nan")
        exact = None
        if problem.has_solution:
            exact = problem.exact_jet(x, jet_rows(0, problem.n_dims)).value[:, c]
            exact[outside] = float("nan")
            exact = exact.reshape(shape).numpy()
        return values.reshape(shape).numpy(), exact


@dataclass(frozen=True)
class _Values(_Drawing):
    of: _Unknown
    others: Mapping[str, float]

    def draw(self, panel: Axes) -> None:
        values, exact = self.of.on(self.others)
        panel.set_title(f"{self.of.name}{self.of.view.at(self.others)}", fontsize=_TEXT)
        if len(self.of.view.across) == 1:
            _curve(panel, self.of.view, values, exact)
        else:
            low, high = _limits(values)
            _map(panel, self.of.view, values, cmap="viridis", vmin=low, vmax=high)


@dataclass(frozen=True)
class _Error(_Drawing):
    of: _Unknown

    def draw(self, panel: Axes) -> None:
        view = self.of.view
        values, exact = self.of.on(view.last)
        assert exact is not None
        difference = values - exact
        size = np.abs(difference)
        title = f"error of {self.of.name}{view.at(view.last)}, up to {_largest(size):.1e}"
        panel.set_title(title, fontsize=_TEXT)
        if len(view.across) == 1:
            _curve(panel, view, difference, None)
            panel.axhline(0, color="grey", linewidth=0.5)
            return
        _, end = _limits(size)
        _map(panel, view, difference, cmap="RdBu_r", vmin=-(end or 1.0), vmax=end or 1.0)


@dataclass(frozen=True)
class _Times(_Drawing):
    """An unknown over space at four times."""

    of: _Unknown

    def draw(self, panel: Axes) -> None:
        from matplotlib import colormaps

        view, (_, space) = self.of.view, self.of.view.across
        values, exact = self.of.on(view.last)
        times, positions = view.points(view.last)[1]
        panel.set_title(f"{self.of.name} at times", fontsize=_TEXT)
        panel.set_xlabel(space, fontsize=_SMALL)
        for part in (0.0, 1 / 3, 2 / 3, 1.0):
            k = round(part * (len(times) - 1))
            colour = colormaps["viridis"](0.9 * part)
            label = f"{TIME} = {times[k]:.3g}"
            panel.plot(positions, values[k], color=colour, linewidth=1.2, label=label)
            if exact is not None:
                exactly = "exact" if part == 1 else None
                panel.plot(positions, exact[k], "k--", linewidth=0.5, label=exactly)
        panel.legend(fontsize=_SMALL - 1, framealpha=0.6)


@dataclass(frozen=True)
class _Stream(_Drawing):
    """Streamlines of a velocity over a map of its speed."""

    u: _Unknown
    v: _Unknown

    def draw(self, panel: Axes) -> None:
        view = self.u.view
        (u, _), (v, _) = self.u.on(view.last), self.v.on(view.last)
        title = f"streamlines of ({self.u.name}, {self.v.name}), speed"
        panel.set_title(f"{title}{view.at(view.last)}", fontsize=_TEXT)
        speed = np.hypot(u, v)
        low, high = _limits(speed)
        _map(panel, view, speed, cmap="viridis", vmin=low, vmax=high)
        x, y = view.points(view.last)[1]
        if np.isfinite(u).any() and np.isfinite(v).any():
            panel.streamplot(
                x, y, u.T, v.T, color="white", linewidth=0.6, density=0.9, arrowsize=0.6
            )
            panel.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


@dataclass(frozen=True)
class _Residual(_Drawing):
    """√(Σ (residual - target)²) over the equations that hold at a point."""

    solution: Solution
    view: _View

    def draw(self, panel: Axes) -> None:
        from matplotlib.colors import LogNorm

        view = self.view
        x, along = view.points(view.last)
        size = _residual(self.solution, x).reshape([len(a) for a in along]).numpy()
        panel.set_title(f"|residual|{view.at(view.last)}", fontsize=_TEXT)
        largest = _largest(size)
        if len(view.across) == 1:
            _curve(panel, view, size, None)
            if largest > 0:
                _log_y(panel)
                panel.set_ylim(bottom=_lowest(size, largest))
        elif largest > 0:
            lowest = _lowest(size, largest)
            norm = LogNorm(lowest, largest)
            _map(panel, view, np.maximum(size, lowest), cmap="cividis", norm=norm)
        else:
            _map(panel, view, size, cmap="cividis")


@dataclass(frozen=True)
class _Points(_Drawing):
    """The collocation points of each condition near the slice that is drawn."""

    solution: Solution
    view: _View

    def draw(self, panel: Axes) -> None:
        view, last = self.view, self.view.last
        near = view.at(last).replace(" at ", " near ")
        columns = [view.domain.axes.index(axis) for axis in view.across]
        drawn: list[str] = []
        some_of = ""
        for k, (name, x) in enumerate(self.solution.points.items()):
            x = x[self._is_near(x)]
            if not len(x):
                continue
            if len(x) > _DOTS:
                some_of = "some of the "
            some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_DOTS]
            x = x[some][:, columns].numpy()
            rows = x[:, 1] if len(columns) == 2 else np.full(len(x), len(drawn))
            colour = _COLOURS[k % len(_COLOURS)]
            panel.scatter(x[:, 0], rows, s=3, linewidths=0, color=colour, label=name)
            drawn.append(name)
        panel.set_title(f"{some_of}points{near}", fontsize=_TEXT)
        _label(panel, view)
        if len(columns) == 1:
            panel.set_yticks(range(len(drawn)), drawn)
            return
        panel.set(
            xlim=_wider(view.bounds(view.across[0])), ylim=_wider(view.bounds(view.across[1]))
        )
        if drawn:
            size = _SMALL - 1
            panel.legend(  # below, where it covers no points
                fontsize=size, markerscale=2.5, frameon=False, handletextpad=0, columnspacing=1,
                ncols=min(3, len(drawn)), loc="upper center", bbox_to_anchor=(0.5, 0),
                borderpad=0, borderaxespad=_BELOW / size,
            )  # fmt: skip

    def _is_near(self, x: Tensor) -> Tensor:
        near = torch.ones(len(x), dtype=torch.bool)
        for axis, value in self.view.last.items():
            low, high = self.view.bounds(axis)
            near &= (x[:, self.view.domain.axes.index(axis)] - value).abs() <= (high - low) / 20
        return near


@dataclass(frozen=True)
class _Convergence(_Drawing):
    """Loss and errors, evaluation by evaluation."""

    problem: Problem
    history: History

    def draw(self, panel: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        history = self.history
        labels = {"loss": "loss"}
        labels |= {f"l2_{u}": f"error of {u}" for u in self.problem.unknowns}
        labels |= {
            column: f"error of {name}"
            for name, _ in self.problem.named_parameters()
            if (column := f"error_{name}") in history[0]
        }
        epochs = [row["epoch"] for row in history]
        marker = "o" if len(history) <= 40 else None
        for k, (column, label) in enumerate(labels.items()):
            values = np.array([row[column] for row in history], dtype=float)
            if np.isfinite(values).any() and (values > 0).any():
                colour = _COLOURS[(k - 1) % len(_COLOURS)]
                panel.plot(
                    epochs, values, marker=marker, markersize=3, linewidth=1,
                    color=colour, label=label,
                )  # fmt: skip
        _log_y(panel)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        panel.set_xlabel("epoch", fontsize=_SMALL)
        panel.set_title("convergence", fontsize=_TEXT)
        panel.grid(axis="y", linewidth=0.3)
        if panel.lines:
            panel.legend(fontsize=_SMALL - 1, framealpha=0.6)


def _curve(panel: Axes, view: _View, values: np.ndarray, exact: np.ndarray | None) -> None:
    (x,) = view.points(view.last)[1]
    panel.plot(x, values, color=_COLOURS[0], linewidth=1.5)
    if exact is not None:
        panel.plot(x, exact, "k--", linewidth=0.7, label="exact")
        panel.legend(fontsize=_SMALL - 1, framealpha=0.6)
    panel.ticklabel_format(axis="y", scilimits=(-3, 4))
    panel.yaxis.get_offset_text().set_fontsize(_SMALL)
    _label(panel, view)
    _say_where_not_finite(panel, values)


def _log_y(panel: Axes) -> None:
    """Make the y axis logarithmic, with labels as 1e-03; to draw formulas takes much longer."""
    from matplotlib.ticker import LogFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(LogFormatter())
    panel.yaxis.set_minor_formatter(LogFormatter())


def _map(panel: Axes, view: _View, values: np.ndarray, **colours: Any) -> None:
    extent = [end for axis in view.across for end in view.bounds(axis)]
    shown = panel.imshow(values.T, origin="lower", extent=extent, **colours)  # type: ignore[arg-type]
    figure = panel.get_figure()
    assert figure is not None
    below = bool((values < colours.get("vmin", -np.inf)).any())
    above = bool((values > colours.get("vmax", np.inf)).any())
    extend = ("neither", "min", "max", "both")[below + 2 * above]
    bar = figure.colorbar(shown, ax=panel, pad=0.02, aspect=25, extend=extend)
    bar.ax.tick_params(labelsize=_SMALL)
    if "norm" not in colours:
        bar.formatter.set_powerlimits((-3, 4))  # type: ignore[attr-defined]
        bar.ax.yaxis.get_offset_text().set_fontsize(_SMALL)
    _label(panel, view)
    _say_where_not_finite(panel, values)


def _label(panel: Axes, view: _View) -> None:
    """Label the axes; two axes of space get the same scale."""
    panel.set_xlabel(view.across[0], fontsize=_SMALL)
    if len(view.across) == 2:
        panel.set_ylabel(view.across[1], fontsize=_SMALL, rotation=0)
        panel.set_aspect("equal" if view.is_in_space else "auto")


def _say_where_not_finite(panel: Axes, values: np.ndarray) -> None:
    if not np.isfinite(values).any():
        panel.text(0.5, 0.5, "not finite", fontsize=_TEXT, ha="center", transform=panel.transAxes)


def _largest(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.max()) if len(good) else 0.0


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The limits of a colour scale: the smallest and the largest value. If one value in 200 makes
    this range more than twice as wide, it is left out; the scale then ends in arrows."""
    good = values[np.isfinite(values)]
    if not len(good):
        return 0.0, 1.0
    low, high = float(good.min()), float(good.max())
    inner = np.quantile(good, (0.0025, 0.9975)).tolist()
    if 0 < 2 * (inner[1] - inner[0]) < high - low:
        low, high = inner
    return low, high


def _lowest(values: np.ndarray, largest: float) -> float:
    """The lower limit of a logarithmic scale, without the smallest percent of the values."""
    good = values[np.isfinite(values) & (values > 0)]
    return max(float(np.quantile(good, 0.01)), 10**-_DECADES * largest) * (1 - 1e-9)


def _wider(ends: tuple[float, float]) -> tuple[float, float]:
    margin = 0.03 * (ends[1] - ends[0])
    return ends[0] - margin, ends[1] + margin


# ---------------------------------------------------------------------------------------- residuals
def _in_the_domain(solution: Solution) -> Iterator[Any]:
    """The conditions that are equations in the domain, which can be evaluated at any point."""
    for condition in solution.problem.checked_conditions():
        if isinstance(condition.where, Domain) and condition.kind == "residual":
            yield condition


def _residual(solution: Solution, x: Tensor) -> Tensor:
    """√(Σ (residual - target)²) over the equations at a point, ``[N]``; NaN without an equation."""
    problem, total = solution.problem, torch.full((len(x),), float("nan"), dtype=torch.float64)
    device = solution.field.network.params.device
    for condition in _in_the_domain(solution):
        for [index] in (part.unbind(1) for part in _inside(condition.where, x).split(_CHUNK)):
            at = x[index].to(device)
            rows, _ = trace(condition, problem.names, at, None)
            jet = solution.jet(at, rows)
            jet = Jet(jet.data.double(), jet.rows, jet.names)
            value = equations(condition, at, jet, None).detach() - problem.target(condition, at)
            squares = value.square().sum(dim=1).cpu()
            total[index] = total[index].nan_to_num() + squares
    return total.sqrt()


def _inside(domain: Domain, x: Tensor) -> Tensor:
    return domain.contains(x).nonzero()


def _velocity(solution: Solution, view: _View) -> tuple[int, int] | None:
    """The two unknowns whose divergence along the drawn axes is 0 by a condition; None if there is
    no such condition."""
    problem = solution.problem
    if len(view.across) < 2 or not view.is_in_space:
        return None
    j, k = (problem.domain.axes.index(axis) for axis in view.across)
    n_dims, names = problem.n_dims, problem.names
    first, second = (tuple(int(i == axis) for i in range(n_dims)) for axis in (j, k))
    for condition in _in_the_domain(solution):
        x = condition.where.sample(16)
        rows, _ = trace(condition, names, x, None)
        if first not in rows or second not in rows:
            continue
        generator = torch.Generator().manual_seed(0)
        shape = (len(rows), len(x), len(names.unknowns))
        jet = Jet(torch.randn(shape, generator=generator, dtype=torch.float64), rows, names)
        with torch.no_grad():
            columns = equations(condition, x, jet, None).unbind(dim=1)
        for a, b in permutations(range(len(names.unknowns)), 2):
            divergence = jet[first][:, a] + jet[second][:, b]
            if any(torch.allclose(column, divergence) for column in columns):
                return a, b
    return None
