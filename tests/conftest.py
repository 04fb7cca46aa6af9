"""Settings of all tests, and the skipped ones: GPU tests without a GPU, and slow tests."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

# Before any import that reads them: no test opens a window or reaches the network.
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
# Tensors of tests are small: a second thread costs more than it gives. For child processes too.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from tests.thinned import BETWEEN

if not torch.cuda.is_available():
    # Triton's kernels then run in its interpreter; it is asked for before they are imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)

# Shells start background jobs with SIGINT ignored, and child processes inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests and what they import stay until the end: the collector need not visit them again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def _is_between(case: Any) -> bool:
    """Whether an interpolation in ``d`` dimensions is tested by `make test-slow` only."""
    if case is None or "d" not in case.params:
        return False
    names = {value for value in case.params.values() if isinstance(value, str)}
    return bool(names & {*BETWEEN}) or ("nonic" in names and case.params["d"] > 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a CUDA GPU; torch sees none")
    not_asked = pytest.mark.skip(reason="slow; run it with `make test-slow`")
    for item in items:
        if _is_between(getattr(item, "callspec", None)):
            item.add_marker("slow")
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(not_asked)
