"""Abusive calls of C kernels, and short training, with kernels compiled with sanitizers."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.scenarios import ROOT
from tests.faults.tally import Tally
from tests.native.sanitizers import sanitized_environment

_SCRIPTS = ("abuse.py", "short_training.py")
_PATIENCE = 900.0
_REPORT = re.compile(r"runtime error|ERROR: AddressSanitizer")


@contextmanager
def started(tally: Tally) -> Iterator[Callable[[], None]]:
    """Start the abusive calls and short training; the yielded function waits for their end."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        environment = sanitized_environment(Path(folder))
        if isinstance(environment, str):
            tally.skipped = environment
            yield lambda: None
            return
        processes = {
            script: subprocess.Popen(
                [sys.executable, "-W", "ignore", str(ROOT / "tests/native" / script)],
                env=environment,
                stdout=(Path(folder) / f"{script}.out").open("w"),
                stderr=(Path(folder) / f"{script}.err").open("w"),
            )
            for script in _SCRIPTS
        }
        try:
            yield lambda: _finish(tally, Path(folder), processes)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def _finish(tally: Tally, folder: Path, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for script, process in processes.items():
        print(f"{tally.kind}: waiting for {script}", file=sys.stderr, flush=True)
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            tally.add(script, {"crashes": ["hangs"]})
            continue
        out, err = ((folder / f"{script}.{end}").read_text() for end in ("out", "err"))
        lines = out.strip().splitlines() or [""]
        wrong = [line for line in lines if ": wrong" in line]
        crashes = [line for line in err.splitlines() if _REPORT.search(line)]
        if code and not wrong:
            crashes.append(f"exit code {code}")
        tracebacks = err.splitlines()[-1:] if "Traceback" in err else []
        # The last line has the numbers of calls by their verdict, or of training runs.
        tally.tried += sum(map(int, re.findall(r"\d+", lines[-1]))) - 1
        tally.add(script, {"wrong": wrong, "crashes": crashes, "tracebacks": tracebacks})
