"""The paper's printed tables, and remarks for their readers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diffhash.results.record import RecordError

PAPER_DIRECTORY = Path(__file__).parents[3] / "results" / "paper"  # in a clone
PAPER_DEVICE = "RTX 3060"
# The rows of each table in printed order.
ROWS = {
    "table1": ("mlp_10k", "mlp_100k", "siren", "ff", "linear", "s2", "cubic"),
    "table2": ("mlp_10k", "mlp_50k", "siren", "ff", "linear", "s2", "cubic"),
}
TABLES = tuple(ROWS)
FOUR_ROWS = ("mlp_10k", "linear", "s2", "cubic")
"""The four models of Section III-A and Fig. 3, with the MLP's budget there."""
LABELS_END = 0.5
"""Where the labelled region of the physics-informed task ends (Section III-B)."""
ERRORS = {"u": "mse_u", "u_x": "mse_ux", "u_xx": "mse_uxx"}
"""The mean squared errors that the paper prints, by quantity."""
METRICS = (*ERRORS.values(), "loss")
"""All metrics that the paper prints."""
VALUES = (*METRICS, "train_seconds")
TITLES = {
    "table1": ("Table I", "Data-driven learning"),
    "table2": ("Table II", "Physics-informed learning"),
}

Footnote = tuple[tuple[str, ...], str]
"""Rows with a remark on them."""

# fmt: off
_S2 = (("s2",), "S2: second-order smoothstep. Eq. 10 applies it to the product of the "
       "per-axis weights, we apply it per axis; in one dimension they are the same.")
_CUBIC = (("cubic",), "The paper's 'cubic spline' is read as the uniform cubic B-spline, "
          "the only local four-tap interpolation with continuous second derivatives.")
FOOTNOTES: dict[str, tuple[Footnote, ...]] = {
    "table1": (
        (("siren", "ff"), "The paper prints identical SIREN and FF rows, to the last digit "
         "and Train Cost included: almost surely a copying slip."),
        (("linear",), "Predicting 0 scores MSE u_xx = 2.03e5: the paper's 1.8e5 is no skill."),
        (("s2",), "Predicting 0 scores MSE u_xx = 2.03e5: the paper's 6.2e6 is worse than that."),
        _S2,
        _CUBIC,
    ),
    "table2": (
        (("siren", "linear"), "Predicting 0 scores MSE u = 1.95: the paper's 2.7 and 1.6 are no "
         "skill."),
        (("siren",), "The paper prints '2.7E-00', read as 2.7."),
        (("mlp_50k", "cubic"), "The paper prints both rows' MSE u in bold: 'bold = best' "
         "is not its rule."),
        _S2,
        _CUBIC,
    ),
}
# fmt: on


def printed_metrics(experiment: str | None) -> dict[str, float]:
    """The paper's values for a row (``table1/cubic``), by metric; empty for any other experiment.

    It is also empty in an installed package, which has no printed tables.
    """
    table, _, row = (experiment or "").partition("/")
    if table not in TABLES or not PAPER_DIRECTORY.exists():
        return {}
    rows = load_paper_table(table)
    printed = rows.loc[row, list(METRICS)].dropna() if row in rows.index else {}
    return {str(name): float(value) for name, value in printed.items()}


def load_paper_table(table: str, directory: Path | str = PAPER_DIRECTORY) -> pd.DataFrame:
    """Read a printed table as numbers, indexed by row key in printed order.

    The columns are ``label, epochs, mse_u, mse_ux, mse_uxx, loss, train_seconds``; a column that
    the paper does not print is NaN.

    Args:
        table: ``"table1"`` or ``"table2"``.
        directory: the folder with ``table1.csv`` and ``table2.csv``.

    Raises:
        ValueError: the table is unknown.
        FileNotFoundError: there is no such file.
        RecordError: the file is no such table; the message names its path.
    """
    if table not in TABLES:
        raise ValueError(f"table = {table!r}: expected one of {', '.join(TABLES)}")
    path = Path(directory) / f"{table}.csv"
    try:
        printed = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("row")
        columns = {
            "label": printed["label"],
            "epochs": printed["epochs"].str.replace("k", "000").astype("Int64"),
            **{m: printed[m].astype(float) for m in METRICS if m in printed},
            "train_seconds": printed["train_cost"].str.removesuffix("s").astype(float),
        }
    except (KeyError, ValueError) as error:
        raise RecordError(f"corrupt table {path}: {error}") from error
    return pd.DataFrame(columns).reindex(columns=["label", "epochs", *VALUES])
