"""What our rows show that the paper denies or does not say.

Nothing is listed by hand: each question is put to every row, or pair of rows, that it can be put
to, and those are kept whose medians point that way. Since they are chosen by the data, each is
corrected (Holm) for all candidates of its question, those that were not kept included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

from diffhash.paper.claims.discussion import LOSS, PRINTED, ROWS
from diffhash.paper.claims.engine import Claim, Statement, judge
from diffhash.paper.claims.evidence import Evidence, MissingError
from diffhash.paper.claims.parts import Above, AtMost, Lower
from diffhash.paper.claims.quantities import (
    ACCURATE,
    Error,
    ErrorInTimeOf,
    LossJump,
    OverPaper,
    Relative,
    StepOver,
)
from diffhash.paper.printed import TITLES
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric

_LONGEST_MLP = {"table1": "mlp_100k", "table2": "mlp_50k"}
_SHORT_MLP = "mlp_10k"
_TIME_SHARE = 0.5
_RARE = 0.05
_JUMP = 10.0


@dataclass(frozen=True)
class Question:
    """What is asked of every row or pair of rows.

    Attributes:
        text: the finding, of rows in general.
        criterion: what was made of it.
        candidates: the rows it can be asked of, as statements.
    """

    text: str
    criterion: str
    candidates: Callable[[Evidence], Iterator[Statement]]


@dataclass(frozen=True)
class Finding:
    """A question and what became of each of its candidates."""

    question: Question
    candidates: tuple[Claim, ...]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Those that the records point to."""
        return tuple(claim for claim in self.candidates if claim.points)


def find(evidence: Evidence) -> list[Finding]:
    """Ask every question; see the module.

    Raises:
        RecordError: a corrupt history or predictions file.
    """
    return [
        Finding(question, tuple(judge(list(question.candidates(evidence)), evidence)))
        for question in QUESTIONS
    ]


def _below_printed(evidence: Evidence) -> Iterator[Statement]:
    for table, column in (*PRINTED, LOSS):
        for row in ROWS[table]:
            printed = format_value(column, evidence.printed(table, row, column))
            text = f"{metric(column).quantity} of {evidence.name(table, row)}, printed {printed}"
            part = AtMost(OverPaper(table, row, column), 0.1)
            yield Statement(TITLES[table], text, "", (part,))


def _other_order(evidence: Evidence) -> Iterator[Statement]:
    for table, column in PRINTED:
        for a, b in permutations(ROWS[table], 2):
            if evidence.printed(table, a, column) < evidence.printed(table, b, column):
                better, worse = evidence.name(table, b), evidence.name(table, a)
                text = f"{metric(column).quantity}: {better} before {worse}"
                part = Lower(Error(table, b, column), Error(table, a, column))
                yield Statement(TITLES[table], text, "", (part,))


def _cheaper_steps(evidence: Evidence) -> Iterator[Statement]:
    for table, rows in ROWS.items():
        for row in rows:
            if row not in (_SHORT_MLP, _LONGEST_MLP[table]):
                printed = _printed_step(evidence, table, row) / _printed_step(
                    evidence, table, _SHORT_MLP
                )
                text = f"{evidence.name(table, row)}, printed {printed:.1f}"
                part = AtMost(StepOver(table, row, table, _SHORT_MLP), printed / 2)
                yield Statement(TITLES[table], text, "", (part,))


def _printed_step(evidence: Evidence, table: str, row: str) -> float:
    return evidence.printed(table, row, "train_seconds") / evidence.printed(table, row, "epochs")


def _less_time(evidence: Evidence) -> Iterator[Statement]:
    for table in ROWS:
        mlp = _LONGEST_MLP[table]
        for row in evidence.rows(table):
            if row not in (_SHORT_MLP, mlp):
                text = f"{_timed(evidence, table, row)} against {_timed(evidence, table, mlp)}"
                part = Lower(ErrorInTimeOf(table, row, mlp, _TIME_SHARE), Error(table, mlp))
                yield Statement(TITLES[table], text, "", (part,))


def _timed(evidence: Evidence, table: str, row: str) -> str:
    try:
        seconds = f" ({evidence.seconds(table, row):.1f} s)"
    except MissingError:
        seconds = ""
    return evidence.name(table, row) + seconds


def _two_outcomes(evidence: Evidence) -> Iterator[Statement]:
    for table in ROWS:
        for row in evidence.rows(table):
            solved = Relative(table, row)
            parts = (AtMost(solved, ACCURATE, _RARE), Above(solved, ACCURATE, _RARE))
            yield Statement(TITLES[table], evidence.name(table, row), "", parts)


def _jumping_losses(evidence: Evidence) -> Iterator[Statement]:
    for table in ROWS:
        for row in evidence.rows(table):
            part = Above(LossJump(table, row), _JUMP)
            yield Statement(TITLES[table], evidence.name(table, row), "", (part,))


QUESTIONS = (
    Question(
        "printed errors that ours are a decade or more below",
        "ours <= a tenth of the printed MSE or loss",
        _below_printed,
    ),
    Question(
        "pairs of rows that the paper prints in the other order",
        "smaller MSE where the printed one is larger",
        _other_order,
    ),
    Question(
        "steps that cost less than half of what is printed, in steps of the MLP",
        "train seconds per epoch over those of MLP 10k at most half the printed ratio",
        _cheaper_steps,
    ),
    Question(
        "rows that pass the longest-trained MLP in half its train seconds",
        f"MSE of u within {_TIME_SHARE:.0%} of its train seconds below the MLP's last",
        _less_time,
    ),
    Question(
        "rows whose seeds end in two ways, of which one run prints one",
        f"MSE of u accurate on more than {_RARE:.0%} of seeds, and not accurate on more than that",
        _two_outcomes,
    ),
    Question(
        "rows whose loss jumps, so that the last step's is a matter of chance",
        f"in the second half of training some loss is more than {_JUMP:g} times that of a "
        "neighbouring evaluation",
        _jumping_losses,
    ),
)
