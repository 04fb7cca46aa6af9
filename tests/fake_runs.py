"""Fake records made of the paper's printed numbers."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffhash.paper.printed import TABLES, load_paper_table
from diffhash.results.record import RunRecord, write_record

PAPER = Path(__file__).parents[1] / "results" / "paper"
ENVIRONMENT = {
    "python": "3.11.7",
    "torch": "2.13.0",
    "processor": "Some_CPU & Co 100%",
    "cpu_count": 2,
    "git_commit": "abc123",
    "git_dirty": False,
}


def _record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "status": "completed",
        "experiment": "table1/cubic",
        "encoder": "cubic",
        "preset": "paper",
        "task": "data",
        "problem": "poisson1d",
        "seed": 0,
        "epochs": 3000,
        "epochs_requested": 3000,
        "learning_rate": 1e-4,
        "train_seconds": 3.4,
        "warmup_seconds": 0.1,
        "evaluation_seconds": 0.2,
        "wall_seconds": 4.0,
        "n_parameters": 12345,
        "peak_memory_mb": 321.0,
        "config_hash": "0" * 64,
        "environment": ENVIRONMENT,
    }
    metrics = {"mse_u": 3.0e-13, "mse_ux": 4.4e-6, "mse_uxx": 0.46, "loss": 1.0e-13}
    return changed(RunRecord(**values, metrics=metrics), **changes)


def changed(record: RunRecord, **changes: Any) -> RunRecord:
    """A record with other fields or metrics."""
    metrics = {name: changes.pop(name, value) for name, value in record.metrics.items()}
    return replace(record, **({"metrics": metrics} | changes))


def _exact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The solution of Eq. 15, and its derivatives."""
    a, b = 2 * np.pi, 8 * np.pi
    g, g1, g2 = (2 * x**3 - 20 * x) / a, (6 * x**2 - 20) / a, 12 * x / a
    s, c = np.sin(a * x), np.cos(a * x)
    u = g * s + np.sin(b * x)
    u_x = g1 * s + g * a * c + b * np.cos(b * x)
    u_xx = g2 * s + 2 * g1 * a * c - g * a**2 * s - b**2 * np.sin(b * x)
    return u, u_x, u_xx


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """A completed run of table1/cubic, with the changes given."""
    return _record


@pytest.fixture
def paper() -> Path:
    return PAPER


def _write_run(runs: Path, table: str, row: str, **changes: Any) -> Path:
    """Write a run of a row as an experiment does: history and predictions, then the record.

    The error of its prediction has the mean square ``mse_u``. It is constant for the data task;
    otherwise it is 0 in [0, 0.5] and constant beyond.
    """
    seed = changes.get("seed", 0)
    task = "data" if table == "table1" else "pinn"
    encoder = row.split("_")[0]
    record = _record(experiment=f"{table}/{row}", encoder=encoder, task=task)
    record = changed(record, **changes)
    directory = runs / table / row / f"seed{seed}"
    directory.mkdir(parents=True)
    x = np.linspace(0, 1, 400)
    u, u_x, u_xx = _exact(x)
    mse = record.mse_u or 0.0
    error = np.sqrt(np.where(x > 0.5, 2 * mse, 0) if task == "pinn" else mse)
    names = ("x", "u", "u_x", "u_xx", "exact_u", "exact_u_x", "exact_u_xx")
    columns = (x, u + error, u_x, u_xx, u, u_x, u_xx)
    pd.DataFrame(dict(zip(names, columns, strict=True))).to_csv(
        directory / "predictions.csv", index=False
    )
    epochs = np.linspace(0, record.epochs, 11)[1:]
    history = pd.DataFrame({"epoch": epochs.astype(int)})
    history["seconds"] = record.train_seconds * epochs / max(record.epochs, 1)
    for name in ("loss", "mse_u", "mse_ux", "mse_uxx"):
        final = getattr(record, name)
        history[name] = np.nan if final is None else final * record.epochs / epochs
    history.to_csv(directory / "history.csv", index=False)
    write_record(directory, record)
    return directory


@pytest.fixture
def write_run() -> Callable[..., Path]:
    """``write_run(runs, table, row, **changes)`` writes a run and returns its directory."""
    return _write_run


@pytest.fixture(scope="session")
def _paper_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("paper") / "runs"
    for table in TABLES:
        for row, line in load_paper_table(table, PAPER).iterrows():
            printed = {
                name: float(line[name])
                for name in ("mse_u", "mse_ux", "mse_uxx", "loss", "train_seconds")
                if not np.isnan(line[name])
            }
            budget = {"epochs": int(line["epochs"]), "epochs_requested": int(line["epochs"])}
            _write_run(runs, table, row, **budget, **printed)
    return runs


@pytest.fixture
def paper_runs(tmp_path: Path, _paper_runs: Path) -> Path:
    """Runs of every row whose results are the paper's own printed numbers."""
    return shutil.copytree(_paper_runs, tmp_path / "runs")


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``run_script(name, *arguments)``: run a file of ``scripts/`` here; returns the exit code."""

    def run(name: str, *arguments: object) -> int:
        script = str(Path(__file__).parents[1] / "scripts" / name)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(script, run_name="__main__")
        return int(exit_.value.code or 0)

    return run
