"""The subcommands and their options.

``evaluate`` and ``export`` import the training code when they run, which takes seconds; ``list``
and ``compare`` do not need it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffhash._files import write_file_atomically
from diffhash.cli.command import left_out, os_error_line
from diffhash.cli.comparison import Ratio, compare
from diffhash.cli.output import (
    print_comparison,
    print_json,
    print_ratios,
    print_records,
    print_references,
)
from diffhash.cli.selection import Entry, SelectionError, find_entries, select, sort
from diffhash.results.formats import printable
from diffhash.results.record import RecordError, read_record

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from diffhash.experiment.restore import Restored

RUNS = Path("results/runs")
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}
_run = click.argument("run", type=click.Path(path_type=Path))
_trust = click.option(
    "--trust-code", is_flag=True,
    help="Let the config of RUN import and call any class or function that it names, such as a "
    "problem of your own. That is running a program: only for a record whose origin you know.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Group(click.Group):
    """Turns errors about records into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click ends quietly, as in `diffhash list | head`
            raise
        except (RecordError, SelectionError) as error:
            raise _refusal(str(error)) from error
        except OSError as error:
            raise _refusal(os_error_line(error)) from error


def run_app() -> int:
    """Run the command line, and return the exit code."""
    try:
        return int(app(prog_name="diffhash", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diffhash")
def app() -> None:
    """Train with `diffhash train KEY=VALUE …` (see `diffhash train --help`); browse, compare,
    evaluate and export the records of runs; list references."""


@app.command("list")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=RUNS)
@click.option(
    "--where", "-w", "filters", multiple=True, metavar="KEY=VALUE[,VALUE]",
    help="Only runs whose field or setting has one of these values, such as encoder=cubic,s2, "
    "optimizer=adam, seed=0, status=diverged, experiment='table2/*' or "
    "encoder.encoding.n_levels=9. Repeatable.",
)  # fmt: skip
@click.option("--sort", "key", metavar="KEY",
    help="Sort by a field or setting, such as mse_u or estimate.",
)  # fmt: skip
@click.option("--descending", is_flag=True, help="Sort the largest first.")
@click.option("--timings", is_flag=True, help="Also the short runs that time the tables' rows.")
@click.option("--json", "form", flag_value="json", help="Print every field as JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print every field as CSV.")
def list_(
    folder: Path, filters: tuple[str, ...], key: str | None, descending: bool, timings: bool,
    form: str | None,
) -> None:  # fmt: skip
    """List the records below FOLDER (results/runs)."""
    if not folder.is_dir():
        raise _refusal(f"{folder}: there is no such folder")
    report = left_out("diffhash")
    entries = select(find_entries(folder, report, timings=timings), filters, report)
    if key:
        entries = sort(entries, key, report, descending=descending)
    if form == "json":
        print_json([{"run": str(e.directory), **e.record.flat()} for e in entries])
    elif form == "csv":
        import pandas as pd  # slow to import, as in each function that needs it

        rows = [{"run": str(e.directory), **e.fields} for e in entries]
        frame = pd.DataFrame(rows).map(lambda v: printable(v) if isinstance(v, str) else v)
        frame.columns = [printable(str(name)) for name in frame.columns]
        click.echo(frame.to_csv(index=False), nl=False)
    elif entries:
        print_records(entries)
    else:
        click.echo("no records", err=True)


@app.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_json
def compare_(a: Path, b: Path, as_json: bool) -> None:
    """Compare the runs A and B: settings that differ, errors, costs, environment."""
    first, second = _entry(a), _entry(b)
    comparison = compare(first, second)
    if not as_json:
        print_comparison(first, second, comparison)
        return
    for part in ("metrics", "costs"):
        comparison[part] = {name: _plain(ratio) for name, ratio in comparison[part].items()}
    runs = [{"run": str(e.directory), "status": e.record.status} for e in (first, second)]
    print_json({"runs": runs, **comparison})


@app.command()
@_run
@click.option(
    "--points", type=click.IntRange(min=1), default=100_000, show_default=True,
    help="Points of the whole domain.",
)  # fmt: skip
@_trust
@_json
def evaluate(run: Path, points: int, trust_code: bool, as_json: bool) -> None:
    """Evaluate the checkpoint of RUN on another grid, beside what was recorded.

    The record is not altered. The loss, which is over the training points, does not depend on
    the grid.
    """
    entry = _entry(run)
    now = _restored(run, points, trust_code).metrics()
    recorded_points = entry.settings.get("trainer.evaluation_points")
    ratios = {
        name: Ratio(entry.fields.get(name), None if math.isnan(value) else value)
        for name, value in now.items()
    }
    if as_json:
        metrics = {name: _plain(ratio, "recorded", "now") for name, ratio in ratios.items()}
        grid = {"recorded": recorded_points, "now": points}
        print_json({"run": str(run), "points": grid, "metrics": metrics})
        return
    if all(ratio.a is None and ratio.b is None for ratio in ratios.values()):
        raise _refusal(
            f"{run}: problem={entry.record.problem} has no exact solution to measure errors "
            "against; `diffhash export` writes what the field predicts"
        )
    head = (f"recorded, {recorded_points} points", f"now, {points} points", "now / recorded")
    print_ratios(str(run), ratios, *head)


@app.command()
@_run
@click.option(
    "--points", type=click.IntRange(min=1), default=10_000, show_default=True,
    help="Points of the whole domain.",
)  # fmt: skip
@click.option(
    "--at", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Points of your own instead: a .csv or .parquet with a column for each axis of the "
    "problem, such as x and t, within the domain; other columns are not read.",
)  # fmt: skip
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (or replace): .csv or .parquet.",
)  # fmt: skip
@_trust
@click.pass_context
def export(
    ctx: click.Context, run: Path, points: int, at: Path | None, output: Path, trust_code: bool
) -> None:
    """Write what the checkpoint of RUN predicts on a grid, or at points of your own.

    Columns: the axes, such as x and t, the unknowns, and the derivatives that the problem reads, as
    u_xx; where the exact solution is known also the exact ones as exact_u, …, and the differences
    predicted - exact as error_u, ….
    """
    chosen = ctx.get_parameter_source("points") is not ParameterSource.DEFAULT
    if at is not None and chosen:
        raise click.UsageError("--at and --points: give one of them")
    _check_output(run, output)
    _entry(run)
    restored = _restored(run, points if at is None else 1, trust_code)
    frame = restored.predictions(None if at is None else _own_points(at, restored))
    exact = [name for name in frame if str(name).startswith("exact_")]
    if not restored.problem.has_solution:
        frame, exact = frame.drop(columns=exact), []
    for name in exact:
        value = str(name).removeprefix("exact_")
        frame[f"error_{value}"] = frame[value] - frame[name]
    try:
        write_file_atomically(output, lambda path: _WRITERS[output.suffix](frame, path))
    except OSError as error:
        raise _refusal(
            f"--output {output}: cannot be written ({error.strerror or error})"
        ) from error
    click.echo(printable(f"{len(frame)} points, {len(frame.columns)} columns: {output}"))


@app.command()
@_json
def references(as_json: bool) -> None:
    """List how the exact solutions of the package's problems are known, and their errors.

    The error is relative, in L2: a score below it says nothing. After each method comes the
    difference between its own two finest resolutions.
    """
    from diffhash.problems import references

    found = references()
    if as_json:
        fields = ("error", "errors", "methods")
        print_json({name: {f: getattr(r, f) for f in fields} for name, r in found.items()})
    else:
        print_references(found)


def _refusal(message: str) -> click.ClickException:
    return click.ClickException(printable(message))


def _entry(run: Path) -> Entry:
    try:
        return Entry(run, read_record(run))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _refusal(
            f"{run}: no record of a run (`diffhash list` shows what there is)"
        ) from error


def _restored(run: Path, points: int, trust_code: bool) -> Restored:
    from diffhash.experiment.checks import ConfigError
    from diffhash.experiment.restore import restore

    try:
        return restore(run, points, trust_code=trust_code)
    except ConfigError as error:
        raise _refusal(str(error)) from error


def _own_points(path: Path, restored: Restored) -> Tensor:
    from diffhash.experiment.checks import ConfigError
    from diffhash.experiment.predictions import read_points

    if path.suffix == ".parquet":
        _check_pyarrow("--at", path)
    try:
        return read_points(path, restored.problem.domain)
    except ConfigError as error:
        raise _refusal(str(error)) from error


def _check_output(run: Path, output: Path) -> None:
    """Refuse an output of an unknown kind or within the record, before anything is computed."""
    if output.suffix not in _WRITERS:
        raise _refusal(f"--output {output}: give a name in {' or '.join(_WRITERS)}")
    if output.suffix == ".parquet":
        _check_pyarrow("--output", output)
    if os.path.realpath(output.parent) == os.path.realpath(run):
        raise _refusal(f"--output {output}: lies in the record, which is not altered")


def _check_pyarrow(option: str, path: Path) -> None:
    if not find_spec("pyarrow"):
        raise _refusal(
            f"{option} {path}: Parquet needs pyarrow (pip install 'diffhash[parquet]'); "
            "give a name in .csv"
        )


def _plain(ratio: Ratio, a: str = "a", b: str = "b") -> dict[str, float | None]:
    return {a: ratio.a, b: ratio.b, "ratio": ratio.ratio, "decades": ratio.decades}
