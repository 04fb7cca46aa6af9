"""A reproduction over seeds that is killed again and again ends with the same records."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffhash.paper.printed import METRICS
from diffhash.results import RunRecord, find_records, read_history

Call = Callable[..., Any]
SCRIPT = "scripts/reproduce_tables.py"
ROWS = ("table1/mlp_10k", "table1/cubic")
N_SEEDS, N_KILLS = 3, 3
# Same program, same threads: a step is the same to the last bit, but for what a processor's
# choice of kernels may change between two processes.
TOLERANCE = 1e-6


def _records(runs: Path) -> dict[str, RunRecord]:
    """The records of the rows by the path of their folder."""
    found = find_records(runs / "table1")
    return {str(directory.relative_to(runs)): record for directory, record in found}


def _files(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in directory.iterdir()}


def _has_begun(runs: Path, since: float) -> bool:
    """Whether a run has begun after a time."""
    return any(p.stat().st_mtime > since for p in runs.glob("*/*/seed*.partial/config.yaml"))


@pytest.mark.slow
def test_killed_three_times_it_gives_the_records_of_an_undisturbed_one(
    start: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    def reproduce(name: str) -> subprocess.Popen[str]:
        return start(
            *(SCRIPT, *tiny, "trainer.epochs=2000", "trainer.chunk=100", "--rows", *ROWS),
            *("--seeds", str(N_SEEDS), "--jobs", "2"),
            *("--runs", f"{tmp_path}/{name}/runs", "--output", f"{tmp_path}/{name}"),
        )

    before = time.perf_counter()
    undisturbed = reproduce("undisturbed")
    out, err = undisturbed.communicate(timeout=300)
    seconds = time.perf_counter() - before
    assert undisturbed.returncode == 0, err
    assert "6 runs: 0 finished already, 6 to do" in out
    expected = _records(tmp_path / "undisturbed/runs")
    assert sorted(expected) == sorted(f"{row}/seed{s}" for row in ROWS for s in range(N_SEEDS))

    # After a run has begun, at any moment of the next third: each attempt gets somewhere, none
    # gets far.
    runs = tmp_path / "killed/runs"
    delays = [seconds / 3 * random.uniform(0, 1) for _ in range(N_KILLS)]
    kept: dict[str, dict[str, tuple[int, bytes]]] = {}
    n_killed = 0
    for delay in delays:
        begun = time.time()
        process = reproduce("killed")
        while process.poll() is None and not _has_begun(runs, begun):
            time.sleep(0.02)
        time.sleep(delay)
        n_killed += process.poll() is None
        process.kill()
        process.communicate()
        for name, files in kept.items():
            assert _files(runs / name) == files, f"what was finished is left alone: {delays}"
        kept = {name: _files(runs / name) for name in _records(runs)}
    assert n_killed, f"none of {delays} s hit"

    process = reproduce("killed")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"6 runs: {len(kept)} finished already, {6 - len(kept)} to do" in out
    records = _records(runs)
    assert sorted(records) == sorted(expected), "none lost, none doubled"
    for name, record in records.items():
        other = expected[name]
        assert record.status == other.status == "completed"
        assert record.config_hash == other.config_hash
        assert (record.seed, record.epochs) == (other.seed, other.epochs)
        for metric in METRICS:
            ours, theirs = getattr(record, metric), getattr(other, metric)
            assert ours == pytest.approx(theirs, rel=TOLERANCE), (name, metric, delays)
        histories = [read_history(tmp_path / k / "runs" / name) for k in ("killed", "undisturbed")]
        a, b = (history.drop(columns="seconds").to_numpy() for history in histories)
        np.testing.assert_allclose(a, b, rtol=TOLERANCE)
        names = [set(_files(tmp_path / k / "runs" / name)) for k in ("killed", "undisturbed")]
        assert names[0] == names[1]
    left = [
        p for p in runs.rglob("*") if p.name.endswith((".partial", ".tmp")) or ".tmp." in p.name
    ]
    assert not left, "no half-written one"
    assert {p.parent for p, _ in find_records(runs / "timing")} == {
        runs / "timing" / r for r in ROWS
    }
    tables = [
        [line.split("|")[1:6] for line in path.read_text().splitlines() if line[:1] == "|"]
        for path in (tmp_path / k / "tables/table1.md" for k in ("killed", "undisturbed"))
    ]
    assert tables[0] == tables[1]
