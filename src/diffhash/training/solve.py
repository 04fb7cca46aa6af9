"""Problem in, solution out: `solve`, and what it returns."""

from __future__ import annotations

import io
import math
import sys
import warnings
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
from diffhash.networks import Field, Linear, unstack_field
from diffhash.ops.sizes import check_sizes
from diffhash.optim import LBFGS, FirstOrder, GaussNewton, OptimizerSettings, SSBroyden, Task
from diffhash.problems import Problem
from diffhash.problems.problem import check_within
from diffhash.training.callbacks import GracefulStop, ProgressReport
from diffhash.training.evaluation import Evaluation, Metrics
from diffhash.training.fit import fit
from diffhash.training.guards import periodic_axes
from diffhash.training.module import FieldTraining, Schedule
from diffhash.training.picture import Part, draw
from diffhash.training.samplers import Sampler
from diffhash.training.values import write_values
from diffhash.training.weightings import Weighting
from diffhash.training.windowed import WindowedTraining, first_window
from diffhash.training.windows import Window, WindowedField

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


class Solution:
    """A field that was trained for a problem.

    ``solution(x)`` gives the C unknowns at N points ``x [N, d]`` as ``[N, C]``, and
    ``solution.jet(x, "u_xx")`` gives their derivatives.

    Attributes:
        problem: the problem that was solved; its coefficients have the values that were found.
        field: the trained field, or the fields of all windows of time as one.
        history: a table with a row for each evaluation: epoch, seconds, loss, metrics and the loss
            of each condition.
        metrics: the metrics of the last evaluation; see `diffhash.training.Evaluation`.
        diverged_epoch: the epoch in which the loss became NaN or infinite, or None.
        interrupted: whether training was asked to end before it had, as by Ctrl-C.
        estimate: an estimate of the relative error from residuals at points that training has not
            used; see `diffhash.training.ErrorEstimate`. It is NaN where u is 0.
        optimizer: the name of the optimizer.
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
    ) -> None:
        self.problem, self.field, self.interrupted = problem, field, interrupted
        self.optimizer, self.points = optimizer, dict(points or {})
        self.metrics, self.diverged_epoch, self.estimate = metrics, diverged_epoch, estimate
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
            ValueError: as of the values, or a derivative that does not exist.
        """
        with torch.no_grad():
            return self.field.jet(self._points(x), rows)

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
        if x.ndim == 2 and x.shape[1] == domain.n_dims:
            check_within("solution", domain, x, periodic_axes(self.field))
        return x

    @property
    def method(self) -> str:
        """A description of the field and the optimizer in a few words."""
        return ", ".join(filter(None, (_described(self.field), self.optimizer)))

    @property
    def title(self) -> str:
        """A line with the problem, the method and the relative L2 error of each unknown. Where the
        exact solution is not known, it has the estimate of the error instead."""
        if self.problem.has_solution:
            errors = ", ".join(f"{u} {error:.1e}" for u, error in self.relative_l2.items())
            errors = f"relative error {errors}"
        else:
            errors = f"estimated relative error {self.estimate:.1e}"
        if self.diverged_epoch is not None:
            errors = f"diverged at epoch {self.diverged_epoch}"
        elif self.interrupted:
            errors += ", interrupted"
        return f"{type(self.problem).__name__}: {self.method}; {errors}"

    def __repr__(self) -> str:
        coefficients = dict(self.problem.named_parameters())
        told = [f"{k} {v.item():.6g}" for k, v in coefficients.items() if v.numel() == 1]
        if self._history:
            told.append("epochs {epoch:.0f}, {seconds:.1f} s".format(**self._history[-1]))
        return f"<Solution of {'; '.join([self.title, *told])}>"

    def plot(self, *parts: Part, **fixed: float) -> Figure:
        """Draw the solution: curves over one axis, colours over two axes, slices of a third.

        With one axis of space, time goes from left to right. With two axes of space there are
        pictures of the first, the middle and the last time; with three, of slices through the
        middle of the third axis and of its two halves. Points outside the domain are left white.
        If a condition asks the divergence of two unknowns to be 0, they are taken for a velocity
        and drawn with streamlines.

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
        return draw(self, parts, fixed)

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
        a file, which `load` reads."""
        state = {
            "field": self.field.state_dict(),
            "problem": self.problem.state_dict(),
            "problem_name": type(self.problem).__name__,
            "history": self._history,
            "metrics": self.metrics,
            "diverged_epoch": self.diverged_epoch,
            "estimate": self.estimate,
            "optimizer": self.optimizer,
            "interrupted": self.interrupted,
            "times": self.field.times if isinstance(self.field, WindowedField) else None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        Path(path).write_bytes(buffer.getvalue())

    @classmethod
    def load(
        cls, path: Path | str, problem: Problem, field: Field | WindowedField | None = None
    ) -> Solution:
        """Read what `save` has written.

        Args:
            path: of the file.
            problem: an instance that is built like the one that was solved; it gets the
                coefficients of the file.
            field: one that is built like the field that was trained, which gets its parameters;
                None for the field that `solve` makes if none is given. Of a solution in windows of
                time it is the field of one window.

        Raises:
            ValueError: the file was not written by `save`, or is of another problem or field.
        """
        _check_problem(problem)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            saved = state["field"]
            rest = (state["history"], state["metrics"], state["diverged_epoch"], state["estimate"])
            optimizer = state.get("optimizer", "")
            name, own = state.get("problem_name"), type(problem).__name__
        except _NO_SOLUTION as error:
            raise ValueError(f"{path}: no file that Solution.save has written") from error
        if name not in (None, own):  # files of earlier versions do not tell
            raise ValueError(f"{path}: it is a solution of {name}; give that instead of {own}")
        try:
            times = state.get("times")
            if times is not None and not isinstance(field, WindowedField):
                windows = [Window(problem, pair) for pair in pairwise(times)]
                made = [_like(field, window, _dtype_of(saved)) for window in windows]
                field = WindowedField(made, times)
            elif field is None:
                field = default_field(problem, _dtype_of(saved))
            field.load_state_dict(saved)
            problem.load_state_dict(state["problem"])
        except _NO_SOLUTION as error:
            raise ValueError(
                f"{path}: not a solution of this problem and field: {error}"
            ) from error
        return cls(problem, field, *rest, optimizer, interrupted=state.get("interrupted", False))

    def export(self, path: Path | str) -> None:
        """Write the field as a program of `torch.export` that takes any number of points.

        ``torch.export.load(path).module()(x)`` runs it, in a program that imports `diffhash.ops`.

        Raises:
            ValueError: the path does not end in ``.pt2``.
        """
        if Path(path).suffix != ".pt2":
            raise ValueError(f"path={path}: torch.export has a format of its own; give a name.pt2")
        n_dims = self.problem.n_dims
        x = torch.zeros(3, n_dims, dtype=torch.float64, device=self.field.network.params.device)
        shapes = ({0: torch.export.Dim("n_points", min=1)},)
        torch.export.save(torch.export.export(self.field, (x,), dynamic_shapes=shapes), path)


def default_field(problem: Problem, dtype: torch.dtype = torch.float32, seed: int = 0) -> Field:
    """Make the field that `solve` uses if none is given, as ``recipe=pde`` does on a command line.

    It is a weighted sum of quintic B-splines on all levels of a grid that are dense, and is
    periodic along the problem's periodic axes.

    Args:
        problem: the problem that the field is for.
        dtype: the type of its parameters; float64 for optimizers other than Adam.
        seed: the seed of its first parameters.

    Raises:
        ValueError: the problem has no domain, or unknowns of the same name.
    """
    torch.manual_seed(seed)
    axes = problem.names.axes
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


def _like(field: Field | None, problem: Problem, dtype: torch.dtype, seed: int = 0) -> Field:
    """A field of the problem with the encoding and the network of another, or the default one."""
    if field is None:
        return default_field(problem, dtype, seed)
    return problem_field(problem, *map(deepcopy, (field.encoding, field.network)))


def _dtype_of(state: Mapping[str, Any]) -> torch.dtype:
    """The type of the parameters of a saved field."""
    found = (state[key].dtype for key in state if key.endswith("network.params"))
    return next(found, torch.float32)


def problem_field(problem: Problem, encoding: Any, network: Any) -> Field:
    """Make a field of an encoding and a network with a problem's domain, names and ansatz."""
    return Field(encoding, network, problem.domain.bounds, problem.names, problem.ansatz)


@torch.enable_grad()
def solve(
    problem: Problem,
    field: Field | None = None,
    *,
    task: Task | None = None,
    epochs: int = 5000,
    learning_rate: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.9),
    schedule: Schedule = "cosine",
    chunk: int | None = None,
    batch_size: int | None = None,
    evaluation_points: int = 10_000,
    sampler: Sampler | None = None,
    weighting: Weighting | None = None,
    optimizer: OptimizerSettings | Literal["adam", "lbfgs", "ssbroyden", "gauss_newton"] = "adam",
    max_seconds: float | None = None,
    tolerance: float | None = None,
    windows: int | Sequence[float] = 1,
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
        problem: the problem that is solved; its coefficients are trained as well.
        field: the field that training begins with, of which a copy is trained; None for
            `default_field`.
        task: the numbers of points and the weights of the conditions; None for ``Task()``, with
            8192 points of each equation, 2048 of each condition on the boundary, and weights by the
            size of each residual.
        epochs: the number of passes over the points; with full batches each is one step.
        learning_rate: the learning rate of Adam at the start.
        betas: β₁ and β₂ of Adam; see `diffhash.training.FieldTraining`.
        schedule: ``"cosine"``, which brings the learning rate to zero at the end, or
            ``"constant"``.
        chunk: the number of epochs between two evaluations; None for 100, and for 1 with
            `GaussNewton`.
        batch_size: the number of points of each condition that a step takes; None for all.
        evaluation_points: the number of points at which errors are computed.
        sampler: moves points while training; see `diffhash.training.samplers`.
        weighting: changes weights while training; see `diffhash.training.weightings`.
        optimizer: the settings of an optimizer, such as ``GaussNewton(adam_epochs=500)``, or its
            name. An optimizer of another package is ``FirstOrder(make_optimizer=…)``. L-BFGS,
            self-scaled Broyden and Gauss–Newton take few, costly epochs and end by themselves; they
            want a field in float64, which the default field then is.
        max_seconds: the seconds of training after which it stops; None for no limit.
        tolerance: training stops when the estimated relative error is below this number; None for
            no such limit. See `diffhash.training.ErrorEstimate`.
        windows: the number of windows of time of equal length that are solved one after the other,
            or the times between windows, such as ``[0.1, 0.5]`` for three of them. Each starts
            from the end of the one before, and has a field, ``epochs`` and ``max_seconds`` of its
            own; see `diffhash.training.windows`.
        seed: the seed of the default field and of minibatches.
        accelerator: ``"cpu"`` or ``"gpu"``; None for a GPU where there is one.
        callbacks: callbacks of Lightning.
        progress: whether progress is shown.

    Returns:
        The trained field with its history and errors. Where training diverged or was interrupted, a
        warning says so.

    Raises:
        ValueError: a setting is out of range or unknown, or a condition cannot be evaluated.
        UntrainedError: no condition reads a coefficient, or no gradient reaches a parameter.
    """
    _check_problem(problem)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "solve: torch.inference_mode has no gradients to train by; call it outside"
        )
    if field is not None and not isinstance(field, Field):
        advice = ", or one of its fields" if isinstance(field, WindowedField) else ""
        raise ValueError(f"field={type(field).__name__}: give a diffhash.Field{advice}")
    if not isinstance(task, Task | None):
        raise ValueError(f"task={task!r}: give a diffhash.optim.Task, as Task(n_residual=2000)")
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks={callback!r}: give instances of lightning.pytorch.callbacks.Callback"
            )
    check_sizes(0, 2**63 - 1, seed=seed)
    settings = _optimizer(optimizer)
    if chunk is None:
        chunk = 1 if isinstance(settings, GaussNewton) else 100
    where = _accelerator(accelerator)
    by_gradients = settings is None or settings.needs == "gradient"
    dtype = torch.float32 if by_gradients else torch.float64
    task = task or Task()

    def training_of(problem: Problem, field: Field) -> FieldTraining:
        return FieldTraining(
            field,
            task.objective(problem, periodic_axes(field)),
            Evaluation(problem, evaluation_points),
            epochs=epochs,
            learning_rate=learning_rate,
            betas=betas,
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

    def run(training: FieldTraining, title: str) -> None:
        reports = [ProgressReport(title)] if progress else []
        fit(training, where, [*reports, *callbacks, stop])

    first, name = first_window(problem, windows), type(problem).__name__
    in_windows = first is not problem
    field = _like(field, first, dtype, seed) if field is None or in_windows else deepcopy(field)
    training = training_of(first, field)
    if in_windows:
        evaluation = Evaluation(problem, evaluation_points)
        training = WindowedTraining(problem, windows, training, training_of, evaluation)
    with GracefulStop(training) as stop:
        if isinstance(training, FieldTraining):
            run(training, name)
        else:
            n = len(training.field.fields)
            training.fit(lambda one, k: run(one, f"{name}, window {k} of {n}"))
    solution = solution_of(training)
    if solution.diverged_epoch is not None or solution.interrupted:
        warnings.warn(solution.title, stacklevel=2)
    elif progress:
        told = f", estimated {solution.estimate:.1e}" if problem.has_solution else ""
        print(f"{solution.title}{told}", file=sys.stderr)
    return solution


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
    )


def _check_problem(problem: object) -> None:
    if not isinstance(problem, Problem):
        raise ValueError(f"problem={problem!r}: give an instance of a Problem, as Poisson1D()")


def _optimizer(given: OptimizerSettings | str) -> OptimizerSettings | None:
    if isinstance(given, OptimizerSettings):
        return given
    if not isinstance(given, str) or given not in OPTIMIZERS:
        name, own = getattr(given, "__name__", None), "GaussNewton()"
        if name is not None:  # a class, of ours or of any optimizer, or a function that makes one
            is_ours = isinstance(given, type) and issubclass(given, OptimizerSettings)
            own = f"{name}()" if is_ours else f"FirstOrder(make_optimizer={name})"
        raise ValueError(
            f"optimizer={name or repr(given)}: give one of {', '.join(OPTIMIZERS)}, or settings of "
            f"diffhash.optim, as {own}"
        )
    make = OPTIMIZERS[given]
    return None if make is None else make()


def _accelerator(given: str | None) -> str:
    has_gpu = torch.cuda.is_available()
    if given not in (None, "cpu", "gpu"):
        raise ValueError(f"accelerator={given!r}: give 'cpu' or 'gpu'")
    if given == "gpu" and not has_gpu:
        raise ValueError("accelerator='gpu': torch finds no CUDA device here; give 'cpu'")
    return given or ("gpu" if has_gpu else "cpu")


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
