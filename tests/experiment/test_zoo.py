"""Every problem of the package from its config: it composes, builds and trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from diffhash.experiment.build import build
from diffhash.problems import zoo
from diffhash.results import RunRecord
from diffhash.results.record import FINISHED
from diffhash.training.fields import default_field

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs/problem").glob("*.yaml"))
SMALL = ("task.n_residual=40", "task.n_boundary=12", "trainer.num_threads=1")
GRID = (
    *("encoder=quintic", "encoder.encoding.n_levels=2", "encoder.encoding.base_resolution=4"),
    *("encoder.encoding.n_features_per_level=2", "encoder.encoding.log2_hashmap_size=10"),
)


def test_one_config_a_problem() -> None:
    assert sorted(zoo()) == NAMES
    assert set(NAMES) >= DIFFERENT


@pytest.mark.parametrize("name", NAMES)
def test_every_condition_and_every_parameter_has_a_gradient(
    config: Callable[..., DictConfig], name: str
) -> None:
    # At 0, where u starts beside coefficients, its gradient in the network's weights is 0.
    start = "encoder.encoding.init_scale=1e-3"
    sizes = ("task.n_labels=8", "trainer.evaluation_points=16", *SMALL)
    cfg = config(f"problem={name}", start, *sizes, *GRID)
    setup = build(cfg)
    assert cfg.problem.name == name
    field, objective = setup.field, setup.training.objective
    parameters = [*field.parameters(), *setup.problem.parameters()]
    total: list[Any] = [torch.zeros_like(p) for p in parameters]
    for term in objective.terms:
        loss = term.loss(field.jet(term.points(None), term.rows))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        of_field = gradients[: len(list(field.parameters()))]
        for parameter, gradient in zip(field.parameters(), of_field, strict=True):
            assert gradient is not None, term.name
            assert gradient.isfinite().all(), term.name
            assert (gradient != 0).any() or parameter is field.encoding.params, term.name
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_ += 0 if gradient is None else gradient
    assert all((gradient != 0).any() for gradient in total)


# Systems, measured values, a period, a mesh, parts of the domain; one axis and three.
DIFFERENT = {
    *("cavity", "inverse_heat_field", "kdv", "poisson1d", "poisson_interface", "poisson_mesh"),
    "taylor_green",
}


@pytest.mark.parametrize(
    "name", [n if n in DIFFERENT else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_it_trains(train: Callable[..., tuple[Path, RunRecord]], name: str) -> None:
    _, record = train(f"problem={name}", "trainer.epochs=3", *SMALL, *GRID)
    assert (record.problem, record.status, record.epochs) == (name, "completed", 3)


@pytest.mark.parametrize("name", ["convection", "inverse_poisson", "kovasznay"])
def test_it_is_solved(train: Callable[..., tuple[Path, RunRecord]], name: str) -> None:
    _, record = train(
        *(f"problem={name}", "optimizer=gauss_newton", "trainer.epochs=3", *SMALL, *GRID)
    )
    assert record.problem == name
    assert record.status in FINISHED  # a linear problem is solved in two steps


def test_a_solver_ends_by_itself(train: Callable[..., tuple[Path, RunRecord]]) -> None:
    _, record = train(
        "problem=heat1d", "optimizer=gauss_newton", "trainer.epochs=90", *SMALL, *GRID
    )
    assert record.status == "converged"
    assert record.epochs < record.epochs_requested == 90


@pytest.mark.parametrize(("name", "starts_at_0"), [("heat1d", False), ("inverse_poisson", True)])
def test_splines_start_at_0_where_coefficients_are_trained(
    config: Callable[..., DictConfig], name: str, starts_at_0: bool
) -> None:
    field = build(config(f"problem={name}", "encoder=quintic", *SMALL)).field
    theirs = default_field(zoo()[name]()).encoding.params
    assert len(field.encoding.params) == len(theirs)
    for params in (field.encoding.params, theirs):
        assert params.abs().max().item() == (0 if starts_at_0 else pytest.approx(1e-3, rel=0.01))
