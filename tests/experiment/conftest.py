"""Configs small enough to run in a moment, and ways to run them."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from omegaconf import DictConfig

from diffhash.experiment.run import run
from diffhash.results import RunRecord
from diffhash.training.solution import Solution
from tests import composition
from tests.composition import ROOT

TINY = (
    "trainer.epochs=6",
    "trainer.chunk=2",
    "trainer.evaluation_points=16",
    "trainer.accelerator=cpu",
    "trainer.num_threads=1",  # more cost time at these sizes, a lot of it where cores are busy
    "task.n_labels=8",
)


@pytest.fixture
def real_figure() -> None:
    """Let the runs of a test draw a real figure."""


@pytest.fixture(autouse=True)
def blank_figure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs inside a test draw an empty figure: a real one takes longer than all else of a run."""
    with pytest.MonkeyPatch.context() as patch:
        if "real_figure" not in request.fixturenames:
            patch.setattr(Solution, "plot", lambda *_: Figure(figsize=(1, 1)))
        yield


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of ``train.py``, ``configs/`` and ``scripts/``."""
    return ROOT


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make a run short."""
    return TINY


@pytest.fixture
def config() -> Callable[..., DictConfig]:
    """``config(*overrides)``: the config that ``train.py`` composes, at full size."""
    return composition.config


@pytest.fixture
def tiny_config(config: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """``tiny_config(*overrides)``: the config of a short run, of the MLP by default."""

    def make(*overrides: str) -> DictConfig:
        return config("encoder=mlp", *TINY, *overrides)

    return make


@pytest.fixture
def train(
    tiny_config: Callable[..., DictConfig], tmp_path: Path
) -> Callable[..., tuple[Path, RunRecord]]:
    """``train(*overrides)``: run a tiny config, by default in ``tmp_path/run``."""

    def make(*overrides: str) -> tuple[Path, RunRecord]:
        [result] = run(tiny_config(f"run_dir={tmp_path}/run", *overrides))
        return result

    return make


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandResult]:
    """``command_line(script, *arguments)``: run a script of this repository inside the tests."""

    def call(script: str, *arguments: str) -> CommandResult:
        path = str(ROOT / script)
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        out, err = io.StringIO(), io.StringIO()
        code: int | str | None = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                runpy.run_path(path, run_name="__main__")
            except SystemExit as stop:
                code = stop.code
        return CommandResult(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start(script, *arguments)``: run a script as a process group, killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def call(script: str, *arguments: str, **settings: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **settings,  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield call
    for process in started:
        with process:  # closes its pipes, waits
            process.kill()


@pytest.fixture
def own_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """``own_problem(code)``: write a problem class ``Own`` and the config ``problem=own`` outside
    the repository, and return the override that lets Hydra find it."""

    def make(code: str) -> str:
        folder = tmp_path / "outside"
        (folder / "problem").mkdir(parents=True)
        module = f"own_{os.urandom(4).hex()}"
        (folder / f"{module}.py").write_text(code)
        (folder / "problem" / "own.yaml").write_text(f"_target_: {module}.Own\nname: own\n")
        monkeypatch.syspath_prepend(folder)
        return f"hydra.searchpath=[file://{folder}]"

    return make
