"""Solve every problem of the package by Gauss–Newton, and draw the solutions.

Pictures are written to docs/gallery, their errors to results.json there, and the page of both to
docs/gallery.md. An existing picture stays unless ``--again`` is given. ``--only`` selects the
problems whose names contain a text.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from PIL import Image

from diffhash import Field, GridEncoding, Linear, Problem, Solution, solve
from diffhash._files import write_file_atomically, write_text_atomically
from diffhash.optim import Task
from diffhash.problems import zoo
from diffhash.training.fields import problem_field

DOCS = Path(__file__).resolve().parent.parent / "docs"
MAX_BYTES = 60_000
SOLVED = 1e-2  # largest relative error of the unknowns and coefficients of a solved problem
_DPI = 75
_COLOURS = (256, 192, 128, 96, 64)  # the first number that keeps to MAX_BYTES is taken
_HEAD = """# Gallery

Every [problem of the package](reference/zoo.md), solved and drawn like this one:

```python
import diffhash as dh
from diffhash.problems import Heat1D

solution = dh.solve(Heat1D(), optimizer="gauss_newton", max_seconds=10)
solution.plot().savefig("heat1d.png")
```

Most have the default field, points and weights. These have others:
{own}.
They have splines of one grid and, some of them,
[windows of time](tutorials/encoding-and-optimizer.md). Numbers of cells, points and windows were
chosen by the widths of fronts and waves and by the estimated error, and a few by how many
coefficients a step can have in its time (`FIELDS` in `scripts/gallery.py`). Errors are relative L2
errors over the domain. Training does not see them, but they were printed beside the estimates
while these settings were chosen.
A problem counts as solved if they are at most {solved:.0%} for each unknown and coefficient:
{n_solved} of {n} are. The others are solved in [benchmarks](benchmarks.md), with other cells and
windows and in more time, as many of these are to more digits.

In the pictures, colours of errors are centred at 0, those of residuals are logarithmic, and what
lies outside the domain is white. Where a scale ends in an arrow, a few values lie beyond it.
`make gallery` draws the pictures that are missing.
"""
# Reasons why problems are not solved with these settings.
REASONS = {
    "cavity": "The pressure has a logarithm in the two corners below the lid, where splines of "
    "equal cells converge slowly; the velocity is solved.",
    "flow_mixing": "The vortex winds u up into layers that become thinner with time, for which "
    "the cells are too wide at the end.",
    "gray_scott": "The pulse of v starts just above the threshold of its ignition, and training "
    "finds another field with small residuals, in which the pulse dies out.",
    "inverse_burgers": "The viscosity acts only within the front, which is a few cells thin and "
    "holds few of the measured points; the speed is found.",
    "kuramoto_sivashinsky": "Waves grow from t = 0.4 on and turn chaotic, and errors grow as fast: "
    "the solution is lost from about t = 0.5 on.",
}


@dataclass(frozen=True)
class Setting:
    """The field, points and training time with which a problem is solved.

    Attributes:
        cells: the numbers of cells along the axes of a grid of splines; empty for the default
            field.
        interpolation: the interpolation of the grid.
        windows: the number of windows of time.
        n_residual: the number of points of each equation, about three for each coefficient of an
            unknown.
        n_boundary: the number of points of each other condition.
        seconds: the training time of each window, in seconds.
    """

    cells: tuple[int, ...] = ()
    interpolation: str = "septic"
    windows: int = 1
    n_residual: int = 8192
    n_boundary: int = 2048
    seconds: float = 10.0

    def solve(self, problem: Problem) -> Solution:
        """The solution of a problem by Gauss–Newton."""
        task = Task(n_residual=self.n_residual, n_boundary=self.n_boundary, wave_number=10.0)
        field = self._field(problem) if self.cells else None
        return solve(
            problem, field, task=task, optimizer="gauss_newton", windows=self.windows,
            max_seconds=self.seconds, progress=False,
        )  # fmt: skip

    def _field(self, problem: Problem) -> Field:
        axes, n_unknowns = problem.domain.axes, len(problem.unknowns)
        encoding = GridEncoding(
            problem.n_dims, 1, n_unknowns, log2_hashmap_size=24, base_resolution=self.cells,
            interpolation=self.interpolation, init_scale=0.0, dtype=torch.float64,
            periodic=[axes.index(axis) for axis in problem.periodic],
        )  # fmt: skip
        torch.manual_seed(0)
        return problem_field(problem, encoding, Linear(n_unknowns, n_unknowns, dtype=torch.float64))


DEFAULT = Setting()
# Steep fronts and short waves need more cells than the default grid has. Over three axes, fewer
# coefficients keep the time of a step short.
FIELDS = {
    "allen_cahn": Setting((128, 16), windows=4),
    "burgers1d": Setting((640, 3), windows=10, n_residual=20_000),
    "flow_mixing": Setting((24, 24, 3), "quintic", 6, n_residual=20_000, n_boundary=3000),
    "inverse_burgers": Setting((512, 12), n_residual=28_000, seconds=30),
    "inverse_heat_field": Setting((5, 5, 2), "quintic", n_residual=3000, n_boundary=600),
    "kdv_cosine": Setting((192, 4), windows=10, n_residual=7000, seconds=4),
    "kdv": Setting((96, 4), windows=10, n_residual=4000, seconds=4),
    "kuramoto_sivashinsky": Setting((128, 4), windows=20, n_residual=4500, seconds=2),
    "taylor_green": Setting((6, 6, 3), "quintic", 2, 4000, 800, seconds=45),
}


def main() -> int:
    """Parse the command line, solve, draw, write the page and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--only", default="", help="problems whose names have this in them")
    option("--again", action="store_true", help="also those that have a picture")
    option("--docs", type=Path, default=DOCS, help="the folder of the page")
    arguments = parser.parse_args()
    docs = arguments.docs
    for name, kind in zoo().items():
        path = docs / "gallery" / f"{name}.png"
        if arguments.only not in name or (path.is_file() and not arguments.again):
            continue
        start = time.perf_counter()
        solution = FIELDS.get(name, DEFAULT).solve(kind())
        content = _picture(solution)
        write_file_atomically(path, lambda file, content=content: file.write_bytes(content))
        results = read_results(docs) | {name: _result(solution)}
        text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
        write_text_atomically(docs / "gallery" / "results.json", text + "\n")
        seconds = time.perf_counter() - start
        print(f"{name}: {solution}, {seconds:.0f} s, {len(content)} bytes", file=sys.stderr)
    write_text_atomically(docs / "gallery.md", page(docs))
    return 0


def read_results(docs: Path) -> dict[str, dict[str, Any]]:
    """The method, training time and errors of each problem that has a picture."""
    path = docs / "gallery" / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _result(solution: Solution) -> dict[str, Any]:
    history = solution.history
    errors = dict(solution.relative_l2)
    errors |= {
        coefficient: history[column].iloc[-1]
        for coefficient, _ in solution.problem.named_parameters()
        if (column := f"error_{coefficient}") in history
    }
    return {
        "by": solution.method,
        "seconds": round(float(history["seconds"].iloc[-1]), 1),
        "errors": {name: float(f"{error:.2g}") for name, error in errors.items()},
    }


def is_solved(result: dict[str, Any]) -> bool:
    """Whether all errors are small; NaN is not."""
    return all(error <= SOLVED for error in result["errors"].values())


def page(docs: Path) -> str:
    """The page of the existing pictures, in Markdown."""
    results = read_results(docs)
    kinds = {name: kind for name, kind in zoo().items() if name in results}
    own = fill(", ".join(name for name in kinds if name in FIELDS), 100)
    n_solved = sum(map(is_solved, results.values()))
    head = _HEAD.format(own=own, solved=SOLVED, n_solved=n_solved, n=len(kinds))
    parts = [head]
    for name, kind in kinds.items():
        about = re.split(r"\n\n(?:Args|Raises|Needs)", getdoc(kind) or "")[0]
        result = results[name]
        errors = ", ".join(f"{key} {error:.1e}" for key, error in result["errors"].items())
        line = f"Relative error: {errors}; {result['by']}, {result['seconds']:.0f} s of training."
        if not is_solved(result):
            line = " ".join(filter(None, ("**Not solved.**", REASONS.get(name), line)))
        parts.append(f"## {name}\n\n{about}\n\n{line}\n\n![{name}](gallery/{name}.png)\n")
    return "\n".join(parts)


def _picture(solution: Solution) -> bytes:
    """The plot of a solution as a small PNG.

    Median cut would drop the colours of few pixels, which are those of large errors.
    """
    figure, drawn, content = solution.plot(), io.BytesIO(), b""
    figure.savefig(drawn, dpi=_DPI)
    image = Image.open(drawn).convert("RGB")
    for colours in _COLOURS:
        small = io.BytesIO()
        few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(small, "PNG", optimize=True)
        content = small.getvalue()
        if len(content) <= MAX_BYTES:
            break
    return content


if __name__ == "__main__":
    sys.exit(main())
