"""Plots of the committed benchmarks: a step's cost, how it grows, training to an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.report.plots import (
    Control,
    Option,
    Plot,
    axis,
    log_axis,
    row_options,
    thin_out,
    trace,
)
from diffhash.results.reading import read_table

BENCHMARKS = Path("results/benchmarks")
_NAMES = {"mlp": "MLP", "ff": "FF", "siren": "SIREN", "linear": "Linear", "s1": "S1", "s2": "S2",
          "cubic": "Cubic"}  # fmt: skip
_TASKS = {"data": "data-driven", "pinn": "physics-informed"}
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
_MACHINE = {
    "device_name": "{device_name}",
    "threads": "{threads} threads",
    "torch": "torch {torch}",
    "jax": "JAX {jax}",
    "python": "Python {python}",
    "diffhash_commit": "commit {diffhash_commit:.12}",
    "date": "{date:.10}",
}


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
    named = frame.assign(encoder=[_NAMES.get(encoder, encoder) for encoder in frame["encoder"]])
    return _ms_per_step(
        named,
        Control("task", "Task", [Option(t, str(_TASKS.get(t, t))) for t in tasks], tasks[-1:]),
        "encoder",
        mode="markers",
        x_title="",
        name=name,
        title=f"Milliseconds per training step ({_device(name)})",
        caption="Of full-batch Adam at the paper's sizes, by contender: straightforward PyTorch, "
        "jitted JAX, ours, and the bare matrix products (floor).",
        description="Points of milliseconds per step on a logarithmic axis, by encoder: "
        + "; ".join(
            f"{contender} {low:.2g} to {high:.2g} ms" for contender, low, high in _ranges(frame)
        ),
    )


def _growth(frame: pd.DataFrame, name: str) -> Plot:
    series = list(dict.fromkeys(frame["series"]))
    options = [Option(s, str(_SERIES.get(s, s))) for s in series]
    ours = frame[frame["contender"] == "ours"]
    return _ms_per_step(
        frame.assign(value=[str(value) for value in frame["value"]]),
        Control("series", "Against", options, series[:1]),
        "value",
        mode="lines+markers",
        x_title="{series}",
        name=name,
        title=f"How a step's cost grows ({_device(name)})",
        caption="Milliseconds per training step of the cubic encoding in the physics-informed "
        "task, while one size grows and the others stay the paper's.",
        description="Points of milliseconds per step on a logarithmic axis; ours: "
        + "; ".join(
            f"by {_SERIES.get(s, s)} {ours.loc[ours['series'] == s, 'ms'].min():.2g} to "
            f"{ours.loc[ours['series'] == s, 'ms'].max():.2g} ms"
            for s in series
        ),
    )


def _ms_per_step(
    frame: pd.DataFrame,
    panels: Control,
    place: str,
    *,
    mode: str,
    x_title: str,
    name: str,
    title: str,
    caption: str,
    description: str,
) -> Plot:
    """``ms`` at ``place`` of each contender; ``panels`` is the column of what to look at."""
    contenders = _contenders(frame)
    shown = [option.value for option in contenders]
    return Plot(
        id=name,
        title=title,
        caption=f"{caption} {_machine(frame)}",
        description=description,
        controls=[panels, Control("contender", "Contenders", contenders, shown, many=True)],
        traces=_points(frame, contenders, panels.name, place, mode=mode),
        layout={
            "xaxis": axis(x_title, type="category"),
            "yaxis": log_axis("ms per step", dtick="D2"),
            "hovermode": "x unified",
        },
        height=380,
    )


def _points(
    frame: pd.DataFrame, contenders: list[Option], panel: str, place: str, *, mode: str
) -> list[dict[str, Any]]:
    """A trace of ``ms`` at ``place`` for each contender and each value of ``panel``."""
    traces = []
    for option in contenders:
        symbol = _CONTENDERS.get(option.value, _OTHER)[0]
        line = {"width": 2, "color": option.colour}
        marker = {"symbol": symbol, "size": 11, "color": option.colour, "line": line}
        for value, part in frame[frame["contender"] == option.value].groupby(panel):
            columns = {place: list(part[place]), "ms": np.asarray(part["ms"], dtype=float)}
            when = {panel: str(value), "contender": option.value}
            style = {"mode": mode, "marker": marker, "line": line}
            traces.append(trace(columns, place, "ms", option.value, when, **style))
    return traces


def _contenders(frame: pd.DataFrame) -> list[Option]:
    names = list(dict.fromkeys(frame["contender"]))
    names.sort(key=[*_CONTENDERS, *names].index)
    return [Option(name, name, colour=_CONTENDERS.get(name, _OTHER)[1]) for name in names]


def _accuracy(curves: pd.DataFrame, marks: pd.DataFrame | None, name: str) -> Plot:
    encoders = {e: _NAMES.get(str(e), str(e)) for e in dict.fromkeys(curves["encoder"])}
    options = row_options(encoders, {})
    traces = []
    for option in options:
        of_encoder = curves[curves["encoder"] == option.value]
        for seed, curve in of_encoder.groupby("seed"):
            score = np.asarray(curve["mse_u"], dtype=float)
            kept = thin_out(np.asarray(curve["epoch"], dtype=float), [score], _POINTS, log=True)
            columns = {key: np.asarray(curve[key], dtype=float)[kept]
                       for key in ("epoch", "seconds", "mse_u")}  # fmt: skip
            line = {"width": 1.3, "color": option.colour}
            label = f"{encoders[option.value]}, seed {seed}"
            when = {"encoder": option.value}
            traces.append(trace(columns, "{against}", "mse_u", label, when, line=line, opacity=0.8))
    layout: dict[str, Any] = {"xaxis": log_axis("{against}"), "yaxis": log_axis("MSE of u")}
    known = [] if marks is None else marks["mark"].dropna().tolist()
    mark = float(known[0]) if known else None
    if mark is not None:
        line = {"color": "--muted", "dash": "dot", "width": 1.5}
        layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": mark,
                             "y1": mark, "line": line}]  # fmt: skip
    return Plot(
        id=name,
        title=f"Physics-informed training to an accuracy ({_device(name)})",
        caption="MSE of u against the seconds inside training steps; a line per seed, with the "
        "preset best for the hash encodings."
        + ("" if mark is None else f" Dotted: the paper's MLP after 50k epochs, {mark:.1e}.")
        + f" {_machine(curves if marks is None else marks)}",
        description="Line plots of the mean squared error of u against seconds or epochs, both "
        f"axes logarithmic, for {', '.join(encoders.values())}.",
        controls=[
            Control("against", "Against", [Option("epoch", "epochs"), Option("seconds", "seconds")],
                    ["seconds"]),
            Control("encoder", "Encoders", options, list(encoders), many=True),
        ],
        traces=traces,
        layout=layout,
        height=440,
    )  # fmt: skip


def _ranges(frame: pd.DataFrame) -> list[tuple[str, float, float]]:
    names = [option.value for option in _contenders(frame)]
    ms = {name: frame.loc[frame["contender"] == name, "ms"] for name in names}
    return [(name, part.min(), part.max()) for name, part in ms.items()]


def _device(name: str) -> str:
    return {"cpu": "CPU", "cuda": "GPU"}.get(device := name.partition("-")[2], device)


def _machine(frame: pd.DataFrame) -> str:
    """Where it was measured, as far as the file says so."""
    if not len(frame):
        return ""
    line = {key: value for key, value in frame.iloc[0].items() if not pd.isna(value)}
    parts = [text.format(**{key: line[key]}) for key, text in _MACHINE.items() if key in line]
    return f"Measured on {', '.join(parts)}." if parts else ""
