"""What a field predicts at the points of its evaluation, as a table."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from diffhash.ops.jet import Jet
from diffhash.training import Evaluation


def predictions_frame(evaluation: Evaluation, predicted: Tensor) -> pd.DataFrame:
    """u, its derivatives and the exact ones at the evaluation's points, one column each.

    The columns are those of `diffhash.results.read_predictions`; the exact ones are NaN where the
    problem has no known solution.

    Args:
        evaluation: its points, and the exact values there.
        predicted: one of `Evaluation.jets`, ``[1 + 2d, N, 1]``.
    """
    n_dims = evaluation.x.shape[1]
    axes = ["x"] if n_dims == 1 else [f"x{j}" for j in range(n_dims)]
    columns = {axis: evaluation.x[:, j].numpy() for j, axis in enumerate(axes)}
    exact = predicted * float("nan") if evaluation.exact is None else evaluation.exact
    for prefix, data in (("", predicted), ("exact_", exact)):
        jet = Jet(data, evaluation.orders)
        columns[f"{prefix}u"] = jet.value[:, 0].numpy()
        for j, axis in enumerate(axes):
            columns[f"{prefix}u_{axis}"] = jet.derivative(j, 1)[:, 0].numpy()
            columns[f"{prefix}u_{axis}{axis}"] = jet.derivative(j, 2)[:, 0].numpy()
    return pd.DataFrame(columns)
