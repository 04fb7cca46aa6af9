"""Milliseconds per step, and the error after equal seconds, of this library and of its peers.

All contenders of a problem take turns on one core, each for a slice of its seconds, so that the
machine's state is the same for all. A contender that is not installed, or fails, has a row with the
reason.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import ENVIRONMENT, environment_columns
from benchmarks.suite import METHODS, OPTIMIZERS
from diffhash.experiment.checks import ConfigError
from diffhash.problems import Problem, zoo
from diffhash.results.formats import format_value, markdown_table

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
PROBLEMS: dict[str, dict[str, float]] = {
    "poisson1d": {},
    "helmholtz2d": {"a": 2.0},
    "burgers1d": {},
}
POINTS = {"n_labels": 1000, "n_residual": 2000, "n_boundary": 500}  # the points of each condition
_SLICE = 2.0  # seconds of a turn
_LATEST = 180.0  # seconds until a contender that does not answer is killed
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **{"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"},
    **{"CUDA_VISIBLE_DEVICES": "", "DDE_BACKEND": "pytorch", "MPLBACKEND": "Agg"},
}


@dataclass(frozen=True)
class Contender:
    """A way to train a field.

    Attributes:
        says: a description for the table.
        packages: the packages whose versions are shown; for a peer, its own is the first.
        peer: the name of the peer's environment and script; None for this library.
        overrides: the overrides of this library's config.
        width: the width of the layers of a peer's network.
        optimizer: the optimizer of a peer.
    """

    says: str
    packages: tuple[str, ...] = ("torch",)
    peer: str | None = None
    overrides: tuple[str, ...] = ()
    width: int = 64
    optimizer: str = "Adam"


_MLP = "MLP 3 × 64, Adam"
_QUINTIC = "quintic grid, MLP 1 × 16"
CONTENDERS = {
    "ours": Contender(
        _MLP,
        overrides=(
            *("recipe=best", "encoder=mlp", "trainer.learning_rate=1e-3", "trainer.chunk=20"),
            *(f"task.{name}={n}" for name, n in POINTS.items()),
        ),
    ),
    "deepxde": Contender(_MLP, ("deepxde", "torch"), "deepxde"),
    "pina": Contender(_MLP, ("pina-mathlab", "torch"), "pina"),
    "jinns": Contender(_MLP, ("jinns", "jax"), "jinns"),
    "jinns_natural": Contender(
        *("MLP 3 × 16, natural gradient", ("jinns", "jax"), "jinns"),
        **{"width": 16, "optimizer": "natural gradient"},
    ),
    "ours_quintic": Contender(
        f"{_QUINTIC}, Adam",
        overrides=(*METHODS["quintic"], *OPTIMIZERS["adam"], "trainer.chunk=20"),
    ),
    "ours_gauss_newton": Contender(
        f"{_QUINTIC}, Gauss–Newton",
        overrides=(*METHODS["quintic"], *OPTIMIZERS["gauss_newton"]),
    ),
}
_KEY = ["problem", "contender"]
COLUMNS = [
    *(*_KEY, "says", "versions", "parameters", "status", "reason", "ms", "ms_min", "ms_max"),
    *("slices", "steps", "train_seconds", "start_seconds", "l2_u", "budget_seconds"),
    *ENVIRONMENT,
]
_OF_ALL = ("device_name", "budget_seconds")
_SHOWN = {
    **{"contender": "Contender", "says": "Field, optimizer", "versions": "Versions"},
    **{"parameters": "Parameters", "ms": "ms a step", "steps": "Steps"},
    **{"start_seconds": "s to start", "l2_u": "Error"},
}


def chosen(only: str) -> tuple[list[str], list[str]]:
    """The problems and the contenders among the words of ``only``; all of a kind without a word.

    Raises:
        ConfigError: a word is neither a problem nor a contender.
    """
    words = only.split()
    if unknown := [word for word in words if word not in {*PROBLEMS, *CONTENDERS}]:
        names = ", ".join([*PROBLEMS, *CONTENDERS])
        raise ConfigError(f"ONLY={only}: there is no {unknown[0]!r}; there are {names}")
    problems, contenders = ([k for k in all_ if k in words] for all_ in (PROBLEMS, CONTENDERS))
    return problems or [*PROBLEMS], contenders or [*CONTENDERS]


def grid(problem: Problem) -> np.ndarray:
    """The points of an even grid over the domain, edges included, ``[N, d]``."""
    n = 2001 if problem.n_dims == 1 else 201
    axes = [np.linspace(low, high, n) for low, high in problem.domain.bounds]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)


def relative_l2(values: np.ndarray, exact: np.ndarray) -> float:
    """The relative L2 error √(Σ(u - exact)² / Σ exact²); infinite where a value is not finite."""
    assert values.shape == exact.shape
    error = float(np.linalg.norm(values - exact) / np.linalg.norm(exact))
    return error if math.isfinite(error) else math.inf


# ------------------------------------------------------------------------------ environments


def install(peer: str, environments: Path, log: Path) -> str | None:
    """Make the environment of a peer unless it exists; return the reason if that failed."""
    requirements, home = HERE / f"{peer}.txt", environments / peer
    pins = requirements.read_text() + CONSTRAINTS.read_text()
    stamp = home / "installed.txt"
    if stamp.is_file() and stamp.read_text() == pins:
        return None
    shutil.rmtree(home, ignore_errors=True)
    python, uv = str(home / "bin/python"), shutil.which("uv")
    make = [uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    commands = [[*make, str(home)], [*pip, "-r", str(requirements)]]
    if torch_pin := re.findall(r"^torch==.*", requirements.read_text(), re.M):
        commands.insert(1, [*pip, "--index-url", _TORCH_INDEX, *torch_pin])
    print(f"peers: installing {peer} into {home}", file=sys.stderr)
    with log.open("w") as file:
        for command in commands:
            if subprocess.run(command, stdout=file, stderr=file).returncode:
                return _last_line(log)
    stamp.write_text(pins)
    return None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it ended without a word")


# ----------------------------------------------------------------------------------- turns


def measure(
    name: str,
    contenders: Sequence[str],
    seconds: float,
    runs: Path,
    environments: Path,
    missing: Mapping[str, str],
) -> pd.DataFrame:
    """The rows of the table for a problem.

    Args:
        name: the name of the problem.
        contenders: keys of `CONTENDERS`.
        seconds: the seconds of training of each contender.
        runs: a folder for settings, logs and predictions.
        environments: the folder of the peers' environments.
        missing: for each peer that is not installed, the reason.
    """
    make: Any = zoo()[name]
    problem = make(**PROBLEMS[name])
    points = grid(problem)
    exact = problem.solution(torch.from_numpy(points)).numpy().reshape(-1)
    rows: list[dict[str, Any]] = []
    turns: list[Iterator[str]] = []
    for key in contenders:
        contender = CONTENDERS[key]
        row: dict[str, Any] = {"problem": name, "contender": key, "says": contender.says}
        rows.append(row)
        if reason := missing.get(contender.peer or ""):
            row |= {"status": "not installed", "reason": reason}
            continue
        folder = _prepare(problem, name, contender, points, seconds, runs / name / key)
        python = environments / contender.peer / "bin/python" if contender.peer else sys.executable
        script = HERE / f"run_{contender.peer or 'ours'}.py"
        turns.append(_turns([str(python), str(script)], folder, row, exact, seconds))
    print(f"peers: {name}: {len(turns)} take turns, {seconds:g} s each", file=sys.stderr)
    while turns:
        turns = [one for one in turns if next(one, None)]
    environment = environment_columns(torch.device("cpu")) | {"threads": 1}
    table = pd.DataFrame(rows).assign(budget_seconds=seconds, **environment)
    return table.reindex(columns=COLUMNS)


def _turns(
    command: list[str], folder: Path, row: dict[str, Any], exact: np.ndarray, seconds: float
) -> Iterator[str]:
    """The turns of a process, which starts in the first and trains for a slice in each other."""
    begin, log = time.perf_counter(), folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, str(folder / "settings.json")], cwd=folder, env=os.environ | _ONE_THREAD,
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
        )  # fmt: skip
    slices: list[tuple[int, float]] = []  # steps and seconds of each slice
    spent, has_ended = 0.0, False
    try:
        row |= _answer(process)
        row["start_seconds"] = time.perf_counter() - begin
        while not has_ended:
            yield "goes on"
            left = seconds - spent
            print(min(left, _SLICE) if left > 0 else "", file=process.stdin, flush=True)
            answer = _answer(process)
            has_ended = answer["ended"]
            if answer["steps"]:
                slices.append((answer["steps"], answer["seconds"]))
                spent += answer["seconds"]
    except (BrokenPipeError, EOFError):
        row |= {"status": "failed", "reason": _last_line(log)}
        return
    finally:
        process.kill()
        process.wait()
    error = relative_l2(np.load(folder / "values.npy"), exact)
    # The first slice is a warm-up, unless it is the only one.
    ms = [1e3 * s / n for n, s in slices[1:] or slices] or [math.nan]
    status = "completed" if spent > 0.95 * seconds else "ended by itself"
    row |= {"status": status if math.isfinite(error) else "diverged", "l2_u": error}
    row |= {"ms": median(ms), "ms_min": min(ms), "ms_max": max(ms), "slices": len(ms)}
    row |= {"steps": sum(n for n, _ in slices), "train_seconds": spent}


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    timer = threading.Timer(_LATEST, process.kill)
    timer.start()
    line = process.stdout.readline()  # type: ignore[union-attr]
    timer.cancel()
    if not line:
        raise EOFError
    return json.loads(line)


def _prepare(
    problem: Any, name: str, contender: Contender, points: np.ndarray, seconds: float, folder: Path
) -> Path:
    """Write the files that a contender reads; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    known = torch.linspace(0, 0.5, POINTS["n_labels"], dtype=torch.float64)[:, None]
    values = problem.solution(known).view(-1, 1) if name == "poisson1d" else known
    np.save(folder / "labels.npy", torch.cat([known, values], dim=1).numpy())
    np.save(folder / "points.npy", points)
    given = {key: getattr(problem, key) for key in ("k", "nu") if hasattr(problem, key)}
    given |= {"problem": name, **PROBLEMS[name], **POINTS, **asdict(contender)}
    given |= {"seed": 0, "seconds": seconds, "depth": 3, "learning_rate": 1e-3}
    given["overrides"] = [
        f"problem={name}",
        *(f"problem.{key}={value:g}" for key, value in PROBLEMS[name].items()),
        *contender.overrides,
        *("trainer.epochs=1000000000", "trainer.max_seconds=1e6", "seed=0"),
        *("trainer.evaluation_points=100", "trainer.accelerator=cpu", "trainer.num_threads=1"),
    ]
    (folder / "settings.json").write_text(json.dumps(given, indent=2))
    return folder


# -------------------------------------------------------------------------------- the tables


def merge(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of both in order; of two rows for a contender on a problem, the new one stays."""
    both = pd.concat([old, new] if len(old) else [new]).drop_duplicates(_KEY, keep="last")
    order = {key: place for place, key in enumerate([*PROBLEMS, *CONTENDERS])}
    return both.sort_values(_KEY, key=lambda c: c.map(order), kind="stable", ignore_index=True)


def page(table: pd.DataFrame) -> str:
    """The table as Markdown; where there is no error, the reason stands in place of versions."""
    machine, seconds = (", ".join(map(str, table[c].unique())) for c in _OF_ALL)
    parts = [
        "# Beside other libraries for PINNs\n\n"
        f"{seconds} s of training each, on one thread ({machine}); by `make peers`. Milliseconds "
        "are medians over slices of two seconds, in which all took turns; seconds to start those "
        "until the first step was done, which do not count as training; errors relative L2 errors "
        "of u at one grid of points. What is like for like and what is not: "
        "[benchmarks](../../docs/benchmarks.md). Every column: [CSV](peers.csv)."
    ]
    why = (table["status"] + ": " + table["reason"].astype(str)).str.replace("|", "/")
    shown = table.assign(versions=table["versions"].where(table["l2_u"].notna(), why))
    for column in ("parameters", "steps"):
        shown[column] = ["–" if pd.isna(n) else f"{n:.0f}" for n in table[column]]
    for column in ("ms", "start_seconds"):  # rounded to a tenth
        shown[column] = [format_value("train_seconds", value) for value in table[column]]
    shown["l2_u"] = [format_value("l2_u", value) for value in table["l2_u"]]
    for problem, rows in shown.groupby("problem", sort=False):
        settings = "".join(f", {key} = {v:g}" for key, v in PROBLEMS[str(problem)].items())
        frame = rows.reindex(columns=[*_SHOWN]).set_axis([*_SHOWN.values()], axis=1)
        parts += [f"## `{problem}`{settings}", markdown_table(frame, "lll")]
    return "\n\n".join(parts) + "\n"
