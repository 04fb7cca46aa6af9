"""Abusive calls of what reaches C, and short training, with kernels that sanitizers watch."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.scenarios import ROOT
from tests.faults.tally import Tally
from tests.native.sanitizers import sanitized_environment

_PATIENCE = 900.0
_REPORT = re.compile(r"runtime error|ERROR: AddressSanitizer")


def try_all(tally: Tally) -> None:
    """Run the catalogue of abusive calls, and short training."""
    with tempfile.TemporaryDirectory(prefix="faults-") as cache:
        environment = sanitized_environment(Path(cache))
        if isinstance(environment, str):
            tally.skipped = environment
            return
        for script in ("abuse.py", "short_training.py"):
            _run(tally, script, environment)


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
