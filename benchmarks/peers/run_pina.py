"""PINA: problem, model, solver and trainer are written as in its tutorials, with its equations.

Lightning's logger, checkpoints and progress bar, which are on by default, are off.
"""
# pyright: reportMissingImports=false
# ruff: noqa: RUF012

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from contender import Predict, Step, helmholtz_source, poisson_source, run, settings
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.equation.zoo import FixedValue, HelmholtzEquation
from pina.model import FeedForward
from pina.operator import laplacian
from pina.problem import SpatialProblem
from pina.problem.zoo import BurgersProblem
from pina.solver import PhysicsInformedSingleModelSolver

given = settings()
seed_everything(given["seed"])
labels = torch.from_numpy(given["labels"]).float()


def _poisson(x: Any, u: Any) -> Any:
    source = poisson_source(given["k"], x["x"], torch.sin, torch.cos)
    return given["k"] * laplacian(u, x) - source


def _source(x: Any) -> Any:
    return helmholtz_source(given["a"], x["x"], x["y"], torch.sin)


class _Poisson(SpatialProblem):
    output_variables = ["u"]
    spatial_domain = CartesianDomain({"x": [0, 1]})
    domains = {"D": spatial_domain}
    conditions = {
        "known": Condition(
            input=LabelTensor(labels[:, :1], ["x"]), target=LabelTensor(labels[:, 1:], ["u"])
        ),
        "D": Condition(domain="D", equation=Equation(_poisson)),
    }


class _Helmholtz(SpatialProblem):
    output_variables = ["u"]
    spatial_domain = CartesianDomain({"x": [0, 1], "y": [0, 1]})
    domains = {"D": spatial_domain, "boundary": spatial_domain.partial()}
    conditions = {
        "boundary": Condition(domain="boundary", equation=FixedValue(0.0)),
        "D": Condition(domain="D", equation=HelmholtzEquation(1.0, _source)),
    }


axes = {"poisson1d": ["x"], "helmholtz2d": ["x", "y"], "burgers1d": ["x", "t"]}[given["problem"]]
if given["problem"] == "burgers1d":
    problem: Any = BurgersProblem(nu=given["nu"])
else:
    problem = _Poisson() if len(axes) == 1 else _Helmholtz()
for domain in problem.domains:
    n_points = given["n_residual" if domain == "D" else "n_boundary"]
    problem.discretise_domain(n_points, "random", domains=[domain])
model = FeedForward(len(axes), 1, given["width"], given["depth"], torch.nn.Tanh)
solver = PhysicsInformedSingleModelSolver(problem, model)  # its default: Adam at a rate of 1e-3


def _train(step: Step) -> Predict:
    class Pause(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = step(1)

    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar"), False
    )
    Trainer(solver, max_epochs=-1, accelerator="cpu", callbacks=[Pause()], **quiet).train()

    def predict(points: np.ndarray) -> np.ndarray:
        x = LabelTensor(torch.from_numpy(points).float(), axes)
        return solver(x).detach().as_subclass(torch.Tensor).numpy()

    return predict


run(given, sum(p.numel() for p in model.parameters()), _train)
