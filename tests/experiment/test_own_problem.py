"""The docs' example of a problem from outside the repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffhash.jets import Sum
from diffhash.optim import Task
from diffhash.results import RunRecord, read_predictions, read_record

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/own-problem.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page: the blocks that begin with the name of a file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    blocks = re.findall(r"^```\w*\n(# (my_problems/\S+)\n.*?)^```", PAGE, re.M | re.S)
    assert [name for _, name in blocks] == [
        *("my_problems/resonator.py", "my_problems/problem/resonator.yaml"),
    ]
    for text, name in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> tuple[Path, RunRecord]:
    """The record of the command of the page, with fewer epochs."""
    [command] = re.findall(r"^```\w*\n(PYTHONPATH=my_problems python .*?)^```", PAGE, re.M | re.S)
    variable, python, script, *overrides = shlex.split(command.replace("\\\n", ""))
    assert (python, script) == ("python", "train.py")
    name, _, value = variable.partition("=")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / script), *overrides),
            *("trainer.epochs=60", "trainer.num_threads=1", "trainer.accelerator=cpu"),
            "run_dir=run",
        ],
        cwd=folder,
        env=os.environ | {name: os.pathsep.join([value, os.environ.get(name, "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "completed after 60 epochs" in done.stdout
    return folder / "run", read_record(folder / "run")


def test_it_trains(record: tuple[Path, RunRecord]) -> None:
    _, result = record
    assert (result.problem, result.task, result.encoder) == ("resonator", "pinn", "cubic")
    assert result.status == "completed"
    assert result.mse_u is not None
    assert result.mse_u < 0.01  # of a solution whose mean square is 0.25


def test_predictions_in_two_dimensions(record: tuple[Path, RunRecord]) -> None:
    directory, result = record
    frame = read_predictions(directory)
    derivatives = ["u_x", "u_y", "u_xx", "u_yy"]
    assert list(frame.columns) == [
        *("x", "y", "u", *derivatives, "exact_u", *(f"exact_{name}" for name in derivatives)),
    ]
    x, y = frame["x"], frame["y"]
    np.testing.assert_allclose(frame["exact_u"], np.sin(pi * x) * np.sin(4 * pi * y), atol=1e-12)
    np.testing.assert_allclose(frame["exact_u_yy"], -((4 * pi) ** 2) * frame["exact_u"])
    for corner in (x, 1 - x, y, 1 - y):  # over the whole domain
        assert 0 < corner.min() < 0.01
    errors = {n: ((frame[n] - frame[f"exact_{n}"]) ** 2).mean() for n in ("u", *derivatives)}
    assert result.mse_u == pytest.approx(errors["u"])
    assert result.mse_ux == pytest.approx(errors["u_x"])
    assert result.mse_uxx == pytest.approx(errors["u_xx"])
    assert (directory / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_the_source_follows_and_the_boundary_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder / "my_problems")
    import resonator  # type: ignore[import-not-found]

    problem = resonator.Resonator(k=3.0)
    residual, boundary = Task(n_residual=50, n_boundary=100).objective(problem).terms
    factor = 3.0**2 - pi**2 - (4 * pi) ** 2
    torch.testing.assert_close(residual.target[:, 0], factor * problem.solution(residual.x))
    assert all(term.kernel_form() is not None for term in (residual, boundary))
    assert residual.rows[-1] == Sum(((1.0, (2, 0)), (1.0, (0, 2))))
    sides = boundary.x
    assert sides.shape == (100, 2)
    assert ((sides == 0) | (sides == 1)).any(dim=1).all()
    assert len({tuple(p) for p in sides.tolist()}) == 100
    for side in (sides[:, 0], sides[:, 1], 1 - sides[:, 0], 1 - sides[:, 1]):
        assert (side == 0).sum() == 25


def test_a_misspelt_setting_of_it(
    folder: Path, command_line: Callable[..., Any], tmp_path: Path
) -> None:
    searchpath = f"hydra.searchpath=[file://{folder}/my_problems]"
    run = ("train.py", searchpath, "problem=resonator", f"run_dir={tmp_path}/run")
    done = command_line(*run, "problem.kk=1")
    assert done.code == 1
    assert "Key 'kk' is not in struct; allowed are _target_, " in done.err
    assert done.err.endswith("another argument of resonator.Resonator needs a + before\n")
    assert "Traceback" not in done.err
    for wrong in ("abc", "[1,2]"):  # which the problem does not check by itself
        done = command_line(*run, f"problem.k={wrong}")
        assert done.code == 1
        assert re.match(r"error: task: residual: its residual cannot be computed at", done.err)
        assert len(done.err.splitlines()) == 1
    done = command_line(*run[:2], "problem=resonance", run[3])
    assert done.code == 1
    assert done.err.startswith("error: problem=resonance: ")
    choices = done.err.rpartition("; choose one of ")[2].strip().split(", ")
    assert {"resonator", "poisson1d"} <= set(choices)
    assert not list(tmp_path.iterdir())
