"""DeepXDE with PyTorch; the equations are written as in its documentation.

The boundary values of Helmholtz's equation are a hard constraint; other conditions are terms.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from math import pi
from typing import Any

import deepxde as dde
import numpy as np
import torch
from contender import Predict, Step, helmholtz_source, poisson_source, run, settings

given = settings()
dde.config.set_random_seed(given["seed"])
second = dde.grad.hessian


def _poisson(x: Any, u: Any) -> Any:
    return given["k"] * second(u, x) - poisson_source(given["k"], x, torch.sin, torch.cos)


def _helmholtz(x: Any, u: Any) -> Any:
    source = helmholtz_source(given["a"], x[:, :1], x[:, 1:], torch.sin)
    return second(u, x, i=0, j=0) + second(u, x, i=1, j=1) + u - source


def _burgers(x: Any, u: Any) -> Any:
    u_x, u_t = (dde.grad.jacobian(u, x, i=0, j=j) for j in (0, 1))
    return u_t + u * u_x - given["nu"] * second(u, x, i=0, j=0)


def _zero_on_edges(x: Any, u: Any) -> Any:
    return (x * (1 - x)).prod(dim=1, keepdim=True) * u


layers = [given["points"].shape[1], *[given["width"]] * given["depth"], 1]
net = dde.nn.FNN(layers, "tanh", "Glorot normal")
n_inside, n_edge = given["n_residual"], given["n_boundary"]
if given["problem"] == "poisson1d":
    known = dde.icbc.PointSetBC(given["labels"][:, :1], given["labels"][:, 1:])
    data = dde.data.PDE(dde.geometry.Interval(0, 1), _poisson, known, n_inside)
elif given["problem"] == "helmholtz2d":
    data = dde.data.PDE(dde.geometry.Rectangle([0, 0], [1, 1]), _helmholtz, [], n_inside, n_edge)
    net.apply_output_transform(_zero_on_edges)
else:
    times = dde.geometry.TimeDomain(0, 1)
    domain = dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), times)
    ends = dde.icbc.DirichletBC(domain, lambda x: 0, lambda _, is_on_edge: is_on_edge)
    start = dde.icbc.IC(domain, lambda x: -np.sin(pi * x[:, :1]), lambda _, is_start: is_start)
    data = dde.data.TimePDE(domain, _burgers, [ends, start], n_inside, n_edge, num_initial=n_edge)
model = dde.Model(data, net)
model.compile("adam", lr=given["learning_rate"])


def _train(step: Step) -> Predict:
    class Pause(dde.callbacks.Callback):
        def on_batch_end(self) -> None:
            self.model.stop_training = step(1)

    model.train(iterations=10**9, callbacks=[Pause()])
    return model.predict


run(given, net.num_trainable_parameters(), _train)
