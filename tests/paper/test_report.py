"""The report as a file: its content, and that it needs no other file."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from plotly.offline import get_plotlyjs

from diffhash.paper.claims.page import to_markdown
from diffhash.paper.claims.verdicts import judge
from diffhash.paper.figures import figure4
from diffhash.paper.printed import TABLES, load_paper_table
from diffhash.paper.report.page import to_html, write_report
from diffhash.paper.table import load_tables
from diffhash.paper.tables import write_tables
from diffhash.results import RecordError, read_history, read_record, write_record
from tests.paper.report_page import RESULTS, Page, curves, report


@pytest.fixture(scope="module")
def one_seed(_paper_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(_paper_runs, tmp_path_factory.mktemp("report"))


# ------------------------------------------------------------------------------------ one file


def test_the_page_loads_nothing(one_seed: Page) -> None:
    page = one_seed
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes, f"<{tag} {name}={attributes[name]!r}>"
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert "url(" not in attributes.get("style", "")
    assert "url(" not in page.style and "@import" not in page.style
    [packed] = [text for attributes, text in page.scripts if attributes.get("id") == "plotly"]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    own = [text for attributes, text in page.scripts if attributes.get("id") != "plotly"]
    assert len(own) == len(page.scripts) - 1
    assert not any("://" in text or "fetch(" in text for text in own)


def test_links_lead_somewhere_and_identities_are_unique(one_seed: Page) -> None:
    page = one_seed
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.elements if tag == "a"}
    assert targets <= set(ids)
    assert {"summary", "table1", "table2", "claims", "figures", "runs"} <= targets
    for _, attributes in page.elements:
        if attributes.get("role") in ("img", "region"):
            assert attributes["aria-label"].strip()


@pytest.mark.slow
def test_the_same_records_make_the_same_bytes(_paper_runs: Path, tmp_path) -> None:
    first, second = (
        write_report(load_tables(_paper_runs), tmp_path / name).read_bytes() for name in "ab"
    )
    assert first == second


# ------------------------------------------------------------------------------- what it says


def test_the_first_screen_has_the_numbers(one_seed: Page) -> None:
    page = one_seed
    start = page.text[page.text.index("Reproduced") :]
    for text in (
        "14 of 14 rows from 14 runs, 1 seed a row: 14 completed.",
        "35 of 35 numbers within a decade",
        "Median +0.00 decades: 1 times",
        "Cost 1.9 h to train each row of both tables once.",
        "took 1.9 h on an RTX 3060, 1 times as long.",
    ):
        assert text in start[:1500]


def test_every_row_of_both_tables_is_there(one_seed: Page, paper: Path) -> None:
    page = one_seed
    for table in TABLES:
        printed = load_paper_table(table, paper)
        for plot in (f"predictions-{table}", f"histories-{table}"):
            names = {trace["name"] for trace in page.plots[plot]["data"]} - {"exact"}
            assert len(names) == len(printed)
        assert all(str(label) in page.text for label in printed["label"])
    assert "1.9e-6 / 1.9e-6 +0.00" in page.text.replace("(", "").replace(")", "")
    assert "Table II, Cubic 3k" in page.text


def test_every_claim_is_there_with_its_verdict_and_criterion(
    one_seed: Page, _paper_runs: Path
) -> None:

    def plain(text: str) -> str:
        return "".join(text.replace("`", "").split())

    shown = plain(one_seed.text)
    for line in to_markdown(judge(load_tables(_paper_runs))).splitlines():
        if line.lstrip().startswith("- "):
            assert plain(line.lstrip(" -").replace("**", "")) in shown


def test_environments_and_configs(paper_runs: Path, write_run, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(paper_runs, "table1", "cubic", seed=seed, epochs=3000)
    config = {"trainer": {"epochs": 3000}, "task": {"n_labels": 17}}
    for seed in (0, 1, 2):
        own = config | {"seed": seed, "run_dir": f"/x/{seed}"} | ({"extra": 5} if seed == 2 else {})
        folder = paper_runs / "table1" / "cubic" / f"seed{seed}"
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
    page = report(paper_runs, tmp_path / "out")
    assert "Some_CPU & Co 100%" in page.text
    assert "Config of seed 0, 1: " in page.text and "Config of seed 2: " in page.text
    assert page.text.count("n_labels: 17") == 2 and page.text.count("extra: 5") == 1
    assert "/x/0" not in page.text


def test_text_of_records_is_text(paper_runs: Path, tmp_path: Path) -> None:
    folder = paper_runs / "table1" / "cubic" / "seed0"
    evil = "</script><script>alert(1)</script><b>x</b>"
    write_record(folder, replace(read_record(folder), environment={"processor": evil}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"evil": evil}))
    strange = paper_runs / "table1" / "a<i>b"
    shutil.copytree(paper_runs / "table1" / "s2", strange)
    record = read_record(strange / "seed0")
    record = replace(record, experiment="table1/a<i>b", encoder="<i>", preset=None)
    write_record(strange / "seed0", record)
    page = report(paper_runs, tmp_path / "out")
    assert not any("alert(1)" in text for _, text in page.scripts)
    assert page.text.count(evil) >= 2  # the table's remarks, the config
    assert not any(tag == "b" for tag, _ in page.elements)
    names = {trace["name"] for trace in page.plots["predictions-table1"]["data"]}
    assert "&lt;i> (a&lt;i>b) 10k" in names


# --------------------------------------------------------------- runs that are not as they should


def test_nothing_finished_yet(write_run, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "table1", "cubic", status="interrupted", epochs=9)
    page = report(tmp_path / "runs", tmp_path / "out")
    assert "0 of 14 rows from 1 run" in page.text
    assert "nothing to compare yet" in page.text and "no run has been timed yet" in page.text
    assert page.text.count("missing / ") >= 14


def test_missing_diverged_and_interrupted_rows_are_shown_as_such(
    paper_runs: Path, write_run, tmp_path: Path
) -> None:
    shutil.rmtree(paper_runs / "table1" / "ff")
    shutil.rmtree(paper_runs / "table2" / "siren")
    shutil.rmtree(paper_runs / "table2" / "linear")
    diverged = {"status": "diverged", "diverged_epoch": 321, "epochs": 321}
    budget = {"epochs_requested": 10_000}
    write_run(paper_runs, "table2", "siren", **diverged, **budget)
    write_run(paper_runs, "table2", "linear", status="interrupted", epochs=7000, **budget)
    cubic = write_run(paper_runs, "table2", "cubic", seed=3, **diverged)
    (cubic / "history.csv").write_text(
        "epoch,seconds,loss,mse_u,mse_ux,mse_uxx\n300,1,0.1,0.2,1,1\n321,1,inf,inf,1,1\n"
    )
    page = report(paper_runs, tmp_path / "out")
    start = page.text[page.text.index("Reproduced") : page.text.index("Distance")]
    for text in (
        "11 of 14 rows",
        "Table I, FF 10k: no record.",
        "Table II, SIREN 10k: diverged @ epoch 321.",
        "Table II, Linear 10k: interrupted @ epoch 7000.",
        "Table II, Cubic 3k: seed 3 diverged @ epoch 321.",
    ):
        assert text in start
    outcomes = {a.get("class") for tag, a in page.elements if tag == "td"}
    assert "outcome" in outcomes
    notes = {a["text"] for a in page.plots["distance"]["layout"]["annotations"]}
    assert notes == {"no record", "diverged @ epoch 321", "interrupted @ epoch 7000"}
    runs = {run for run, _, _ in curves(page.plots["histories-table2"], "Cubic 3k")}
    assert {"seed 0", "seed 3, diverged at epoch 321"} <= runs
    assert not re.search(r"\b(nan|NaN|None|undefined)\b", page.text)


@pytest.mark.slow
def test_a_run_without_curves_has_its_numbers_all_the_same(paper_runs: Path, tmp_path) -> None:
    for name in ("history.csv", "predictions.csv"):
        (paper_runs / "table1" / "cubic" / "seed0" / name).unlink()
    page = report(paper_runs, tmp_path / "out")
    assert "14 of 14 rows" in page.text
    names = {trace["name"] for trace in page.plots["predictions-table1"]["data"]}
    assert "Cubic 3k" not in names and "S2 10k" in names


# -------------------------------------------------------------------------------------- plots


def test_a_line_per_seed(paper_runs: Path, write_run, tmp_path: Path) -> None:
    scores = {1: 4e-13, 2: 1e-11}
    for seed, score in scores.items():
        write_run(paper_runs, "table1", "cubic", seed=seed, epochs=3000, mse_u=score)
    run = read_record(paper_runs / "table1" / "cubic" / "seed0")
    folder = write_run(tmp_path / "short", "table1", "cubic", epochs=400, train_seconds=4.0)
    shutil.copytree(folder, paper_runs / "timing" / "table1" / "cubic" / run.config_hash[:12])
    page = report(paper_runs, tmp_path / "out")
    history = read_history(paper_runs / "table1" / "cubic" / "seed1")
    found = curves(page.plots["histories-table1"], "Cubic 3k")
    of_u = found[:3]
    assert [run for run, _, _ in of_u] == ["seed 0", "seed 1", "seed 2"]
    np.testing.assert_allclose(of_u[1][2], history["mse_u"], rtol=1e-6)
    np.testing.assert_allclose(of_u[1][1], 0.01 * history["epoch"], rtol=1e-5)
    [values, errors] = [
        [curve for curve in curves(page.plots["predictions-table1"], "Cubic 3k")][first : first + 3]
        for first in (0, 9)
    ]
    assert [run for run, _, _ in values] == ["seed 0", "seed 1", "seed 2"]
    np.testing.assert_allclose(errors[2][2], np.sqrt(scores[2]), rtol=1e-2)


@pytest.mark.slow
def test_a_report_of_many_seeds_stays_small(paper_runs: Path, write_run, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 10_001)
    frame = pd.DataFrame({n: np.sin(900 * x) for n in ("u", "u_x", "u_xx")}, index=x)
    for name in list(frame):
        frame[f"exact_{name}"] = np.cos(x)
    folder = paper_runs / "table1" / "cubic" / "seed0"
    frame.rename_axis("x").to_csv(folder / "predictions.csv")
    for seed in range(1, 12):
        copy = shutil.copytree(folder, folder.with_name(f"seed{seed}"))
        write_record(copy, replace(read_record(copy), seed=seed))
    page = report(paper_runs, tmp_path / "out")
    errors = curves(page.plots["predictions-table1"], "Cubic 3k")[-1]
    assert errors[2].max() == pytest.approx(np.abs(np.sin(900 * x) - np.cos(x)).max(), rel=1e-6)
    assert (tmp_path / "out" / "index.html").stat().st_size < 5e6


@pytest.mark.parametrize(
    ("file", "content"),
    [("result.json", "{"), ("history.csv", "x\n1\n"), ("predictions.csv", "x\n1\n"),
     ("config.yaml", "a: [")],
)  # fmt: skip
def test_a_corrupt_file_is_named(paper_runs: Path, tmp_path: Path, file: str, content: str) -> None:
    path = paper_runs / "table1" / "cubic" / "seed0" / file
    path.write_text(content)
    with pytest.raises(RecordError, match=re.escape(str(path))):
        report(paper_runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------- markup


def test_markup_of_table_cells() -> None:
    html = to_html(
        "| a | b |\n|:--|--:|\n| X <sup>a,b</sup> | 1 / 2 (-0.30) |\n| <b>Y</b> | missing / 1 |\n"
        "| Z | 9 / 1 (+0.95) 90 / 1 (+1.95) |\n"
    )
    assert "<sup>a,b</sup>" in html and "<b>" not in html
    assert '<span class="decades better">-0.30</span>' in html
    assert '<span class="decades near">+0.95</span>' in html
    assert '<span class="decades worse">+1.95</span>' in html
    assert re.search('<td class="outcome"[^>]*>missing / 1', html)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out(one_seed: Page, theme: str) -> None:
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for lines and marks."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    start = ":root {" if theme == "light" else "(prefers-color-scheme: dark)"
    style = one_seed.style
    block = style[style.index(start) :].partition("}")[0]
    colours = dict(re.findall(r"(--[\w-]+): (#\w{6});", block))
    for ground in ("--background", "--surface"):
        for name in ("--text", "--muted", "--accent", "--good", "--bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def test_a_name_out_of_a_record_loads_nothing(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    evil = "![x](http://example.org/x.png)<img src=//example.org>|`$\x1b[2J"
    environment = {"processor": evil, "torch": evil, evil: evil}
    names = {"encoder": evil, "preset": evil, "environment": environment}
    write_run(tmp_path / "runs", "table1", "cubic")
    write_run(tmp_path / "runs", "table1", "own_row", **names)
    tables = load_tables(tmp_path / "runs")
    html = write_report(tables, tmp_path / "out").read_text()
    assert "default-src 'none'" in html
    write_tables(tables, tmp_path / "tables")
    text = (tmp_path / "tables" / "table1.md").read_text()
    assert "\x1b" not in html + text and "<img" not in html
    assert re.search(r"(?<!\\)<img|(?<!\\)!\[x\]\(", text) is None
    [row] = [line for line in text.splitlines() if line.startswith("|") and "example" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 10
    texts = [t.get_text() for t in figure4(list(tables["table1"].rows.values())).findobj(Text)]
    assert texts


# --------------------------------------------------------------------------- the suite of problems


@pytest.mark.slow
def test_the_suites_errors_can_be_seen_by_problem_and_by_method(
    _paper_runs: Path, tmp_path: Path
) -> None:
    plot = report(_paper_runs, tmp_path, RESULTS).plots["errors-suite"]
    table = pd.read_csv(RESULTS / "tables" / "suite.csv")
    names = {trace["name"].partition(",")[0] for trace in plot["data"]}
    assert names == {*table["method"], "published"}
    [menu] = plot["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]][1:] == list(table["case"].unique())


def test_without_a_suite_the_page_has_no_plot_of_it(one_seed: Page) -> None:
    assert "errors-suite" not in one_seed.plots
