"""Plots of the committed benchmarks: a step's cost, how it grows, training to an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.report.plots import (
    AGAINST,
    Control,
    Option,
    Plot,
    axis,
    log_axis,
    row_options,
    thin_out,
    trace,
)
from diffhash.results.metrics import ENCODERS, TASKS
from diffhash.results.reading import read_table

BENCHMARKS = Path("results/benchmarks")
_SERIES = {"points": "residual points", "levels": "levels", "dimensions": "axes of the domain",
           "replicas": "seeds in one program"}  # fmt: skip
# Marks of the contenders that `make bench` knows; another one gets the last.
_CONTENDERS = {
    "straightforward": ("square", "--series-6"),
    "jax": ("diamond", "--series-2"),
    "ours": ("circle", "--series-7"),
    "floor": ("line-ew-open", "--series-1"),
}
_OTHER = ("cross", "--series-3")
_POINTS = 300
_MACHINE = ("{device_name}", "{threads} threads", "torch {torch}", "JAX {jax}", "Python {python}",
            "commit {diffhash_commit:.12}", "{date:.10}")  # fmt: skip


def benchmark_plots(folder: Path | str = BENCHMARKS) -> list[Plot]:
    """What there is of ``steps-``, ``growth-<device>.csv`` and ``accuracy-<device>-curves.csv``.

    Raises:
        RecordError: a file is not such a table; the message names its path.
    """
    folder = Path(folder)
    plots = []
    for path in sorted(folder.glob("steps-*.csv")):
        plots.append(_steps(read_table(path, ("encoder", "task", "contender", "ms")), path.stem))
    for path in sorted(folder.glob("growth-*.csv")):
        plots.append(_growth(read_table(path, ("series", "value", "contender", "ms")), path.stem))
    for path in sorted(folder.glob("accuracy-*-curves.csv")):
        curves = read_table(path, ("encoder", "seed", "epoch", "seconds", "mse_u"))
        runs = path.with_name(path.name.replace("-curves", ""))
        marks = read_table(runs, ("mark",)) if runs.exists() else None
        plots.append(_accuracy(curves, marks, path.stem.removesuffix("-curves")))
    return plots


def _steps(frame: pd.DataFrame, name: str) -> Plot:
    tasks = list(dict.fromkeys(frame["task"]))
    options = [Option(task, str(TASKS.get(task, task))) for task in tasks]
    return _ms_per_step(
        frame.assign(encoder=[ENCODERS.get(encoder, encoder) for encoder in frame["encoder"]]),
        Control("task", "Task", options, tasks[-1:]), "encoder", name, mode="markers", x_title="",
        title=f"Milliseconds per training step ({_device(name)})",
        caption="Of full-batch Adam at the paper's sizes, by contender: straightforward PyTorch, "
        "jitted JAX, ours, and the bare matrix products (floor).",
        description="Points of milliseconds per step on a logarithmic axis, by encoder: "
        + "; ".join(
            f"{option.value} {_range(frame, 'contender', option.value)}"
            for option in _contenders(frame)
        ),
    )  # fmt: skip


def _growth(frame: pd.DataFrame, name: str) -> Plot:
    series = list(dict.fromkeys(frame["series"]))
    options = [Option(s, str(_SERIES.get(s, s))) for s in series]
    ours = frame.loc[frame["contender"] == "ours"]
    return _ms_per_step(
        frame.assign(value=[str(value) for value in frame["value"]]),
        Control("series", "Against", options, series[:1]), "value", name,
        mode="lines+markers", x_title="{series}",
        title=f"How a step's cost grows ({_device(name)})",
        caption="Milliseconds per training step of the cubic encoding in the physics-informed "
        "task, while one size grows and the others stay the paper's.",
        description="Points of milliseconds per step on a logarithmic axis; ours: "
        + "; ".join(f"by {o.label} {_range(ours, 'series', o.value)}" for o in options),
    )  # fmt: skip


def _ms_per_step(
    frame: pd.DataFrame, panels: Control, place: str, name: str, *, mode: str, x_title: str,
    title: str, caption: str, description: str,
) -> Plot:  # fmt: skip
    """``ms`` at ``place`` of each contender; ``panels`` is the column of what to look at."""
    contenders = _contenders(frame)
    shown = [option.value for option in contenders]
    traces = []
    for option in contenders:
        symbol = _CONTENDERS.get(option.value, _OTHER)[0]
        line = {"width": 2, "color": option.colour}
        marker = {"symbol": symbol, "size": 11, "color": option.colour, "line": line}
        for value, part in frame[frame["contender"] == option.value].groupby(panels.name):
            columns = {place: list(part[place]), "ms": np.asarray(part["ms"], dtype=float)}
            when = {panels.name: str(value), "contender": option.value}
            style = {"mode": mode, "marker": marker, "line": line}
            traces.append(trace(columns, place, "ms", option.value, when, **style))
    return Plot(
        name, title, f"{caption} {_machine(frame)}", description,
        controls=[panels, Control("contender", "Contenders", contenders, shown, many=True)],
        traces=traces,
        layout={
            "xaxis": axis(x_title, type="category"),
            "yaxis": log_axis("ms per step", dtick="D2"),
            "hovermode": "x unified",
        },
        height=380,
    )  # fmt: skip


def _accuracy(curves: pd.DataFrame, marks: pd.DataFrame | None, name: str) -> Plot:
    encoders = {e: ENCODERS.get(str(e), str(e)) for e in dict.fromkeys(curves["encoder"])}
    options = row_options(encoders, {})
    traces = []
    for option in options:
        line = {"width": 1.3, "color": option.colour}
        for seed, curve in curves[curves["encoder"] == option.value].groupby("seed"):
            columns = {k: np.asarray(curve[k], dtype=float) for k in ("epoch", "seconds", "mse_u")}
            kept = thin_out(columns["epoch"], [columns["mse_u"]], _POINTS, log=True)
            columns = {key: values[kept] for key, values in columns.items()}
            label, when = f"{encoders[option.value]}, seed {seed}", {"encoder": option.value}
            traces.append(trace(columns, "{against}", "mse_u", label, when, line=line, opacity=0.8))
    layout: dict[str, Any] = {"xaxis": log_axis("{against}"), "yaxis": log_axis("MSE of u")}
    known = [] if marks is None else marks["mark"].dropna().tolist()
    dotted = ""
    if known:
        mark, line = float(known[0]), {"color": "--muted", "dash": "dot", "width": 1.5}
        dotted = f" Dotted: the paper's MLP after 50k epochs, {mark:.1e}."
        layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": mark,
                             "y1": mark, "line": line}]  # fmt: skip
    return Plot(
        id=name,
        title=f"Physics-informed training to an accuracy ({_device(name)})",
        caption="MSE of u against the seconds inside training steps; a line per seed, with the "
        f"preset best for the hash encodings.{dotted} "
        + _machine(curves if marks is None else marks),
        description="Line plots of the mean squared error of u against seconds or epochs, both "
        f"axes logarithmic, for {', '.join(encoders.values())}.",
        controls=[AGAINST, Control("encoder", "Encoders", options, list(encoders), many=True)],
        traces=traces,
        layout=layout,
        height=440,
    )


def _contenders(frame: pd.DataFrame) -> list[Option]:
    names = list(dict.fromkeys(frame["contender"]))
    names.sort(key=[*_CONTENDERS, *names].index)
    return [Option(name, name, colour=_CONTENDERS.get(name, _OTHER)[1]) for name in names]


def _range(frame: pd.DataFrame, column: str, value: str) -> str:
    ms = frame.loc[frame[column] == value, "ms"]
    return f"{ms.min():.2g} to {ms.max():.2g} ms"


def _device(name: str) -> str:
    return {"cpu": "CPU", "cuda": "GPU"}.get(device := name.partition("-")[2], device)


def _machine(frame: pd.DataFrame) -> str:
    """Where it was measured, as far as the file says so."""
    known = frame.iloc[0].dropna().to_dict() if len(frame) else {}
    parts = [text.format_map(known) for text in _MACHINE if _field(text) in known]
    return f"Measured on {', '.join(parts)}." if parts else ""


def _field(text: str) -> str:
    return text.partition("{")[2].partition("}")[0].partition(":")[0]
