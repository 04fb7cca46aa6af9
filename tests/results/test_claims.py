from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffhash.results.claims import Claim, check_claims, count_verdicts, write_claims
from diffhash.results.evidence import Evidence, UndecidedError
from diffhash.results.record import RecordError

WriteRun = Callable[..., Path]


def _verdict(claims: list[Claim], words: str) -> Claim:
    (claim,) = [claim for claim in claims if words in claim.text]
    return claim


def _rewrite(write_run: WriteRun, runs: Path, table: str, row: str, **changes: Any) -> None:
    shutil.rmtree(runs / table / row)
    write_run(runs, table, row, **changes)


def test_the_papers_claims_hold_for_its_own_numbers(paper_runs: Path, paper: Path) -> None:
    claims = check_claims(paper_runs, paper)
    failed = {claim.text: claim.verdict for claim in claims if claim.verdict != "held"}
    assert failed == {
        "SIREN's row being identical to FF's is a copying slip": "not held",
        # its history in these fakes ends no earlier than Cubic's budget
        "Cubic's error decreases fastest with a limited number of epochs": "undecided",
        "so is Cubic with the preset `best`": "undecided",
    }


def test_no_claim_is_decided_without_records(tmp_path: Path, paper: Path) -> None:
    claims = check_claims(tmp_path, paper)
    assert {claim.verdict for claim in claims} == {"undecided"}
    assert all(claim.figures for claim in claims)


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
    ],
)
def test_a_claim_our_rows_contradict_is_not_held(
    paper_runs: Path,
    paper: Path,
    write_run: WriteRun,
    table: str,
    row: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    assert _verdict(check_claims(paper_runs, paper), words).verdict == "held"
    _rewrite(write_run, paper_runs, table, row, **changes)
    assert _verdict(check_claims(paper_runs, paper), words).verdict == "not held"


def test_regions_are_told_apart(paper_runs: Path, paper: Path) -> None:
    evidence = Evidence(paper_runs, paper)
    assert evidence.region_relative("linear", labelled=True) == 0
    # MSE 1.6 over the whole domain, all of it beyond x = 0.5, where the mean of u² is 3.03
    assert evidence.region_relative("linear", labelled=False) == pytest.approx(3.2 / 3.03, rel=1e-2)


def test_the_zero_predictor_scores_what_the_notes_say(paper_runs: Path, paper: Path) -> None:
    evidence = Evidence(paper_runs, paper)
    for column, score in (("mse_u", 1.95), ("mse_uxx", 2.03e5)):
        ours = evidence.value("table1", "s2", column)
        assert ours / evidence.relative("table1", "s2", column) == pytest.approx(score, rel=1e-2)


def test_a_failure_where_labels_are_known_is_seen(
    paper_runs: Path, paper: Path, write_run: WriteRun
) -> None:
    words = "where labels are known"
    assert _verdict(check_claims(paper_runs, paper), words).verdict == "held"
    path = paper_runs / "table2" / "siren" / "seed0" / "predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"{x},5,0,0,1,0,0" for x in (0.1, 0.4, 0.9)), ""]))
    claim = _verdict(check_claims(paper_runs, paper), words)
    assert claim.verdict == "not held"
    assert "SIREN 10k 1600 %" in claim.figures


def test_fastest_decrease_compares_at_cubics_budget(
    tmp_path: Path, paper: Path, write_run: WriteRun
) -> None:
    rows = {"cubic": 3000, "mlp_50k": 3000} | dict.fromkeys(
        ("mlp_10k", "siren", "ff", "linear", "s2"), 10_000
    )
    for row, epochs in rows.items():
        # the fakes' error falls as 1 / epoch to its final value
        final = {"cubic": 1e-4, "mlp_50k": 2e-4}.get(row, 5e-5)
        write_run(tmp_path, "table2", row, epochs=epochs, epochs_requested=epochs, mse_u=final)
    words = "decreases fastest"
    claim = _verdict(check_claims(tmp_path, paper), words)
    assert claim.verdict == "held"
    assert "FF 10k 1.7e-4" in claim.figures, "5.0e-5 at the end, 1.7e-4 after 3000 epochs"
    _rewrite(
        write_run, tmp_path, "table2", "ff", epochs=10_000, epochs_requested=10_000, mse_u=1e-5
    )
    assert _verdict(check_claims(tmp_path, paper), words).verdict == "not held"


def test_a_diverged_row_is_a_failure_not_a_gap(
    paper_runs: Path, paper: Path, write_run: WriteRun
) -> None:
    _rewrite(
        write_run, paper_runs, "table2", "linear", status="diverged", diverged_epoch=3, epochs=3
    )
    claims = check_claims(paper_runs, paper)
    assert _verdict(claims, "fails completely").verdict == "held"
    assert _verdict(claims, "where labels are known").verdict == "not held"
    claim = _verdict(claims, "SIREN and Linear have no skill")
    assert (claim.verdict, claim.figures.split(", ")[-1]) == ("held", "Linear 3k diverged")


def test_several_seeds_are_judged_by_their_median(
    tmp_path: Path, paper: Path, write_run: WriteRun
) -> None:
    for seed, mse in enumerate((3.2, 3.1, 1e-6)):
        write_run(tmp_path, "table2", "linear", seed=seed, mse_u=mse)
    assert _verdict(check_claims(tmp_path, paper), "fails completely").verdict == "held"


def test_missing_predictions_leave_a_claim_undecided(paper_runs: Path, paper: Path) -> None:
    (paper_runs / "table2" / "linear" / "seed0" / "predictions.csv").unlink()
    claim = _verdict(check_claims(paper_runs, paper), "fails completely")
    assert claim.verdict == "undecided"
    assert claim.figures == "no predictions.csv of Linear 10k in table2"


def test_the_best_preset_is_measured_against_the_papers_cubic(
    paper_runs: Path, paper: Path, write_run: WriteRun
) -> None:
    for table in ("table1", "table2"):
        write_run(paper_runs, table, "cubic_best", preset="best")
    claim = _verdict(check_claims(paper_runs, paper), "preset `best`")
    assert claim.verdict == "held"
    assert "data-driven u -1.00" in claim.figures


def test_evidence_of_rows_there_are_none_of(paper_runs: Path, paper: Path) -> None:
    with pytest.raises(UndecidedError, match="no run of cubic_best in table1"):
        Evidence(paper_runs, paper).value("table1", "cubic_best", "mse_u")


def test_a_corrupt_file_is_an_error_not_a_verdict(paper_runs: Path, paper: Path) -> None:
    (paper_runs / "table2" / "linear" / "seed0" / "predictions.csv").write_text("x\n1\n")
    with pytest.raises(RecordError, match=r"linear.*predictions\.csv"):
        check_claims(paper_runs, paper)


def test_write_claims(paper_runs: Path, paper: Path, tmp_path: Path) -> None:
    path, claims = write_claims(paper_runs, tmp_path / "out", paper)
    text = path.read_text()
    assert path == tmp_path / "out" / "claims.md"
    assert f"{count_verdicts(claims)}." in text
    assert text.count("  - Criterion: ") == len(claims)
    assert "- **held** (Section III-B): Linear fails completely in the unknown region" in text
    assert re.search(r"^  - Ours: u: Linear 10k 10\d %\.$", text, re.MULTILINE)
    assert "  - Missing: no run of cubic_best in table1." in text
