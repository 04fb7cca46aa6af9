"""Two processes that divide the points of every term between them (DDP, on a CPU)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffhash.results import read_history
from diffhash.results.record import read_record

Call = Callable[..., Any]
TASKS = {
    "full batch": ("task.n_labels=9",),
    "minibatches": ("trainer.batch_size=3",),
    "new points": ("sampler=resample", "sampler.every=2"),
}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(own, id=name, marks=[pytest.mark.slow] * (name != "full batch"))
        for name, own in TASKS.items()
    ],
)
def test_two_processes_train_as_one(
    root: Path, tiny: tuple[str, ...], train: Call, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    arguments = ["encoder=cubic", "encoder.encoding.n_levels=3", "task=pinn", *settings]
    arguments += ["task.n_residual=11", "trainer.precision=float64", "trainer.execution=eager"]
    both = ["trainer.devices=2", f"run_dir={tmp_path}/two"]
    done = subprocess.run(
        [sys.executable, "train.py", *tiny, *arguments, *both],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "two")
    assert record.status == "completed"
    assert record.environment["devices"] == 2
    assert done.stdout.count("completed after 6 epochs") == 1  # one of the two reports
    assert sorted(p.name for p in tmp_path.iterdir()) == ["two"]
    if "trainer.batch_size=3" in settings:  # other points in each minibatch than alone
        return
    directory, alone = train(*arguments)
    for name in ("mse_u", "mse_ux", "mse_uxx", "loss"):
        assert getattr(record, name) == pytest.approx(getattr(alone, name), rel=1e-8)
    columns = ["epoch", "loss", "mse_u", "mse_ux", "mse_uxx"]
    two, one = (read_history(path)[columns].to_numpy() for path in (tmp_path / "two", directory))
    assert two == pytest.approx(one, rel=1e-8)
