"""The Triton kernels compiled ahead of time for GPUs, none of which is needed."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "compile_kernels.py"
PROBE = Path(__file__).with_name("kernel_probe.py")
PAPER_GPU = "sm_86"  # an RTX 3060


def _run(cache: Path, *command: str | Path) -> str:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts that `kernel_probe` finds where Triton does not interpret."""
    printed = _run(tmp_path_factory.mktemp("probe"), PROBE)
    (facts,) = re.findall(r"^JSON(.*)", printed, flags=re.MULTILINE)
    return json.loads(facts)


@pytest.fixture
def probed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts about the compiler's output for each kernel."""
    return found["kernels"]


def _check(lines: list[dict[str, str]], *architectures: str) -> None:
    assert {line["arch"] for line in lines} == set(architectures)
    for line in lines:
        assert 0 < int(line["registers"]) <= 255
        assert int(line["ptx_bytes"]) > 0
        assert int(line["spill_stores"]) >= 0
        assert int(line["spill_loads"]) >= 0
    common = [line for line in lines if line["interpolation"] in ("linear", "s1", "cubic")]
    common = [line for line in common if line["alphas"] in ("value", "jet") and int(line["d"]) < 4]
    assert common or not {"linear", "s1", "cubic"} & {line["interpolation"] for line in lines}
    assert all(line["spill_stores"] == line["spill_loads"] == "0" for line in common)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cubic", "linear", "s1"])
def test_the_common_cases_compile_and_spill_no_register(name: str, tmp_path: Path) -> None:
    """The script is run with --quick, for the paper's GPU."""
    out = tmp_path / "deeper" / "kernels.csv"
    arguments = ("--quick", "--arch", PAPER_GPU, "--interpolations", name, "--out", out)
    printed, lines = _run(tmp_path, SCRIPT, *arguments), _lines(out)
    _check(lines, PAPER_GPU)
    found = {(line["kernel"], line["interpolation"], line["d"]) for line in lines}
    assert set(product(("gather", "scatter"), (name,), "123")) <= found
    assert f"{len(lines)} of {len(lines)} kernels compiled" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "names"),
    [
        # Each interpolation on one architecture, each architecture with stencils of every width:
        # all pairs of settings, in half the time of their product. The common cases of the first
        # are above.
        (PAPER_GPU, ("s2", "quadratic", "catmull_rom")),
        ("sm_90", ("linear", "s1", "s3", "cubic")),
        ("sm_90", ("quintic",)),
    ],
)
def test_every_variant_compiles(arch: str, names: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "kernels.csv"
    printed = _run(tmp_path, SCRIPT, "--arch", arch, "--interpolations", *names, "--out", out)
    lines = _lines(out)
    _check(lines, arch)
    assert {line["interpolation"] for line in lines} == {"", *names}
    assert {line["d"] for line in lines} == {"", "1", "2", "3", "4"}
    assert {line["dtype"] for line in lines} == {"float32", "float64"}
    assert f"{len(lines)} of {len(lines)} kernels compiled" in printed


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--arch", "hopper", "--out", tmp_path / "kernels.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--arch hopper" in done.stderr


@pytest.mark.slow
def test_a_cpu_is_refused_unless_triton_interprets(found: dict[str, Any]) -> None:
    refused = found["on a CPU"]
    assert re.search(r"device='cpu'.*backend='torch'.*TRITON_INTERPRET=1", refused), refused


@pytest.mark.slow
def test_a_launch_compiles_the_same_whatever_the_number_of_points(
    probed: list[dict[str, Any]],
) -> None:
    """The script compiles the kernel of launches, which is the same for 1, 16 and 1001 points."""
    assert {fact["kernel"] for fact in probed} == {"gather", "scatter", "list", "rows", "segment"}
    for fact in probed:
        assert fact["launched"] == [True] * 3, fact["kernel"]


@pytest.mark.slow
def test_offsets_are_64_bit(probed: list[dict[str, Any]]) -> None:
    """A table or a batch may have more than 2³¹ numbers."""
    for fact in probed:
        offsets = [pointer for pointer in fact["pointers"] if pointer.startswith("tensor")]
        assert offsets
        assert all(re.search(r"xi64>", pointer.rsplit(", ", 1)[1]) for pointer in offsets), fact
        assert not fact["narrow"], fact


@pytest.mark.slow
def test_float64_is_never_rounded_to_float32(probed: list[dict[str, Any]]) -> None:
    doubles = [fact for fact in probed if fact["dtype"] == "torch.float64"]
    assert doubles
    for fact in doubles:
        assert fact["has_f64"]
        assert not fact["has_f32"]
        # 1/120, the quintic spline's leading coefficient, to all digits
        assert any(abs(float(c) * 120) == 1 for c in fact["constants"])


@pytest.mark.slow
def test_weights_never_go_from_thread_to_thread(probed: list[dict[str, Any]]) -> None:
    """A thread evaluates the weights of its own point and needs no other thread."""
    for fact in probed:
        if fact["kernel"] != "segment":
            assert fact["barriers"] == 0, fact["kernel"]
