from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from diffhash.results import read_record, write_record

ROOT = Path(__file__).parents[2]


def names(result, runs: Path) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [str(Path(line["run"]).relative_to(runs)) for line in json.loads(result.stdout)]


def test_every_record_has_a_line_with_its_numbers(diffhash, runs: Path) -> None:
    result = diffhash("list", runs)
    assert result.exit_code == 0
    lines = {line.split()[-1]: line for line in result.stdout.splitlines() if str(runs) in line}
    assert len(lines) == 4
    assert "cubic" in lines[f"{runs}/cubic"] and "completed" in lines[f"{runs}/cubic"]
    diverged = read_record(runs / "diverged")
    assert f"diverged @ epoch {diverged.diverged_epoch}" in lines[f"{runs}/diverged"]
    assert "nan" not in result.stdout


def test_runs_with_warnings_are_marked(diffhash, runs: Path) -> None:
    record = read_record(runs / "cubic")
    write_record(runs / "cubic", replace(record, warnings=["u is not determined"]))
    lines = [line for line in diffhash("list", runs).stdout.splitlines() if "warned" in line]
    assert [line.split()[-1] for line in lines] == [f"{runs}/cubic"]
    assert "completed, warned" in lines[0]
    compared = diffhash("compare", runs / "cubic", runs / "mlp/seed3").stdout
    assert "u is not determined." in compared


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["encoder=cubic"], {"cubic"}),
        (["encoder=mlp", "status=completed"], {"mlp/seed3", "mlp/seed4"}),
        (["seed=4,0"], {"cubic", "diverged", "mlp/seed4"}),
        (["seed=3.0"], {"mlp/seed3"}),
        (["encoder=c*"], {"cubic"}),
        (["encoder.encoding.n_levels=2"], {"cubic"}),
        (["trainer.learning_rate=1e+39"], {"diverged"}),
        (["environment.device=cpu", "preset=null"], {"mlp/seed3", "mlp/seed4", "diverged"}),
        (["experiment=table1/*"], set()),
        (["encoder=s2", "n_levels_of_nothing=1"], set()),  # nothing is left to have it
    ],
)
def test_filters(diffhash, runs: Path, filters: list[str], expected: set[str]) -> None:
    options = [part for text in filters for part in ("--where", text)]
    assert set(names(diffhash("list", runs, *options, "--json"), runs)) == expected


@pytest.mark.parametrize("text", ["encoder", "=cubic", "encoders=cubic", "trainer.epoch=6"])
def test_a_filter_that_cannot_be_meant(diffhash, runs: Path, text: str) -> None:
    result = diffhash("list", runs, "--where", text)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: --where {text}: ")
    assert result.stdout == ""


def test_sorting_puts_what_has_no_number_last(diffhash, runs: Path) -> None:
    rising = names(diffhash("list", runs, "--sort", "mse_u", "--json"), runs)
    scores = [read_record(runs / name).mse_u for name in rising]
    assert rising[-1] == "diverged"
    assert scores[:-1] == sorted(scores[:-1])
    falling = names(diffhash("list", runs, "--sort", "mse_u", "--descending", "--json"), runs)
    assert falling == [*reversed(rising[:-1]), "diverged"]
    assert diffhash("list", runs, "--sort", "mse").exit_code == 1


def test_json_and_csv_hold_every_field(diffhash, runs: Path) -> None:
    (line,) = json.loads(diffhash("list", runs / "diverged", "--json").stdout)
    record = read_record(runs / "diverged")
    assert line["mse_u"] is None and line["diverged_epoch"] == record.diverged_epoch
    assert line["environment"] == record.environment
    rows = list(csv.DictReader(io.StringIO(diffhash("list", runs, "--csv").stdout)))
    assert {row["run"] for row in rows} == {
        f"{runs}/{name}" for name in ("cubic", "mlp/seed3", "mlp/seed4", "diverged")
    }
    assert rows[0]["environment.torch"] == record.environment["torch"]
    assert float(rows[0]["mse_u"]) == read_record(runs / "cubic").mse_u


def test_timings_are_listed_only_on_request(diffhash, runs: Path) -> None:
    (runs / "timing").mkdir()
    (runs / "cubic").rename(runs / "timing" / "cubic")
    assert "timing/cubic" not in names(diffhash("list", runs, "--json"), runs)
    assert "timing/cubic" in names(diffhash("list", runs, "--timings", "--json"), runs)
    assert names(diffhash("list", runs / "timing", "--json"), runs) == ["timing/cubic"]


def test_no_folder_and_nothing_in_it(diffhash, tmp_path: Path) -> None:
    result = diffhash("list", tmp_path / "none")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/none: there is no such folder\n"
    result = diffhash("list", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no records\n")
    assert diffhash("list", tmp_path, "--json").stdout == "[]\n"


def test_a_corrupt_record_is_named_and_left_out(diffhash, runs: Path) -> None:
    (runs / "cubic" / "result.json").write_text("{")
    result = diffhash("list", runs, "--json")
    assert set(names(result, runs)) == {"mlp/seed3", "mlp/seed4", "diverged"}
    [line] = result.stderr.splitlines()
    assert line.startswith(f"diffhash: left out: corrupt record {runs}/cubic/result.json: ")


def test_a_config_is_needed_only_for_what_it_says(diffhash, runs: Path) -> None:
    (runs / "cubic" / "config.yaml").write_text("a: [")
    result = diffhash("list", runs, "--where", "task=pinn", "--json")
    assert (len(names(result, runs)), result.stderr) == (4, "")
    for option in (["--where", "trainer.epochs=6"], ["--sort", "trainer.epochs"]):
        result = diffhash("list", runs, *option, "--json")
        assert set(names(result, runs)) == {"mlp/seed3", "mlp/seed4", "diverged"}
        [line] = result.stderr.splitlines()
        assert f"corrupt file {runs}/cubic/config.yaml" in line


def test_the_problem_is_named(diffhash, runs: Path) -> None:
    head, *lines = diffhash("list", runs).stdout.splitlines()
    assert "problem" in head
    assert all("poisson1d" in line for line in lines if str(runs) in line)


# --------------------------------------------------- runs as a user makes them, without a solution

UNSOLVED = """
from diffhash.geometry import Interval
from diffhash.problems import Condition, Problem

class Own(Problem):
    domain = Interval(x=(0, 1))

    def __init__(self, k: float):
        self.k = k

    def conditions(self):
        return [
            Condition("residual", self.domain, lambda x, d: d.u_xx, self.k),
            Condition("ends", self.domain.boundary(), lambda x, d: d.u),
        ]
"""


@pytest.fixture
def own_runs(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of a problem without an exact solution that differ in optimizer and ``k``."""
    (tmp_path / "problem").mkdir()
    (tmp_path / "problem/own.yaml").write_text("_target_: own_listed.Own\nname: own\nk: 1.0\n")
    (tmp_path / "own_listed.py").write_text(UNSOLVED)
    monkeypatch.syspath_prepend(tmp_path)
    own = (f"hydra.searchpath=[file://{tmp_path}]", "problem=own", "task.n_residual=20")
    own = (*own, "encoder=mlp", "encoder.network.width=8")
    train(tmp_path / "runs/a", *own, "problem.k=1")
    train(tmp_path / "runs/b", *own, "problem.k=2", "optimizer=lbfgs")
    return tmp_path / "runs"


def test_columns_are_what_the_runs_have_and_differ_in(diffhash, own_runs: Path) -> None:
    head, _, *lines = diffhash("list", own_runs).stdout.splitlines()
    assert head.split() == [
        "encoder", "problem", "task", "optimizer", "problem.k", "seed", "status", "epochs", "loss",
        "estimate", "train", "s", "run",
    ]  # fmt: skip
    rows = [line.split() for line in lines if line.strip()]
    assert [row[3:5] for row in rows] == [["adam", "1"], ["lbfgs", "2"]]


def test_a_run_is_found_by_the_name_of_its_optimizer(diffhash, own_runs: Path) -> None:
    assert names(diffhash("list", own_runs, "-w", "optimizer=lbfgs", "--json"), own_runs) == ["b"]
    assert names(diffhash("list", own_runs, "-w", "optimizer=adam", "--json"), own_runs) == ["a"]


def test_without_a_solution_the_estimate_is_compared(diffhash, own_runs: Path) -> None:
    text = diffhash("compare", own_runs / "a", own_runs / "b").stdout
    assert "estimate" in text and "mse_u" not in text
    result = diffhash("evaluate", own_runs / "a", "--trust-code")
    assert result.exit_code == 1
    assert "problem=own has no exact solution to measure errors against" in result.stderr


# A first_order optimizer has the name of the class that it is given.
OPTIMIZERS = ROOT / "configs" / "optimizer"
NAMED = sorted({*OPTIMIZERS.glob("*.yaml")} - {OPTIMIZERS / "first_order.yaml"})


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_every_optimizer_has_the_name_that_it_is_chosen_by(
    diffhash, runs: Path, path: Path
) -> None:
    config = runs / "cubic/config.yaml"
    optimizer = yaml.safe_load(path.read_text())["optimizer"]
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"optimizer": optimizer}))
    found = diffhash("list", runs / "cubic", "-w", f"optimizer={path.stem}", "--json")
    assert names(found, runs) == ["cubic"]
