"""Claims of Section III (experiments) and what a reading of its tables adds."""

from __future__ import annotations

from collections.abc import Iterable

from diffhash.results.evidence import (
    ACCURATE,
    NO_SKILL,
    SYMBOLS,
    Evidence,
    Statements,
    format_score,
    format_share,
)
from diffhash.results.record import METRICS
from diffhash.results.tables import format_value

CLAIMS = Statements()
_MSE = METRICS[:3]
_FOUR = ("mlp_10k", "linear", "s2", "cubic")  # the four models of Section III-A and Fig. 3
_DATA, _PINN = "Section III-A", "Section III-B"


@CLAIMS.add(
    _DATA,
    "all four methods approximate the target function values",
    "MSE of u accurate for MLP, Linear, S2 and Cubic",
)
def _all_accurate(e: Evidence) -> tuple[bool, str]:
    held = all(e.relative("table1", row, "mse_u") <= ACCURATE for row in _FOUR)
    return held, e.shares("table1", _FOUR, ("mse_u",))


@CLAIMS.add(
    _DATA,
    "only the MLP and Cubic predict the first and second derivatives accurately",
    "of MLP, Linear, S2 and Cubic these two and no other are accurate in both u_x and u_xx",
)
def _derivatives(e: Evidence) -> tuple[bool, str]:
    columns = ("mse_ux", "mse_uxx")
    accurate = {
        row for row in _FOUR if all(e.relative("table1", row, c) <= ACCURATE for c in columns)
    }
    return accurate == {"mlp_10k", "cubic"}, e.shares("table1", _FOUR, columns)


@CLAIMS.add(
    _DATA,
    "Linear predicts the function values well but cannot learn second derivatives at all",
    "accurate in u, no skill in u_xx",
)
def _linear_data(e: Evidence) -> tuple[bool, str]:
    held = (
        e.relative("table1", "linear", "mse_u") <= ACCURATE
        and e.relative("table1", "linear", "mse_uxx") >= NO_SKILL
    )
    return held, e.shares("table1", ("linear",), ("mse_u", "mse_uxx"))


@CLAIMS.add(
    _DATA,
    "S2 introduces undesirable fluctuations, its error is the largest of all",
    "largest MSE of u_x and of u_xx among MLP, Linear, S2 and Cubic",
)
def _s2_worst(e: Evidence) -> tuple[bool, str]:
    columns = ("mse_ux", "mse_uxx")
    held = all(
        e.value("table1", "s2", c) == max(e.value("table1", row, c) for row in _FOUR)
        for c in columns
    )
    return held, e.values("table1", _FOUR, columns)


@CLAIMS.add(
    "Table I",
    "S2's second derivative is worse than predicting 0",
    "MSE of u_xx above the zero predictor's",
)
def _s2_no_skill(e: Evidence) -> tuple[bool, str]:
    held = e.relative("table1", "s2", "mse_uxx") > 1
    return held, e.shares("table1", ("s2",), ("mse_uxx",))


@CLAIMS.add(
    _DATA,
    "Cubic uses the fewest epochs to reach the best accuracy on all predictions",
    "smallest MSE of u, u_x and u_xx of all rows, with the smallest budget",
)
def _cubic_best(e: Evidence) -> tuple[bool, str]:
    others = [row for row in e.rows("table1") if row != "cubic"]
    best = all(
        e.value("table1", "cubic", c) < min(e.value("table1", row, c) for row in others)
        for c in _MSE
    )
    fewest = e.epochs("table1", "cubic") < min(e.epochs("table1", row) for row in others)
    return best and fewest, e.values("table1", e.rows("table1"), _MSE)


@CLAIMS.add(
    "Table I",
    "SIREN's row being identical to FF's is a copying slip",
    "ours differ in the two digits the paper prints",
)
def _siren_not_ff(e: Evidence) -> tuple[bool, str]:
    siren, ff = (
        [format_value(c, e.value("table1", row, c)) for c in _MSE] for row in ("siren", "ff")
    )
    return siren != ff, e.values("table1", ("siren", "ff"), _MSE)


@CLAIMS.add(
    _PINN,
    "all models have small errors where labels are known (x <= 0.5)",
    "MSE of u accurate there for every row",
)
def _labelled_small(e: Evidence) -> tuple[bool, str]:
    shares, text = _region(e, e.rows("table2"), labelled=True)
    return max(shares) <= ACCURATE, text


@CLAIMS.add(
    _PINN,
    "predictions vary widely in the unknown region (x > 0.5)",
    "largest and smallest MSE of u there two decades apart or more",
)
def _unknown_varies(e: Evidence) -> tuple[bool, str]:
    shares, text = _region(e, e.rows("table2"), labelled=False)
    return max(shares) >= 100 * min(shares), text


@CLAIMS.add(
    _PINN,
    "Linear fails completely in the unknown region",
    "no skill in u for x > 0.5",
)
def _linear_fails(e: Evidence) -> tuple[bool, str]:
    shares, text = _region(e, ("linear",), labelled=False)
    return min(shares) >= NO_SKILL, text


@CLAIMS.add(
    _PINN,
    "smoothstep and cubic interpolation do not suffer from this",
    "S2 and Cubic have skill in u for x > 0.5 (less than half of the zero predictor's MSE)",
)
def _smooth_works(e: Evidence) -> tuple[bool, str]:
    shares, text = _region(e, ("s2", "cubic"), labelled=False)
    return max(shares) < NO_SKILL, text


@CLAIMS.add(
    "Table II",
    "SIREN and Linear have no skill",
    "no skill in u over the whole domain",
)
def _no_skill(e: Evidence) -> tuple[bool, str]:
    rows = ("siren", "linear")
    held = all(e.relative("table2", row, "mse_u") >= NO_SKILL for row in rows)
    return held, e.shares("table2", rows, ("mse_u",))


@CLAIMS.add(
    _PINN,
    "Cubic's error decreases fastest with a limited number of epochs",
    "smallest MSE of u of all rows at the end of Cubic's budget",
)
def _fastest(e: Evidence) -> tuple[bool, str]:
    budget = e.epochs("table2", "cubic")
    scores = {row: e.history("table2", row, epoch=budget) for row in e.rows("table2")}
    others = min(score for row, score in scores.items() if row != "cubic")
    return scores["cubic"] < others, f"{SYMBOLS['mse_u']} by epoch {budget}: " + ", ".join(
        f"{e.name('table2', row)} {format_score('mse_u', s)}" for row, s in scores.items()
    )


@CLAIMS.add(
    _PINN,
    "in training time, Cubic's advantage over the MLP is no longer evident",
    "within Cubic's train seconds the MLP comes within a decade of Cubic's MSE of u",
)
def _mlp_in_same_time(e: Evidence) -> tuple[bool, str]:
    seconds = e.value("table2", "cubic", "train_seconds")
    cubic = e.value("table2", "cubic", "mse_u")
    mlp = e.history("table2", "mlp_50k", seconds=seconds)
    return mlp <= 10 * cubic, (
        f"u after {seconds:.1f} train seconds: {e.name('table2', 'cubic')} "
        f"{format_score('mse_u', cubic)}, {e.name('table2', 'mlp_50k')} "
        f"{format_score('mse_u', mlp)}"
    )


@CLAIMS.add(
    "Table II",
    "given 50k epochs the MLP is more accurate than Cubic at 3k",
    "smaller MSE of u",
)
def _mlp_overtakes(e: Evidence) -> tuple[bool, str]:
    held = e.value("table2", "mlp_50k", "mse_u") < e.value("table2", "cubic", "mse_u")
    return held, e.values("table2", ("mlp_50k", "cubic"), ("mse_u",))


def _region(e: Evidence, rows: Iterable[str], *, labelled: bool) -> tuple[list[float], str]:
    """MSE of u in a region as fractions of the zero predictor's there, and as text."""
    shares = {row: e.region_relative(row, labelled=labelled) for row in rows}
    return list(shares.values()), f"{SYMBOLS['mse_u']}: " + ", ".join(
        f"{e.name('table2', row)} {format_share(share)}" for row, share in shares.items()
    )
