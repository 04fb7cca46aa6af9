"""Figures 1 to 5 for print, of the records of runs alone (Figures 1 and 2: of single grids)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import pi
from pathlib import Path

import numpy as np
import pandas as pd

from diffhash.paper.continuity import GRIDS, Curve
from diffhash.paper.printed import ERRORS, FOUR_ROWS, LABELS_END, TITLES
from diffhash.paper.table import Table
from diffhash.results.figures import style
from diffhash.results.figures.run import (
    absolute_error,
    draw_band,
    draw_error,
    draw_prediction,
    error_limits,
    exact_values,
)
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric, model_symbol, symbol
from diffhash.results.record import RecordError, RunRecord, read_history, read_predictions
from diffhash.results.seeds import (
    band_labels,
    combine_histories,
    combine_predictions,
    counted,
    over_seeds,
)
from diffhash.results.statistics import median_interval

# By row: colour, and whether the line is dashed, where one of the same colour or hue is not.
LINES = {
    "mlp_10k": (style.BLACK, False), "mlp_100k": (style.GREY, True), "mlp_50k": (style.GREY, True),
    "siren": (style.ORANGE, False), "ff": (style.PURPLE, True), "linear": (style.SKY, False),
    "s2": (style.GREEN, True), "cubic": (style.VERMILION, False),
    "cubic_best": (style.BLUE, False), "cubic_compact": (style.BLUE, True),
}  # fmt: skip
OTHER_LINE = (style.BLUE, True)
_DASHED = (0, (4, 1.5))
_COLUMNS = 4  # of Fig. 5


# -------------------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class Row:
    """A row of a table, with the runs that are drawn of it.

    Attributes:
        row: its key, e.g. ``mlp_10k``.
        label: ``MLP 10k``; the epochs are the runs' budget, or the paper's without a run.
        runs: directory and record of each seed that counts, or of the one there is.
    """

    row: str
    label: str
    runs: tuple[tuple[Path, RunRecord], ...] = ()

    @property
    def has_band(self) -> bool:
        """Whether it is a median, with a band around it; a single run is drawn as it is."""
        return len(self.runs) > 1

    @property
    def n_predictions(self) -> int:
        """How many of the runs predict something: those that did not diverge."""
        return len(self.runs) - self.n_diverged

    @property
    def n_diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(record.status == "diverged" for _, record in self.runs)

    @property
    def remark(self) -> str:
        """What a reader must know of the runs: empty if they completed."""
        if not self.runs:
            return "no record"
        record = self.runs[0][1]
        if self.has_band:
            return f"{self.n_diverged} of {len(self.runs)} diverged" if self.n_diverged else ""
        if record.status in ("diverged", "interrupted"):
            epoch = record.epochs if record.diverged_epoch is None else record.diverged_epoch
            return f"{record.status} at epoch {epoch}"
        return ""

    def metric(self, name: str) -> float | None:
        """A metric at the end, the median over seeds, infinite where that diverged.

        None where there is none, as of a single run that diverged.
        """
        if len(self.runs) == 1:
            return self.runs[0][1].metrics.get(name)
        values = over_seeds((record for _, record in self.runs), name)
        return float(median_interval(values)[0]) if len(values) else None

    def each(self, read: Callable[[Path], pd.DataFrame]) -> list[tuple[RunRecord, pd.DataFrame]]:
        """What ``read`` makes of the file of each run that has it; raises what ``read`` raises."""
        frames = []
        for directory, record in self.runs:
            with suppress(FileNotFoundError):
                frames.append((record, read(directory)))
        return frames

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The run's, or `combine_predictions` over seeds; None where none were written, or all of
        several runs diverged. Raises RecordError where files are corrupt or do not fit."""
        found = self.each(read_predictions)
        if not self.has_band:
            return found[0][1] if found else None
        frames = [frame for record, frame in found if record.status == "completed"]
        return combine_predictions(frames, self.n_diverged) if frames else None

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The run's, or `combine_histories` over seeds; None where none was written."""
        found = self.each(read_history)
        if not self.has_band:
            return found[0][1] if found else None
        completed, diverged = (
            [frame for record, frame in found if record.status == status]
            for status in ("completed", "diverged")
        )
        return combine_histories(completed, diverged) if completed or diverged else None


def table_rows(table: Table, *, every: bool = False) -> list[Row]:
    """The paper's rows in printed order, then others with records; ``every``: all of their runs."""
    found = {row: table.runs.get(row, []) for row in table.labels}
    kept = {row: items if every else counted(items) or items[:1] for row, items in found.items()}
    return [Row(row, label, tuple(kept[row])) for row, label in table.labels.items()]


# ------------------------------------------------------------------------------------- all of them


class NoRecordsError(RecordError):
    """Some figures could not be made for want of records.

    Attributes:
        written: the files of the others, which were made.
    """

    def __init__(self, lacking: Mapping[str, str], written: list[Path]) -> None:
        super().__init__(f"not made for want of records: {'; '.join(lacking.values())}")
        self.written = written


def make_figures(tables: Mapping[str, Table], output_dir: Path | str) -> list[Path]:
    """Write ``figure1`` … ``figure5`` as ``.png`` and ``.pdf`` and return their paths.

    Figures 1 and 2 fit single grids, the others are drawn from the tables' records:
    of a row with several seeds the pointwise median, and as a band the interval
    that the tables give. A row without a record is said to have none in its panel; a table
    without any leaves its figures out, and where neither has any nothing is written.

    Raises:
        NoRecordsError: a table without records; the figures of the other have been written.
        RecordError: a corrupt file, or predictions that do not fit each other.
        OSError: ``output_dir`` cannot be written.
    """
    lacking = {
        table: f"{', '.join(figures)} (records of {TITLES[table]} in {tables[table].folder})"
        for table, figures in _OF_RECORDS.items()
        if not tables[table].records
    }
    written: list[Path] = []
    if len(lacking) == len(_OF_RECORDS):
        raise NoRecordsError(lacking, written)
    for name, draw in {"figure1": figure1, "figure2": figure2}.items():
        written += style.write_figure(draw(), Path(output_dir) / name)
    for table, figures in _OF_RECORDS.items():
        rows = table_rows(tables[table])
        for name, draw in figures.items() if table not in lacking else ():
            written += style.write_figure(draw(rows), Path(output_dir) / name)
    if lacking:
        raise NoRecordsError(lacking, written)
    return written


# ------------------------------------------------------------------------------- Figures 1 and 2


def figure1() -> style.Figure:
    """Linear (top) and cubic (bottom) interpolation: u, u_x and u_xx of a single level."""
    return _continuity("linear", "cubic")


def figure2() -> style.Figure:
    """Smoothsteps S1 (top) and S2 (middle), and four levels of S2 offset to each other (bottom)."""
    return _continuity("s1", "s2", "offset")


def _continuity(*names: str) -> style.Figure:
    figure = style.new_figure(height=0.5 + 1.6 * len(names))
    grid = figure.subplots(len(names), 3, sharex=True)
    for axes, name in zip(grid, names, strict=True):
        curve = GRIDS[name].curve()
        for order, ax in enumerate(axes):
            _continuity_panel(style.style_axes(ax), curve, order)
        axes[0].set_ylabel(model_symbol(GRIDS[name].label), fontsize=style.TEXT)
    for top, bottom, quantity in zip(grid[0], grid[-1], ERRORS, strict=True):
        top.set_title(symbol(quantity), fontsize=style.TEXT)
        bottom.set_xlabel("$x$", fontsize=style.TEXT)
        bottom.set_xticks([0, pi / 2, pi, 3 * pi / 2, 2 * pi], ["0", "π/2", "π", "3π/2", "2π"])
    style.add_legend(figure, grid[0, :1])
    return figure


def _continuity_panel(ax: style.Axes, curve: Curve, order: int) -> None:
    exact, fitted = curve.exact[order], curve.fitted[order]
    in_axes = ax.get_xaxis_transform()
    if len(curve.vertices) == 1:
        thin = {"color": style.LIGHT, "linewidth": 0.4, "zorder": 0}
        ax.vlines(curve.vertices[0], 0, 1, transform=in_axes, **thin)
    # Wide and pale, so that it shows on both sides of a fit that covers it.
    ax.plot(
        curve.x.ravel(), exact.ravel(), color=style.SKY, linewidth=2.6, label="exact, $u = \\sin x$"
    )
    # What is discontinuous is drawn so.
    ax.plot(*curve.broken(order), color=style.VERMILION, linewidth=0.9, label="fitted grid")
    # A row of ticks per level, in a strip of its own below the curves.
    strip = 0.05 * len(curve.vertices)
    low, high = min(exact.min(), fitted.min()), max(exact.max(), fitted.max())
    height = (high - low) / (0.92 - strip)
    ax.set_ylim(high + 0.04 * height - height, high + 0.04 * height)
    ax.margins(x=0.02)
    ticks = {"color": style.BLACK, "marker": "|", "markersize": 3.5, "markeredgewidth": 0.7}
    for level, vertices in enumerate(curve.vertices):
        place, label = np.full_like(vertices, 0.025 + 0.045 * level), None if level else "vertices"
        ax.plot(vertices, place, linestyle="none", transform=in_axes, label=label, **ticks)


# -------------------------------------------------------------------------------- Figures 3 to 5


def figure3(rows: Sequence[Row]) -> style.Figure:
    """Table I: predictions of u, u_x and u_xx of four models against the exact solution."""
    figure = style.new_figure(height=6.2)
    grid = figure.subplots(len(FOUR_ROWS), len(ERRORS), sharex=True)
    drawn = [row for key in FOUR_ROWS for row in rows if row.row == key]
    bands = band_labels(row.n_predictions for row in drawn)
    for axes, name in zip(grid.T, ERRORS, strict=True):
        limits = _exact_limits(drawn, name)
        for ax, row in zip(axes, drawn, strict=True):
            _prediction(style.style_axes(ax), row, name, limits, bands)
        where = "left" if drawn[0].has_band else "center"
        axes[0].set_title(symbol(name), fontsize=style.TEXT, loc=where)
        axes[-1].set_xlabel("$x$", fontsize=style.TEXT)
    for ax, row in zip(grid[:, 0], drawn, strict=True):
        ax.set_ylabel(style.plain(row.label), fontsize=style.TEXT)
    style.add_legend(figure, grid.flat)
    return figure


def figure4(rows: Sequence[Row]) -> style.Figure:
    """Table I: histories of the loss and of the MSE of u, u_x and u_xx of every model."""
    figure = style.new_figure(height=4.6)
    grid = figure.subplots(2, 2, sharex=True)
    for ax, column in zip(grid.flat, ("loss", *ERRORS.values()), strict=True):
        style.log_y(style.style_axes(ax)).set_xscale("log")
        ax.set_title(metric(column).title, fontsize=style.TEXT)
        for row in rows:
            _history(ax, row, column)
        _history_bands(ax, rows, column)
    for ax in grid[-1]:
        ax.set_xlabel("epoch", fontsize=style.TEXT)
    style.add_legend(figure, [grid[0, 0]], n_columns=2 if any(row.remark for row in rows) else 4)
    return figure


def figure5(rows: Sequence[Row]) -> style.Figure:
    """Table II: predictions over the whole domain and their pointwise absolute errors.

    Values of u are known in the shaded region (Section III-B), beyond it only the equation.
    """
    n_bands = -(-len(rows) // _COLUMNS)
    figure = style.new_figure(height=0.4 + 3.0 * n_bands)
    grid = figure.subplots(2 * n_bands, _COLUMNS, sharex=True, squeeze=False)
    values, errors = list(grid[0::2].flat), list(grid[1::2].flat)
    for ax in (*values[len(rows) :], *errors[len(rows) :]):
        ax.remove()
    values, errors = values[: len(rows)], errors[: len(rows)]
    limits = _exact_limits(rows, "u")
    bands = band_labels(row.n_predictions for row in rows)
    for index, (row, upper, lower) in enumerate(zip(rows, values, errors, strict=True)):
        _prediction(style.style_axes(upper), row, "u", limits, bands)
        above_mse = f"{style.plain(row.label)}\n"
        upper.set_title(above_mse, fontsize=style.TEXT, loc="left", pad=3)
        style.style_axes(lower).set_xlabel("$x$", fontsize=style.TEXT)
        lower.tick_params(labelbottom=True)
        if (predictions := row.predictions) is not None:
            draw_error(lower, predictions, "u", row.has_band)
        else:
            style.annotate(lower, row.remark or "no predictions", "bottom")
        for ax in (upper, lower):
            shade = {"color": style.LIGHT, "alpha": 0.5, "linewidth": 0, "zorder": 0}
            ax.axvspan(0, LABELS_END, label="labels of $u$ given", **shade)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, LABELS_END, 1], ["0", f"{LABELS_END:g}", "1"])
        if index % _COLUMNS == 0:
            upper.set_ylabel("$u$", fontsize=style.TEXT)
            lower.set_ylabel("absolute error of $u$", fontsize=style.TEXT)
    drawn = [absolute_error(row.predictions, "u") for row in rows if row.predictions is not None]
    if drawn := [each for each in drawn if each is not None]:
        for ax in errors:
            style.log_y(ax).set_ylim(*error_limits(*drawn))
    style.add_legend(figure, values)
    return figure


_OF_RECORDS = {
    "table1": {"figure3": figure3, "figure4": figure4},
    "table2": {"figure5": figure5},
}


def _prediction(
    ax: style.Axes,
    row: Row,
    name: str,
    limits: tuple[float, float] | None,
    bands: Mapping[int, str],
) -> None:
    """Prediction of a row with its MSE as in the tables; what is wrong with the run is said."""
    predictions = row.predictions
    if predictions is not None:
        draw_prediction(ax, predictions, name, limits, bands.get(row.n_predictions, ""))
    elif limits is not None:
        ax.set_ylim(*limits)
    if row.remark or predictions is None:
        style.annotate(ax, row.remark or "no predictions", "bottom")
    mse = row.metric(ERRORS[name])
    if mse is not None:
        text = f"{'median ' if row.has_band else ''}MSE {format_value('mse_u', mse)}"
        ax.set_title(text, fontsize=style.SMALL, loc="right", pad=3)


def _exact_limits(rows: Iterable[Row], name: str) -> tuple[float, float] | None:
    """The range of the exact values and a quarter of it on either side, one for all rows."""
    frames = [row.predictions for row in rows]
    exact = [e for f in frames if f is not None and (e := exact_values(f, name)) is not None]
    if not exact:
        return None
    low, high = float(np.nanmin(exact[0])), float(np.nanmax(exact[0]))
    margin = 0.25 * (high - low)
    return low - margin, high + margin


def _history(ax: style.Axes, row: Row, column: str) -> None:
    color, dashed = LINES.get(row.row, OTHER_LINE)
    history = row.history
    remark = row.remark or ("no history" if history is None else "")
    label = style.plain(f"{row.label} ({remark})" if remark else row.label)
    epochs = values = np.empty(0)
    if history is not None:
        values = style.drawable(history[column].to_numpy())
        epochs, values = history["epoch"].to_numpy()[values > 0], values[values > 0]
    dashes = _DASHED if dashed else "-"
    ax.plot(epochs, values, color=color, linestyle=dashes, linewidth=1.0, label=label)
    if row.n_diverged == len(row.runs) == 1:
        ax.plot(epochs[-1:], values[-1:], color=color, marker="x", markersize=5)


def _history_bands(ax: style.Axes, rows: Iterable[Row], column: str) -> None:
    """Bands of the rows that have them, within limits that their finite ends set."""
    bands = [(row, row.history) for row in rows if row.has_band and row.history is not None]
    if not bands:
        return
    ends = [
        style.drawable(h[f"{column}_{end}"].to_numpy()) for _, h in bands for end in ("low", "high")
    ]
    finite = np.concatenate([ax.get_ylim(), *(end[end > 0] for end in ends)])
    ax.set_ylim(finite.min(), finite.max())
    labels = band_labels(len(row.runs) for row, _ in bands)
    for row, history in bands:
        color, _ = LINES.get(row.row, OTHER_LINE)
        draw_band(ax, history["epoch"].to_numpy(), history, column, color)
        label = labels[len(row.runs)]
        ax.fill_between([], [], color=style.GREY, alpha=0.25, linewidth=0, label=label)
