"""The suite's results as a tidy CSV and a Markdown page, beside published errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks import collocation
from benchmarks.suite import CHOSEN_ON, GRIDS, METHODS, Case, Job, Outcome, result
from diffhash._files import write_text_atomically
from diffhash.problems import zoo
from diffhash.results import RunRecord
from diffhash.results.formats import format_value, markdown_table
from diffhash.results.metrics import metric
from diffhash.results.statistics import describe_interval, median_interval

RESULTS = Path(__file__).resolve().parent.parent / "results"
PUBLISHED = RESULTS / "published.csv"
_LETTERS = {"adam": "A", "gauss_newton": "G"}
_KEY = ["case", "method", "optimizer"]
_ERRORS = ("error", "error_low", "error_high", "reference_error", "floor_error")


def write_tables(table: pd.DataFrame, output: Path) -> list[str]:
    """Write ``suite.csv``, ``suite.md`` and ``published.md``, which the README quotes; return the
    lines of a summary.

    Args:
        table: the table of `make_table`.
        output: the folder of the tables, with those of `benchmarks.collocation` and
            ``make solvers``.
    """
    if table.empty:
        return ["no run is finished"]
    table = with_floor(table, collocation.read(output / collocation.FILE))
    published = pd.read_csv(PUBLISHED, keep_default_na=False)
    published = _records(published[published["comparable"] == "yes"])
    compared = with_means(table, published, ["method", "optimizer"])
    scores = []
    for case in table["case"].unique():
        known = [row for row in published if row["case"] == case]
        scores.append(_score(case, _records(compared[compared["case"] == case]), known))
    own = with_means(own_settings(output / "solvers.csv"), published, ["row"])
    summary = _summary(scores, own)
    known = _by_case(published)
    tuned = _own_settings(own, known)
    parts = [_head(table), _overview(scores), *summary, tuned, _outcomes(table)]
    page = "\n\n".join(filter(None, parts)) + "\n"
    text = table.to_csv(index=False, float_format="%.4g")
    paths = [
        write_text_atomically(output / "suite.csv", text),
        write_text_atomically(output / "suite.md", page),
        write_text_atomically(output / "published.md", _beside(own, known)),
    ]
    return [*"\n".join(summary).splitlines(), *map(str, paths)]


def _records(table: Any) -> list[dict[str, Any]]:  # table: a DataFrame
    return table.to_dict("records")


# ------------------------------------------------------------------------------------ the data


def make_table(jobs: Sequence[Job], runs: Path) -> pd.DataFrame:
    """A row for each case, method, optimizer and quantity; medians over seeds.

    ``error`` is the relative L2 error of an unknown or a derivative, or the relative error of a
    coefficient. It is infinite for a run that diverged, or that left no record where another seed
    has one. ``is_below_reference`` is whether the error is below that of the reference itself.
    """
    found: dict[tuple[str, ...], list[RunRecord | Outcome]] = {}
    job_of: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        if (outcome := result(job, runs)) is not None:
            key = job.case.name, job.method, job.optimizer
            job_of[key] = job
            found.setdefault(key, []).append(outcome)
    limits: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for key, outcomes in found.items():
        job, name = job_of[key], key[0]
        if name not in limits:
            limits[name] = _reference_errors(job.case)
        start = dict(zip(_KEY, key, strict=True)) | {"budget_seconds": job.seconds}
        rows += (start | row for row in _rows(outcomes, limits[name]))
    return pd.DataFrame(rows)


def with_floor(table: pd.DataFrame, floor: Any) -> pd.DataFrame:
    """The table, with the classical floor's error and seconds beside each unknown's error."""
    columns = {"problem": "case", "l2": "floor_error", "seconds": "floor_seconds"}
    finest = collocation.best(floor).rename(columns=columns)
    keys = ["case", "quantity"]
    own = finest[[*keys, "floor_error", "floor_seconds"]]
    return table.merge(own, on=keys, how="left")


def own_settings(path: Path) -> pd.DataFrame:
    """The medians over seeds of fields with settings of their own for a problem.

    They are computed from the table of ``make solvers``: a row for each quantity of each field that
    is trained on the conditions alone, with the case of the field.
    """
    columns = ["case", "row", "quantity", "is_network", "error", "seconds", "seeds"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    table: Any = pd.read_csv(path)
    table = table[table["kind"] == "pinn"].rename(columns={"unknown": "quantity"})
    rows: Any = table.groupby(["row", "quantity"], sort=False, as_index=False).agg(
        is_network=("width", "max"),
        error=("l2", "median"),
        seconds=("seconds", "median"),
        seeds=("seed", "nunique"),
    )
    rows["is_network"] = rows["is_network"] > 0
    named = rows["row"].str.partition(" pinn: ")
    rows["case"] = named[0].str.translate(str.maketrans("()", "[]")).str.replace(", ", ",")
    rows["row"] = named[2]
    return rows[columns]


def with_means(
    table: pd.DataFrame, published: Sequence[dict[str, Any]], keys: Sequence[str]
) -> pd.DataFrame:
    """The table, with rows for published means of quantities, such as ``mean of u, v, p``.

    Args:
        table: a row for each quantity, with its case and errors.
        published: rows of the table of published errors.
        keys: the columns that distinguish the fields of a case.
    """
    made = []
    errors = [name for name in _ERRORS if name in table]
    for known in published:
        names = known["quantity"].removeprefix("mean of ").split(", ")
        if len(names) == 1:
            continue
        parts: Any = table[(table["case"] == known["case"]) & table["quantity"].isin(names)]
        for _, rows in parts.groupby([*keys], sort=False):
            if len(rows) == len(names):
                made.append({**rows.iloc[0], "quantity": known["quantity"]})
                made[-1] |= {name: float(np.mean(rows[name].to_numpy())) for name in errors}
                if "reference_error" in errors:
                    made[-1]["is_below_reference"] = made[-1]["error"] < made[-1]["reference_error"]
    return pd.concat([table, pd.DataFrame(made)], ignore_index=True) if made else table


def _rows(
    outcomes: Sequence[RunRecord | Outcome], limits: dict[str, float]
) -> Iterable[dict[str, Any]]:
    records = [o for o in outcomes if isinstance(o, RunRecord)]
    failures = [o for o in outcomes if isinstance(o, Outcome)]
    common: dict[str, Any] = {
        "seeds": len(outcomes),
        "diverged": sum(record.status == "diverged" for record in records),
        "without_record": len(failures),
        "status": " ".join(dict.fromkeys(o.status for o in outcomes)),
        "reason": failures[0].reason if failures else "",
    }
    if not records:
        yield common | {"quantity": ""}
        return

    def median(name: str) -> float:
        values = [getattr(record, name) for record in records]
        return float(np.median([v for v in values if v is not None] or [math.nan]))

    common |= {
        "train_seconds": median("train_seconds"),
        "wall_seconds": median("wall_seconds"),
        "steps": int(median("epochs")),
        "parameters": records[0].n_parameters,
        "peak_memory_mb": max(record.peak_memory_mb for record in records),
        "threads": records[0].environment.get("torch_threads"),
        "processor": records[0].environment.get("processor"),
        "estimate": median("estimate"),
    }
    for name in dict.fromkeys(name for record in records for name in record.metrics):
        quantity = _quantity(name)
        if quantity is None:
            continue
        values = [_value(record, name) for record in records] + [math.inf] * len(failures)
        if any(math.isnan(value) for value in values):
            continue
        middle, low, high = median_interval(np.array(values))
        limit = limits.get(quantity, math.nan)
        yield common | {
            "quantity": quantity,
            "error": float(middle),
            "error_low": float(low),
            "error_high": float(high),
            "reference_error": limit,
            "is_below_reference": bool(middle < limit),
        }


def _quantity(name: str) -> str | None:
    """The unknown, derivative or coefficient of a relative error; None for other metrics."""
    if name.startswith("l2_"):
        return metric(name).quantity
    return name.removeprefix("error_") if name.startswith("error_") else None


def _value(record: RunRecord, name: str) -> float:
    value = record.metrics.get(name)
    if value is None:
        return math.inf if record.status == "diverged" else math.nan
    return float(value)


def _reference_errors(case: Case) -> dict[str, float]:
    """The reference's own errors of unknowns and derivatives by name, as far as they are known."""
    settings = {key: yaml.safe_load(value) for key, value in case.settings.items()}
    make: Any = zoo()[case.problem]
    problem = make(**settings)
    reference = problem.reference
    if reference is None:
        return {}
    known = dict.fromkeys(problem.unknowns, reference.error) | dict(reference.errors)
    return {name: float(error) for name, error in known.items() if error is not None}


# ------------------------------------------------------------------------------------ the page


@dataclass(frozen=True)
class Score:
    """The errors of a case by method, and the published ones.

    Attributes:
        case: the name of the case.
        quantities: the quantities whose errors are compared; the largest error counts.
        published: the best published errors of the quantities; empty where there is none.
        says: the sources of the published errors.
        best: for each method, the error, the optimizer, and whether the reference's error is
            larger.
        floor: the error of the classical floor, its seconds, and whether the reference's error is
            larger; None without a floor.
        without: for each method without an error, the status of its runs.
    """

    case: str
    quantities: list[str]
    published: list[float]
    says: str
    best: dict[str, tuple[float, str, bool]]
    floor: tuple[float, float, bool] | None
    without: dict[str, str]

    def ratio(self, methods: Iterable[str]) -> tuple[float, str]:
        """The smallest error of some methods relative to the published one, and its method."""
        found = [(self.best[m][0], m) for m in methods if m in self.best]
        value, method = min(found, default=(math.inf, "no run"))
        return value / self.published[0], method


def _score(case: str, rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> Score:
    """The score of a case from its rows and from the comparable published rows."""
    published = {row["quantity"]: float(row["error"]) for row in known}
    quantities = [*published]
    if not quantities:  # none are published: all unknowns and coefficients
        quantities = [*dict.fromkeys(q for row in rows if (q := row["quantity"]) and "_" not in q)]
    # Where several numbers are published, errors are compared relative to them.
    first = next(iter(published.values()), 1.0)
    scale = {quantity: first / published.get(quantity, 1.0) for quantity in quantities}
    errors: dict[tuple[str, str], dict[str, tuple[float, bool]]] = {}
    floors: dict[str, tuple[float, float, bool]] = {}
    for row in rows:
        quantity, limit = row["quantity"], row["reference_error"]
        if quantity not in scale:
            continue
        is_below = row["is_below_reference"]
        error = limit if is_below else row["error"]
        of_run = errors.setdefault((row["method"], row["optimizer"]), {})
        of_run[quantity] = error * scale[quantity], is_below
        if not math.isnan(error := row["floor_error"]):
            is_below = error < limit
            error = scale[quantity] * (limit if is_below else error)
            floors[quantity] = error, row["floor_seconds"], is_below
    best: dict[str, tuple[float, str, bool]] = {}
    for (method, optimizer), of_run in errors.items():
        if len(of_run) == len(scale):
            error, is_below = max(of_run.values())
            best[method] = min(
                best.get(method, (math.inf, "", False)), (error, optimizer, is_below)
            )
    says = "; ".join(dict.fromkeys(map(_source, known)))
    without: dict[str, str] = {}
    for row in rows:
        if row["method"] not in best:
            without.setdefault(row["method"], row["status"])
    floor = max(floors.values()) if len(floors) == len(scale) else None
    return Score(case, quantities, [*published.values()], says, best, floor, without)


def _source(row: dict[str, Any]) -> str:
    parts = [row["method"], row["hardware"], f"{row['seconds']} s" if row["seconds"] else ""]
    second_hand = "" if row["read"] == "yes" else " (second-hand)"
    return ", ".join(part for part in parts if part) + second_hand


def _head(table: pd.DataFrame) -> str:
    seeds = max(map(int, table["seeds"]))
    budget = " and ".join(f"{s:g}" for s in sorted(table["budget_seconds"].unique()))
    processors = ", ".join(map(str, table["processor"].dropna().unique()))
    over = f", medians over {seeds} seeds ({describe_interval(seeds)})" if seeds > 1 else ""
    return (
        f"# Problems, methods, optimizers\n\n"
        f"Relative L2 errors after {budget} s of training on one thread ({processors}){over}; by "
        "`make suite`. A: Adam. G: Gauss–Newton. The better of the two is shown. A method has one "
        "set of hyper-parameters for all problems. ≤: the error of the reference is larger than "
        "what was measured. –: there has been no run. Reasons for “not possible” are below. The "
        f"hyper-parameters were chosen on {', '.join(CHOSEN_ON)}.\n\n"
        "Grids (linear to quintic hashed) have a network on top, `spline` has none. Floor: "
        "collocation with splines of degree 9 by SciPy alone, its cells chosen for the problem, "
        "with its seconds ([all numbers of cells](floor.csv)); it is for boxes. Every "
        "quantity, derivative, time and size: [CSV](suite.csv). What is published: "
        "[CSV](../published.csv), on hardware of theirs and without limit of time."
    )


def _overview(scores: Sequence[Score]) -> str:
    rows = []
    for score in scores:
        published = format_value("l2", score.published[0]) if score.published else ""
        smallest = min((value for value, _, _ in score.best.values()), default=math.nan)
        cells = []
        for method in METHODS:
            if method not in score.best:
                cells.append(score.without.get(method, "–"))
                continue
            value, optimizer, is_below = score.best[method]
            text = f"{_printed(value, is_below)} {_LETTERS[optimizer]}"
            cells.append(f"**{text}**" if value == smallest else text)
        floor = "–"
        if score.floor is not None:
            value, seconds, is_below = score.floor
            floor = f"{_printed(value, is_below)}, {seconds:.2g} s"
        start = [f"`{score.case}`", ", ".join(score.quantities), published, score.says]
        rows.append([*start, floor, *cells])
    columns = ["Problem", "of", "published", "by", "floor", *METHODS]
    return markdown_table(pd.DataFrame(rows, columns=columns), "llrl")


def _printed(value: float, is_below: bool) -> str:
    """An error as text; ``≤`` marks the reference's error in place of a smaller one."""
    return f"{'≤ ' * is_below}{format_value('l2', value)}"


def _reaches(score: Score, own: Any) -> bool:
    """Whether a field of `own_settings` reaches all published errors of a case."""
    published = dict(zip(score.quantities, score.published, strict=True))
    fields = own[own["case"] == score.case].groupby("row")
    return any(_part(rows, published) <= 1 for _, rows in fields)


def _part(rows: Any, published: dict[str, float]) -> float:
    """The largest error of a field relative to the published error of the same quantity."""
    errors = dict(zip(rows["quantity"], rows["error"], strict=True))
    return max(errors.get(name, math.inf) / error for name, error in published.items())


def _summary(scores: Sequence[Score], own: Any) -> list[str]:
    compared = [score for score in scores if score.published]
    lines, misses = [], []
    kinds = [("a grid and a network", GRIDS, own[own["is_network"].astype(bool)])]
    for what, methods, tuned in (*kinds, ("any field", [*METHODS], own)):
        reached = [score for score in compared if score.ratio(methods)[0] <= 1]
        also = [score for score in compared if score in reached or _reaches(score, tuned)]
        lines.append(
            f"At or below the best published number with {what}: {len(reached)} of "
            f"{len(compared)} problems that have one; {len(also)} with those of “Settings for each "
            "problem”."
        )
    for score in compared:
        ratio, method = score.ratio(METHODS)
        if ratio > 1:
            value, _, is_below = score.best.get(method, (math.inf, "", False))
            misses.append(
                f"- `{score.case}`: {_printed(value, is_below)} ({method}), "
                f"{format_value('l2', ratio)} times the published "
                f"{format_value('l2', score.published[0])}"
            )
    return ["\n".join(lines), "\n".join(["Missed:", "", *misses])] if misses else ["\n".join(lines)]


def _by_case(published: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The published errors by case and quantity."""
    errors: dict[str, dict[str, float]] = {}
    for row in published:
        errors.setdefault(row["case"], {})[row["quantity"]] = float(row["error"])
    return errors


def _beside(own: Any, published: dict[str, dict[str, float]]) -> str:
    """The best field of `own_settings` without and with a network beside the published errors.

    The table has a line for each case. Errors at or below the published ones are in bold.
    """
    lines = []
    for case, errors in published.items():
        first = next(iter(errors.values()))
        line = [f"`{case}`", ", ".join(errors), format_value("l2", first)]
        for is_network in (False, True):
            chosen = own[(own["case"] == case) & (own["is_network"] == is_network)]
            fields = [(_part(rows, errors), rows) for _, rows in chosen.groupby("row")]
            part, rows = min(fields, key=lambda field: field[0], default=(math.inf, None))
            if rows is None:
                line += ["–", "–"]
                continue
            text = format_value("l2", first * part)
            seconds = rows["seconds"].iloc[0]
            digits = 0 if seconds >= 10 else 1
            line += [f"**{text}**" if part <= 1 else text, f"{seconds:.{digits}f}"]
        lines.append(line)
    head = ["Problem", "of", "Published", "Splines", "Seconds", "Grid + network", "Seconds"]
    return markdown_table(pd.DataFrame(lines, columns=head), "ll") + "\n"


def _own_settings(own: Any, published: dict[str, dict[str, float]]) -> str:
    """The fields of `own_settings` beside the published errors; of several quantities, the largest
    error is shown, as in the overview."""
    if own.empty:
        return ""
    lines = []
    for (case, name), rows in own.groupby(["case", "row"], sort=False):
        seconds, seeds = (rows[key].iloc[0] for key in ("seconds", "seeds"))
        known = published.get(case, {})
        wanted = known or dict.fromkeys(rows["quantity"], 1.0)
        first = next(iter(wanted.values()))
        lines.append(
            [
                *(f"`{case}`", name, ", ".join(wanted)),
                *(format_value("l2", first * _part(rows, wanted)), f"{seconds:.0f}", seeds),
                format_value("l2", first) if known else "",
            ]
        )
    head = ["Problem", "Field", "of", "Error", "Seconds", "Seeds", "published"]
    text = markdown_table(pd.DataFrame(lines, columns=head), "lll")
    return (
        "## Settings for each problem\n\nGauss–Newton with cells, points and steps of each "
        "problem's own, on two threads; medians over seeds, seconds with set-up. By "
        f"`make solvers`, which says what they were chosen on: [CSV](solvers.csv).\n\n{text}"
    )


def _outcomes(table: pd.DataFrame) -> str:
    """The costs by method and optimizer, and the runs without a record, with reasons."""
    runs = table.drop_duplicates(_KEY)
    costs = runs.groupby(["method", "optimizer"], sort=False).agg(
        problems=("case", "nunique"),
        diverged=("diverged", "sum"),
        without_record=("without_record", "sum"),
        seconds=("train_seconds", "median"),
        steps=("steps", "median"),
        parameters=("parameters", "median"),
        memory=("peak_memory_mb", "max"),
    )
    head = ["Method", "Optimizer", "Problems", "Diverged", "No record", "Seconds", "Steps",
            "Parameters", "Peak MB"]  # fmt: skip
    formats = [
        *("{}", "{}", "{}", "{}", "{}"),
        *("{:.1f}", "{:.0f}", "{:.0f}", "{:.0f}"),
    ]
    rows = [
        [
            "–" if isinstance(value, float) and math.isnan(value) else form.format(value)
            for value, form in zip(row, formats, strict=True)
        ]
        for row in costs.reset_index().to_numpy().tolist()
    ]
    text = markdown_table(pd.DataFrame(rows, columns=head), "ll")
    lines = [
        f"- `{row['case']}`, {row['method']}, {row['optimizer']}: {row['status']}: {row['reason']}"
        for row in _records(runs[runs["without_record"] > 0])
    ]
    parts = ["## What it costs\n\nMedians over problems; the largest memory of a process.", text]
    if lines:
        parts.append("\n".join(["## Runs without a record", "", *lines]))
    return "\n\n".join(parts)
