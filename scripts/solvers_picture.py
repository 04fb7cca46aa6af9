"""Plot error over seconds: every optimizer on six problems, with collocation as the floor.

All optimizers train the same field, a grid and a network in float64, on the same points for equal
seconds. ``splines`` are Gauss–Newton steps for splines without a network, which are least squares
where the problem is linear. The floor is collocation with splines (`benchmarks.collocation`) with
more and more cells. Finished runs are not repeated, unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package benchmarks, which is not installed

from benchmarks import collocation  # noqa: E402
from benchmarks.machine import ENVIRONMENT, environment_columns  # noqa: E402
from diffhash import MLP, Field, GridEncoding, solve  # noqa: E402
from diffhash._files import write_text_atomically  # noqa: E402
from diffhash.cli.command import run_command  # noqa: E402
from diffhash.networks import Linear  # noqa: E402
from diffhash.optim import (  # noqa: E402
    LBFGS,
    FirstOrder,
    GaussNewton,
    OptimizerSettings,
    SSBroyden,
    Task,
)
from diffhash.problems import Problem, zoo  # noqa: E402
from diffhash.results.figures import style  # noqa: E402
from diffhash.training.fields import problem_field  # noqa: E402

KEY = ["problem", "optimizer", "budget"]
COLUMNS = [*KEY, "epoch", "seconds", "l2", "loss", "parameters", *ENVIRONMENT]
SPLINES = "splines"  # without a network
# The number of cells along each axis of nonic splines without a network.
CELLS = {"helmholtz2d": 40, "wave1d": 48, "convection": 64, "multiscale_poisson2d": 96,
         "kovasznay": 24, "burgers1d": 96}  # fmt: skip
PROBLEMS = tuple(CELLS)
_RATES = {"adam": 1e-2, "soap": 3e-3}
_MANY = 10**6  # epochs: more than there is time for
_CHUNK = 20  # epochs between two evaluations
_ROWS = 80  # largest number of rows of a curve
_LARGEST = 500  # SOAP preconditions no larger dimension, hence no rows of a table


def _soap(parameters: Any) -> torch.optim.Optimizer:
    from pytorch_optimizer import SOAP

    return SOAP(parameters, max_precondition_dim=_LARGEST)


OPTIMIZERS: dict[str, Callable[[], OptimizerSettings | None]] = {
    "adam": lambda: None,
    "soap": lambda: FirstOrder(make_optimizer=_soap),
    "lbfgs": LBFGS,
    "ssbroyden": SSBroyden,
    "gauss_newton": GaussNewton,
    SPLINES: GaussNewton,
}
_LOOKS = {
    "adam": ("Adam", style.BLACK),
    "soap": ("SOAP", style.SKY),
    "lbfgs": ("L-BFGS", style.ORANGE),
    "ssbroyden": ("self-scaled Broyden", style.PURPLE),
    "gauss_newton": ("Gauss–Newton", style.BLUE),
    SPLINES: ("splines alone, Gauss–Newton", style.GREEN),
}


def main() -> int:
    """Parse the command line, solve the missing cases, write, plot and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--seconds", type=float, default=10.0, help="of training, each (%(default)g)")
    option("--threads", type=int, default=2, help="of the CPU (%(default)s)")
    option("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, help="which (all)")
    option("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), help="(all)")
    option("--again", action="store_true", help="also what is finished")
    option("--output", type=Path, default=ROOT / "results", help="its tables/ and figures/")
    arguments = parser.parse_args()
    for name in ("seconds", "threads"):
        if not getattr(arguments, name) > 0:
            parser.error(f"--{name} {getattr(arguments, name):g}: give a positive number")
    torch.set_num_threads(arguments.threads)
    tables, figures = (arguments.output / name for name in ("tables", "figures"))
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    floor = collocation.complete(tables / collocation.FILE, arguments.problems, arguments.again)
    first = {name: zoo()[name].unknowns[0] for name in PROBLEMS}
    floor = floor[floor["quantity"] == floor["problem"].map(first)]
    curves = _read(tables / "solvers_curves.csv", arguments)
    for problem in arguments.problems:
        for name in arguments.optimizers:
            is_there = (curves[KEY] == [problem, name, arguments.seconds]).all(axis=1)
            if is_there.any():
                continue
            print(f"{problem}, {name}", file=sys.stderr)
            curve = _curve(problem, name, arguments.seconds)
            curves = pd.concat([curves, curve])[COLUMNS] if len(curves) else curve[COLUMNS]
            _write(tables / "solvers_curves.csv", curves)
    chosen = curves[curves["budget"] == arguments.seconds]
    for path in _plot(chosen, floor, figures / "solvers"):
        print(path)
    best = chosen.groupby(["problem", "optimizer"], sort=False)["l2"].last().unstack()
    best["floor"] = floor.groupby("problem")["l2"].min()
    print(best.to_string(float_format=lambda value: f"{value:.1e}"))
    return 0


def _read(path: Path, arguments: argparse.Namespace) -> Any:
    if path.is_file() and not arguments.again:
        return pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    return pd.DataFrame(columns=COLUMNS)


def _write(path: Path, frame: pd.DataFrame) -> None:
    write_text_atomically(path, frame.to_csv(index=False, float_format="%.4g", na_rep="nan"))


def _curve(name: str, optimizer: str, seconds: float) -> pd.DataFrame:
    """The rows of one training, for at most `_ROWS` of its evaluations."""
    problem = zoo()[name]()
    task = Task(n_residual=8192, n_boundary=1024, wave_number=10.0)
    settings = OPTIMIZERS[optimizer]()
    if optimizer == SPLINES:
        cells = CELLS[name]
        task = Task(n_residual=3 * (cells + 9) ** 2, n_boundary=1500, wave_number=10.0)
    common: dict[str, Any] = {
        "task": task, "optimizer": settings or "adam", "seed": 0, "accelerator": "cpu",
        "evaluation_points": 5000, "progress": False,
        "learning_rate": _RATES.get(optimizer, 1e-2),
    }  # fmt: skip
    field = _field(problem, name, optimizer)
    chunk = 1 if settings and settings.needs == "residuals" else _CHUNK
    solution = solve(problem, field, epochs=_MANY, chunk=chunk, max_seconds=seconds, **common)
    history = solution.history
    shown = np.unique(np.geomspace(1, len(history), _ROWS).astype(int)) - 1
    history = history.iloc[shown]
    return pd.DataFrame(
        {
            "problem": name,
            "optimizer": optimizer,
            "budget": seconds,
            "epoch": history["epoch"].astype(int),
            "seconds": history["seconds"],
            "l2": history[f"l2_{problem.unknowns[0]}"],
            "loss": history["loss"],
            "parameters": sum(p.numel() for p in field.parameters()),
        }
    ).assign(**environment_columns(torch.device("cpu")))


def _field(problem: Problem, name: str, optimizer: str) -> Field:
    """The common field of the optimizers, as of ``recipe=neural``, or splines without a network."""
    torch.manual_seed(0)
    axes, n_unknowns, dtype = problem.domain.axes, len(problem.unknowns), torch.float64
    alone = optimizer == SPLINES
    encoding = GridEncoding(
        problem.n_dims,
        n_levels=1 if alone else None,
        n_features_per_level=n_unknowns,
        log2_hashmap_size=24 if alone else 13,
        base_resolution=CELLS[name] if alone else 12,
        per_level_scale=4.0,
        interpolation="nonic" if alone else "quintic",
        periodic=[axes.index(axis) for axis in problem.periodic],
        init_scale=0.0,
        dtype=dtype,
    )
    network: Any = Linear(encoding.n_output_dims, n_unknowns, dtype=dtype)
    if not alone:
        network = MLP(
            *(encoding.n_output_dims, n_unknowns),
            width=16, depth=1, init="xavier", skip=True, dtype=dtype,
        )  # fmt: skip
    return problem_field(problem, encoding, network)


def _plot(curves: pd.DataFrame, floor: pd.DataFrame, stem: Path) -> list[Path]:
    """Plot relative L2 over seconds of training, with a panel for each problem."""
    figure = style.new_figure(height=4.4)
    axes = figure.subplots(2, 3, squeeze=False, sharex=True).ravel()
    for ax, problem in zip(axes, PROBLEMS, strict=True):
        style.log_y(style.style_axes(ax))
        ax.set_xscale("log")
        ax.set_title(problem, fontsize=style.TEXT)
        own = floor[floor["problem"] == problem]
        if len(own):
            ax.axhline(own["l2"].min(), color=style.GREY, linewidth=0.8, linestyle=":")
            ax.plot(own["seconds"], own["l2"], color=style.GREY, marker=".", markersize=3,
                    linewidth=1.0, linestyle="--", label="floor: collocation, SciPy")  # fmt: skip
        for name, (label, colour) in _LOOKS.items():
            rows = curves[(curves["problem"] == problem) & (curves["optimizer"] == name)]
            marker = "o" if len(rows) < 5 else None
            errors = style.drawable(rows["l2"].to_numpy(float))
            ax.plot(rows["seconds"], errors, color=colour, label=label, linewidth=1.2,
                    marker=marker, markersize=3)  # fmt: skip
    for ax in axes[3:]:
        ax.set_xlabel("seconds of training", fontsize=style.TEXT)
    for ax in axes[::3]:
        ax.set_ylabel("relative $L_2$ error", fontsize=style.TEXT)
    style.add_legend(figure, axes)
    return style.write_figure(figure, stem)


if __name__ == "__main__":
    run_command("solvers_picture", main)
