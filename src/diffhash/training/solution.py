"""What solving a problem returns."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from diffhash._files import write_bytes_atomically
from diffhash.encodings import GridEncoding, Identity
from diffhash.jets import Jet, Rows
from diffhash.networks import Field, unstack_field
from diffhash.optim import FirstOrder, OptimizerSettings
from diffhash.problems import Problem
from diffhash.problems.problem import check_within
from diffhash.training.evaluation import Metrics
from diffhash.training.fields import default_field, like_field
from diffhash.training.guards import check_orders, periodic_axes
from diffhash.training.module import FieldTraining
from diffhash.training.picture import Part, draw
from diffhash.training.values import write_values
from diffhash.training.windowed import WindowedTraining
from diffhash.training.windows import Window, WindowedField

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_Field = TypeVar("_Field", bound=Field | WindowedField | None)

# torch's errors for a file that it did not write, and ours for a file of something else.
_NO_SOLUTION = (RuntimeError, KeyError, TypeError, EOFError, UnpicklingError, zipfile.BadZipFile)


class Solution:
    """A field that was trained for a problem.

    ``solution(x)`` gives the C unknowns at N points ``x [N, d]`` as ``[N, C]``, and
    ``solution.jet(x, "u_xx")`` gives their derivatives.

    Attributes:
        problem: a copy of the problem as it was when it was solved; its coefficients have the
            values that were found.
        field: the trained field, or the fields of all windows of time as one, each of which is in
            ``field.fields``.
        history: a table with a row for each evaluation: epoch, seconds, loss, metrics and the loss
            of each condition.
        metrics: the metrics of the last evaluation; see `diffhash.training.Evaluation`.
        diverged_epoch: the epoch in which the loss became NaN or infinite, or None.
        interrupted: whether training was asked to end before it had, as by Ctrl-C.
        estimate: an estimate of the relative error from residuals at points that training has not
            used; see `diffhash.training.ErrorEstimate`. It is NaN where u is 0.
        optimizer: the name of the optimizer.
        warnings: why the estimate, or coefficients, may mean little, as `solve` has warned.
        points: the points ``[N, d]`` of each condition at the end of training, by the condition's
            name. A solution that was read from a file has none.
    """

    def __init__(
        self,
        problem: Problem,
        field: Field | WindowedField,
        history: list[dict[str, float]],
        metrics: Metrics,
        diverged_epoch: int | None = None,
        estimate: float = math.nan,
        optimizer: str = "",
        points: Mapping[str, Tensor] | None = None,
        interrupted: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        self.problem, self.field, self.interrupted = problem, field, interrupted
        self.optimizer, self.points = optimizer, dict(points or {})
        self.metrics, self.diverged_epoch, self.estimate = metrics, diverged_epoch, estimate
        self.warnings = [*warnings]
        self._history = history

    @property
    def history(self) -> pd.DataFrame:
        """A pandas DataFrame with a row for each evaluation."""
        import pandas as pd

        return pd.DataFrame(self._history)

    @property
    def relative_l2(self) -> dict[str, float]:
        """The relative L2 error √(Σ(u - exact)² / Σ exact²) of each unknown, by its name, over the
        points of the evaluation. It is NaN where the problem has no exact solution."""
        return {unknown: self.metrics[f"l2_{unknown}"] for unknown in self.problem.unknowns}

    def __call__(self, x: Tensor) -> Tensor:
        """The unknowns at ``x [N, d]``, ``[N, C]``, without a graph.

        In a hole of the domain these are values that nothing has determined;
        ``solution.problem.domain.contains(x)`` tells which points are in the domain.

        Raises:
            ValueError: points of another shape, or beyond the bounds of the problem's domain, where
                nothing has determined the field. Along an axis on which the field is periodic, a
                point may lie anywhere.
        """
        with torch.no_grad():
            return self.field(self._points(x))

    def jet(self, x: Tensor, rows: Rows) -> Jet:
        """Unknowns and derivatives at ``x``: ``solution.jet(x, "u_xy")["u_xy"]`` is ``[N]``.

        Raises:
            ValueError: as for the values, or a derivative that does not exist, or that is 0
                everywhere because its order is above the degree of the field's splines.
        """
        with torch.no_grad():
            jet = self.field.jet(self._points(x), rows)
        check_orders("solution", jet.rows, self.field)
        return jet

    def _points(self, x: Any) -> Tensor:
        try:
            x = torch.as_tensor(x, device=self.field.network.params.device)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"solution: points of {type(x).__name__}: give a tensor or an array [N, d]: {error}"
            ) from error
        if x.is_complex():
            raise ValueError(f"solution: points are {x.dtype}; give real numbers")
        x = x.to(torch.float64)
        domain = self.problem.domain
        if x.ndim != 2 or x.shape[1] != domain.n_dims:
            raise ValueError(
                f"solution: points of the shape {list(x.shape)}; give [N, {domain.n_dims}], a "
                f"column for each of {', '.join(domain.axes)}"
            )
        check_within("solution", domain, x, periodic_axes(self.field))
        return x

    @property
    def method(self) -> str:
        """A description of the field and the optimizer in a few words."""
        return ", ".join(filter(None, (_described(self.field), self.optimizer)))

    @property
    def title(self) -> str:
        """A line with the problem, the method and the relative L2 error of each unknown. Where the
        exact solution is not known, it has the estimate of the error instead; it also says
        whether there are warnings."""
        if self.problem.has_solution:
            errors = ", ".join(f"{u} {error:.1e}" for u, error in self.relative_l2.items())
            errors = f"relative error {errors}"
        else:
            errors = f"estimated relative error {self.estimate:.1e}"
        if self.diverged_epoch is not None:
            errors = f"diverged at epoch {self.diverged_epoch}"
        elif self.interrupted:
            errors += ", interrupted"
        errors += ", with a warning" * bool(self.warnings)
        return f"{type(self.problem).__name__}: {self.method}; {errors}"

    def __repr__(self) -> str:
        coefficients = dict(self.problem.named_parameters())
        told = [f"{k} {v.item():.6g}" for k, v in coefficients.items() if v.numel() == 1]
        if self._history:
            told.append("epochs {epoch:.0f}, {seconds:.1f} s".format(**self._history[-1]))
        told += [f"warning: {text}" for text in self.warnings]
        return f"<Solution of {'; '.join([self.title, *told])}>"

    def plot(self, *parts: Part, **fixed: float) -> Figure:
        """Draw the solution: curves over one axis, colours over two axes, slices of a third.

        With one axis of space, time goes from left to right. With two axes of space there are
        pictures of the first, the middle and the last time; with three, of slices through the
        middle of the third axis and of its two halves. Points outside the domain are left white.
        If a condition asks the divergence of two unknowns to be 0, they are taken for a velocity
        and drawn with streamlines.

        >>> from diffhash import solve
        >>> from diffhash.problems import Poisson1D
        >>> solution = solve(Poisson1D(), epochs=20, evaluation_points=100, progress=False)
        >>> figure = solution.plot("solution", "error")

        Args:
            parts: any of ``"solution"``, ``"error"``, ``"residual"`` (the root of the sum of the
                squares of all equations in the domain), ``"points"`` (of training) and
                ``"convergence"``. Without any, all are drawn that are available.
            fixed: values at which other axes are held, such as ``t=0.5``.

        Returns:
            A figure of matplotlib.

        Raises:
            ValueError: a part is unknown or not available, such as the error without an exact
                solution; an axis is not one of the domain's, its value lies outside of the domain,
                or no axis is left to draw over.
            ImportError: matplotlib is missing; ``pip install 'diffhash[experiments]'``.
        """
        return draw(self, self._history, parts, fixed)

    def export_values(
        self,
        path: Path | str,
        derivatives: Sequence[str] = (),
        *,
        n: int | Mapping[str, int] | None = None,
        at: Any = None,
    ) -> Path:
        """Write the unknowns, derivatives and, where they are known, the exact values to a file.

        The ending of the file's name chooses the format. ``.npz`` holds NumPy arrays: the
        coordinates along each axis, and ``[n_1, …, n_d]`` for each unknown and derivative and for
        the exact value of it, ``exact_u``. ``.vtu`` is an unstructured grid of VTK, for ParaView;
        every axis is an axis of space in it, t as well. ``.pvd`` is a series of such grids in time,
        which are in a folder beside the file. Values outside the domain are NaN, and cells outside
        the domain are left out.

        Args:
            path: the name of the file.
            derivatives: names of derivatives that are written besides the unknowns, such as
                ``["u_x", "u_xx"]``.
            n: the number of points along each axis of a grid over the domain's bounding box, or a
                number for each axis, ``{"x": 200, "t": 20}``. The default is 1001, 201, 51 or 21
                for one to four axes, and 21 times in a series.
            at: points ``[N, d]`` that are used instead of a grid, or a `diffhash.geometry.Mesh`,
                for the corners and triangles of its surface.

        Returns:
            The path of the file.

        Raises:
            ValueError: the ending is none of these, a derivative or an axis does not exist, a size
                is out of range, the points have a wrong shape, the domain has more axes than VTK,
                or a series has no time.
            ImportError: pyvista, which ``.vtu`` and ``.pvd`` need, is missing;
                ``pip install 'diffhash[vtk]'``.
        """
        return write_values(self, path, derivatives, n, at)

    def save(self, path: Path | str) -> None:
        """Write the field's parameters, the problem's coefficients, the history and the metrics to
        a file, which `load` reads. With them are the problem's numbers and texts, which tell it
        from other problems of its class."""
        state = {
            "field": self.field.state_dict(),
            "problem": self.problem.state_dict(),
            "problem_name": type(self.problem).__name__,
            "settings": _settings_of(self.problem),
            "history": self._history,
            "metrics": self.metrics,
            "diverged_epoch": self.diverged_epoch,
            "estimate": self.estimate,
            "optimizer": self.optimizer,
            "interrupted": self.interrupted,
            "warnings": self.warnings,
            "times": self.field.times if isinstance(self.field, WindowedField) else None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes_atomically(path, buffer.getvalue())

    @classmethod
    def load(
        cls, path: Path | str, problem: Problem, field: Field | WindowedField | None = None
    ) -> Solution:
        """Read what `save` has written.

        Args:
            path: the name of the file.
            problem: an instance that is built like the one that was solved. A copy of it gets the
                coefficients of the file.
            field: one that is built like the field that was trained, a copy of which gets its
                parameters; None for the field that `solve` makes if none is given. Of a solution in
                windows of time it is the field of one window.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file was not written by `save`, or is of another problem or field, or of
                a problem of the same class with other numbers or texts as attributes, or other
                bounds of its domain.
        """
        check_problem(problem)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            saved = state["field"]
            rest = (state["history"], state["metrics"], state["diverged_epoch"], state["estimate"])
            optimizer = state.get("optimizer", "")
            name, own = state.get("problem_name"), type(problem).__name__
            settings = state.get("settings", {})
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: there is no such file; give one that Solution.save has written"
            ) from error
        except _NO_SOLUTION as error:
            raise ValueError(f"{path}: no file that Solution.save has written") from error
        if name not in (None, own):  # files of earlier versions do not tell
            raise ValueError(f"{path}: it is a solution of {name}; give that instead of {own}")
        given = _settings_of(problem)
        for key, value in settings.items():
            if key in given and not _alike(value, given[key]):
                raise ValueError(
                    f"{path}: it is a solution with {own}.{key} = {value!r}; the given "
                    f"problem has {given[key]!r}: give one that is built like the saved one"
                )
        problem, field = copy_problem(problem, field)
        try:
            times = state.get("times")
            if times is not None and not isinstance(field, WindowedField):
                windows = [Window(problem, pair) for pair in pairwise(times)]
                made = [like_field(field, window, _dtype_of(saved)) for window in windows]
                field = WindowedField(made, times)
            elif field is None:
                field = default_field(problem, _dtype_of(saved))
            field.load_state_dict(saved)
            problem.load_state_dict(state["problem"])
        except _NO_SOLUTION as error:
            raise ValueError(
                f"{path}: not a solution of this problem and field: {error}"
            ) from error
        later = {key: state[key] for key in ("interrupted", "warnings") if key in state}
        return cls(problem, field, *rest, optimizer, **later)

    def export(self, path: Path | str) -> None:
        """Write the field as a program of `torch.export` that takes any number of points.

        ``torch.export.load(path).module()(x)`` runs it, in a program that imports
        `diffhash.ops.operators`.

        Raises:
            ValueError: the path does not end in ``.pt2``.
        """
        if Path(path).suffix != ".pt2":
            raise ValueError(f"path={path}: torch.export has a format of its own; give a name.pt2")
        n_dims = self.problem.n_dims
        x = torch.zeros(3, n_dims, dtype=torch.float64, device=self.field.network.params.device)
        shapes = ({0: torch.export.Dim("n_points", min=1)},)
        torch.export.save(torch.export.export(self.field, (x,), dynamic_shapes=shapes), path)


def solution_of(training: FieldTraining | WindowedTraining, index: int = 0) -> Solution:
    """What a training has found: of several replicas, what that of an index has."""
    replica, problem, field = training.replicas[index], training.problem, training.field
    assert replica.outcome is not None
    left = training.ended_by is None and replica.epochs_done < training.epochs
    if isinstance(field, Field) and field.n_replicas is not None:
        field, problem = unstack_field(field, index), deepcopy(problem)
        for coefficient in problem.parameters():
            coefficient.data = coefficient.data[index, 0]
    return Solution(
        *(problem, field, replica.history, dict(replica.outcome.metrics)),
        *(replica.diverged_epoch, replica.outcome.estimate),
        *(_name_of(training.solver), training.points),
        interrupted=left and replica.diverged_epoch is None,
        warnings=replica.outcome.warnings,
    )


def check_problem(problem: object) -> None:
    """Raise ValueError unless it is an instance of a problem."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem={problem!r}: give an instance of a Problem, as Poisson1D()")


def copy_problem(problem: Problem, field: _Field) -> tuple[Problem, _Field]:
    """Copy a problem and a field of it, so that later changes of one leave the other as it is.

    Raises:
        ValueError: an attribute of the problem, or the field, cannot be copied.
    """
    try:
        return deepcopy((problem, field))  # together: the field may have a method of the problem
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{type(problem).__name__}: it cannot be copied with its field, because an attribute "
            f"cannot: {error}; keep that outside of the problem, as in a variable of the module"
        ) from error


_OF_MODULES = frozenset(vars(nn.Module()))  # attributes that are no settings


def _settings_of(problem: Problem) -> dict[str, Any]:
    """The attributes of a problem and its classes that are plain, and its domain's bounds."""
    _ = problem.names  # there is a domain
    found: dict[str, Any] = {}
    owners = [one for one in reversed(type(problem).__mro__) if issubclass(one, Problem)]
    for owner in (*owners, problem):
        found |= {name: _plain(value) for name, value in vars(owner).items()}
    found |= {"domain.bounds": _plain(problem.domain.bounds)}
    return {
        name: value
        for name, value in found.items()
        if value is not None and not name.startswith("__") and name not in _OF_MODULES
    }


def _plain(value: Any) -> Any:
    """A number, a text or a tuple of them in Python's own types; None of anything else."""
    match value:
        case bool():
            return value
        case Integral():
            return int(value)
        case Real():
            return float(value)
        case str():
            return str(value)
        case tuple() | list():
            parts = tuple(map(_plain, value))
            return None if None in parts else parts
    return None


def _alike(first: Any, second: Any) -> bool:
    """Whether two settings are equal, up to the rounding of numbers that were computed."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second) or (math.isnan(first) and math.isnan(second))
    return first == second


def _dtype_of(state: Mapping[str, Any]) -> torch.dtype:
    """The type of the parameters of a saved field."""
    found = (state[key].dtype for key in state if key.endswith("network.params"))
    return next(found, torch.float32)


def _name_of(optimizer: OptimizerSettings | None) -> str:
    if isinstance(optimizer, FirstOrder):
        return optimizer.name
    name = "Adam" if optimizer is None else type(optimizer).__name__
    return {"GaussNewton": "Gauss–Newton", "LBFGS": "L-BFGS"}.get(name, name)


def _described(field: Field | WindowedField) -> str:
    """A field in a few words."""
    encoding, network = field.encoding, field.network
    hidden = network.widths[1:-1]
    skip = " and a skip" if network.has_skip else ""
    head = f"{type(network).__name__} {'×'.join(map(str, hidden))}{skip}" if hidden else ""
    windows = f", {len(field.fields)} windows" if isinstance(field, WindowedField) else ""
    if isinstance(encoding, Identity):
        return f"{head or 'a linear function'}{windows}"
    if not isinstance(encoding, GridEncoding):
        return f"{type(encoding).__name__}{' + ' * bool(head)}{head}{windows}"
    levels = encoding.layout.levels
    sizes = f"{'–'.join(dict.fromkeys(_cells(levels[k].scales) for k in (0, -1)))} cells"
    hashed = ", hashed" if any(level.hashed for level in levels) else ""
    kind = f"grid + {head}" if head else "splines"
    return f"{encoding.layout.interpolation.name} {kind}, {sizes}{hashed}{windows}"


def _cells(scales: Sequence[float]) -> str:
    told = [f"{scale:g}" for scale in scales]
    return told[0] if len(set(told)) == 1 else "×".join(told)
