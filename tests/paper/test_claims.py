"""The paper's statements, tested on fake records with its own numbers or contrary ones."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffhash.paper.claims.evidence import MissingError, error, relative
from diffhash.paper.claims.verdicts import judge
from diffhash.paper.printed import ROWS, TABLES, load_paper_table
from diffhash.paper.table import load_tables
from diffhash.results.record import RecordError
from tests.paper.claims_checks import DIVERGED, check_claim, each_claim, find_claim

WriteRun = Callable[..., Path]


def _rewrite(write_run: WriteRun, runs: Path, table: str, row: str, **changes: Any) -> None:
    shutil.rmtree(runs / table / row)
    write_run(runs, table, row, **changes)


# ---------------------------------------------------------------------------------- one seed


def test_one_seed_decides_nothing_but_says_which_way_it_points(paper_runs: Path) -> None:
    claims = each_claim(judge(load_tables(paper_runs)))
    for claim in claims:
        random = any(outcome.n for outcome in claim.outcomes)
        assert (claim.verdict == "undecided") == (random or bool(claim.missing))
    others = {claim.claim: claim.points for claim in claims if claim.points is not True}
    assert others == {
        "S2 approximates the shape of the derivative values": False,
        "SIREN's row being identical to FF's is a copying slip": False,
        # its history in these fakes ends no earlier than Cubic's budget
        "Cubic's error decreases fastest with a limited number of epochs": None,
        "so is Cubic with the preset `best`": None,
        "at equal seconds the preset `compact` is more accurate than `best`": None,
    }


def test_no_claim_is_decided_without_a_finished_run(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic", status="interrupted", epochs=9)
    claims = each_claim(judge(load_tables(tmp_path)))
    assert {(claim.verdict, claim.points) for claim in claims} == {("undecided", None)}
    assert all(math.isnan(claim.p_claim) for claim in claims)
    assert all("no " in claim.missing for claim in claims)


BETTER = {
    "mse_u": 1e-13,
    "mse_ux": 1e-7,
    "mse_uxx": 1e-1,
    "epochs": 10_000,
    "epochs_requested": 10_000,
}
BAD = {**BETTER, "mse_u": 3.1, "mse_ux": 1e3, "mse_uxx": 1e6, "loss": 1e9}


@pytest.mark.parametrize(
    ("table", "row", "changes", "words"),
    [
        ("table1", "linear", BAD, "all four methods"),
        ("table1", "linear", BETTER, "only the MLP and Cubic"),
        ("table1", "mlp_10k", BAD, "only the MLP and Cubic"),
        ("table1", "linear", BETTER, "cannot learn second derivatives"),
        ("table1", "s2", BETTER, "largest of all"),
        ("table1", "s2", BETTER, "worse than predicting 0"),
        ("table1", "ff", BETTER, "fewest epochs to reach"),
        ("table2", "linear", BETTER, "fails completely"),
        ("table2", "s2", BAD, "do not suffer"),
        ("table2", "siren", BETTER, "SIREN and Linear have no skill"),
        ("table2", "mlp_50k", BAD, "no longer evident"),
        ("table2", "mlp_50k", BAD, "given 50k epochs"),
        ("table2", "s2", BETTER, "quite limited"),
        ("table2", "ff", BETTER, "relatively few epochs"),
        ("table1", "cubic", {"train_seconds": 1e-3}, "computational complexity"),
        ("table1", "cubic", {"train_seconds": 781.3}, "training overhead"),
        ("table2", "cubic", {"mse_u": 1e-4}, "at or past every error"),
        ("table2", "ff", BAD, "within a decade"),
        ("table2", "linear", {"mse_u": 1e-3}, "vary widely"),
    ],
)
def test_rows_that_contradict_a_claim_point_against_it(
    paper_runs: Path,
    write_run: WriteRun,
    table: str,
    row: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    _rewrite(write_run, paper_runs, table, row, **changes)  # without which it points for
    assert check_claim(paper_runs, words).points is False


def test_what_does_not_depend_on_the_seed_is_decided_by_one(paper_runs: Path) -> None:
    claims = judge(load_tables(paper_runs))
    costly, overhead, memory = (
        find_claim(claims, words) for words in ("complexity", "training overhead", "memory")
    )
    assert costly.verdict == overhead.verdict == memory.verdict == "supported"
    assert math.isnan(costly.p_claim) and costly.survives is None


# ------------------------------------------------------------------------------------ evidence


def test_the_rows_are_the_papers(paper: Path) -> None:
    for table in TABLES:
        assert list(ROWS[table]) == list(load_paper_table(table, paper).index)


def test_regions_are_told_apart(paper_runs: Path) -> None:
    tables = load_tables(paper_runs)
    labelled = relative("table2", "linear", region="labelled")
    assert labelled.sample(tables) == 0
    # MSE 1.6 over the whole domain, all of it beyond x = 0.5, where the mean of u² is 3.03
    unknown = relative("table2", "linear", region="unknown")
    assert unknown.sample(tables) == pytest.approx(3.2 / 3.03, rel=1e-2)


def test_the_zero_predictor_scores_what_the_notes_say(paper_runs: Path) -> None:
    tables = load_tables(paper_runs)
    for column, score in (("mse_u", 1.95), ("mse_uxx", 2.03e5)):
        ours = error("table1", "s2", column).sample(tables)
        assert ours / relative("table1", "s2", column).sample(tables) == pytest.approx(
            score, rel=1e-2
        )


def test_a_failure_where_labels_are_known_is_seen(paper_runs: Path) -> None:
    words = "where labels are known"
    assert check_claim(paper_runs, words).points is True
    path = paper_runs / "table2" / "siren" / "seed0" / "predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"{x},5,0,0,1,0,0" for x in (0.1, 0.4, 0.9)), ""]))
    claim = check_claim(paper_runs, words)
    assert claim.points is False
    figures = [figure for outcome in claim.outcomes for figure in outcome.figures]
    assert ("physics-informed u for x <= 0.5", "SIREN 10k", "1600 %") in figures


def test_fastest_decrease_compares_at_cubics_budget(tmp_path: Path, write_run: WriteRun) -> None:
    rows = {"cubic": 3000, "mlp_50k": 3000} | dict.fromkeys(
        ("mlp_10k", "siren", "ff", "linear", "s2"), 10_000
    )
    for row, epochs in rows.items():
        # the fakes' error falls as 1 / epoch to its final value
        final = {"cubic": 1e-4, "mlp_50k": 2e-4}.get(row, 5e-5)
        write_run(tmp_path, "table2", row, epochs=epochs, epochs_requested=epochs, mse_u=final)
    words = "decreases fastest"
    claim = check_claim(tmp_path, words)
    assert claim.points is True
    figures = [figure[1:] for outcome in claim.outcomes for figure in outcome.figures]
    assert ("FF 10k", "1.7e-4") in figures, "5.0e-5 at the end, 1.7e-4 after 3000 epochs"
    _rewrite(
        write_run, tmp_path, "table2", "ff", epochs=10_000, epochs_requested=10_000, mse_u=1e-5
    )
    assert check_claim(tmp_path, words).points is False


def test_a_diverged_row_is_a_failure_not_a_gap(paper_runs: Path, write_run: WriteRun) -> None:
    _rewrite(write_run, paper_runs, "table2", "linear", **DIVERGED)
    assert check_claim(paper_runs, "fails completely").points is True
    assert check_claim(paper_runs, "where labels are known").points is False
    claim = check_claim(paper_runs, "SIREN and Linear have no skill")
    assert claim.points is True
    assert claim.outcomes[-1].figures[0][1:] == ("Linear 3k", "diverged")


def test_the_best_preset_is_measured_against_the_papers_cubic(
    paper_runs: Path, write_run: WriteRun
) -> None:
    for table in TABLES:
        write_run(paper_runs, table, "cubic_best", preset="best")
    claim = check_claim(paper_runs, "preset `best`")
    assert claim.points is True
    assert claim.outcomes[0].figures[0][1:] == ("Cubic (best) 3k", "-1.00 decades")


@pytest.mark.parametrize(("mse_u", "points"), [(1e-9, True), (1e-3, False)])
def test_compact_is_measured_within_the_seconds_of_best(
    paper_runs: Path, write_run: WriteRun, mse_u: float, points: bool
) -> None:
    for table in TABLES:
        write_run(paper_runs, table, "cubic_best", preset="best", mse_u=1e-6, train_seconds=3.0)
        changes = {"preset": "compact", "mse_u": mse_u, "train_seconds": 2.0}
        write_run(paper_runs, table, "cubic_compact", **changes)
    assert check_claim(paper_runs, "preset `compact`").points is points


def test_evidence_of_rows_there_are_none_of(paper_runs: Path) -> None:
    with pytest.raises(MissingError, match="no run of cubic_best in table1"):
        error("table1", "cubic_best").sample(load_tables(paper_runs))


def test_a_corrupt_file_is_an_error_not_a_verdict(paper_runs: Path) -> None:
    (paper_runs / "table2" / "linear" / "seed0" / "predictions.csv").write_text("x\n1\n")
    with pytest.raises(RecordError, match=r"linear.*predictions\.csv"):
        judge(load_tables(paper_runs))
