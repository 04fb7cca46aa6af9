"""What a field predicts at the points of its evaluation, as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffhash.experiment.checks import ConfigError
from diffhash.jets import Jet, Names
from diffhash.problems.problem import Box
from diffhash.results.reading import RecordError, brief
from diffhash.results.record import read_table
from diffhash.training import Evaluation


def axis_names(n_dims: int) -> list[str]:
    """``x``, or ``x0``, ``x1``, …"""
    return ["x"] if n_dims == 1 else [f"x{j}" for j in range(n_dims)]


def read_points(path: Path, box: Box) -> Tensor:
    """Points of the user's own, ``[N, d]``: a CSV or Parquet file with a column for each axis.

    Raises:
        ConfigError: there is no such file, or it is not such a table; a point is not finite or
            not in the domain; there is none.
    """
    option = f"--at {path}"
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else read_table(path, ())
    except RecordError as error:
        raise ConfigError(f"{option}: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{option}: there is no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or brief(error)
        raise ConfigError(f"{option}: cannot be read ({reason})") from error
    axes = axis_names(len(box))
    if missing := [axis for axis in axes if axis not in frame]:
        raise ConfigError(
            f"{option}: no column {', '.join(missing)}; the problem's coordinates are "
            f"{', '.join(axes)}"
        )
    if frame.empty:
        raise ConfigError(f"{option}: has no points")
    columns = []
    for axis, (low, high) in zip(axes, box, strict=True):
        values = np.asarray(pd.to_numeric(frame[axis], errors="coerce"), dtype=np.float64)
        outside = np.flatnonzero(~((values >= low) & (values <= high)))  # NaN is outside as well
        if len(outside):
            value = frame[axis].iloc[outside[0]]
            raise ConfigError(
                f"{option}: {axis} = {value} of point {outside[0] + 1} is not in the domain, "
                f"{low} to {high}"
            )
        columns.append(torch.from_numpy(values.copy()))
    return torch.stack(columns, dim=1)


def predictions_frame(evaluation: Evaluation, predicted: Tensor) -> pd.DataFrame:
    """u, its derivatives and the exact ones at the evaluation's points, one column each.

    The columns are those of `diffhash.results.read_predictions`; the exact ones are NaN where the
    problem has no known solution.

    Args:
        evaluation: its points, and the exact values there.
        predicted: one of `Evaluation.jets`, ``[1 + 2d, N, 1]``.
    """
    axes = axis_names(evaluation.x.shape[1])
    columns = {axis: evaluation.x[:, j].numpy() for j, axis in enumerate(axes)}
    exact = predicted * float("nan") if evaluation.exact is None else evaluation.exact
    for prefix, data in (("", predicted), ("exact_", exact)):
        jet = Jet(data, evaluation.rows, Names(tuple(axes)))
        columns[f"{prefix}u"] = jet["u"].numpy()
        for axis in axes:
            columns[f"{prefix}u_{axis}"] = jet[f"u_{axis}"].numpy()
            columns[f"{prefix}u_{axis}{axis}"] = jet[f"u_{axis}{axis}"].numpy()
    return pd.DataFrame(columns)
