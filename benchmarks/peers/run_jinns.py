"""jinns with Adam or its natural gradient; the equations are written as in its notebooks.

Training pauses in the validation module, which jinns calls every few steps.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import numpy as np
import optax
from contender import Predict, Step, helmholtz_source, poisson_source, run, settings
from jax.experimental import io_callback
from jinns.validation import AbstractValidationModule

given = settings()
is_natural = given["optimizer"] == "natural gradient"
jax.config.update("jax_enable_x64", is_natural)  # as in its notebooks with natural gradients
key, network_key = jax.random.split(jax.random.PRNGKey(given["seed"]))
is_burgers = given["problem"] == "burgers1d"


class _Poisson(jinns.loss.PDEStatio):
    def equation(self, x: Any, u: Any, params: Any) -> Any:
        k = params.eq_params.constant
        second = jinns.loss.laplacian_rev(x, u, params)
        return k * second - poisson_source(k, x, jnp.sin, jnp.cos)


class _Helmholtz(jinns.loss.PDEStatio):
    def equation(self, x: Any, u: Any, params: Any) -> Any:
        source = helmholtz_source(params.eq_params.constant, x[:1], x[1:], jnp.sin)
        return jinns.loss.laplacian_rev(x, u, params) + u(x, params) - source


widths = [given["points"].shape[1], *[given["width"]] * given["depth"], 1]
layers: list[tuple[Any, ...]] = []
for sizes in pairwise(widths):
    layers += [(eqx.nn.Linear, *sizes), (jax.nn.tanh,)]
u, network = jinns.nn.PINN_MLP.create(
    key=network_key,
    eqx_list=tuple(layers[:-1]),
    eq_type="PDENonStatio" if is_burgers else "PDEStatio",
)
constants = {
    "poisson1d": {"constant": given.get("k")},
    "helmholtz2d": {"constant": given.get("a")},
    "burgers1d": {"nu": given.get("nu")},
}[given["problem"]]
params = jinns.parameters.Params(
    nn_params=network, eq_params={name: jnp.array(value) for name, value in constants.items()}
)
points: dict[str, Any] = {"key": key, "n": given["n_residual"]}
terms: dict[str, Any] = {"u": u, "params": params}
observed = None
if is_burgers:
    edge = {"nb": given["n_boundary"], "ni": given["n_boundary"], "tmin": 0, "tmax": 1}
    data = jinns.data.CubicMeshPDENonStatio(
        dim=1, min_pts=(-1.0,), max_pts=(1.0,), **edge, **points
    )
    loss = jinns.loss.LossPDENonStatio(
        dynamic_loss=jinns.loss.BurgersEquation(Tmax=1),
        boundary_condition=jinns.loss.Dirichlet(),
        initial_condition_fun=lambda x: -jnp.sin(jnp.pi * x),
        loss_weights=jinns.loss.LossWeightsPDENonStatio(
            dyn_loss=1.0, initial_condition=1.0, boundary_loss=1.0
        ),
        **terms,
    )
elif given["problem"] == "helmholtz2d":
    data = jinns.data.CubicMeshPDEStatio(
        dim=2, min_pts=(0.0, 0.0), max_pts=(1.0, 1.0), nb=given["n_boundary"], **points
    )
    loss = jinns.loss.LossPDEStatio(
        dynamic_loss=_Helmholtz(),
        boundary_condition=jinns.loss.Dirichlet(),
        loss_weights=jinns.loss.LossWeightsPDEStatio(dyn_loss=1.0, boundary_loss=1.0),
        **terms,
    )
else:
    data = jinns.data.CubicMeshPDEStatio(dim=1, min_pts=(0.0,), max_pts=(1.0,), **points)
    x, known = (jnp.asarray(given["labels"][:, k : k + 1]) for k in (0, 1))
    observed = jinns.data.DataGeneratorObservations(
        key=key, observed_pinn_in=x, observed_values=known
    )
    loss = jinns.loss.LossPDEStatio(
        dynamic_loss=_Poisson(),
        loss_weights=jinns.loss.LossWeightsPDEStatio(dyn_loss=1.0, observations=1.0),
        **terms,
    )


def _train(step: Step) -> Predict:
    every = 1 if is_natural else 5

    class Pause(AbstractValidationModule):
        call_every: int = every

        def __call__(self, params: Any) -> Any:
            number = jax.tree.leaves(params)[0].ravel()[0]  # so the callback follows the step
            is_over = io_callback(
                lambda _: np.bool_(step(every)), jax.ShapeDtypeStruct((), jnp.bool_), number
            )
            return self, is_over, jnp.nan, False

    found, *_ = jinns.solve(
        n_iter=10**6, init_params=params, data=data, loss=loss, obs_data=observed,
        optimizer=jinns.optimizers.vanilla_ngd() if is_natural else optax.adam(1e-3),
        validation=Pause(), verbose=False, key=key,
    )  # fmt: skip

    def predict(points: np.ndarray) -> Any:
        inputs = jnp.asarray(points[:, ::-1] if is_burgers else points)  # jinns takes (t, x)
        return jax.vmap(lambda x: u(x, found))(inputs)

    return predict


run(given, sum(p.size for p in jax.tree.leaves(eqx.filter(network, eqx.is_array))), _train)
