"""Train costs measured alone, and the places where they are shown."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffhash.paper.claims.evidence import error, in_time_of, step_over
from diffhash.paper.claims.verdicts import judge
from diffhash.paper.rows import row_records
from diffhash.paper.table import load_tables
from diffhash.paper.tables import to_markdown, write_tables
from diffhash.paper.timing import find_timing, timing_directory
from diffhash.results import read_record, write_record
from diffhash.results.record import RecordError, RunRecord
from tests.paper.claims_checks import check_claim

WriteRun = Callable[..., Path]
ALONE = "Train s: seconds per epoch of a short run alone on the machine"
TOGETHER = "Train s: of the runs themselves, which may have slowed each other down."
NOT_ALONE = "Train s: of the run itself, which others beside it may have slowed down."


@pytest.fixture
def time_run(make_record: Callable[..., RunRecord]) -> Callable[..., Path]:
    """``time_run(runs, directory, seconds, **changes)``: time the run recorded in ``directory``,
    with these train seconds after 100, 200 … epochs."""

    def make(runs: Path, directory: Path, seconds: Sequence[float], **changes: Any) -> Path:
        run = read_record(directory)
        folder = timing_directory(runs, run)
        folder.mkdir(parents=True)
        epochs = [100 * (i + 1) for i in range(len(seconds))]
        history = pd.DataFrame({"epoch": epochs, "seconds": list(seconds)})
        history = history.assign(loss=1.0, mse_u=1.0, mse_ux=1.0, mse_uxx=1.0)
        history.to_csv(folder / "history.csv", index=False)
        settings = {"experiment": run.experiment, "epochs": epochs[-1], "mse_u": 1.0}
        write_record(folder, make_record(**settings | changes))
        return folder

    return make


def test_an_epoch_costs_the_median_of_the_chunks_after_the_first(
    tmp_path: Path, write_run: WriteRun, time_run: Callable[..., Path]
) -> None:
    run = write_run(tmp_path, "table1", "cubic")
    record = read_record(run)
    assert find_timing(tmp_path, record) is None
    # 90 s to warm up, then 1, 7 (something else was running) and 2 s for 100 epochs each.
    folder = time_run(tmp_path, run, (90.0, 91.0, 98.0, 100.0))
    found = find_timing(tmp_path, record)
    assert found
    assert found.seconds_per_epoch == pytest.approx(0.02)
    assert found.chunks == pytest.approx((0.01, 0.07, 0.02))
    assert found.record == read_record(folder)
    shutil.rmtree(folder)
    time_run(tmp_path, run, (5.0,))
    found = find_timing(tmp_path, record)
    assert found
    assert found.seconds_per_epoch == pytest.approx(0.05)


def test_a_timing_is_of_one_config_and_completed(
    tmp_path: Path, write_run: WriteRun, time_run: Callable[..., Path]
) -> None:
    run = write_run(tmp_path, "table1", "cubic")
    record = read_record(run)
    folder = time_run(tmp_path, run, (1.0, 2.0))
    assert find_timing(tmp_path, record)
    other = replace(record, config_hash="1" * 64)
    assert find_timing(tmp_path, other) is None
    write_record(folder, replace(record, status="interrupted"))
    assert find_timing(tmp_path, record) is None
    (folder / "result.json").write_text("{")
    with pytest.raises(RecordError, match="corrupt record"):
        load_tables(tmp_path)["table1"]


def test_the_first_run_of_a_row_that_was_timed_stands_for_all(
    tmp_path: Path, write_run: WriteRun, time_run: Callable[..., Path]
) -> None:
    for seed in (0, 1, 2):
        run = write_run(tmp_path, "table1", "cubic", seed=seed, config_hash=str(seed) * 64)
        if seed:
            time_run(tmp_path, run, (1.0, 1.0 + 3 * seed))
    row = load_tables(tmp_path)["table1"].frame.set_index("row").loc["cubic"]
    assert row["train_seconds"] == pytest.approx(3000 * 0.03)
    assert math.isnan(row["train_seconds_low"]), "a single chunk spreads over nothing"
    assert row["timed_alone"]
    assert row["seeds"] == "0 1 2"


def test_the_ends_of_a_train_cost_are_those_of_its_chunks(
    tmp_path: Path, write_run: WriteRun, time_run: Callable[..., Path]
) -> None:
    time_run(tmp_path, write_run(tmp_path, "table1", "cubic"), (9.0, 10.0, 12.0, 17.0))
    row = load_tables(tmp_path)["table1"].frame.set_index("row").loc["cubic"]
    ends = [row[f"train_seconds{end}"] for end in ("_low", "", "_high")]
    assert ends == pytest.approx([30.0, 60.0, 150.0])
    same = step_over("table1", "cubic", "table1", "cubic").sample(load_tables(tmp_path))
    assert same == pytest.approx([0.2, 1.0, 5.0]), "0.01, 0.02 and 0.05 s an epoch"


def test_timings_change_nothing_but_the_train_cost(
    paper_runs: Path, time_run: Callable[..., Path]
) -> None:
    def everything() -> list[Any]:
        claims = judge(load_tables(paper_runs))[["claim", "points"]].to_csv()
        figures = [
            [(row.label, row.runs, row.note) for row in table.rows.values()]
            for table in load_tables(paper_runs).values()
        ]
        records = row_records(paper_runs)
        frames = []
        for table in load_tables(paper_runs).values():
            timed = table.frame.columns.str.contains("train_seconds|timed_alone")
            frames.append(table.frame.loc[:, ~timed].to_csv())
        return [claims, figures, records, frames]

    before = everything()
    for table, rows in before[2].items():
        for found in rows.values():
            [(directory, record)] = found
            each = record.train_seconds / record.epochs  # as costly as the run itself
            time_run(paper_runs, directory, (9.0, 9.0 + 100 * each))
        assert load_tables(paper_runs)[table].frame["timed_alone"].all()
    assert everything() == before


def test_the_tables_say_how_each_cost_was_measured(
    paper_runs: Path, time_run: Callable[..., Path], tmp_path: Path
) -> None:
    def written() -> list[str]:
        paths = write_tables(load_tables(paper_runs), tmp_path / "out")
        return [path.read_text() for path in paths if path.suffix == ".md"]

    first, second = written()
    assert f"- {TOGETHER}\n" in first and f"- {TOGETHER}\n" in second
    assert ALONE not in first and NOT_ALONE not in first

    machine = {"processor": "Another CPU", "torch_threads": 1, "device": "cpu", "cpu_count": 4}
    for row in ("mlp_10k", "cubic"):
        directory = paper_runs / "table1" / row / "seed0"
        time_run(paper_runs, directory, (1.0, 1.5), environment=machine)
    first, second = written()
    assert f"- {TOGETHER}\n" in second
    assert TOGETHER not in first and f"- {ALONE}" in first
    assert "Timed with processor Another CPU, cpu_count 4, torch_threads 1, device cpu." in first
    [note] = [line for line in first.splitlines() if line.endswith(NOT_ALONE)]
    mark = note.removeprefix("- <sup>").partition("</sup>")[0]
    marked = [line[:5] for line in first.splitlines() if line[0:1] == "|" and f"{mark}<" in line]
    assert marked == ["| MLP", "| SIR", "| FF ", "| Lin", "| S2 "]  # MLP 100k: 10k was timed
    [cubic] = [line for line in first.splitlines() if line.startswith("| Cubic")]
    assert " 15.0<br>/ 574.3 (-1.58) " in cubic


def test_histories_are_read_on_the_clock_of_the_table(
    tmp_path: Path, write_run: WriteRun, time_run: Callable[..., Path]
) -> None:
    """The run took 100 s for 1000 epochs, which would have taken 10 s alone."""
    run = write_run(
        tmp_path, "table2", "mlp_50k", epochs=1000, epochs_requested=1000, train_seconds=100.0
    )
    write_run(tmp_path, "table2", "cubic", epochs=1000, epochs_requested=1000, train_seconds=10.0)
    within = in_time_of("table2", "mlp_50k", "cubic")
    [early] = within.sample(load_tables(tmp_path))
    time_run(tmp_path, run, (1.0, 2.0))
    [late] = within.sample(load_tables(tmp_path))
    assert late < early
    assert [late] == error("table2", "mlp_50k").sample(load_tables(tmp_path))


# --------------------------------------------------------------------------------------- memory


def test_memory_of_the_largest_run(paper_runs: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run(paper_runs, "table1", "cubic", seed=1, peak_memory_mb=777.7)
    write_run(
        *(paper_runs, "table2", "s1_wide"),
        **{"status": "diverged", "diverged_epoch": 7, "peak_memory_mb": 1501.4, "preset": None},
    )
    tables = load_tables(paper_runs)
    table = tables["table1"]
    assert table.frame.set_index("row").loc["cubic", "peak_memory_mb"] == 777.7
    [cubic] = [
        x for x in to_markdown(table, tables.values()).splitlines() if x.startswith("| Cubic")
    ]
    assert [cell.strip() for cell in cubic.split("|")][-3:-1] == ["778", "2"]
    paths = write_tables(load_tables(paper_runs), tmp_path / "out")
    line = "- Largest peak memory of a run: 1501 MB (Table II, S1 (s1_wide) 3k).\n"
    assert line in paths[1].read_text() and line in paths[4].read_text()


@pytest.mark.parametrize(("peak", "verdict"), [(1500.0, "supported"), (1500.1, "refuted")])
def test_the_claim_on_memory(paper_runs: Path, peak: float, verdict: str) -> None:
    result = paper_runs / "table2/s2/seed0/result.json"
    content = json.loads(result.read_text())
    result.write_text(json.dumps(content | {"peak_memory_mb": peak}))
    claim = check_claim(paper_runs, "memory")
    assert claim.verdict == verdict
    figures = [figure for outcome in claim.outcomes for figure in outcome.figures]
    assert ("physics-informed peak MB", "S2 10k", "1500") in figures
