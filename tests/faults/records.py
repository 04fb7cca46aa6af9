"""Damaged records beside good ones, through everything that reads records."""

from __future__ import annotations

import io
import json
import math
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash.paper.printed import METRICS
from tests.faults.forked import HANG, Ended, call, telling_line
from tests.faults.scenarios import FULL, ROOT, TINY
from tests.faults.tally import Progress, Tally
from tests.results.mutations import spoiled_copies

_ROW = "table1/cubic"
_OTHER_ROW = "table2/cubic"
_AT_ONCE = 125  # damaged records beside the good one
_PATIENCE = 120.0
_NUMBERS = (*METRICS, "seed", "epochs", "learning_rate", "train_seconds", "n_parameters")


def try_all(tally: Tally, number: int, seed: int) -> None:
    """Spoil a record ``number`` times, the damages being those of ``seed``."""
    progress = Progress(tally.kind, number)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        good = {row: Path(folder) / row.replace("/", "-") for row in (_ROW, _OTHER_ROW)}
        for row, place in good.items():
            _train(row, place)
        for begin in range(0, number, _AT_ONCE):
            size = min(_AT_ONCE, number - begin)
            _Batch(Path(folder) / "batch", good, size, seed + begin).judge(tally)
            for _ in range(size):
                progress.step(sum(tally.counts.values()))


def _train(row: str, folder: Path) -> None:
    """A small run of the row."""
    sys.argv = [*(str(ROOT / "train.py"), f"experiment={row}"), *TINY, FULL, f"run_dir={folder}"]
    ended = call(lambda: runpy.run_path(sys.argv[0], run_name="__main__"), folder, _PATIENCE)
    if ended.code:
        raise RuntimeError(ended.err)


class _Batch:
    """Damaged copies beside a good record, which every reader is given."""

    def __init__(self, work: Path, good: dict[str, Path], size: int, seed: int) -> None:
        shutil.rmtree(work, ignore_errors=True)
        self._work, self._runs = work, work / "runs"
        for row, folder in good.items():
            shutil.copytree(folder, self._runs / row / "seed0")
        self._good = self._runs / _ROW / "seed0"
        self._copies = spoiled_copies(self._good, self._runs / _ROW, size, seed)

    def judge(self, tally: Tally) -> None:
        """Call every reader; add each damaged record to the tally."""
        listed = self._call("list --csv", "diffhash", "list", self._runs, "--csv")
        readers = {"list --csv": listed, "list": self._call("list", "diffhash", "list", self._runs)}
        for name in ("tables", "figures", "report"):
            options = ["--runs", self._runs, "--output", self._work / name]
            readers[name] = self._call(name, f"scripts/make_{name}.py", *options)
        general = self._general(readers)
        rows = self._rows(listed)
        for index, (name, folder) in enumerate(self._copies):
            # A fault of a reader as a whole is counted once.
            faults = general if index == 0 else {"crashes": [], "tracebacks": []}
            tally.add(
                f"damaged record {name}", faults | {"wrong": self._one(folder, rows, readers)}
            )

    def _general(self, readers: dict[str, Ended]) -> dict[str, list[str]]:
        crashes, tracebacks = [], []
        for name, ended in readers.items():
            if ended.code == HANG:
                crashes.append(f"{name}: hangs")
            elif ended.code:
                crashes.append(f"{name}: exit code {ended.code}: {telling_line(ended.err)}")
            if "Traceback" in ended.err:
                tracebacks.append(f"{name}: {telling_line(ended.err)}")
            if "\x1b" in ended.out + ended.err:
                crashes.append(f"{name}: an escape sequence reaches the terminal")
        return {"crashes": crashes, "tracebacks": tracebacks}

    def _one(
        self, folder: Path, rows: dict[str, dict[str, Any]], readers: dict[str, Ended]
    ) -> list[str]:
        """Check that a damaged record is named on standard error, or read as it is written."""
        found = []
        if str(self._good) not in rows:
            found.append("list: the good record is not there")
        content = _content(folder / "result.json")
        row = rows.get(str(folder))
        if row is None:
            named = str(folder) in readers["list --csv"].err
            if not named and content is not None:
                found.append("list: neither there nor named")
        elif content is None:
            found.append("list: shows a record that is none")
        else:
            for name in _NUMBERS:
                if not _equal(content.get(name), row[name]):
                    found.append(f"list: {name} {row[name]!r}, written {content.get(name)!r}")
        return found

    def _rows(self, listed: Ended) -> dict[str, dict[str, Any]]:
        try:
            frame = pd.read_csv(io.StringIO(listed.out), float_precision="round_trip")
            return {line["run"]: line for line in frame.to_dict("records")}  # type: ignore
        except (ValueError, KeyError):
            return {}

    def _call(self, name: str, script: str, *arguments: object) -> Ended:
        def run() -> None:
            if script == "diffhash":
                from diffhash.cli import main

                sys.argv = [script, *map(str, arguments)]
                main()
                return
            sys.argv = [str(ROOT / script), *map(str, arguments)]
            runpy.run_path(sys.argv[0], run_name="__main__")

        return call(run, self._work / name.replace(" ", ""), _PATIENCE)


def _content(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if it holds none."""
    if not path.is_file() or path.stat().st_size > 10_000_000:
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _equal(written: Any, shown: Any) -> bool:
    if written is None:
        return isinstance(shown, float) and math.isnan(shown)
    if isinstance(written, bool) or not isinstance(written, (int, float)):
        return False
    return float(written) == float(shown)
