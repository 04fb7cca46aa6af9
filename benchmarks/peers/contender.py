"""A process that trains in slices of time, waits between them, and predicts at the end.

It runs in the environments of the peers, so it needs nothing but the standard library and NumPy. It
writes a line of JSON when its first step is done. For each slice it then reads the seconds, trains
for as long, and writes the number of steps and the seconds that they took. An empty line ends the
training.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[int], bool]  # called after a number of steps; returns whether training is over
Predict = Callable[[np.ndarray], Any]  # values at points [N, d]

_ANSWERS = os.fdopen(os.dup(1), "w")  # the output of libraries goes to the log


def settings() -> dict[str, Any]:
    """The settings in the JSON file that the command line names, and the arrays beside it."""
    os.dup2(2, 1)
    path = Path(sys.argv[1])
    arrays = {name: np.load(path.with_name(f"{name}.npy")) for name in ("labels", "points")}
    return {**json.loads(path.read_text()), **arrays, "values": path.with_name("values.npy")}


def run(given: dict[str, Any], parameters: int, train: Callable[[Step], Predict]) -> None:
    """Train with pauses, then write predictions at the points.

    Args:
        given: the `settings`.
        parameters: the number of trained parameters.
        train: calls a `Step` until that returns True; returns the prediction function.
    """
    begin, until, steps = 0.0, 0.0, 0

    def wait() -> bool:
        nonlocal begin, until, steps
        line = sys.stdin.readline().strip()
        begin, steps = time.perf_counter(), 0
        until = begin + float(line or 0)
        return not line

    def step(n: int) -> bool:
        nonlocal steps
        now = time.perf_counter()
        if not begin:
            versions = ", ".join(f"{name} {version(name)}" for name in given["packages"])
            _answer(versions=versions, parameters=parameters)
            return wait()
        steps += n
        if now < until:
            return False
        _answer(steps=steps, seconds=now - begin, ended=False)
        return wait()

    predict = train(step)
    seconds = time.perf_counter() - begin
    values = np.asarray(predict(given["points"]), dtype=np.float64).reshape(-1)
    np.save(given["values"], values)
    _answer(steps=steps, seconds=seconds, ended=True)  # 0 steps unless training ended by itself


def _answer(**items: Any) -> None:
    print(json.dumps(items), file=_ANSWERS, flush=True)


def poisson_source(k: float, x: Any, sin: Callable[..., Any], cos: Callable[..., Any]) -> Any:
    """The source k u″ for u = (2x³ - 20x) sin(2πx)/(2π) + sin(8πx)."""
    smooth = (6 / pi * x - 2 * pi * (2 * x**3 - 20 * x)) * sin(2 * pi * x)
    return k * (smooth + (12 * x**2 - 40) * cos(2 * pi * x) - 64 * pi**2 * sin(8 * pi * x))


def helmholtz_source(a: float, x: Any, y: Any, sin: Callable[..., Any]) -> Any:
    """The source Δu + u for u = sin(aπx) sin(aπy)."""
    return (1 - 2 * (a * pi) ** 2) * sin(a * pi * x) * sin(a * pi * y)
