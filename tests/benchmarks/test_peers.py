"""`make peers` without peers: their common problems and errors, and the results of failing ones."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks.peers import compare, contender
from benchmarks.peers.compare import CONTENDERS, PROBLEMS, Contender
from diffhash.experiment.checks import ConfigError
from diffhash.problems import Poisson1D, Problem, zoo

# A replacement of a peer: it takes a step a millisecond, and has the solution up to a factor.
STUB = """
import sys, time
sys.path.insert(0, {folder!r})
import numpy as np
import contender

given = contender.settings()
print("what a library prints")

def train(step):
    if given["optimizer"] == "fails":
        raise ValueError("no such thing")
    while not step(1):
        time.sleep(1e-3)
    x = np.pi * given.get("a", 0) * given["points"]
    return lambda points: float(given["optimizer"]) * np.sin(x).prod(axis=1)

contender.run(given, 7, train)
"""


def second_derivatives(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """u, and Σ_j ∂_jj u, at x."""
    x.requires_grad_()
    u = problem.solution(x)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    rows = [torch.autograd.grad(first[:, j].sum(), x, retain_graph=True)[0][:, j] for j in (0, -1)]
    return u.detach(), sum(rows[: problem.n_dims], torch.zeros(()))


@pytest.mark.parametrize("name", ["poisson1d", "helmholtz2d"])
def test_peers_have_the_right_hand_sides_of_our_problems(name: str) -> None:
    problem = zoo()[name](**PROBLEMS[name])
    x = torch.rand(50, problem.n_dims, dtype=torch.float64)
    u, laplacian = second_derivatives(problem, x)
    x = x.detach()
    if isinstance(problem, Poisson1D):
        expected = problem.k * laplacian
        found = contender.poisson_source(problem.k, x[:, 0], torch.sin, torch.cos)
    else:
        expected = laplacian + u
        found = contender.helmholtz_source(PROBLEMS[name]["a"], *x.T, torch.sin)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_one_error_for_all() -> None:
    exact = np.array([3.0, 0.0, 4.0])
    assert compare.relative_l2(exact, exact) == 0
    assert compare.relative_l2(np.array([3, 0.5, 4]), exact) == pytest.approx(0.1)
    assert compare.relative_l2(np.array([np.nan, 0, 4]), exact) == math.inf
    points = compare.grid(zoo()["burgers1d"]())
    assert points.shape == (201**2, 2)
    np.testing.assert_array_equal([points.min(0), points.max(0)], [[-1, 0], [1, 1]])


def test_only() -> None:
    assert compare.chosen("") == ([*PROBLEMS], [*CONTENDERS])
    assert compare.chosen("burgers1d") == (["burgers1d"], [*CONTENDERS])
    assert compare.chosen("jinns ours") == ([*PROBLEMS], ["ours", "jinns"])
    with pytest.raises(ConfigError, match=r"ONLY=heat: there is no 'heat'; there are .*pina"):
        compare.chosen("heat")


def test_a_run_and_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "environments/stub/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "run_stub.py").write_text(STUB.format(folder=str(compare.HERE)))
    stubs = {"ours": "1.25", "deepxde": "nan", "pina": "fails"}
    for key, optimizer in stubs.items():
        made = Contender("a stub", ("numpy",), "stub", optimizer=optimizer)
        monkeypatch.setitem(CONTENDERS, key, made)
    monkeypatch.setattr(compare, "HERE", tmp_path)
    table = compare.measure(
        "helmholtz2d", [*stubs, "jinns"], 0.05, tmp_path, tmp_path / "environments",
        {"jinns": "there is no network"},
    ).set_index("contender")  # fmt: skip
    assert [*table["status"]] == ["completed", "diverged", "failed", "not installed"]
    own = table.loc["ours"]
    assert own["l2_u"] == pytest.approx(0.25)
    assert own["parameters"] == 7
    assert own["versions"] == f"numpy {np.__version__}"
    assert 0.05 <= own["train_seconds"] == pytest.approx(1e-3 * own["ms"] * own["steps"])
    assert table.at["pina", "reason"] == "ValueError: no such thing"

    alone = compare.measure("poisson1d", ["ours"], 0.01, tmp_path, python.parents[2], {})
    assert [*alone["l2_u"]] == pytest.approx([1])  # of zeros

    old = table.reset_index().assign(l2_u=9.0)
    other = old[:1].assign(problem="poisson1d")
    both = compare.merge(pd.concat([old, other]), table.reset_index()[1:])
    assert [*both["problem"]] == ["poisson1d", *["helmholtz2d"] * 4]
    assert [*both["contender"]] == ["ours", *table.index]
    assert [*both["l2_u"][:3]] == [9.0, 9.0, math.inf]
    page = compare.page(table.reset_index())
    assert "## `helmholtz2d`, a = 2" in page
    assert "2.5e-1" in page
    assert "| failed: ValueError: no such thing " in page
    assert "| not installed: there is no network " in page


def test_environments(tmp_path: Path) -> None:
    pins = compare.CONSTRAINTS.read_text().splitlines()
    for peer in {one.peer for one in CONTENDERS.values()} - {None}:
        first, *lines = (compare.HERE / f"{peer}.txt").read_text().splitlines()
        assert first == "-c ../../constraints.txt"
        assert all(line.count("==") == 1 for line in lines)
        shared = {line.split("==")[0] for line in lines} & {pin.split("==")[0] for pin in pins}
        assert shared <= {"torch"}
        assert [line for line in lines if line.startswith("torch==")] == [
            pin for pin in pins if pin.split("==")[0] in shared
        ]
    (tmp_path / "file").touch()
    assert compare.install("jinns", tmp_path / "file", tmp_path / "log")
