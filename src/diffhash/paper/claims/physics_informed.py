"""Claims on physics-informed learning: Section III-B and Table II."""

from __future__ import annotations

from diffhash.paper.claims.engine import Statement
from diffhash.paper.claims.evidence import LABELS_END
from diffhash.paper.claims.parts import Above, AtMost, Lower
from diffhash.paper.claims.quantities import (
    ACCURATE,
    NO_SKILL,
    Error,
    ErrorAtBudgetOf,
    ErrorInTimeOf,
    Relative,
)

ROWS = ("mlp_10k", "mlp_50k", "siren", "ff", "linear", "s2", "cubic")
"""The rows of Table II."""
_TABLE = "table2"
_SECTION = "Section III-B"


def _unknown(row: str) -> Relative:
    return Relative(_TABLE, row, region="unknown")


CLAIMS = (
    Statement(
        _SECTION,
        f"all models have small errors where labels are known (x <= {LABELS_END})",
        "MSE of u accurate there for every row",
        tuple(AtMost(Relative(_TABLE, row, region="labelled"), ACCURATE) for row in ROWS),
    ),
    Statement(
        _SECTION,
        f"predictions vary widely in the unknown region (x > {LABELS_END})",
        "some row's MSE of u there is two decades below Linear's",
        tuple(Lower(_unknown(row), _unknown("linear"), 100.0) for row in ROWS if row != "linear"),
        combine="any",
    ),
    Statement(
        _SECTION,
        "Linear fails completely in the unknown region",
        f"no skill in u for x > {LABELS_END}",
        (Above(_unknown("linear"), NO_SKILL),),
    ),
    Statement(
        _SECTION,
        "smoothstep and cubic interpolation do not suffer from this",
        f"S2 and Cubic have skill in u for x > {LABELS_END}",
        tuple(AtMost(_unknown(row), NO_SKILL) for row in ("s2", "cubic")),
    ),
    Statement(
        "Table II",
        "SIREN and Linear have no skill",
        "no skill in u over the whole domain",
        tuple(Above(Relative(_TABLE, row), NO_SKILL) for row in ("siren", "linear")),
    ),
    Statement(
        _SECTION,
        "Cubic's error decreases fastest with a limited number of epochs",
        "smaller MSE of u than every other row at the end of Cubic's budget",
        tuple(
            Lower(ErrorAtBudgetOf(_TABLE, "cubic", "cubic"), ErrorAtBudgetOf(_TABLE, row, "cubic"))
            for row in ROWS
            if row != "cubic"
        ),
    ),
    Statement(
        _SECTION,
        "in training time, Cubic's advantage over the MLP is no longer evident",
        "within Cubic's train seconds the MLP's MSE of u is below ten times Cubic's",
        (Lower(ErrorInTimeOf(_TABLE, "mlp_50k", "cubic"), Error(_TABLE, "cubic"), factor=0.1),),
    ),
    Statement(
        "Table II",
        "given 50k epochs the MLP is more accurate than Cubic at 3k",
        "smaller MSE of u",
        (Lower(Error(_TABLE, "mlp_50k"), Error(_TABLE, "cubic")),),
    ),
)
