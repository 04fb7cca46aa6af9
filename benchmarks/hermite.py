"""Hermite-NGP's setting, with other interpolations as well, in equal seconds and memory.

He et al. (ICML 2026) keep u and its mixed first derivatives at each vertex of a hash grid under a
SIREN, and state that a cubic hash grid without these derivatives fails in two dimensions. Here
their problem, grid, network, points and optimizer (``recipe=hermite_ngp``) run with each
interpolation. The error is that of the last step: no step is chosen by the exact solution.

**Equal memory.** A vertex has four rows in Hermite's tables, and one in those of the others. The
others have cells half as wide, and room for four times as many vertices, so that the numbers of
rows are equal within two percent. With a "quarter" of the memory, the others have Hermite's cells
and room for as many vertices, which is a quarter of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.suite import OPTIMIZERS, Case, Job, result
from diffhash import GridEncoding
from diffhash._files import write_text_atomically
from diffhash.results import RunRecord
from diffhash.results.figures import style
from diffhash.results.formats import format_value, markdown_table
from diffhash.results.record import read_history
from diffhash.results.statistics import median_interval

CASE = Case("helmholtz2d", {"a": "10"})
INTERPOLATIONS = ("hermite", "cubic", "quintic", "linear")
TABLES = {"dense": 20, "hashed": 16, "small": 12}
"""log2 of the largest number of vertices of a level in Hermite's tables.

On larger levels, vertices share rows: on none (dense), on those of 256 and 512 cells (hashed, the
published size), and on those of 64 cells and more (small)."""
FAILS = 0.1
"""The relative L2 error above which the paper calls an encoding failed."""
_APART = 0.8  # the largest ratio at which the smaller of two errors is called more accurate
COLUMNS = (
    *("interpolation", "table", "memory", "rows", "parameters", "seed", "budget_seconds"),
    *("status", "reason", "l2", "loss", "steps", "train_seconds", "ms_per_step"),
    *("peak_memory_mb", "base_resolution", "log2_hashmap_size", "threads", "processor"),
    "diffhash_commit",
)
_KEY = ["interpolation", "table", "memory", "seed"]
_CURVE_ROWS = 60
_LEVELS, _FEATURES, _COARSEST = 8, 2, 4  # as in recipe=hermite_ngp
_COLOURS = {
    "hermite": style.BLACK, "cubic": style.BLUE, "quintic": style.GREEN, "linear": style.VERMILION,
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """An interpolation with the size of its tables.

    Attributes:
        interpolation: an element of `INTERPOLATIONS`.
        table: a key of `TABLES`.
        memory: ``equal`` to Hermite's, or a ``quarter`` of it.
    """

    interpolation: str
    table: str
    memory: str = "equal"

    @property
    def _is_finer(self) -> bool:
        return self.interpolation != "hermite" and self.memory == "equal"

    @property
    def base_resolution(self) -> int:
        """The number of cells per axis of the coarsest level."""
        return _COARSEST * (2 if self._is_finer else 1)

    @property
    def log2_hashmap_size(self) -> int:
        """log2 of the largest number of vertices of a level."""
        return TABLES[self.table] + (2 if self._is_finer else 0)

    @property
    def name(self) -> str:
        """The name, such as ``cubic hashed quarter``."""
        return f"{self.interpolation} {self.table} {self.memory}"

    @property
    def rows(self) -> int:
        """The number of rows of the table, each with as many numbers as a level has features."""
        with torch.device("meta"):
            encoding = GridEncoding(
                2, _LEVELS, _FEATURES, self.log2_hashmap_size, self.base_resolution,
                interpolation=self.interpolation,
            )  # fmt: skip
        return encoding.layout.n_rows


GRIDS = {
    grid.name: grid
    for grid in (
        *(Grid(name, table) for table in TABLES for name in INTERPOLATIONS),
        *(Grid(name, "hashed", "quarter") for name in ("cubic", "quintic")),
    )
}


class GridJob(Job):
    """One run, whose method is a key of `GRIDS`."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the grid and the optimizer."""
        grid = GRIDS[self.method]
        return (
            *("recipe=hermite_ngp", f"encoder={grid.interpolation}"),
            f"encoder.encoding.base_resolution={grid.base_resolution}",
            f"encoder.encoding.log2_hashmap_size={grid.log2_hashmap_size}",
            *OPTIMIZERS[self.optimizer],
        )


def jobs(seeds: Sequence[int], seconds: float) -> list[Job]:
    """All jobs, in the order in which they run."""
    return [GridJob(CASE, name, "adam", seed, seconds) for seed in seeds for name in GRIDS]


# ------------------------------------------------------------------------------------ the tables


def make_tables(wanted: Sequence[Job], runs: Path) -> tuple[Any, Any]:
    """A row for each job that has been run, and its curve: the error over seconds of training."""
    rows, curves = [], []  # lists of dicts and of DataFrames
    for job in wanted:
        found = result(job, runs)
        if found is None:
            continue
        grid = GRIDS[job.method]
        key = {name: getattr(grid, name) for name in _KEY[:3]} | {"seed": job.seed}
        sizes = ("rows", "base_resolution", "log2_hashmap_size")
        row = {name: getattr(grid, name) for name in sizes}
        row |= key | {"budget_seconds": job.seconds, "status": found.status}
        if not isinstance(found, RunRecord):
            rows.append(row | {"reason": found.reason, "l2": np.inf})
            continue
        rows.append(
            row
            | {
                "parameters": found.n_parameters,
                "l2": np.inf if found.metrics["l2_u"] is None else found.metrics["l2_u"],
                "loss": found.metrics["loss"],
                "steps": found.epochs,
                "train_seconds": found.train_seconds,
                "ms_per_step": 1e3 * found.train_seconds / max(found.epochs, 1),
                "peak_memory_mb": found.peak_memory_mb,
                "threads": found.environment.get("torch_threads"),
                "processor": found.environment.get("processor"),
                "diffhash_commit": found.environment.get("git_commit"),
            }
        )
        history = read_history(job.directory(runs))
        shown = np.unique(np.linspace(0, len(history) - 1, _CURVE_ROWS).astype(int))
        history = history.iloc[shown][["epoch", "seconds", "l2_u", "loss"]]
        curves.append(history.rename(columns={"l2_u": "l2"}).assign(**key))
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    names = [*_KEY, "epoch", "seconds", "l2", "loss"]
    return table, pd.concat(curves)[names] if curves else pd.DataFrame(columns=names)


@dataclass(frozen=True)
class Claim:
    """A claim, whether it holds in the table, and the errors that it compares."""

    text: str
    holds: bool
    errors: str


def claims(table: Any) -> list[Claim]:
    """The claims about medians over seeds, of the errors at the last step.

    Raises:
        KeyError: a run that a claim is about is not in the table.
    """
    median = table.groupby(["interpolation", "table", "memory"])["l2"].median()

    def error(interpolation: str, size: str, memory: str = "equal") -> float:
        return float(median.loc[(interpolation, size, memory)])

    def shown(*pairs: tuple[str, float]) -> str:
        return ", ".join(f"{name} {format_value('l2', value)}" for name, value in pairs)

    found = []
    for size in TABLES:
        own = error("cubic", size)
        found.append(Claim(f"cubic, {size}, fails (> {FAILS})", own > FAILS, shown(("cubic", own))))
        if size == "hashed":
            less = error("cubic", size, "quarter")
            text = f"so it does with Hermite's cells and a quarter of its memory (> {FAILS})"
            found.append(Claim(text, less > FAILS, shown(("cubic", less))))
        for better, worse in (("cubic", "hermite"), ("cubic", "linear"), ("quintic", "hermite")):
            pair = [(name, error(name, size)) for name in (better, worse)]
            text = f"{size}: {better} is more accurate than {worse}"
            found.append(Claim(text, pair[0][1] <= _APART * pair[1][1], shown(*pair)))
    return found


def write(wanted: Sequence[Job], runs: Path, output: Path) -> list[str]:
    """Write the table, its page, the curves and the picture of all finished runs; return lines to
    print.

    Args:
        output: a folder with ``tables`` and ``figures``.
    """
    table, curves = make_tables(wanted, runs)
    if table.empty:
        return ["no run is finished"]
    paths = [
        write_text_atomically(output / "tables" / name, text)
        for name, text in {
            "hermite.csv": table.to_csv(index=False, float_format="%.4g"),
            "hermite_curves.csv": curves.to_csv(index=False, float_format="%.4g"),
            "hermite.md": _page(table),
        }.items()
    ]
    paths += _plot(curves, output / "figures" / "hermite")
    return [*_claim_lines(table), *map(str, paths)]


def _claim_lines(table: Any) -> list[str]:
    try:
        found = claims(table)
    except KeyError as error:
        return [f"No claims: there is no run of {error}"]
    return [f"- {'Holds' if c.holds else 'Does not hold'}: {c.text}: {c.errors}" for c in found]


def _page(table: Any) -> str:
    seconds = " and ".join(f"{s:g}" for s in sorted(table["budget_seconds"].unique()))
    processors = ", ".join(map(str, table["processor"].dropna().unique()))
    rows = []
    for (name, size, memory), group in table.groupby(_KEY[:3], sort=False):
        middle, low, high = map(float, median_interval(group["l2"].to_numpy(float)))
        ends = "" if np.isnan(low) else f" [{format_value('l2', low)}, {format_value('l2', high)}]"
        first = group.iloc[0]
        rows.append(
            {
                "Table": f"{size}{', a quarter' if memory == 'quarter' else ''}",
                "Interpolation": name,
                "Cells": f"{first['base_resolution']} to {first['base_resolution'] << _LEVELS - 1}",
                "Rows": f"{first['rows']:,}",
                "Relative L2": format_value("l2", middle) + ends,
                "Steps": f"{group['steps'].median():.0f}",
                "ms a step": f"{group['ms_per_step'].median():.0f}",
                "Peak MB": f"{group['peak_memory_mb'].max():.0f}",
            }
        )
    parts = (
        "# Hermite-NGP's setting with other interpolations",
        "Helmholtz's equation with a = 10: relative L2 errors of u at the last step, after "
        f"{seconds} s of training on one thread ({processors}); by `make hermite`. Seeds: "
        f"{table['seed'].nunique()}. Rows of the tables of all levels are counted; each has two "
        "numbers. Dense: no two vertices share a row. Hashed: the published size. Small: a "
        "sixteenth of that. A quarter: Hermite's cells, and a quarter of its rows.",
        markdown_table(rows, "ll"),
        f"## Claims\n\nMore accurate: by {1 - _APART:.0%} or more.",
        "\n".join(_claim_lines(table)),
    )
    return "\n\n".join(parts) + "\n"


def _plot(curves: Any, stem: Path) -> list[Path]:
    """Draw a panel for each table: the relative L2 error over seconds of training."""
    figure = style.new_figure(height=2.6)
    axes = figure.subplots(1, len(TABLES), squeeze=False, sharey=True).ravel()
    for ax, size in zip(axes, TABLES, strict=True):
        style.log_y(style.style_axes(ax))
        ax.set_title(size, fontsize=style.TEXT)
        ax.set_xlabel("seconds of training", fontsize=style.TEXT)
        ax.axhline(FAILS, color=style.GREY, linewidth=0.8, linestyle=":")
        for name, memory in ((n, m) for n in INTERPOLATIONS for m in ("equal", "quarter")):
            label = name if memory == "equal" else f"{name}, a quarter of the memory"
            chosen = curves.query(f"interpolation == {name!r} and memory == {memory!r}")
            for _, run in chosen[chosen["table"] == size].groupby("seed"):
                ax.plot(run["seconds"], style.drawable(run["l2"].to_numpy(float)), label=label,
                        color=_COLOURS[name], linewidth=1.2,
                        linestyle="-" if memory == "equal" else "--")  # fmt: skip
    axes[0].set_ylabel("relative $L_2$ error of $u$", fontsize=style.TEXT)
    style.add_legend(figure, axes)
    return style.write_figure(figure, stem)
