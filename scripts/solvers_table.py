"""Solve the package's problems by Gauss–Newton, one after the other, and tabulate the errors.

Fields are splines of one grid, whose coefficients are found by least squares or Newton steps, and
grids with a network. Numbers of cells were chosen by how the error decreases with them for other
coefficients (helmholtz2d with a = 4), or, as follows, without use of the error:

- kdv, kovasznay, convection: from the residuals and the estimated error after training;
- taylor_green, flow_mixing, burgers1d: from the estimate, and the change of the solution with
  other numbers of cells (9; 48 and 56; 1300 x 10, 1400 x 14 and 1800 x 14);
- inverse_burgers: from the estimate, which is a seventieth of that for 800 x 20 cells; with a
  network, from the loss and the agreement of both coefficients between numbers of cells;
- helmholtz2d with a = 100: from the estimate, and the change of the solution with 320 cells and
  with fewer points. Two points for each coefficient, also on a lattice, leave residuals
  between the points;
- helmholtz3d with a = 10: there are a tenth more cells for each wave than for a = 3 with six cells,
  where the error is 1e-5, and five points for each coefficient;
- kdv_cosine, kuramoto_sivashinsky, gray_scott: from the estimate of each window, which grows where
  fronts form and waves change fast, and the change of the solution with other numbers of cells
  (480 x 20, 640 x 12, 1000 x 12 and 1000 x 16; 400 x 12, 800 x 8 and 1000 x 8; 200 x 8 in equal
  windows); the number of steps of kuramoto_sivashinsky from the estimate, too;
- allen_cahn, whose initial values have a kink: windows that grow from 0.001 on, by the estimate of
  each, and the change of the solution with 1536 x 6 cells;
- cavity: from the change of the solution with 48, 64, 80 and 96 cells. Its points are a lattice
  with the corners: without a point in the corner where p is given, p jumps next to it;
- heat2d, inverse_heat_field: from the loss and the estimate;
- inverse_burgers with noise: as without noise;
- inverse_poisson_field with noise: by fourfold cross-validation of the measured values, among
  twelve combinations of cubic, quintic, septic or nonic splines, cells and weights;
- networks with a skip connection: cells and points are those of splines, except for flow_mixing,
  kdv_cosine and a = 100, which have fewer cells, and helmholtz3d, which has fewer points, to save
  time. The numbers of steps are those after which the loss does not decrease further. poisson1d,
  where networks are of the paper's kind, and inverse_burgers, whose loss is smaller without, have
  no skip connection.

Finished rows are not repeated, unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from diffhash import MLP, Field, GridEncoding, solve
from diffhash._files import write_text_atomically
from diffhash.experiment.environment import describe_environment, keep_freed_memory
from diffhash.networks import Linear
from diffhash.optim import GaussNewton, Task
from diffhash.problems import Problem, zoo
from diffhash.training.fields import problem_field

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "tables" / "solvers.csv"
KEY = ["row", "seed"]


@dataclass(frozen=True)
class Row:
    """A problem, and the field and settings by which it is solved.

    Attributes:
        problem: the name of a problem of the package.
        settings: the arguments of the problem.
        interpolation: the interpolation of the grid.
        cells: the number of cells of the coarsest level, for all axes or for each axis; with
            windows, the number in each window.
        levels: the number of levels, each twice as fine as the one before.
        windows: the number of windows of time, or the times between them.
        features: the number of features of a vertex of a level; 0 for one for each unknown.
        width: the number of units of the network's one hidden layer; 0 for splines alone.
        skip: whether the network has a skip connection; u then begins as splines that are 0.
        table: log2 of the largest number of vertices of a level; a level with more is hashed.
        n_residual: the number of points of each condition in the domain.
        n_boundary: the number of points of each other condition.
        rule: the rule by which the points are placed.
        data_weight: the weight of measured values, relative to all other conditions.
        target: the wanted relative L2 error of the first unknown.
    """

    problem: str
    settings: dict[str, Any] = field(default_factory=dict)
    interpolation: str = "nonic"
    cells: int | tuple[int, ...] = 64
    levels: int = 1
    windows: int | tuple[float, ...] = 1
    features: int = 0
    width: int = 0
    skip: bool = False
    table: int = 24
    n_residual: int = 12_000
    n_boundary: int = 2048
    rule: str = "even"
    data_weight: float = 1.0
    kind: Literal["pinn", "data"] = "pinn"
    epochs: int = 40
    target: float | None = None

    @property
    def name(self) -> str:
        """The name, unique among the rows."""
        told = " ".join(f"{key}={value}" for key, value in self.settings.items())
        cells = self.cells if isinstance(self.cells, int) else "x".join(map(str, self.cells))
        levels = f" {self.levels} levels" if self.levels > 1 else ""
        n_windows = self.windows if isinstance(self.windows, int) else len(self.windows) + 1
        windows = f" {n_windows} windows" if n_windows > 1 else ""
        head = f" + MLP {self.width}{' and a skip' * self.skip}" if self.width else ""
        hashed = f" hashed to 2^{self.table}" if self.table < 20 else ""
        return " ".join(
            f"{self.problem} {told} {self.kind}: {self.interpolation} {cells} cells{levels}"
            f"{windows}{hashed}{head}".split()
        )


# Times between windows, which are shorter where the solution changes fast.
_ALLEN_CAHN = (0.001, 0.01, 0.05, 0.2, 0.45, 0.7)
_KURAMOTO = (*(k / 25 for k in range(1, 11)), *(k / 50 for k in range(21, 50)))
_GRAY_SCOTT = (0.005, 0.015, 0.03, *(k / 20 for k in range(1, 20)))
ROWS = [
    Row("helmholtz2d", {"a": 10}, cells=72, n_residual=20_000, target=1e-8),
    Row("helmholtz2d", {"a": 20}, cells=152, n_residual=85_000, n_boundary=6000, target=1e-8),
    Row("helmholtz2d", {"a": 100}, cells=400, n_residual=2**19, n_boundary=14_000, target=1e-6),
    Row("helmholtz2d", {"a": (1, 4), "low": -1}, cells=40, n_residual=9000, n_boundary=1500),
    Row("wave1d", cells=48, target=1e-8),
    Row("convection", cells=64, target=1e-8),
    Row("multiscale_poisson2d", cells=96, n_residual=36_000, n_boundary=3000, target=1e-6),
    Row("kdv", cells=(176, 12), windows=4, target=1e-6),
    Row("kovasznay", cells=24, n_residual=6000, n_boundary=800, target=1e-8),
    Row("helmholtz3d", cells=12, n_residual=46_000, n_boundary=5000, target=1e-6),
    Row("helmholtz3d", {"a": 10}, cells=22, n_residual=150_000, n_boundary=24_000, epochs=1,
        target=1e-4),
    Row("taylor_green", {}, "quintic", (12, 12, 1), n_residual=5000, epochs=6, target=7.7e-5),
    Row("flow_mixing", {}, "quintic", (80, 80, 1), windows=4, n_residual=65_000,
        n_boundary=12_000, epochs=1, target=2.3e-4),
    Row("burgers1d", cells=(1600, 18), windows=5, n_residual=155_000, n_boundary=5000, epochs=7,
        target=8.2e-9),
    Row("allen_cahn", cells=(2048, 6), windows=_ALLEN_CAHN, n_residual=66_000, n_boundary=6000,
        epochs=6, target=1.9e-6),
    Row("kdv_cosine", cells=(1200, 14), windows=10, n_residual=86_000, epochs=10, target=8.2e-11),
    Row("kuramoto_sivashinsky", cells=(1200, 8), windows=_KURAMOTO, n_residual=58_000,
        n_boundary=2400, epochs=12, target=5.1e-7),
    Row("cavity", {}, "quintic", 128, n_residual=257**2, n_boundary=4500, rule="grid", epochs=8,
        target=1.1e-4),
    Row("gray_scott", cells=(240, 8), windows=_GRAY_SCOTT, n_residual=12_000, n_boundary=1200,
        epochs=12),
    Row("heat2d", cells=(6, 6, 2), n_residual=9000, n_boundary=1500),
    Row("inverse_heat_field", {}, "septic", (6, 6, 1), n_residual=6000, n_boundary=1500, epochs=8),
    Row("inverse_poisson_field", {"noise": 0.1}, "quintic", 1, n_residual=1500, n_boundary=300,
        data_weight=1e-4, epochs=12),
    Row("inverse_burgers", cells=(1000, 30), n_residual=110_000, epochs=16),
    Row("inverse_burgers", {"noise": 0.01}, cells=(1000, 30), n_residual=110_000, epochs=16),
    Row("poisson1d", cells=1, levels=8, features=2, width=32, interpolation="quintic",
        n_residual=2000, n_boundary=500, epochs=45),
    Row("poisson1d", cells=1, levels=8, features=2, width=32, interpolation="cubic",
        n_residual=2000, n_boundary=500, epochs=45),
    Row("poisson1d", cells=1, levels=8, features=2, width=32, interpolation="quintic",
        n_residual=2000, n_boundary=500, epochs=45, table=5),
    Row("poisson1d", cells=1, levels=8, features=2, width=32, interpolation="quintic",
        kind="data", epochs=45),
    Row("helmholtz2d", {"a": 10}, cells=72, width=8, skip=True, n_residual=20_000, epochs=7,
        target=1.8e-5),
    Row("helmholtz2d", {"a": 20}, cells=152, width=8, skip=True, n_residual=85_000,
        n_boundary=6000, epochs=7, target=7.9e-5),
    Row("helmholtz2d", {"a": (1, 4), "low": -1}, cells=40, width=8, skip=True, n_residual=9000,
        n_boundary=1500, epochs=7, target=4.1e-5),
    Row("wave1d", cells=48, width=8, skip=True, epochs=7, target=5.4e-7),
    Row("convection", cells=64, width=8, skip=True, epochs=7, target=8.5e-5),
    Row("multiscale_poisson2d", cells=96, width=8, skip=True, n_residual=36_000, n_boundary=3000,
        epochs=7, target=4.8e-7),
    Row("kdv", cells=(176, 12), windows=4, width=8, skip=True, epochs=6, target=1e-4),
    Row("kdv_cosine", cells=(576, 10), windows=10, width=8, skip=True, n_residual=36_000, epochs=6,
        target=8.2e-11),
    Row("kovasznay", cells=24, width=8, skip=True, n_residual=6000, n_boundary=800, epochs=8,
        target=1e-8),
    Row("helmholtz3d", cells=12, width=8, skip=True, n_residual=28_000, n_boundary=3000, epochs=4,
        target=6.1e-5),
    Row("taylor_green", {}, "quintic", (12, 12, 1), width=8, skip=True, n_residual=5000, epochs=5,
        target=7.7e-5),
    Row("flow_mixing", {}, "quintic", (72, 72, 1), windows=4, width=8, skip=True,
        n_residual=53_000, n_boundary=10_000, epochs=3, target=2.3e-4),
    Row("burgers1d", cells=(1600, 18), windows=5, width=8, skip=True, n_residual=155_000,
        n_boundary=5000, epochs=6, target=8.2e-9),
    Row("allen_cahn", cells=(2048, 6), windows=_ALLEN_CAHN, width=8, skip=True, n_residual=66_000,
        n_boundary=6000, epochs=6, target=1.9e-6),
    Row("helmholtz2d", {"a": 100}, cells=256, width=8, skip=True, n_residual=150_000,
        n_boundary=10_000, epochs=6, target=9.2e-3),
    Row("cavity", {}, "quintic", 128, width=8, skip=True, n_residual=257**2, n_boundary=4500,
        rule="grid", epochs=8, target=1.1e-4),
    Row("inverse_burgers", {}, "septic", (64, 16), features=2, width=16, n_residual=16_000,
        epochs=60),
]  # fmt: skip


def main() -> int:
    """Parse the command line, solve the missing rows, write and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--seeds", type=int, default=3, help="of rows with a network")
    option("--only", default="", help="rows whose names have this in them")
    option("--again", action="store_true", help="also those that are finished")
    option("--output", type=Path, default=OUTPUT, help="a CSV")
    arguments = parser.parse_args()
    keep_freed_memory()  # as train.py does
    found = pd.DataFrame(columns=KEY)
    if arguments.output.is_file() and not arguments.again:
        found = pd.read_csv(arguments.output)
    for row in ROWS:
        for seed in range(arguments.seeds if row.width else 1):
            is_there = ((found.row == row.name) & (found.seed == seed)).any()
            if arguments.only not in row.name or is_there:
                continue
            print(f"{row.name}, seed {seed}", file=sys.stderr)
            found = pd.concat([found, pd.DataFrame([*_results(row, seed)])])
            text = found.to_csv(index=False, float_format="%.4g")
            write_text_atomically(arguments.output, text)
    table = found.groupby(["row", "unknown"], sort=False).agg(
        seeds=("seed", "nunique"),
        l2=("l2", "median"),
        l2_max=("l2", "max"),
        mse=("mse", "median"),
        estimate=("estimate", "median"),
        target=("target", "max"),
        seconds=("seconds", "median"),
        steps=("steps", "median"),
        parameters=("parameters", "max"),
    )
    print(table.to_string(float_format=lambda value: f"{value:.2g}"))
    of_u = found.loc[found.unknown == "u"]
    own = of_u["estimate"].corr(of_u["l2"], method="spearman")
    print(f"rank correlation of estimate and error: {own:.2f}")
    return 0


def _results(row: Row, seed: int) -> Iterator[dict[str, object]]:
    problem = zoo()[row.problem](**row.settings)
    task = Task(
        kind=row.kind, n_residual=row.n_residual, n_boundary=row.n_boundary,
        rule=row.rule, data_weight=row.data_weight,
        wave_number=None if row.problem == "poisson1d" else 10.0,
    )  # fmt: skip
    start = time.perf_counter()
    made = _field(row, problem, seed)
    solution = solve(
        problem, made, task=task, optimizer=GaussNewton(), epochs=row.epochs, seed=seed,
        windows=row.windows, progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    history = solution.history
    metrics = solution.metrics
    errors = dict(solution.relative_l2)
    errors |= {name: metrics[f"error_{name}"] for name in metrics if f"error_{name}" in metrics}
    for unknown, error in errors.items():
        yield {
            "row": row.name,
            "seed": seed,
            "unknown": unknown,
            "l2": error,
            "mse": metrics.get(f"mse_{unknown}"),
            "estimate": solution.estimate,
            "target": row.target if unknown == problem.unknowns[0] else None,
            "train_seconds": history.seconds.iloc[-1],
            "seconds": seconds,
            "steps": len(history),
            "diverged": solution.diverged_epoch is not None,
            "parameters": sum(p.numel() for p in solution.field.parameters()),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "machine": describe_environment("cpu")["processor"],
            "torch": torch.__version__,
        } | {key: value for key, value in asdict(row).items() if key not in ("target", "settings")}


def _field(row: Row, problem: Problem, seed: int) -> Field:
    torch.manual_seed(seed)
    axes, n_unknowns = problem.domain.axes, len(problem.unknowns)
    encoding = GridEncoding(
        problem.n_dims,
        n_levels=row.levels,
        n_features_per_level=row.features or n_unknowns,
        log2_hashmap_size=row.table,
        base_resolution=row.cells,
        interpolation=row.interpolation,
        periodic=[axes.index(axis) for axis in problem.periodic],
        init_scale=0.1 if row.width and not row.skip else 0.0,
        dtype=torch.float64,
    )
    inputs = encoding.n_output_dims
    if row.width:
        network: Any = MLP(
            inputs, n_unknowns, width=row.width, depth=1, skip=row.skip, dtype=torch.float64
        )
    else:
        network = Linear(inputs, n_unknowns, dtype=torch.float64)
    return problem_field(problem, encoding, network)


if __name__ == "__main__":
    sys.exit(main())
