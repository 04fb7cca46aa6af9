"""The fine print: in which environments the runs were made, and each run with its config."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffhash.paper.table import Table
from diffhash.results.formats import format_value
from diffhash.results.reading import plain_config
from diffhash.results.record import CONFIG_FILE, RunRecord

_COST = ("train_seconds", "wall_seconds", "peak_memory_mb")
# What differs between the runs of a row anyway.
_OWN = ("seed", "seeds", "run_dir", "runs_dir", "ckpt_path")


@dataclass(frozen=True)
class Environments:
    """The distinct environments beside each other.

    Attributes:
        heads: of each, how many runs it had, those that time rows among them.
        lines: what each is, by name.
    """

    heads: list[str]
    lines: dict[str, list[str]]


@dataclass(frozen=True)
class RowRuns:
    """The runs of a row: a line each, and their configs.

    Attributes:
        configs: YAML under the seeds that it is the config of, but for the seed; a row whose runs
            were made alike has one.
    """

    heading: str
    head: Sequence[str]
    lines: list[list[str]]
    configs: dict[str, str]


def environments(tables: Sequence[Table]) -> Environments:
    """The distinct environments of runs and timings, in order of appearance."""
    found = [record for table in tables for _, record in table.records]
    found += [timing.record for table in tables for timing in table.timings.values()]
    counted = Counter(json.dumps(record.environment) for record in found)
    several: list[dict[str, Any]] = [json.loads(key) for key in counted]
    names = dict.fromkeys(name for one in several for name in one)
    return Environments(
        [f"{n} run{'s' * (n > 1)}" for n in counted.values()],
        {name: [_text(one.get(name)) for one in several] for name in names},
    )


def row_runs(table: Table) -> list[RowRuns]:
    """The runs of a table, row by row.

    Raises:
        RecordError: a config is corrupt.
    """
    return [
        RowRuns(
            f"{table.number}, {table.labels[row]}",
            ("seed", "status", "epochs", *table.metrics, *_COST),
            [_line(record, table.metrics) for _, record in found],
            _configs(found),
        )
        for row in table.lines
        if (found := table.runs.get(row))
    ]


def _line(record: RunRecord, metrics: Sequence[str]) -> list[str]:
    end = "" if record.diverged_epoch is None else f" @ epoch {record.diverged_epoch}"
    return [
        str(record.seed),
        record.status + end,
        str(record.epochs),
        *(_number(name, record.metrics.get(name)) for name in metrics),
        f"{record.train_seconds:.1f}",
        f"{record.wall_seconds:.1f}",
        f"{record.peak_memory_mb:.0f}",
    ]


def _number(metric: str, value: float | None) -> str:
    return "–" if value is None else format_value(metric, value)


def _configs(found: Sequence[tuple[Path, RunRecord]]) -> dict[str, str]:
    seeds: dict[str, list[str]] = {}
    for directory, record in found:
        text = _config(directory / CONFIG_FILE)
        seeds.setdefault(text, []).append(str(record.seed))
    return {
        f"seed{'s' * (len(of) > 1)} {', '.join(of)}": text for text, of in seeds.items() if text
    }


def _config(path: Path) -> str:
    """The config without what tells the runs of a row apart; empty without a file."""
    try:
        settings = plain_config(path)
    except FileNotFoundError:
        return ""
    kept = {key: value for key, value in settings.items() if key not in _OWN}
    return yaml.safe_dump(kept, sort_keys=False)


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
