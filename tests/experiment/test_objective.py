"""The value that a run returns to a sweeper that optimises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import main_task, run
from diffhash.results import read_record
from diffhash.training import ERRORS

Call = Callable[..., Any]
UNSOLVED = """
from diffhash.geometry import Interval
from diffhash.problems import Condition, Problem

class Own(Problem):
    domain = Interval(x=(0, 1))

    def conditions(self):
        return [Condition("residual", self.domain, lambda x, d: d.u_xx, 1.0)]
"""


def objective(tiny_config: Call, folder: Path, *overrides: str) -> float | None:
    return main_task(tiny_config(f"run_dir={folder}", *overrides))


@pytest.mark.parametrize("name", [None, "mse_ux", "loss", "estimate"])
def test_it_is_the_metric_that_the_setting_names(
    tiny_config: Call, tmp_path: Path, name: str | None
) -> None:
    value = objective(tiny_config, tmp_path / "run", *([f"objective={name}"] if name else []))
    assert value == getattr(read_record(tmp_path / "run"), name or "mse_u")


def test_it_is_the_loss_where_there_is_no_exact_solution(
    tiny_config: Call, own_problem: Call, tmp_path: Path
) -> None:
    own = (own_problem(UNSOLVED), "problem=own", "task.n_residual=8")
    value = objective(tiny_config, tmp_path / "run", *own)
    assert value == read_record(tmp_path / "run").loss
    with pytest.raises(ConfigError, match="objective=mse_ux: problem=Own has no exact solution"):
        run(tiny_config(f"run_dir={tmp_path}/other", "objective=mse_ux", *own))
    assert not (tmp_path / "other").exists()


def test_an_unknown_name_is_refused(tiny_config: Call, tmp_path: Path) -> None:
    names = ", ".join(f"{kind}_{name}" for kind in ERRORS for name in ("u", "ux", "uxx"))
    expected = f"objective=best: no metric of a run; give {names}, loss or estimate"
    with pytest.raises(ConfigError, match=expected):
        run(tiny_config(f"run_dir={tmp_path}/run", "objective=best"))
    assert not (tmp_path / "run").exists()


def test_it_is_the_mean_over_seeds(tiny_config: Call, tmp_path: Path) -> None:
    value = objective(tiny_config, tmp_path / "run", "seeds=[0,1]")
    errors = [read_record(tmp_path / "run" / f"seed{seed}").mse_u for seed in (0, 1)]
    assert value == pytest.approx(sum(error or 0 for error in errors) / 2, rel=1e-12)


def test_it_is_infinite_for_a_run_that_diverged(tiny_config: Call, tmp_path: Path) -> None:
    assert objective(tiny_config, tmp_path / "run", "trainer.learning_rate=1e38") == math.inf
