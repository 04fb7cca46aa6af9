"""The report as a file: what it says, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from matplotlib.text import Text
from plotly.offline import get_plotlyjs

from diffhash.paper.claims.page import check_claims
from diffhash.paper.claims.verdicts import claim_fields, verdict_text
from diffhash.paper.figures import figure4, table_rows
from diffhash.paper.printed import TABLES, load_paper_table
from diffhash.paper.report.page import to_html, write_report
from diffhash.paper.table import load_tables
from diffhash.paper.tables import write_tables
from diffhash.results import RecordError, read_record, write_record
from tests.paper.report_page import Page, report


@pytest.fixture(scope="module")
def one_seed(_paper_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str]:
    return report(_paper_runs, tmp_path_factory.mktemp("report"))


# ------------------------------------------------------------------------------------ one file


def test_the_page_loads_nothing(one_seed: tuple[Page, str]) -> None:
    page, _ = one_seed
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


def test_links_lead_somewhere_and_identities_are_unique(one_seed: tuple[Page, str]) -> None:
    page, _ = one_seed
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.elements if tag == "a"}
    assert targets <= set(ids)
    assert {"summary", "table1", "table2", "claims", "figures", "environments", "runs"} <= targets
    for tag, attributes in page.elements:
        if tag == "figure":
            assert attributes["aria-labelledby"] in ids
        if attributes.get("role") in ("img", "region"):
            assert attributes["aria-label"].strip()


def test_the_same_records_make_the_same_bytes(_paper_runs: Path, paper: Path, tmp_path) -> None:
    first = [
        p.read_bytes()
        for p in write_report(load_tables(_paper_runs, paper), tmp_path / "a", "none")
    ]
    second = [
        p.read_bytes()
        for p in write_report(load_tables(_paper_runs, paper), tmp_path / "b", "none")
    ]
    assert first == second


# ------------------------------------------------------------------------------- what it says


def test_the_first_screen_has_the_numbers(one_seed: tuple[Page, str]) -> None:
    page, markdown = one_seed
    start = page.text[page.text.index("Reproduced") :]
    for text in (
        "14 of 14 rows from 14 runs, seed 0: 14 completed.",
        "35 of 35 numbers within a decade",
        "Median +0.00 decades: 1 times",
        "Cost 1.9 h to train each row of both tables once.",
        "took 1.9 h on an RTX 3060, 1 times as long.",
    ):
        assert text in start[:1500]
    assert "**Reproduced: 14 of 14 rows**" in markdown


def test_every_row_of_both_tables_is_there(one_seed: tuple[Page, str], paper: Path) -> None:
    page, markdown = one_seed
    for table in TABLES:
        printed = load_paper_table(table, paper)
        for plot in (f"predictions-{table}", f"histories-{table}"):
            assert list(page.options(plot, "row")) == list(printed.index)
        for _, line in printed.iterrows():
            assert str(line["label"]) in page.text and f"| {line['label']} " in markdown
    assert "1.9e-6 / 1.9e-6 +0.00" in page.text.replace("(", "").replace(")", "")
    assert "Table II, Cubic 3k" in page.text and "**Table II, Cubic 3k**" in markdown


def test_every_claim_is_there_with_its_verdict_and_criterion(
    one_seed: tuple[Page, str], _paper_runs: Path, paper: Path
) -> None:
    page, markdown = one_seed
    claims, findings = check_claims(load_tables(_paper_runs, paper))
    for claim in claims:
        statement = claim.statement
        assert f"{verdict_text(claim)} {statement.text} ({statement.source})" in page.text
        assert all(text in page.text for text in claim_fields(claim).values())
        assert statement.text in markdown
    for finding in findings:
        assert finding.question.criterion in page.text and finding.question.criterion in markdown


def test_environments_and_configs(paper_runs: Path, write_run, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(paper_runs, "table1", "cubic", seed=seed, epochs=3000)
    config = {"trainer": {"epochs": 3000}, "task": {"n_labels": 17}}
    for seed in (0, 1, 2):
        own = config | {"seed": seed, "run_dir": f"/x/{seed}"} | ({"extra": 5} if seed == 2 else {})
        folder = paper_runs / "table1" / "cubic" / f"seed{seed}"
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
    page, _ = report(paper_runs, tmp_path / "out")
    assert "Some_CPU & Co 100%" in page.text
    assert "Config of seeds 0, 1: " in page.text and "Config of seed 2: " in page.text
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
    page, _ = report(paper_runs, tmp_path / "out")
    assert not any("alert(1)" in text for _, text in page.scripts)
    assert page.text.count(evil) >= 3  # the table's remarks, the environment, the config
    assert not any(tag == "b" for tag, _ in page.elements)
    assert "a<i>b" in page.options("predictions-table1", "row")


# --------------------------------------------------------------- runs that are not as they should


def test_nothing_recorded_yet(paper: Path, tmp_path: Path) -> None:
    page, markdown = report(tmp_path / "none", tmp_path / "out")
    assert "0 of 14 rows no run has been recorded yet" in page.text
    for table in TABLES:
        options = page.options(f"predictions-{table}", "row")
        assert all("disabled" in option for option in options.values())
    assert "No run has been recorded yet." in markdown
    assert markdown.count("missing / ") >= 14


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
    write_run(paper_runs, "table2", "cubic", seed=3, **diverged)
    page, markdown = report(paper_runs, tmp_path / "out")
    start = page.text[page.text.index("Reproduced") : page.text.index("Distance")]
    for text in (
        "11 of 14 rows",
        "Table I, FF 10k: no record.",
        "Table II, SIREN 10k: diverged @ epoch 321.",
        "Table II, Linear 10k: interrupted @ epoch 7000.",
        "Table II, Cubic 3k: seed 3 diverged @ epoch 321.",
    ):
        assert text in start and text in markdown
    outcomes = {a.get("class") for tag, a in page.elements if tag == "td"}
    assert "outcome" in outcomes
    assert "disabled" in page.options("predictions-table1", "row")["ff"]
    assert "SIREN 10k (diverged @ epoch 321)" in page.text
    remarks = {a["text"] for a in page.plots["distance"]["layout"]["annotations"]}
    assert remarks == {"no record", "diverged @ epoch 321", "interrupted @ epoch 7000"}
    names = [t["style"]["name"] for t in page.plots["histories-table2"]["traces"]]
    assert "Cubic 3k, seed 3, diverged at epoch 321" in names
    assert not re.search(r"\b(nan|NaN|None|undefined)\b", page.text)


def test_a_run_without_curves_has_its_numbers_all_the_same(paper_runs: Path, tmp_path) -> None:
    for name in ("history.csv", "predictions.csv"):
        (paper_runs / "table1" / "cubic" / "seed0" / name).unlink()
    page, _ = report(paper_runs, tmp_path / "out")
    assert "14 of 14 rows" in page.text
    rows = {t["when"].get("row") for t in page.plots["predictions-table1"]["traces"]}
    assert "cubic" not in rows and "s2" in rows
    assert "checked" not in page.options("predictions-table1", "row")["cubic"]


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
    assert 'class="outcome">missing / 1' in html


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out(one_seed: tuple[Page, str], theme: str) -> None:
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for lines and marks."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    start = ":root {" if theme == "light" else ':root[data-theme="dark"] {'
    style = one_seed[0].style
    block = style[style.index(start) :].partition("}")[0]
    colours = dict(re.findall(r"(--[\w-]+): (#\w{6});", block))
    for ground in ("--background", "--surface"):
        for name in ("--text", "--muted", "--accent", "--good", "--bad", "--open"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for index in range(8):
        assert contrast(colours[f"--series-{index}"], colours["--background"]) >= 3


def test_a_name_out_of_a_record_loads_nothing(
    write_run: Callable[..., Path], paper: Path, tmp_path: Path
) -> None:
    evil = "![x](http://example.org/x.png)<img src=//example.org>|`$\x1b[2J"
    environment = {"processor": evil, "torch": evil, evil: evil}
    names = {"encoder": evil, "preset": evil, "environment": environment}
    write_run(tmp_path / "runs", "table1", "cubic")
    write_run(tmp_path / "runs", "table1", "own_row", **names)
    tables = load_tables(tmp_path / "runs", paper)
    page, markdown = write_report(tables, tmp_path / "out", tmp_path / "none")
    html = page.read_text()
    assert "default-src 'none'" in html
    text = markdown.read_text()
    assert "\x1b" not in html + text
    assert "<img" not in html
    assert re.search(r"(?<!\\)<img|(?<!\\)!\[x\]\(", text) is None
    lines = markdown.read_text().splitlines()
    [row] = [line for line in lines if line.startswith("|") and "3k" in line and "example" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 10
    write_tables(tables, tmp_path / "tables")
    assert r"\$" in (tmp_path / "tables" / "table1.tex").read_text()
    texts = [t.get_text() for t in figure4(table_rows(tables["table1"])).findobj(Text)]
    assert texts
