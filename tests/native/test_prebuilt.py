"""The libraries of a wheel are chosen for the processor that runs, without a compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffhash.native import compiler, instruction_sets, prebuild

PACKAGE = Path(compiler.__file__).parents[1]


@pytest.mark.skipif(not instruction_sets(), reason="wheels have no libraries for such machines")
def test_a_library_for_an_instruction_set_can_be_read_by_everybody(tmp_path: Path) -> None:
    oldest = instruction_sets()[-1]
    prebuild(tmp_path, oldest, "threads.c")
    [library] = tmp_path.rglob("*.so")
    assert library.parent == tmp_path / oldest
    assert library.stat().st_mode & 0o777 == 0o755
    assert ctypes.CDLL(str(library)).parallel_for


@pytest.mark.slow
@pytest.mark.skipif(not instruction_sets(), reason="wheels have no libraries for such machines")
def test_the_package_uses_its_own_libraries_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "diffhash", ignore=shutil.ignore_patterns("__pycache__"))
    build = """
import torch
from pathlib import Path
from diffhash.native import instruction_sets, prebuild
from diffhash.ops.backends.native_backend import kernel_constants
from diffhash.ops.layout import grid_layout
folder = Path("diffhash/native/prebuilt").resolve()
constants = kernel_constants(grid_layout(1, "cubic", 1, 4, 2, 2.0), torch.float64, torch.float64)
for source, settings in {"threads.c": {}, "grid.c": constants}.items():
    prebuild(folder, instruction_sets()[-1], source, **settings)
"""
    use = """
import torch
from diffhash import GridEncoding
from diffhash.native import CompilerError
x = torch.rand(9, 1, dtype=torch.float64)
one, other = (
    GridEncoding(1, n_levels=2, interpolation="cubic", backend=b, dtype=torch.float64, seed=0)(x)
    for b in ("native", "torch")
)
torch.testing.assert_close(one, other)
try:
    GridEncoding(2, n_levels=2, interpolation="cubic", backend="native", dtype=torch.float64)
except CompilerError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "DIFFHASH_CACHE": str(tmp_path / "c")}
    for code, compilers in ((build, {}), (use, {"CC": "/nowhere/cc"})):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment | compilers,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "/nowhere/cc" in done.stdout
