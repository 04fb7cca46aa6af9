"""Figures over several seeds: pointwise medians and intervals, and their labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from diffhash.paper.figures import figure3, figure4, figure5
from diffhash.paper.rows import Row
from diffhash.paper.table import load_tables
from diffhash.results.figures.style import add_legend, new_figure
from diffhash.results.record import RecordError
from diffhash.results.seeds import band_labels, combine_histories, combine_predictions

DIVERGED = {"status": "diverged", "epochs": 812, "diverged_epoch": 812}
ROOT = Path(__file__).parents[2]
WriteRun = Callable[..., Path]


def _texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


def _row(runs: Path, table: str, key: str) -> Row:
    return load_tables(runs)[table].rows[key]


def _write_seeds(write_run: WriteRun, runs: Path, table: str, row: str, n: int) -> None:
    for seed in range(n):
        write_run(runs, table, row, seed=seed, mse_u=1e-4 * (seed + 1) ** 2)


def test_predictions_and_errors_over_seeds_are_pointwise(
    tmp_path: Path, write_run: WriteRun
) -> None:
    """The fake predictions have constant errors, here 0.01, 0.02 … 0.1."""
    _write_seeds(write_run, tmp_path, "table1", "cubic", 10)
    frame = _row(tmp_path, "table1", "cubic").predictions
    assert frame is not None
    off = [frame[f"u{end}"] - frame["exact_u"] for end in ("_low", "", "_high")]
    for ours, expected in zip(off, (0.02, 0.055, 0.09), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    np.testing.assert_allclose(frame["error_u"], 0.055, rtol=1e-6)


def test_the_median_error_is_not_the_error_of_the_median() -> None:
    frames = [pd.DataFrame({"x": [0.0], "u": [u], "exact_u": [0.0]}) for u in (-2.0, 0.1, 3.0)]
    combined = combine_predictions(frames, n_diverged=2)
    assert combined.loc[0, ["u_low", "u", "u_high"]].tolist() == [-2.0, 0.1, 3.0]
    assert combined.loc[0, ["error_u_low", "error_u", "error_u_high"]].tolist() == [
        0.1,
        3.0,
        np.inf,
    ]


def test_predictions_that_do_not_fit_each_other() -> None:
    frames = [pd.DataFrame({"x": [x], "u": [0.0], "exact_u": [0.0]}) for x in (0.0, 0.5)]
    with pytest.raises(RecordError, match="different points x"):
        combine_predictions(frames, n_diverged=0)


def _history(epochs: list[int], value: float) -> pd.DataFrame:
    columns = ("seconds", "loss", "mse_u", "mse_ux", "mse_uxx")
    return pd.DataFrame({"epoch": epochs} | dict.fromkeys(columns, value))


def test_a_diverged_seed_is_infinite_from_there_on() -> None:
    completed = [_history([100, 200, 300], value) for value in (1.0, 3.0)]
    combined = combine_histories(completed, [_history([100], 2.0)])
    assert combined["epoch"].tolist() == [100, 200, 300]
    assert combined["mse_u"].tolist() == [2.0, 3.0, 3.0]
    assert combined["mse_u_low"].tolist() == [1.0, 1.0, 1.0]
    assert combined["mse_u_high"].tolist() == [3.0, np.inf, np.inf]
    alone = combine_histories([], [_history([100], 2.0), _history([100, 200], 4.0)])
    assert alone["loss"].tolist() == [3.0, np.inf]
    cut = combine_histories([_history([100, 200], 1.0), _history([200, 300], 1.0)], [])
    assert cut["epoch"].tolist() == [200], "only where all have been evaluated"


def test_one_label_for_all_bands_of_a_kind() -> None:
    interval = "95% interval of the median of"
    assert band_labels([10, 1, 10]) == {10: f"{interval} 10 seeds"}
    assert band_labels([40, 10, 3]) == {
        3: "smallest to largest of 3 seeds",
        10: f"{interval} 10 to 40 seeds",
        40: f"{interval} 10 to 40 seeds",
    }
    assert band_labels([1, 0]) == {}


@pytest.mark.parametrize("n_long", [1, 3])
def test_no_legend_is_wider_than_its_figure(n_long: int) -> None:
    figure = new_figure(height=2.0)
    ax = figure.subplots()
    for i in range(5):
        ax.plot([0, 1], label=f"{i}: {'of very many seeds ' * (4 if i < n_long else 1)}")
    add_legend(figure, [ax])
    figure.draw_without_rendering()
    [legend] = figure.legends
    extent = legend.get_window_extent()
    assert len(legend.get_texts()) == 5
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width


@pytest.mark.slow
def test_figures_over_seeds_say_what_their_bands_are(tmp_path: Path, write_run: WriteRun) -> None:
    for table in ("table1", "table2"):
        _write_seeds(write_run, tmp_path, table, "cubic", 10)
        _write_seeds(write_run, tmp_path, table, "mlp_10k", 2)
        for seed in range(3):
            write_run(tmp_path, table, "linear", seed=seed, **(DIVERGED if seed else {}))
            write_run(tmp_path, table, "s2", seed=seed, **DIVERGED)
    one, two = (list(table.rows.values()) for table in load_tables(tmp_path).values())
    # Two seeds of the MLP predict something, one of Linear's three, but all three have a history.
    for figure, n_seeds in ((figure3(one), "2"), (figure4(one), "2 to 3"), (figure5(two), "2")):
        figure.savefig(os.devnull, format="png", dpi=50)
        texts = _texts(figure)
        assert "95% interval of the median of 10 seeds" in texts
        assert f"smallest to largest of {n_seeds} seeds" in texts
        assert "2 of 3 diverged" in texts and "3 of 3 diverged" in texts
    assert "median prediction" in _texts(figure3(one))
    assert "median MSE 3.1e-3" in _texts(figure5(two)), "of 1e-4 to 1e-2"
    for ax in figure4(one).axes:
        assert ax.get_ylim()[1] < 1e6, "a band without an upper end does not set the scale"
