"""Claims over several seeds: their support, refutation or neither, and the page."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffhash.paper.claims.evidence import error, over_paper, peak_memory, step_over
from diffhash.paper.claims.page import write_claims
from diffhash.paper.claims.statements import Statement
from diffhash.paper.claims.verdicts import count_verdicts, judge
from diffhash.paper.table import load_tables
from tests.paper.claims_checks import DIVERGED, check_claim, each_claim, find_claim

WriteRun = Callable[..., Path]


def _seeds(
    write_run: WriteRun, runs: Path, row: str, values: list[float], table: str = "table1"
) -> None:
    """Seeds of a row with these MSEs of u; infinity stands for a diverged run."""
    for seed, value in enumerate(values):
        changes = {"mse_u": value} if math.isfinite(value) else DIVERGED
        write_run(runs, table, row, seed=seed, **changes)


def _judge(runs: Path, *parts: Any, combine: Any = "all") -> Any:
    lines = judge(load_tables(runs), [Statement("", "", "", parts, combine)])
    return find_claim(lines, "")


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, _paper_runs: Path) -> Path:
    """Ten seeds of every row, with the paper's numbers up to a factor of about two."""
    runs = tmp_path_factory.mktemp("seeded") / "runs"
    shutil.copytree(_paper_runs, runs)
    rng = np.random.default_rng(0)
    for directory in sorted(runs.glob("table*/*/seed0")):
        text = (directory / "result.json").read_text()
        for seed in range(1, 10):
            copy = shutil.copytree(directory, directory.with_name(f"seed{seed}"))
            changed = text.replace('"seed": 0', f'"seed": {seed}')
            for name in ("mse_u", "mse_ux", "mse_uxx", "loss"):
                factor = 10 ** rng.uniform(-0.2, 0.2)
                changed = re.sub(
                    f'"{name}": ([^,]+)',
                    lambda m, f=factor: m[0].replace(m[1], str(float(m[1]) * f)),
                    changed,
                )
            (copy / "result.json").write_text(changed)
    return runs


def test_ten_seeds_decide(seeded: Path) -> None:
    claims = judge(load_tables(seeded))
    fewest = find_claim(claims, "fewest epochs to reach")
    assert fewest.verdict == "supported"
    assert fewest.p_claim == pytest.approx(1 / math.comb(20, 10)), (
        "its weakest part is the claim's p"
    )
    assert len(fewest.outcomes) == 3 * 6 + 6
    accurate = find_claim(claims, "all four methods")
    assert (accurate.verdict, accurate.p_claim) == ("supported", pytest.approx(2**-10))
    [worse] = find_claim(claims, "worse than predicting 0").outcomes
    assert (worse.n, worse.share) == ((10,), 1.0)
    assert worse.decades == pytest.approx(math.log10(6.2e6 / 2.03e5), abs=0.2)
    assert find_claim(claims, "shape of the derivative").verdict == "refuted"
    assert find_claim(claims, "copying slip").verdict == "undecided", (
        "both rows have one distribution"
    )
    assert "one seed" not in count_verdicts(claims)


def test_verdicts_survive_the_correction_or_not_but_do_not_change(seeded: Path) -> None:
    claims = judge(load_tables(seeded))
    tested = [claim for claim in each_claim(claims) if not math.isnan(claim.p_claim)]
    for claim in tested:
        assert claim.p_claim <= claim.p_claim_holm <= len(tested) * claim.p_claim
        decided = claim.verdict != "undecided"
        assert claim.survives == (claim.p_claim_holm < 0.05 if decided else None)
    part, tables = over_paper("table1", "cubic") <= 1.6, load_tables(seeded)
    weak = [Statement("", f"weak {i}", "", (part,)) for i in range(60)]
    [alone] = each_claim(judge(tables, weak[:1]))
    assert (alone.verdict, alone.survives) == ("supported", True)
    among = each_claim(judge(tables, weak))[0]
    assert (among.verdict, among.survives) == ("supported", False)


def test_the_weakest_part_decides_for_and_the_strongest_against(
    tmp_path: Path, write_run: WriteRun
) -> None:
    _seeds(write_run, tmp_path, "cubic", [1.0 + 0.01 * i for i in range(6)])
    _seeds(write_run, tmp_path, "ff", [2.0 + 0.01 * i for i in range(6)])
    _seeds(write_run, tmp_path, "s2", [0.9, 1.2, 2.2, 0.8, 2.4, 1.005])
    cubic, ff, s2 = (error("table1", row) for row in ("cubic", "ff", "s2"))
    p = 1 / math.comb(12, 6)

    good = _judge(tmp_path, cubic < ff)
    assert (good.verdict, good.p_claim, good.points) == ("supported", pytest.approx(p), True)
    bad = _judge(tmp_path, ff < cubic)
    assert (bad.verdict, bad.p_claim, bad.points) == ("refuted", pytest.approx(p), False)
    with_open = _judge(tmp_path, cubic < ff, cubic < s2)
    assert with_open.verdict == "undecided"
    with_bad = _judge(tmp_path, *[cubic < s2] * 3, ff < cubic)
    assert with_bad.verdict == "refuted"
    assert with_bad.p_claim == pytest.approx(4 * p), (
        "corrected for four parts that could have refuted"
    )
    assert _judge(tmp_path, 3.0 * cubic < ff).verdict == "refuted"


def test_any_of_several_parts(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "cubic", [1.0 + 0.01 * i for i in range(6)])
    _seeds(write_run, tmp_path, "ff", [2.0 + 0.01 * i for i in range(6)])
    cubic, ff = (error("table1", row) for row in ("cubic", "ff"))
    p = 1 / math.comb(12, 6)
    either = _judge(tmp_path, cubic < ff, ff < cubic, combine="any")
    assert (either.verdict, either.p_claim) == ("supported", pytest.approx(2 * p))
    neither = _judge(tmp_path, ff < cubic, cubic > 1.5, combine="any")
    assert (neither.verdict, neither.p_claim) == ("refuted", pytest.approx(2**-6)), (
        "the weaker of two"
    )


def test_diverged_seeds_rank_worst(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "cubic", [1.0, 1.1, 1.2, 1.3, 1.4])
    _seeds(write_run, tmp_path, "s2", [math.inf] * 5)
    _seeds(write_run, tmp_path, "ff", [math.inf] * 5)
    cubic, s2, ff = (error("table1", row) for row in ("cubic", "s2", "ff"))
    worst = _judge(tmp_path, cubic < s2)
    assert (worst.verdict, worst.outcomes[0].decades) == ("supported", -math.inf)
    assert worst.outcomes[0].figures[1] == (
        "data-driven u",
        "S2 3k",
        "diverged [diverged, diverged]",
    )
    assert _judge(tmp_path, s2 > 1e9).verdict == "supported"
    both = _judge(tmp_path, s2 < ff)
    assert (both.verdict, both.p_claim, both.points) == ("undecided", 1.0, False)
    assert math.isnan(both.outcomes[0].decades)


def test_one_seed_beside_many(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "cubic", [1.0 + 0.01 * i for i in range(10)])
    _seeds(write_run, tmp_path, "ff", [2.0])
    claim = _judge(tmp_path, error("table1", "cubic") < error("table1", "ff"))
    assert (claim.verdict, claim.one_seed, claim.points) == ("undecided", True, True)
    assert claim.p_claim == pytest.approx(1 / 11)


def test_an_interrupted_run_is_no_seed(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "cubic", [1.0] * 5)
    write_run(tmp_path, "table1", "cubic", seed=5, status="interrupted", epochs=9, mse_u=99.0)
    claim = _judge(tmp_path, error("table1", "cubic") <= 2.0)
    assert (claim.outcomes[0].n, claim.verdict) == ((5,), "supported")


def test_costs_count_as_equal_within_a_margin(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "mlp_10k", train_seconds=100.0)
    for seconds, verdict in ((180.0, "refuted"), (195.0, "undecided"), (225.0, "supported")):
        if (tmp_path / "table1/cubic").exists():
            shutil.rmtree(tmp_path / "table1/cubic")
        write_run(tmp_path, "table1", "cubic", train_seconds=seconds)
        twice = step_over("table1", "cubic", "table1", "mlp_10k") > 2.0
        assert _judge(tmp_path, twice).verdict == verdict, seconds
    # Seeds that disagree by more leave more undecided.
    write_run(tmp_path, "table1", "cubic", seed=1, train_seconds=150.0)
    write_run(tmp_path, "table1", "cubic", seed=2, train_seconds=226.0)
    assert _judge(tmp_path, twice).verdict == "undecided"
    assert _judge(tmp_path, peak_memory("table1", "cubic") <= 321.0).points


def test_missing_predictions_leave_a_claim_undecided(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "linear", [1.6] * 10, "table2")
    assert check_claim(tmp_path, "fails completely").verdict == "supported"
    (tmp_path / "table2" / "linear" / "seed7" / "predictions.csv").unlink()
    claim = check_claim(tmp_path, "fails completely")
    assert (claim.verdict, claim.points) == ("undecided", None)
    assert claim.missing == "no predictions.csv of Linear 3k in table2"


def test_what_is_missing_does_not_hide_what_refutes(tmp_path: Path, write_run: WriteRun) -> None:
    _seeds(write_run, tmp_path, "cubic", [2.0] * 10)
    parts = (error("table1", row) <= 1.0 for row in ("cubic", "ff"))
    claim = _judge(tmp_path, *parts)
    assert (claim.verdict, claim.missing) == ("refuted", "no finished run of FF 10k in table1")


# ------------------------------------------------------------------------------------ the page


def test_the_page_of_one_seed(paper_runs: Path, tmp_path: Path) -> None:
    claims = judge(load_tables(paper_runs))
    page, table = write_claims(claims, tmp_path / "out")
    text = page.read_text()
    assert page == tmp_path / "out" / "claims.md"
    assert f"{count_verdicts(claims)}." in text
    assert text.count("  - Criterion: ") == claims["claim"].nunique()
    assert (
        "- **undecided (one seed)** (Section III-B): Linear fails completely in the unknown region"
    ) in text
    assert re.search(r"^  - Ours: .*: Linear 10k 10\d %\.$", text, re.MULTILINE)
    assert "  - Missing: no run of cubic_best in table1" in text
    assert "; points against" in text and "; points for" in text
    assert table.name == "claims.csv"


def test_the_page_and_the_csv_of_ten(seeded: Path, tmp_path: Path) -> None:
    claims = judge(load_tables(seeded))
    page, table = write_claims(claims, tmp_path)
    text = page.read_text()
    assert "- **supported** (Section III-B): Linear fails completely" in text
    assert (
        "(binomial, +0.3" in text and "100 % of seeds, n = 10); p = 9.8e-4; survives: yes" in text
    )
    assert "n = 10 and 10); p = 5.4e-6; survives: yes" in text
    frame = pd.read_csv(table)
    assert len(frame) == len(claims)
    fewest = frame[frame["claim"].str.contains("fewest epochs")]
    assert set(fewest["test"]) == {"Mann-Whitney", "value"}
    assert set(fewest["verdict"]) == {"supported"}
    ranked = fewest[fewest["test"] == "Mann-Whitney"]
    assert (ranked["p"] < 1e-4).all() and (ranked["n"] == "10 10").all()
    assert (ranked["share"] == 1).all() and (ranked["decades"] < -1).all()
    assert frame.loc[frame["test"] == "value", "p"].isna().all()
