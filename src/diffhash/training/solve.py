"""Problem in, solution out: `solve`, and what it returns."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffhash.encodings import GridEncoding, Identity
from diffhash.jets import Jet, Rows
from diffhash.networks import Field, Linear
from diffhash.optim import LBFGS, FirstOrder, GaussNewton, OptimizerSettings, SSBroyden, Task
from diffhash.problems import Problem
from diffhash.training.callbacks import GracefulStop, ProgressReport
from diffhash.training.evaluation import Evaluation, Metrics
from diffhash.training.fit import fit
from diffhash.training.guards import periodic_axes
from diffhash.training.module import FieldTraining, Schedule
from diffhash.training.picture import Part, draw
from diffhash.training.samplers import Sampler
from diffhash.training.values import write_values
from diffhash.training.weightings import Weighting
from diffhash.training.windows import Window, WindowedField
from diffhash.training.windows import times as window_times

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# torch's errors for a file that it did not write, and ours for a file of something else.
_NO_SOLUTION = (RuntimeError, KeyError, TypeError, EOFError, UnpicklingError, zipfile.BadZipFile)
OPTIMIZERS: dict[str, type[OptimizerSettings] | None] = {
    "adam": None,
    "lbfgs": LBFGS,
    "ssbroyden": SSBroyden,
    "gauss_newton": GaussNewton,
}
DEFAULT_TASK = Task(n_residual=8192, n_boundary=2048, wave_number=10.0)
"""All conditions, weighted by the size of their equations, as in ``recipe=pde``."""


class Solution:
    """A field that was trained for a problem.

    ``solution(x)`` are the unknowns at points ``x [N, d]``, ``[N, C]``; ``solution.jet(x, "u_xx")``
    derivatives of them.

    Attributes:
        problem: what was solved; its coefficients are as they were found.
        field: the trained one, or those of all windows as one.
        history: one row per evaluation: epoch, seconds, loss, metrics, the loss of each condition.
        metrics: of the last one; see `Evaluation`.
        diverged_epoch: the epoch whose loss was NaN or infinite, or None.
        estimate: of the relative error, from residuals at points that are not trained on; see
            `diffhash.training.ErrorEstimate`. NaN where u is 0.
        optimizer: the name of what trained it.
        points: of each condition at the end of training, ``[N, d]``; none of one from a file.
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
    ) -> None:
        self.problem, self.field = problem, field
        self.optimizer, self.points = optimizer, dict(points or {})
        self.metrics, self.diverged_epoch, self.estimate = metrics, diverged_epoch, estimate
        self._history = history

    @property
    def history(self) -> pd.DataFrame:
        """See the class."""
        import pandas as pd

        return pd.DataFrame(self._history)

    @property
    def relative_l2(self) -> dict[str, float]:
        """Of each unknown: √(∫(u - exact)² / ∫exact²) at the points of the evaluation; NaN without
        an exact solution."""
        return {unknown: self.metrics[f"l2_{unknown}"] for unknown in self.problem.unknowns}

    def __call__(self, x: Tensor) -> Tensor:
        """The unknowns at ``x [N, d]``, ``[N, C]``, without a graph."""
        with torch.no_grad():
            return self.field(self._points(x))

    def jet(self, x: Tensor, rows: Rows) -> Jet:
        """Unknowns and derivatives at ``x``: ``solution.jet(x, "u_xy")["u_xy"]`` is ``[N]``."""
        with torch.no_grad():
            return self.field.jet(self._points(x), rows)

    def _points(self, x: Any) -> Tensor:
        device = self.field.network.params.device
        return torch.as_tensor(x, device=device).to(torch.float64)

    @property
    def method(self) -> str:
        """The field and the optimizer, in a few words."""
        return ", ".join(filter(None, (_described(self.field), self.optimizer)))

    @property
    def title(self) -> str:
        """The problem, the method, and the relative L2 error of each unknown, or, where the exact
        solution is not known, the estimate."""
        if self.problem.has_solution:
            errors = ", ".join(f"{u} {error:.1e}" for u, error in self.relative_l2.items())
            errors = f"relative error {errors}"
        else:
            errors = f"estimated relative error {self.estimate:.1e}"
        if self.diverged_epoch is not None:
            errors = f"diverged at epoch {self.diverged_epoch}"
        return f"{type(self.problem).__name__}: {self.method}; {errors}"

    def __repr__(self) -> str:
        coefficients = dict(self.problem.named_parameters())
        told = [f"{k} {v.item():.6g}" for k, v in coefficients.items() if v.numel() == 1]
        if self._history:
            told.append("epochs {epoch:.0f}, {seconds:.1f} s".format(**self._history[-1]))
        return f"<Solution of {'; '.join([self.title, *told])}>"

    def plot(self, *parts: Part, **fixed: float) -> Figure:
        """A picture: curves over one axis, colours over two, slices of a third.

        Time goes from left to right beside one axis of space; with two of them there are the first,
        the middle and the last time, and of three axes of space the middles of the halves and of
        the whole of the third. Points outside the domain are left white. A velocity, two
        unknowns whose divergence a condition asks to be 0, has its streamlines.

        Args:
            parts: which of ``solution``, ``error``, ``residual`` (√ of the sum of the squares of
                all equations in the domain), ``points`` (of training) and ``convergence``; none for
                all that there are.
            fixed: values of other axes, e.g. ``t=0.5``.

        Raises:
            ValueError: a part that is unknown, or is not there: an error without an exact
                solution, points of a solution from a file; an axis that the domain does not
                have, or a value beyond it; no axis that is left.
            ImportError: without matplotlib, ``pip install 'diffhash[experiments]'``.
        """
        return draw(self, parts, fixed)

    def export_values(
        self,
        path: Path | str,
        derivatives: Sequence[str] = (),
        *,
        n: int | Mapping[str, int] | None = None,
        at: Any = None,
    ) -> Path:
        """Unknowns, derivatives and, where they are known, their exact values as a file.

        A name that ends in ``.npz`` gives arrays of NumPy: coordinates of each axis, and each name
        and ``exact_…`` of it, ``[n_1, …, n_d]``. ``.vtu`` is an unstructured grid of VTK, for
        ParaView, in which every axis is one of space, t as well; ``.pvd`` is a series of them in
        time, in a folder beside it. Values outside the domain are NaN, cells outside are left out.

        Args:
            path: of the file.
            derivatives: besides the unknowns, as ``["u_x", "u_xx"]``.
            n: points along each axis of a grid over the domain's bounding box, or by axis,
                ``{"x": 200, "t": 20}``; 1001, 201, 51 or 21 unless said otherwise, by the number of
                axes, and 21 times of a series.
            at: points of your own instead, ``[N, d]``, or a `diffhash.geometry.Mesh`, for the
                corners and triangles of its surface.

        Raises:
            ValueError: another ending, no such derivative or axis, a size out of range, points of a
                wrong shape, more axes than VTK has, or a series without time.
            ImportError: of ``.vtu`` and ``.pvd`` without pyvista, ``pip install 'diffhash[vtk]'``.
        """
        return write_values(self, path, derivatives, n, at)

    def save(self, path: Path | str) -> None:
        """Parameters of the field and coefficients of the problem, history and metrics, as a file
        for `load`."""
        state = {
            "field": self.field.state_dict(),
            "problem": self.problem.state_dict(),
            "history": self._history,
            "metrics": self.metrics,
            "diverged_epoch": self.diverged_epoch,
            "estimate": self.estimate,
            "optimizer": self.optimizer,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        Path(path).write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path | str, problem: Problem, field: Field) -> Solution:
        """What `save` wrote, into a problem and a field that are built as those were.

        Raises:
            ValueError: the file is not one of `save`, or of another field.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            field.load_state_dict(state["field"])
            problem.load_state_dict(state["problem"])
            rest = (state["history"], state["metrics"], state["diverged_epoch"], state["estimate"])
            optimizer = state.get("optimizer", "")
        except _NO_SOLUTION as error:
            raise ValueError(
                f"{path}: not a solution of this problem and field: {error}"
            ) from error
        return cls(problem, field, *rest, optimizer)

    def export(self, path: Path | str) -> None:
        """The field as a program of `torch.export`, for any number of points, which runs where
        `diffhash.ops` is imported: ``torch.export.load(path).module()(x)``."""
        n_dims = self.problem.n_dims
        x = torch.zeros(3, n_dims, dtype=torch.float64, device=self.field.network.params.device)
        shapes = ({0: torch.export.Dim("n_points", min=1)},)
        torch.export.save(torch.export.export(self.field, (x,), dynamic_shapes=shapes), path)


def default_field(problem: Problem, dtype: torch.dtype = torch.float32, seed: int = 0) -> Field:
    """The field of a problem where none is given, that of ``recipe=pde`` on the command line: a
    weighted sum of quintic splines on all grids that are dense, periodic where the problem is."""
    torch.manual_seed(seed)
    axes = problem.domain.axes
    encoding = GridEncoding(
        problem.n_dims,
        n_levels=None,
        n_features_per_level=4,
        log2_hashmap_size=13,
        base_resolution=12,
        interpolation="quintic",
        periodic=[axes.index(axis) for axis in problem.periodic],
        init_scale=1e-3,
        dtype=dtype,
    )
    network = Linear(encoding.n_output_dims, len(problem.unknowns), dtype=dtype)
    return problem_field(problem, encoding, network)


def problem_field(problem: Problem, encoding: Any, network: Any) -> Field:
    """A field with a problem's domain, names and ansatz."""
    return Field(encoding, network, problem.domain.bounds, problem.names, problem.ansatz)


def solve(
    problem: Problem,
    field: Field | None = None,
    *,
    task: Task | None = None,
    epochs: int = 5000,
    learning_rate: float = 1e-2,
    schedule: Schedule = "cosine",
    chunk: int | None = None,
    batch_size: int | None = None,
    evaluation_points: int = 10_000,
    sampler: Sampler | None = None,
    weighting: Weighting | None = None,
    optimizer: OptimizerSettings | Literal["adam", "lbfgs", "ssbroyden", "gauss_newton"] = "adam",
    max_seconds: float | None = None,
    tolerance: float | None = None,
    windows: int = 1,
    seed: int = 0,
    accelerator: str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Solution:
    """Train a field to satisfy a problem's conditions; ``train.py`` does the same from a config.

    >>> from diffhash.problems import Poisson1D
    >>> solution = solve(Poisson1D(), epochs=20, evaluation_points=100, progress=False)
    >>> solution(torch.tensor([[0.25]])).shape
    torch.Size([1, 1])

    Args:
        problem: what is to be solved; its coefficients are trained, too.
        field: what is trained; `default_field` if None.
        task: conditions, numbers of points and weights; `DEFAULT_TASK` if None.
        epochs: passes over the points.
        learning_rate: Adam's, at the start.
        schedule: ``cosine``, to zero at the end, or ``constant``.
        chunk: epochs between two evaluations; None for 100, and 1 with `GaussNewton`.
        batch_size: points per step and condition; None for all.
        evaluation_points: at which errors are computed.
        sampler: moves points while training; see `diffhash.training.samplers`.
        weighting: changes weights while training; see `diffhash.training.weightings`.
        optimizer: its settings, as ``GaussNewton(adam_epochs=500)``, or its name. Optimizers other
            than Adam take few, costly epochs and end by themselves; they need a field in float64,
            which the default one then is.
        max_seconds: of training, after which it stops.
        tolerance: training stops when the estimated relative error is below it; see
            `diffhash.training.ErrorEstimate`.
        windows: of time, of equal length, solved one after the other: each starts from the end of
            the one before and has a field and epochs of its own; see `diffhash.training.windows`.
        seed: of the default field, and of minibatches.
        accelerator: ``cpu`` or ``gpu``; None for a GPU where there is one.
        callbacks: Lightning's.
        progress: whether to show it.

    Raises:
        ValueError: a setting out of range or unknown, or a condition that cannot be evaluated.
        UntrainedError: a parameter that no gradient reaches.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem={problem!r}: give an instance of a Problem, as Poisson1D()")
    settings = _optimizer(optimizer)
    if chunk is None:
        chunk = 1 if isinstance(settings, GaussNewton) else 100
    if accelerator is None:
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    by_gradients = settings is None or settings.needs == "gradient"
    dtype = torch.float32 if by_gradients else torch.float64
    task = task or DEFAULT_TASK

    def solved(problem: Problem, field: Field, title: str) -> Solution:
        training = FieldTraining(
            field,
            task.objective(problem, periodic_axes(field)),
            Evaluation(problem, evaluation_points),
            epochs=epochs,
            learning_rate=learning_rate,
            schedule=schedule,
            chunk=chunk,
            batch_size=batch_size,
            seed=seed,
            sampler=sampler,
            weighting=weighting,
            optimizer=settings,
            max_seconds=max_seconds,
            tolerance=tolerance,
        )
        reports = [ProgressReport(title)] if progress else []
        with GracefulStop(training) as stop:
            fit(training, accelerator, [*reports, *callbacks, stop])
        (replica,) = training.replicas
        assert replica.outcome is not None
        return Solution(
            *(problem, field, replica.history, dict(replica.outcome.metrics)),
            *(replica.diverged_epoch, replica.outcome.estimate),
            _name_of(settings),
            {term.name: term.x.detach().cpu().clone() for term in training.objective.terms},
        )

    name = type(problem).__name__
    if windows == 1:
        return solved(problem, field or default_field(problem, dtype, seed), name)
    solutions: list[Solution] = []
    fields: list[Field] = []
    ends = window_times(problem.domain, windows)
    for number, times in enumerate(pairwise(ends), 1):
        before = fields[-1] if fields else None
        window = Window(problem, times, before)
        start = before or field  # a good guess of the next one
        if start is None:
            own = default_field(window, dtype, seed)
        else:
            own = problem_field(window, *map(deepcopy, (start.encoding, start.network)))
        fields.append(own)
        solutions.append(solved(window, own, f"{name}, window {number} of {windows}"))
        if solutions[-1].diverged_epoch is not None:
            break
    whole = WindowedField(fields, ends[: len(fields) + 1])
    return _joined(problem, whole, solutions, evaluation_points)


def _optimizer(given: OptimizerSettings | str) -> OptimizerSettings | None:
    if isinstance(given, OptimizerSettings):
        return given
    if given not in OPTIMIZERS:
        raise ValueError(
            f"optimizer={given!r}: give one of {', '.join(OPTIMIZERS)}, or settings of "
            "diffhash.optim, as GaussNewton()"
        )
    make = OPTIMIZERS[given]
    return None if make is None else make()


def _name_of(optimizer: OptimizerSettings | None) -> str:
    if isinstance(optimizer, FirstOrder):
        return getattr(optimizer.make_optimizer, "__name__", "FirstOrder")
    name = "Adam" if optimizer is None else type(optimizer).__name__
    return {"GaussNewton": "Gauss–Newton", "LBFGS": "L-BFGS"}.get(name, name)


def _described(field: Field | WindowedField) -> str:
    """A field in a few words."""
    encoding, network = field.encoding, field.network
    hidden = network.widths[1:-1]
    head = f"{type(network).__name__} {'×'.join(map(str, hidden))}" if hidden else ""
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


def _joined(
    problem: Problem, field: WindowedField, solutions: Sequence[Solution], n_points: int
) -> Solution:
    """One solution from those of the windows; a window that diverged is the last of them."""
    history: list[dict[str, float]] = []
    for number, solution in enumerate(solutions, 1):
        last = history[-1] if history else {"epoch": 0, "seconds": 0.0}
        since = {key: last[key] for key in ("epoch", "seconds")}
        for row in solution._history:
            moved = {key: row[key] + since[key] for key in since}
            history.append({"window": number} | row | moved)
    evaluation = Evaluation(problem, n_points)
    evaluation.prepare(field, field.network.params.device)
    (metrics,) = evaluation.metrics()
    diverged = solutions[-1].diverged_epoch
    if diverged is not None:
        diverged = int(history[-1]["epoch"])
    estimate = max(s.estimate for s in solutions)
    names = dict.fromkeys(name for solution in solutions for name in solution.points)
    points = {
        name: torch.cat([s.points[name] for s in solutions if name in s.points]) for name in names
    }
    optimizer = solutions[0].optimizer
    return Solution(problem, field, history, metrics, diverged, estimate, optimizer, points)
