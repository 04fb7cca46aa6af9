"""Small real runs, made once, and the command line over them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from diffhash.cli.app import app
from diffhash.experiment.run import run
from tests.composition import config

TINY = (
    "trainer.epochs=6", "trainer.chunk=2", "trainer.evaluation_points=33",
    "trainer.accelerator=cpu", "trainer.num_threads=1", "task.n_labels=8",
)  # fmt: skip
CUBIC = ("encoder=cubic", "encoder.encoding.n_levels=2", "encoder.network.width=8")


def _train(directory: Path, *overrides: str) -> None:
    run(config(*TINY, *overrides, f"run_dir={directory}"), overrides)


@pytest.fixture(scope="session")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("cli") / "runs"
    _train(runs / "cubic", *CUBIC)
    _train(runs / "mlp", "encoder=mlp", "seeds=[3,4]", "encoder.network.width=8")
    _train(runs / "diverged", "encoder=mlp", "trainer.learning_rate=1e39")
    return runs


@pytest.fixture
def train() -> Callable[..., None]:
    """``train(folder, *overrides)``: a small run."""
    return _train


@pytest.fixture
def runs(_runs: Path, tmp_path: Path) -> Path:
    """Records ``cubic``, ``mlp/seed3``, ``mlp/seed4`` and ``diverged``, to be spoiled at will."""
    return shutil.copytree(_runs, tmp_path / "runs")


@pytest.fixture
def diffhash() -> Callable[..., Result]:
    """``diffhash(*arguments)``: the command inside the tests."""

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
