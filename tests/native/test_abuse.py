"""Unfit arguments of C kernels neither corrupt memory nor give wrong numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.native import abuse
from tests.native.sanitizers import sanitized_environment

HERE = Path(__file__).parent


def test_the_catalogue_is_long() -> None:
    names = [one.name for one in abuse.abuses()]
    assert len(names) == len(set(names)) >= 1000


@pytest.mark.parametrize(
    "seam", ["gather torch.float32[2]", "network_jet torch.float32[2]", "squares grid", "LeanAdam"]
)
def test_abusive_calls_end_in_an_error_or_in_the_right_value(seam: str) -> None:
    counts, faults = abuse.run(seam)
    assert faults == []
    assert counts["refused"] > 20 < counts["right"]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose kernels are compiled with sanitizers."""
    environment = sanitized_environment(tmp_path_factory.mktemp("sanitized"))
    if isinstance(environment, str):
        pytest.skip(environment)
    return environment


@pytest.mark.slow
@pytest.mark.parametrize("script", ["abuse.py", "short_training.py"])
def test_sanitizers_find_nothing(script: str, sanitized: dict[str, str]) -> None:
    child = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / script)],
        env=sanitized,
        capture_output=True,
        text=True,
    )
    lines = child.stderr.splitlines()
    reports = [one for one in lines if "runtime error" in one or "ERROR: AddressSan" in one]
    assert (child.returncode, reports) == (0, []), child.stdout + child.stderr
    compiled = Path(sanitized["DIFFHASH_CACHE"])
    assert all(list(compiled.glob(f"{name}-*.so")) for name in ("network", "activation", "grid"))


@pytest.mark.slow
def test_sanitizers_would_have_found_something(sanitized: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "beyond.c"
    source.write_text("double beyond(const double *x, const double *_) { return x[1]; }\n")
    code = (
        "import pathlib, torch\n"
        "from diffhash.native import call, compiled\n"
        f"kernel = compiled(pathlib.Path({str(source)!r})).beyond\n"
        "call(kernel, [], [('x', torch.ones(1).double(), torch.float64, (1,)), None], [])\n"
    )
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=sanitized, capture_output=True, text=True
    )
    assert child.returncode != 0
    assert "heap-buffer-overflow" in child.stderr
