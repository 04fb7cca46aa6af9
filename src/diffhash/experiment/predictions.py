"""The predictions of a field at the points of its evaluation, as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffhash.experiment.checks import ConfigError
from diffhash.geometry import Domain
from diffhash.jets import Jet
from diffhash.results.reading import RecordError, brief, read_table
from diffhash.training import Evaluation


def read_points(path: Path, domain: Domain) -> Tensor:
    """Read points ``[N, d]`` from a CSV or Parquet file with a column for each axis.

    Raises:
        ConfigError: the file does not exist or is no such table, a point is not finite or not in
            the domain, or there is no point.
    """
    import pandas as pd  # slow to import, and not needed for a run

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
    axes = list(domain.axes)
    if missing := [axis for axis in axes if axis not in frame]:
        raise ConfigError(
            f"{option}: no column {', '.join(missing)}; the problem's coordinates are "
            f"{', '.join(axes)}"
        )
    if frame.empty:
        raise ConfigError(f"{option}: has no points")
    columns = []
    for axis, (low, high) in zip(axes, domain.bounds, strict=True):
        values = np.asarray(pd.to_numeric(frame[axis], errors="coerce"), dtype=np.float64)
        outside = np.flatnonzero(~((values >= low) & (values <= high)))  # NaN is outside as well
        if len(outside):
            first = outside[0]
            is_number = not np.isnan(values[first])
            reason = f"is not in the domain, {low} to {high}" if is_number else "is no number"
            raise ConfigError(
                f"{option}: {axis} = {frame[axis].iloc[first]} of point {first + 1} {reason}"
            )
        columns.append(torch.from_numpy(values.copy()))
    points = torch.stack(columns, dim=1)
    outside = np.flatnonzero(~domain.contains(points).numpy())
    if len(outside):
        place = ", ".join(f"{v:g}" for v in points[outside[0]].tolist())
        raise ConfigError(f"{option}: ({place}), point {outside[0] + 1}, is not in the domain")
    return points


def predicted_columns(evaluation: Evaluation, predicted: Tensor) -> dict[str, np.ndarray]:
    """u, its derivatives and their exact values at the evaluation's points, by name.

    The names are those of `diffhash.results.read_predictions`; exact values are NaN if the
    problem has no known solution.

    Args:
        evaluation: the evaluation with the points and the exact values.
        predicted: one of `Evaluation.jets`, ``[K, N, C]``.
    """
    names = evaluation.problem.names
    columns = {axis: evaluation.x[:, j].numpy() for j, axis in enumerate(names.axes)}
    exact = predicted * float("nan") if evaluation.exact is None else evaluation.exact
    for prefix, data in (("", predicted), ("exact_", exact)):
        jet = Jet(data, evaluation.rows, names)
        columns |= {f"{prefix}{d}": jet[d].numpy() for d in evaluation.derivatives}
    return columns
