"""What the paper says, as comparisons; and what every row, or pair of rows, is asked besides.

Nothing of the latter is listed by hand: each question is put to every row or pair that it can be
put to, and those are kept whose medians point that way. Since they are chosen by the data, each is
corrected (Holm) for all candidates of its question, those that were not kept included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

from diffhash.paper.claims.evidence import (
    ACCURATE,
    NO_SKILL,
    Evidence,
    MissingError,
    Quantity,
    at_budget_of,
    epochs_over,
    error,
    in_time_of,
    loss_jump,
    over_paper,
    peak_memory,
    relative,
    step_over,
)
from diffhash.paper.claims.verdicts import (
    Claim,
    Part,
    Statement,
    above,
    at_most,
    judge,
    lower,
)
from diffhash.paper.printed import LABELS_END, METRICS, ROWS, TITLES
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric

_MSE = METRICS[:3]
_PRINTED = (*(("table1", column) for column in _MSE), ("table2", "mse_u"))  # the printed MSEs
_FOUR = ("mlp_10k", "linear", "s2", "cubic")  # the four models of Section III-A and Fig. 3
_ALL = tuple((table, row) for table in ROWS for row in ROWS[table])
_SHORT_MLP, _LONG_MLP = "mlp_10k", {"table1": "mlp_100k", "table2": "mlp_50k"}
_OVERHEAD, _MEMORY_MB = 1.2, 1500
_TIME_SHARE, _RARE, _JUMP = 0.5, 0.05, 10.0
_DATA, _PINN, _DISCUSSION, _OURS = (
    "Section III-A", "Section III-B", "Section IV", "this repository",
)  # fmt: skip


def _others(table: str, *rows: str) -> list[str]:
    return [row for row in ROWS[table] if row not in rows]


def _one(row: str, column: str = "mse_u") -> Quantity:
    return relative("table1", row, column)


def _two(row: str, region: str = "everywhere") -> Quantity:
    return relative("table2", row, region=region)  # type: ignore[arg-type]


def _reaches_paper(row: str) -> tuple[Part, ...]:
    return tuple(
        at_most(over_paper(table, row, column, "cubic"), 1.0) for table, column in _PRINTED
    )


# fmt: off
STATEMENTS = (
    Statement(
        _DATA, "all four methods approximate the target function values",
        "MSE of u accurate for MLP, Linear, S2 and Cubic",
        tuple(at_most(_one(row), ACCURATE) for row in _FOUR)),
    Statement(
        _DATA, "only the MLP and Cubic predict the first and second derivatives accurately",
        "MLP and Cubic are accurate in u_x and u_xx, Linear and S2 are not accurate in u_xx",
        (*(at_most(_one(row, c), ACCURATE) for row in ("mlp_10k", "cubic") for c in _MSE[1:]),
         *(above(_one(row, "mse_uxx"), ACCURATE) for row in ("linear", "s2")))),
    Statement(
        _DATA,
        "Linear predicts the function values well but cannot learn second derivatives at all",
        "accurate in u, no skill in u_xx",
        (at_most(_one("linear"), ACCURATE), above(_one("linear", "mse_uxx"), NO_SKILL))),
    Statement(
        _DATA, "S2 approximates the shape of the derivative values",
        "skill in u_x and in u_xx",
        tuple(at_most(_one("s2", column), NO_SKILL) for column in _MSE[1:])),
    Statement(
        _DATA, "S2 introduces undesirable fluctuations, its error is the largest of all",
        "largest MSE of u_x and of u_xx among MLP, Linear, S2 and Cubic",
        tuple(lower(error("table1", row, column), error("table1", "s2", column))
              for column in _MSE[1:] for row in _FOUR if row != "s2")),
    Statement(
        "Table I", "S2's second derivative is worse than predicting 0",
        "MSE of u_xx above the zero predictor's",
        (above(_one("s2", "mse_uxx"), 1.0),)),
    Statement(
        _DATA, "Cubic uses the fewest epochs to reach the best accuracy on all predictions",
        "smaller MSE of u, u_x and u_xx than every other row, with a smaller budget",
        (*(lower(error("table1", "cubic", column), error("table1", row, column))
           for column in _MSE for row in _others("table1", "cubic")),
         *(above(epochs_over("table1", row, "cubic"), 1.0) for row in _others("table1", "cubic")))),
    Statement(
        "Table I", "SIREN's row being identical to FF's is a copying slip",
        "ours differ, either way, in some MSE that the paper prints",
        tuple(lower(error("table1", a, column), error("table1", b, column))
              for column in _MSE for a, b in (("siren", "ff"), ("ff", "siren"))),
        combine="any"),
    Statement(
        _PINN, f"all models have small errors where labels are known (x <= {LABELS_END})",
        "MSE of u accurate there for every row",
        tuple(at_most(_two(row, "labelled"), ACCURATE) for row in ROWS["table2"])),
    Statement(
        _PINN, f"predictions vary widely in the unknown region (x > {LABELS_END})",
        "some row's MSE of u there is two decades below Linear's",
        tuple(lower(_two(row, "unknown"), _two("linear", "unknown"), 100.0)
              for row in _others("table2", "linear")),
        combine="any"),
    Statement(
        _PINN, "Linear fails completely in the unknown region",
        f"no skill in u for x > {LABELS_END}",
        (above(_two("linear", "unknown"), NO_SKILL),)),
    Statement(
        _PINN, "smoothstep and cubic interpolation do not suffer from this",
        f"S2 and Cubic have skill in u for x > {LABELS_END}",
        tuple(at_most(_two(row, "unknown"), NO_SKILL) for row in ("s2", "cubic"))),
    Statement(
        "Table II", "SIREN and Linear have no skill",
        "no skill in u over the whole domain",
        tuple(above(_two(row), NO_SKILL) for row in ("siren", "linear"))),
    Statement(
        _PINN, "Cubic's error decreases fastest with a limited number of epochs",
        "smaller MSE of u than every other row at the end of Cubic's budget",
        tuple(lower(at_budget_of("table2", "cubic", "cubic"), at_budget_of("table2", row, "cubic"))
              for row in _others("table2", "cubic"))),
    Statement(
        _PINN, "in training time, Cubic's advantage over the MLP is no longer evident",
        "within Cubic's train seconds the MLP's MSE of u is below ten times Cubic's",
        (lower(in_time_of("table2", "mlp_50k", "cubic"), error("table2", "cubic"), 0.1),)),
    Statement(
        "Table II", "given 50k epochs the MLP is more accurate than Cubic at 3k",
        "smaller MSE of u",
        (lower(error("table2", "mlp_50k"), error("table2", "cubic")),)),
    Statement(
        _DISCUSSION, "the performance of smoothstep interpolation is quite limited",
        "ten times Cubic's MSE is below S2's in every MSE the paper prints",
        tuple(lower(error(table, "cubic", column), error(table, "s2", column), 10.0)
              for table, column in _PRINTED)),
    Statement(
        _DISCUSSION, "Cubic can reach high accuracy with relatively few epochs in both tasks",
        "accurate in u, and better there than every row with up to 10k epochs, in both tables",
        (*(at_most(relative(table, "cubic"), ACCURATE) for table in ROWS),
         *(lower(error(table, "cubic"), error(table, row))
           for table in ROWS for row in _others(table, "cubic", _LONG_MLP[table])))),
    Statement(
        _DISCUSSION, "cubic interpolation has a high computational complexity",
        "more than twice the MLP's train seconds per epoch in both tasks",
        tuple(above(step_over(table, "cubic", table, _SHORT_MLP), 2.0) for table in ROWS)),
    Statement(
        _DISCUSSION, "embedding the physics increases Cubic's training overhead significantly",
        f"more than {_OVERHEAD} times the train seconds per epoch of the data-driven task",
        (above(step_over("table2", "cubic", "table1", "cubic"), _OVERHEAD),)),
    Statement(
        _OURS, "Cubic is at or past every error of the paper's cubic rows",
        "ours <= the paper's in every MSE it prints", _reaches_paper("cubic")),
    Statement(
        _OURS, "so is Cubic with the preset `best`",
        "ours <= the paper's in every MSE it prints", _reaches_paper("cubic_best")),
    Statement(
        _OURS, "at equal seconds the preset `compact` is more accurate than `best`",
        "smaller MSE of u within the train seconds of Cubic (best), in both tables",
        tuple(lower(in_time_of(table, "cubic_compact", "cubic_best"), error(table, "cubic_best"))
              for table in ROWS)),
    Statement(
        _OURS, "every row is within a decade of the paper's errors, or better",
        "ours <= ten times the paper's in every MSE and loss it prints",
        tuple(at_most(over_paper(table, row, column), 10.0)
              for table, column in (*_PRINTED, ("table2", "loss")) for row in ROWS[table])),
    Statement(
        _OURS, "every row's run fits into a small machine's memory",
        f"peak memory of every run <= {_MEMORY_MB} MB",
        tuple(at_most(peak_memory(*row), _MEMORY_MB) for row in _ALL)),
)
# fmt: on


# ------------------------------------------------------------------------------------- questions

Candidates = Iterator[tuple[str, str, tuple[Part, ...]]]
"""Of a question: a table, the finding in words, and what it is made of."""


@dataclass(frozen=True)
class Question:
    """What is asked of every row or pair of rows.

    Attributes:
        text: the finding, of rows in general.
        criterion: what was made of it.
        candidates: the rows it can be asked of.
    """

    text: str
    criterion: str
    candidates: Callable[[Evidence], Candidates]


@dataclass(frozen=True)
class Finding:
    """A question and what became of each of its candidates."""

    question: Question
    candidates: tuple[Claim, ...]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Those that the records point to."""
        return tuple(claim for claim in self.candidates if claim.points)


def find(evidence: Evidence, question: Question) -> Finding:
    """Ask a question; see the module."""
    statements = [
        Statement(TITLES[table], text, "", parts)
        for table, text, parts in question.candidates(evidence)
    ]
    return Finding(question, tuple(judge(statements, evidence)))


def _below_printed(evidence: Evidence) -> Candidates:
    for table, column in (*_PRINTED, ("table2", "loss")):
        for row in ROWS[table]:
            printed = format_value(column, evidence.line(table, row)[f"paper_{column}"])
            text = f"{metric(column).quantity} of {evidence.name(table, row)}, printed {printed}"
            yield table, text, (at_most(over_paper(table, row, column), 0.1),)


def _other_order(evidence: Evidence) -> Candidates:
    for table, column in _PRINTED:
        for a, b in permutations(ROWS[table], 2):
            first, second = (evidence.line(table, row)[f"paper_{column}"] for row in (a, b))
            if first < second:
                better, worse = evidence.name(table, b), evidence.name(table, a)
                text = f"{metric(column).quantity}: {better} before {worse}"
                yield table, text, (lower(error(table, b, column), error(table, a, column)),)


def _cheaper_steps(evidence: Evidence) -> Candidates:
    def step(row: str) -> float:
        line = evidence.line(table, row)
        return line["paper_train_seconds"] / line["paper_epochs"]

    for table in ROWS:
        for row in _others(table, _SHORT_MLP, _LONG_MLP[table]):
            printed = step(row) / step(_SHORT_MLP)
            text = f"{evidence.name(table, row)}, printed {printed:.1f}"
            yield table, text, (at_most(step_over(table, row, table, _SHORT_MLP), printed / 2),)


def _less_time(evidence: Evidence) -> Candidates:
    def timed(row: str) -> str:
        name = evidence.name(table, row)
        try:
            return f"{name} ({evidence.seconds(table, row):.1f} s)"
        except MissingError:
            return name

    for table, mlp in _LONG_MLP.items():
        for row in evidence.rows(table):
            if row not in (_SHORT_MLP, mlp):
                part = lower(in_time_of(table, row, mlp, _TIME_SHARE), error(table, mlp))
                yield table, f"{timed(row)} against {timed(mlp)}", (part,)


def _two_outcomes(evidence: Evidence) -> Candidates:
    for table in ROWS:
        for row in evidence.rows(table):
            solved = relative(table, row)
            parts = at_most(solved, ACCURATE, _RARE), above(solved, ACCURATE, _RARE)
            yield table, evidence.name(table, row), parts


def _jumping_losses(evidence: Evidence) -> Candidates:
    for table in ROWS:
        for row in evidence.rows(table):
            yield table, evidence.name(table, row), (above(loss_jump(table, row), _JUMP),)


# fmt: off
QUESTIONS = (
    Question("printed errors that ours are a decade or more below",
             "ours <= a tenth of the printed MSE or loss", _below_printed),
    Question("pairs of rows that the paper prints in the other order",
             "smaller MSE where the printed one is larger", _other_order),
    Question("steps that cost less than half of what is printed, in steps of the MLP",
             "train seconds per epoch over those of MLP 10k at most half the printed ratio",
             _cheaper_steps),
    Question("rows that pass the longest-trained MLP in half its train seconds",
             f"MSE of u within {_TIME_SHARE:.0%} of its train seconds below the MLP's last",
             _less_time),
    Question("rows whose seeds end in two ways, of which one run prints one",
             f"MSE of u accurate on more than {_RARE:.0%} of seeds, and not accurate on more than "
             "that", _two_outcomes),
    Question("rows whose loss jumps, so that the last step's is a matter of chance",
             f"in the second half of training some loss is more than {_JUMP:g} times that of a "
             "neighbouring evaluation", _jumping_losses),
)
# fmt: on
