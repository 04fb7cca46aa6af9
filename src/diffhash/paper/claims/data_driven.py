"""Claims on data-driven learning: Section III-A and Table I."""

from __future__ import annotations

from diffhash.paper.claims.engine import Statement
from diffhash.paper.claims.parts import Above, AtMost, Lower
from diffhash.paper.claims.quantities import (
    ACCURATE,
    NO_SKILL,
    EpochsOver,
    Error,
    Relative,
)
from diffhash.paper.printed import METRICS

ROWS = ("mlp_10k", "mlp_100k", "siren", "ff", "linear", "s2", "cubic")
"""The rows of Table I."""
MSE = METRICS[:3]
_TABLE = "table1"
_FOUR = ("mlp_10k", "linear", "s2", "cubic")  # the four models of Section III-A and Fig. 3
_SECTION = "Section III-A"

CLAIMS = (
    Statement(
        _SECTION,
        "all four methods approximate the target function values",
        "MSE of u accurate for MLP, Linear, S2 and Cubic",
        tuple(AtMost(Relative(_TABLE, row), ACCURATE) for row in _FOUR),
    ),
    Statement(
        _SECTION,
        "only the MLP and Cubic predict the first and second derivatives accurately",
        "MLP and Cubic are accurate in u_x and u_xx, Linear and S2 are not accurate in u_xx",
        (
            *(
                AtMost(Relative(_TABLE, row, column), ACCURATE)
                for row in ("mlp_10k", "cubic")
                for column in MSE[1:]
            ),
            *(Above(Relative(_TABLE, row, "mse_uxx"), ACCURATE) for row in ("linear", "s2")),
        ),
    ),
    Statement(
        _SECTION,
        "Linear predicts the function values well but cannot learn second derivatives at all",
        "accurate in u, no skill in u_xx",
        (
            AtMost(Relative(_TABLE, "linear"), ACCURATE),
            Above(Relative(_TABLE, "linear", "mse_uxx"), NO_SKILL),
        ),
    ),
    Statement(
        _SECTION,
        "S2 approximates the shape of the derivative values",
        "skill in u_x and in u_xx",
        tuple(AtMost(Relative(_TABLE, "s2", column), NO_SKILL) for column in MSE[1:]),
    ),
    Statement(
        _SECTION,
        "S2 introduces undesirable fluctuations, its error is the largest of all",
        "largest MSE of u_x and of u_xx among MLP, Linear, S2 and Cubic",
        tuple(
            Lower(Error(_TABLE, row, column), Error(_TABLE, "s2", column))
            for column in MSE[1:]
            for row in _FOUR
            if row != "s2"
        ),
    ),
    Statement(
        "Table I",
        "S2's second derivative is worse than predicting 0",
        "MSE of u_xx above the zero predictor's",
        (Above(Relative(_TABLE, "s2", "mse_uxx"), 1.0),),
    ),
    Statement(
        _SECTION,
        "Cubic uses the fewest epochs to reach the best accuracy on all predictions",
        "smaller MSE of u, u_x and u_xx than every other row, with a smaller budget",
        (
            *(
                Lower(Error(_TABLE, "cubic", column), Error(_TABLE, row, column))
                for column in MSE
                for row in ROWS
                if row != "cubic"
            ),
            *(Above(EpochsOver(_TABLE, row, "cubic"), 1.0) for row in ROWS if row != "cubic"),
        ),
    ),
    Statement(
        "Table I",
        "SIREN's row being identical to FF's is a copying slip",
        "ours differ, either way, in some MSE that the paper prints",
        tuple(
            Lower(Error(_TABLE, a, column), Error(_TABLE, b, column))
            for column in MSE
            for a, b in (("siren", "ff"), ("ff", "siren"))
        ),
        combine="any",
    ),
)
