"""Seeded damage to the folder of a record: what disks, editors and strangers do to files."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = ("result.json", "config.yaml", "history.csv", "predictions.csv")
_COUNTS = ("seed", "epochs", "epochs_requested", "n_parameters", "diverged_epoch")
_REALS = ("learning_rate", "mse_u", "mse_ux", "mse_uxx", "loss", "train_seconds", "wall_seconds",
          "warmup_seconds", "evaluation_seconds", "peak_memory_mb")  # fmt: skip
_TEXTS = ("experiment", "encoder", "preset", "task", "problem", "status", "config_hash")
_ODD_NUMBERS = (-1, 0, -0.5, 10**40, 2**63, 1.5, True, None, "1", [], {}, 1e300, -1e300, 5e-324)
_ODD_TEXTS = (None, "", 7, ["x"], {"a": 1}, "\x1b[31mred\x1b[0m\x07", "a\nb\r\nc\td", "\ud800",
              "‮evil", "x" * 5000, "![i](http://example.org/i.png)", "<script>x</script>",
              r"\input{/etc/passwd} $x_{", "a|b|c", "../../x", "\0")  # fmt: skip
_YAML = (
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "a: &a {b: *a}\n",
    "[" * 100_000,
    "a: " + "{b: " * 500 + "1" + "}" * 500 + "\n",
    "a: !!python/object/apply:os.system ['false']\n",
    "- 1\n- 2\n",
    "text\n",
    "",
    "a: [\n",
    "\tx: 1\n",
    "a: 1\na: 2\n",
    "a: ${oc.env:HOME}\n",
    "a: ${\n",
    "? [1, 2]\n: 3\n",
    "1: 2\n",
    "a: " + "9" * 5000 + "\n",
    "a: .nan\nb: .inf\n",
    'a: "\\e[31m"\n',
    "a: 2020-01-01\nb: !!binary aGk=\nc: !!set {x}\n",
    "problem: {_target_: os.system, command: 'false'}\n",
    "a: b\n---\nc: d\n",
    "x: y\n" * 60_000,
)
_RAW_JSON = (
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 10_000,
    "null",
    "[]",
    "{}",
    '"text"',
    "{" * 3,
    "\ufeff{}",
    " " * 5_000_000,
)
_CELLS = ("", "nan", "inf", "-inf", "-1", "1e999", "9" * 5000, "x", '"', "1;2", "True", "0x10",
          "1_000", "1,5", " ", "\x1b[2J", "1+2j", "2020-01-01")  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One way to spoil a record; ``apply`` does it to a folder."""

    name: str
    apply: Callable[[Path], None]


def mutations(n: int, seed: int = 0) -> Iterator[Mutation]:
    """``n`` mutations, of all kinds equally often, the same for the same seed."""
    kinds = (_bytes, _special_file, _json_field, _json_text, _yaml, _csv_cell, _csv_shape)
    for index in range(n):
        rng = random.Random(f"{seed} {index}")
        kind = kinds[index % len(kinds)]
        yield kind(rng)


def _bytes(rng: random.Random) -> Mutation:
    file, what = rng.choice(FILES), rng.choice(("cut", "flip", "insert", "noise", "zeros", "twice"))
    state = rng.random()

    def apply(folder: Path) -> None:
        own = random.Random(state)
        data = bytearray((folder / file).read_bytes())
        place = own.randrange(len(data) + 1)
        if what == "cut":
            del data[place:]
        elif what == "flip":
            data[min(place, len(data) - 1)] ^= 1 << own.randrange(8)
        elif what == "insert":
            data[place:place] = own.randbytes(own.randrange(1, 20))
        elif what == "noise":
            data[:] = own.randbytes(own.randrange(1, 3000))
        elif what == "zeros":
            data[place:] = bytes(len(data) - place)
        else:
            data *= 2
        (folder / file).write_bytes(data)

    return Mutation(f"{file}: bytes {what}", apply)


def _special_file(rng: random.Random) -> Mutation:
    file = rng.choice(FILES)
    what = rng.choice(
        ("missing", "fifo", "folder", "loop", "nowhere", "socket", "locked", "device", "empty")
    )

    def apply(folder: Path) -> None:
        path = folder / file
        if what == "locked":
            path.chmod(0)
            return
        path.unlink()
        if what == "fifo":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "loop":
            path.symlink_to(path)
        elif what == "nowhere":
            path.symlink_to(folder / "nothing")
        elif what == "device":
            path.symlink_to("/dev/zero")
        elif what == "empty":
            path.touch()
        elif what == "socket":
            with socket.socket(socket.AF_UNIX) as one, suppress(OSError):  # too long a path
                one.bind(str(path))

    return Mutation(f"{file}: {what}", apply)


def _json_field(rng: random.Random) -> Mutation:
    field = rng.choice(
        (*_COUNTS, *_REALS, *_TEXTS, "overrides", "environment", "metrics", "schema_version")
    )
    odd: Any = rng.choice(_ODD_TEXTS if field in _TEXTS else (*_ODD_NUMBERS, *_ODD_TEXTS[:8]))
    what = rng.choice(("set", "set", "set", "remove", "rename", "nested"))

    def apply(folder: Path) -> None:
        content = json.loads((folder / "result.json").read_text())
        value = content.pop(field)
        if what == "set":
            content[field] = odd
        elif what == "rename":
            content[f"{field}_"] = value
        elif what == "nested":
            content[field] = value
            content["environment"] = {"deep": _nested(200), "odd": odd}
        (folder / "result.json").write_text(json.dumps(content))

    return Mutation(f"result.json: {what} {field} {odd!r:.40}", apply)


def _json_text(rng: random.Random) -> Mutation:
    raw = rng.choice((*_RAW_JSON, "number", "number", "twice", "twice"))
    field = rng.choice((*_COUNTS, *_REALS))
    number = rng.choice(("1e999", "-1e999", "NaN", "Infinity", "9" * 10_000, "1" + "0" * 400, "01"))

    def apply(folder: Path) -> None:
        path = folder / "result.json"
        content = json.loads(path.read_text())
        text = raw
        if raw == "number":
            text = json.dumps(content | {field: "@"}).replace('"@"', number)
        elif raw == "twice":
            text = f'{{"{field}": {number}, {json.dumps(content)[1:]}'
        path.write_text(text)

    return Mutation(f"result.json: {raw[:20]!r} {field} {number[:12]}", apply)


def _yaml(rng: random.Random) -> Mutation:
    text = rng.choice(_YAML)

    def apply(folder: Path) -> None:
        (folder / "config.yaml").write_text(text)

    return Mutation(f"config.yaml: {text[:40]!r}", apply)


def _csv_cell(rng: random.Random) -> Mutation:
    file, cell = rng.choice(FILES[2:]), rng.choice(_CELLS)
    place = rng.random(), rng.random()

    def apply(folder: Path) -> None:
        lines = (folder / file).read_text().splitlines()
        row = 1 + int(place[0] * (len(lines) - 1))
        cells = lines[row].split(",")
        cells[int(place[1] * len(cells))] = cell
        lines[row] = ",".join(cells)
        (folder / file).write_text("\n".join(lines) + "\n")

    return Mutation(f"{file}: cell {cell[:12]!r}", apply)


def _csv_shape(rng: random.Random) -> Mutation:
    file = rng.choice(FILES[2:])
    what = rng.choice(
        ("no column", "no header", "twice", "renamed", "extra", "no line", "short line",
         "long line", "reversed", "header alone", "no end")
    )  # fmt: skip
    place = rng.random()

    def apply(folder: Path) -> None:
        rows = [line.split(",") for line in (folder / file).read_text().splitlines()]
        column, row = int(place * len(rows[0])), 1 + int(place * (len(rows) - 1))
        if what == "no column":
            rows = [[*r[:column], *r[column + 1 :]] for r in rows]
        elif what == "no header":
            rows = rows[1:]
        elif what == "twice":
            rows = [[*r, r[column]] for r in rows]
        elif what == "renamed":
            rows[0][column] = "other"
        elif what == "extra":
            rows = [[*r, "loss_term" if index == 0 else "0.5"] for index, r in enumerate(rows)]
        elif what == "no line":
            del rows[row]
        elif what == "short line":
            rows[row].pop()
        elif what == "long line":
            rows[row].append("1")
        elif what == "reversed":
            rows[1:] = rows[:0:-1]
        elif what == "header alone":
            rows = rows[:1]
        text = "\n".join(map(",".join, rows))
        (folder / file).write_text(text if what == "no end" else text + "\n")

    return Mutation(f"{file}: {what}", apply)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def spoiled_copies(good: Path, target: Path, n: int, seed: int = 0) -> list[tuple[str, Path]]:
    """Copy a record ``n`` times, each with one mutation and a seed of its own.

    Returns:
        The mutations' names, and the folders ``<target>/seed<1000 + index>``.
    """
    made = []
    for index, mutation in enumerate(mutations(n, seed)):
        folder = target / f"seed{1000 + index}"
        shutil.copytree(good, folder)
        content = json.loads((folder / "result.json").read_text()) | {"seed": 1000 + index}
        (folder / "result.json").write_text(json.dumps(content))
        mutation.apply(folder)
        made.append((mutation.name, folder))
    return made
