"""Settings that cannot be run: ``train.py`` refuses them in one line, and trains nothing."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.forked import HANG, Ended, call, telling_line
from tests.faults.point import count_steps
from tests.faults.scenarios import ROOT

_SMALL = ("encoder=mlp", "trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.epochs=1")
_PATIENCE = 60.0


def refuse(overrides: list[str], word: str, work: Path) -> dict[str, list[str]]:
    """The faults in the refusal of overrides by a process forked from this one."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        script, steps = str(ROOT / "train.py"), Path(folder).with_suffix(".steps")

        def run() -> None:
            os.chdir(folder)
            count = count_steps()
            sys.argv = [script, *_with_defaults(overrides)]
            try:
                runpy.run_path(script, run_name="__main__")
            finally:
                steps.write_text(str(count[0]))

        ended = call(run, work / f"settings.{os.getpid()}", _PATIENCE)
        n_steps = int(steps.read_text()) if steps.exists() else 0
        faults = _judge(ended, word, Path(folder))
        if n_steps:
            faults["wrong"].append(f"trains {n_steps} steps")
        return faults


def refuse_alone(overrides: list[str], word: str, work: Path) -> dict[str, list[str]]:
    """The faults in the refusal of overrides by a new process."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        command = [sys.executable, str(ROOT / "train.py"), *_with_defaults(overrides)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
            ended = Ended(done.returncode, done.stdout, done.stderr, [])
        except subprocess.TimeoutExpired:
            ended = Ended(HANG, "", "", [])
        return _judge(ended, word, Path(folder))


def _with_defaults(overrides: list[str]) -> list[str]:
    """The overrides, after those of a small run for other keys."""
    given = {one.lstrip("+~").partition("=")[0] for one in overrides}
    return [*(one for one in _SMALL if one.partition("=")[0] not in given), *overrides]


def _judge(ended: Ended, word: str, folder: Path) -> dict[str, list[str]]:
    faults: dict[str, list[str]] = {"wrong": [], "crashes": [], "tracebacks": []}
    lines = ended.err.strip().splitlines()
    if ended.code == HANG:
        faults["crashes"].append("hangs")
    elif ended.code == 0:
        faults["wrong"].append("is not refused")
    elif ended.code != 1:
        faults["crashes"].append(f"exit code {ended.code}: {telling_line(ended.err)}")
    elif "Traceback" in ended.err or len(lines) != 1 or not lines[0].startswith("error: "):
        faults["tracebacks"].append(f"{len(lines)} lines: {telling_line(ended.err)}")
    elif word not in lines[0]:
        faults["wrong"].append(f"does not name {word!r}: {lines[0][:200]}")
    if left := [str(path.relative_to(folder)) for path in folder.rglob("*")]:
        faults["wrong"].append(f"leaves {', '.join(left[:3])}")
    return faults
