"""The content of Figures 1 and 2, and figures of runs in every state."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import image, pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text

from diffhash.paper.continuity import Curve, fit_sine
from diffhash.paper.figures import (
    error_limits,
    figure1,
    figure3,
    figure4,
    figure5,
    make_figures,
)
from diffhash.paper.rows import Row
from diffhash.paper.table import load_tables
from diffhash.results.figures.style import write_figure
from diffhash.results.record import RecordError

DIVERGED = {"status": "diverged", "epochs": 812, "diverged_epoch": 812}
ROOT = Path(__file__).parents[2]
NAMES = [f"figure{n}.{kind}" for n in range(1, 6) for kind in ("png", "pdf")]
WriteRun = Callable[..., Path]


def _texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


def _jumps(curve: Curve, order: int) -> np.ndarray:
    """The right minus the left limit of the derivative at each inner vertex."""
    return curve.fitted[order, 1:, 0] - curve.fitted[order, :-1, -1]


def _errors(curve: Curve) -> np.ndarray:
    return np.abs(curve.fitted - curve.exact).max(axis=(1, 2))


# ------------------------------------------------------------------------------ Figures 1 and 2


@pytest.mark.parametrize(
    ("interpolation", "continuity"), [("linear", 0), ("s1", 1), ("s2", 2), ("cubic", 2)]
)
def test_derivatives_are_continuous_up_to_the_class_and_jump_beyond(
    interpolation: str, continuity: int
) -> None:
    curve = fit_sine(interpolation)
    assert len(curve.x) == 16
    for order in range(continuity + 1):
        assert np.abs(_jumps(curve, order)).max() < 1e-4, order
    if continuity < 2:
        assert np.abs(_jumps(curve, continuity + 1)).max() > 0.1


def test_linear_has_no_second_derivative_and_cubic_has_the_right_one() -> None:
    linear, cubic = fit_sine("linear"), fit_sine("cubic")
    assert _errors(linear)[0] < 0.02
    assert (linear.fitted[2] == 0).all()
    assert (_errors(cubic) < [1e-4, 1e-3, 2e-2]).all()


@pytest.mark.parametrize("interpolation", ["s1", "s2"])
def test_smoothsteps_have_zero_slope_at_vertices_unless_levels_are_offset(
    interpolation: str,
) -> None:
    single = fit_sine(interpolation)
    np.testing.assert_allclose(single.fitted[1][:, [0, -1]], 0, atol=1e-5)
    offset = fit_sine(interpolation, n_levels=4, level_offset=True)
    assert _errors(offset)[1] < 0.1
    assert not np.isin(offset.vertices[1], offset.vertices[0]).any()


def test_fits_are_deterministic() -> None:
    np.testing.assert_array_equal(fit_sine("cubic").fitted, fit_sine("cubic").fitted)


# ------------------------------------------------------------------------------------- all five


def test_all_figures_are_written_at_print_width(tmp_path: Path, paper_runs: Path) -> None:
    output = tmp_path / "figures"
    written = make_figures(load_tables(paper_runs), output)
    assert written == [output / name for name in NAMES]
    assert sorted(output.iterdir()) == sorted(written)
    for path in output.glob("*.png"):
        assert image.imread(path).shape[1] == 7 * 200, path


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path: Path, paper_runs: Path) -> None:
    contents = []
    for _ in range(2):
        figure = figure4(list(load_tables(paper_runs)["table1"].rows.values()))
        contents.append([path.read_bytes() for path in write_figure(figure, tmp_path / "figure4")])
    assert contents[0] == contents[1]
    assert b"CreationDate" not in contents[0][1]


def test_without_records_nothing_is_written_and_one_line_says_what_lacks(
    run_script: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, output = tmp_path / "runs", tmp_path / "figures"
    assert run_script("make_figures.py", "--runs", runs, "--output", output) == 1
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert f"no records under {runs}" in line
    assert not output.exists() and out == ""


@pytest.mark.slow
def test_one_table_without_records_leaves_out_its_figures_only(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path / "runs", "table2", "cubic")
    written = make_figures(load_tables(tmp_path / "runs"), tmp_path / "figures")
    assert [p.name for p in written] == [*NAMES[:4], *NAMES[8:]]


def test_a_corrupt_record_is_an_error_that_names_it(tmp_path: Path, write_run: WriteRun) -> None:
    directory = write_run(tmp_path / "runs", "table1", "cubic")
    (directory / "result.json").write_text("{")
    with pytest.raises(RecordError, match=str(directory)):
        make_figures(load_tables(tmp_path / "runs"), tmp_path / "figures")


def test_an_unwritable_output_folder_is_an_error(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path / "runs", "table1", "cubic")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_figures(load_tables(tmp_path / "runs"), tmp_path / "file")


# ------------------------------------------------------------------------------------- the rows


def _row(runs: Path, table: str, key: str) -> Row:
    return load_tables(runs)[table].rows[key]


def test_all_seeds_that_count_stand_for_their_row(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic", seed=11, status="interrupted", epochs=70)
    only = _row(tmp_path, "table1", "cubic")
    assert (only.label, only.note, only.has_band) == (
        "Cubic 3k",
        "interrupted @ epoch 70",
        False,
    )
    assert only.predictions is not None and not len(only.values("mse_u"))
    write_run(tmp_path, "table1", "cubic", seed=3)
    completed = _row(tmp_path, "table1", "cubic")
    assert [record.seed for _, record in completed.seeds] == [3]
    assert not completed.has_band
    for seed in (1, 2):
        write_run(tmp_path, "table1", "cubic", seed=seed, **DIVERGED)
    row = _row(tmp_path, "table1", "cubic")
    assert [record.seed for _, record in row.seeds] == [1, 2, 3]
    assert (row.n_diverged, row.has_band) == (2, True)
    assert [record.seed for record in row.completed] == [3], "one run of three predicts something"
    assert row.line["mse_u"] == np.inf


def test_rows_beyond_the_paper_are_drawn_too(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic_best", preset="best")
    write_run(tmp_path, "table2", "cubic_best", preset="best")
    assert "Cubic (best) 3k" in _texts(figure4(list(load_tables(tmp_path)["table1"].rows.values())))
    assert "Cubic (best) 3k" in _texts(figure5(list(load_tables(tmp_path)["table2"].rows.values())))


def test_missing_and_diverged_runs_are_said(tmp_path: Path, write_run: WriteRun) -> None:
    diverged = {"status": "diverged", "epochs": 812, "diverged_epoch": 812}
    write_run(tmp_path, "table1", "s2", epochs_requested=10_000, **diverged)
    write_run(tmp_path, "table2", "siren", epochs_requested=10_000, **diverged)
    for table in ("table1", "table2"):
        write_run(tmp_path, table, "linear", status="interrupted", epochs=70)
    one, two = (list(table.rows.values()) for table in load_tables(tmp_path).values())
    texts = _texts(figure4(one))
    assert "S2 10k (diverged @ epoch 812)" in texts
    assert "Linear 3k (interrupted @ epoch 70)" in texts
    assert "MLP 100k (no record)" in texts
    for figure, n_missing in ((figure3(one), 2 * 3), (figure5(two), 2 * 5)):
        texts = _texts(figure)
        assert "diverged @ epoch 812" in texts
        assert "interrupted @ epoch 70" in texts
        assert texts.count("no record") == n_missing


def test_records_without_history_or_predictions_are_said(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for table in ("table1", "table2"):
        directory = write_run(tmp_path, table, "cubic")
        for name in ("history.csv", "predictions.csv"):
            (directory / name).unlink()
    one, two = (list(table.rows.values()) for table in load_tables(tmp_path).values())
    assert "no predictions" in _texts(figure3(one))
    assert "Cubic 3k (no history)" in _texts(figure4(one))
    assert "no predictions" in _texts(figure5(two))


@pytest.mark.slow
def test_a_run_that_diverged_at_once_is_drawn(tmp_path: Path, write_run: WriteRun) -> None:
    for table in ("table1", "table2"):
        changes = {"status": "diverged", "epochs": 1, "diverged_epoch": 1}
        directory = write_run(tmp_path, table, "linear", **changes)
        (directory / "history.csv").write_text("epoch,seconds,loss,mse_u,mse_ux,mse_uxx\n")
        frame = pd.read_csv(directory / "predictions.csv")
        frame[["u", "u_x", "u_xx"]] = np.nan
        frame.to_csv(directory / "predictions.csv", index=False)
    one, two = (list(table.rows.values()) for table in load_tables(tmp_path).values())
    for figure in (figure3(one), figure4(one), figure5(two)):
        figure.savefig(os.devnull, format="png", dpi=50)
        assert "diverged @ epoch 1" in _texts(figure)


def test_a_prediction_far_off_does_not_flatten_the_others(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for row in ("s2", "cubic"):
        write_run(tmp_path, "table1", row, mse_u=1e8 if row == "s2" else 1e-12)
    figure = figure3(list(load_tables(tmp_path)["table1"].rows.values()))
    heights = [np.ptp(ax.get_ylim()) for ax in figure.axes[0::3]]  # u of the four rows
    assert heights[2] > 1e3 and max(heights[0], heights[1], heights[3]) < 10
    assert _texts(figure).count("wider scale") == 1


def test_some_values_that_are_not_finite_are_said(tmp_path: Path, write_run: WriteRun) -> None:
    for table in ("table1", "table2"):
        directory = write_run(tmp_path, table, "cubic", status="interrupted", epochs=70)
        frame = pd.read_csv(directory / "predictions.csv")
        frame.loc[:6, "u"] = [np.nan, np.inf, -np.inf, 1e300, 1e31, np.nan, np.nan]
        frame.to_csv(directory / "predictions.csv", index=False)
        result = json.loads((directory / "result.json").read_text())
        (directory / "result.json").write_text(json.dumps(result | {"mse_u": None}))
    one, two = (list(table.rows.values()) for table in load_tables(tmp_path).values())
    for figure in (figure3(one), figure5(two)):
        assert "not finite at 7 of 400 points" in _texts(figure)


def test_drawing_in_a_thread_leaves_pyplot_and_its_settings_alone() -> None:
    before, figures = dict(mpl.rcParams), []
    thread = threading.Thread(target=lambda: figures.append(figure1()))
    thread.start()
    thread.join()
    assert figures
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()


def test_error_axes_ignore_where_an_error_changes_sign() -> None:
    error = np.abs(np.linspace(-1, 1, 10_001)) + 1e-20
    low, high = error_limits(error, np.array([np.nan]))
    assert low > 1e-3 and high == 2
    assert error_limits(np.array([0.0, np.nan])) == (1e-16, 1.0)
