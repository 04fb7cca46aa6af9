"""Abusive calls of what reaches C, and short training, with kernels that sanitizers watch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.scenarios import ROOT
from tests.faults.tally import Tally

_PATIENCE = 900.0
_REPORT = re.compile(r"runtime error|ERROR: AddressSanitizer")


def try_all(tally: Tally) -> None:
    """Run the catalogue of abusive calls, and short training."""
    with tempfile.TemporaryDirectory(prefix="faults-") as cache:
        environment = sanitized(Path(cache))
        if isinstance(environment, str):
            tally.skipped = environment
            return
        for script in ("abuse.py", "short_training.py"):
            _run(tally, script, environment)


def sanitized(cache: Path) -> dict[str, str] | str:
    """An environment whose kernels are compiled with sanitizers, into ``cache``; or why not."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return "no gcc"
    libraries = []
    for name in ("libasan.so", "libstdc++.so.6"):  # the latter first, or exceptions are not found
        command = [gcc, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            return f"gcc has no {name}"
        libraries.append(path)
    options = {
        "detect_leaks": 0,  # Python leaks on purpose
        "allocator_may_return_null": 1,
        "malloc_fill_byte": 255,  # NaN
        "max_malloc_fill_size": 2**30,
    }
    return {
        **os.environ,
        "CC": f"{gcc} -fsanitize=address,undefined -fno-omit-frame-pointer -g1",
        "DIFFHASH_CACHE": str(cache),
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": ":".join(f"{name}={value}" for name, value in options.items()),
    }


def _run(tally: Tally, script: str, environment: dict[str, str]) -> None:
    print(f"{tally.kind}: {script}", file=sys.stderr, flush=True)
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/native" / script)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        tally.add(script, {"crashes": ["hangs"]})
        return
    lines = done.stdout.strip().splitlines() or [""]
    reports = [line for line in done.stderr.splitlines() if _REPORT.search(line)]
    wrong = [line for line in lines if ": wrong" in line]
    crashes = reports or ([f"exit code {done.returncode}"] if done.returncode and not wrong else [])
    tracebacks = done.stderr.splitlines()[-1:] if "Traceback" in done.stderr else []
    # The last line has the counts of calls by their verdict, or of training runs.
    tally.tried += sum(map(int, re.findall(r"\d+", lines[-1]))) - 1
    tally.add(script, {"wrong": wrong, "crashes": crashes, "tracebacks": tracebacks})
