"""The README and the docs are true: their code runs, and their commands and links exist.

Blocks marked ``python`` run one after another, as one program; a block marked ``text`` after one is
its output, with ``...`` for any text. A block whose first line is a comment with the name of a file
is that file instead.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from diffhash.cli.app import app
from diffhash.experiment.composing import config_folder
from diffhash.experiment.schema import register

ROOT = Path(__file__).parent.parent
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
}
# (language, text) of each fenced block, in their order.
BLOCKS = {
    name: re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) for name, text in TEXTS.items()
}
WITH_CODE = [name for name, blocks in BLOCKS.items() if any(kind == "python" for kind, _ in blocks)]
SHELL = ("", "sh")
# Modules with examples in their docstrings; those of diffhash.geometry run in its own tests.
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    for path in sorted((ROOT / "src").glob("diffhash/**/*.py"))
    if "geometry" not in path.parts and ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_file(block: str) -> bool:
    """Write a block that is a file; return whether it is one."""
    match = re.match(r"# (\S+\.\w+)\n", block)
    if match:
        path = Path(match[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    return match is not None


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page: str, files: Path) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    printed: str | None = None
    for kind, block in BLOCKS[page]:
        if kind == "python" and not _write_file(block):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block, page, "exec", dont_inherit=True), namespace)
            printed = out.getvalue()
        elif kind == "text" and printed is not None:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert doctest.OutputChecker().check_output(block, printed, flags), printed
            printed = None


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_docstrings_run(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_points_to_exists(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXTS[page]):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).resolve().exists(), target


def _commands(page: str) -> list[list[str]]:
    """The words of each command in a shell, without comments and settings of variables."""
    text = "\n".join(block for kind, block in BLOCKS[page] if kind in SHELL)
    commands = []
    for line in text.replace("\\\n", "").splitlines():
        if match := re.match(r"(?:\w+=\S+ )*((?:make|python|diffhash) .*)", line):
            commands.append(shlex.split(match[1], comments=True))
    return commands


@pytest.mark.parametrize("page", TEXTS)
def test_the_commands_of_a_page_are_ones(page: str, files: Path) -> None:
    register()
    for kind, block in BLOCKS[page]:
        if kind in ("python", "yaml"):
            _write_file(block)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in _commands(page):
        match command:
            case ["make", *targets]:
                for target in (word for word in targets if "=" not in word):
                    assert re.search(rf"^{target}:", makefile, re.M), command
            case ["python", "train.py", *overrides] | ["diffhash", "train", *overrides]:
                given = [word for word in overrides if "=" in word]
                with initialize_config_dir(str(config_folder()), version_base="1.3"):
                    compose("train", _first(given))
            case ["diffhash", name, *words]:
                found = app.commands[name]
                found.make_parser(click.Context(found)).parse_args(words)
            case ["python", script, *_]:
                assert (ROOT / script).is_file(), command


def _first(overrides: list[str]) -> list[str]:
    """The overrides with the first choice of each sweep."""
    read = OverridesParser.create().parse_overrides(overrides)
    return [
        f"{o.key_or_group}={next(iter(o.sweep_string_iterator()))}"
        if o.is_sweep_override()
        else text
        for o, text in zip(read, overrides, strict=True)
    ]


def test_what_the_api_pages_name_exists() -> None:
    names = [n for text in TEXTS.values() for n in re.findall(r"^::: (\S+)$", text, re.M)]
    assert names
    for name in names:
        pkgutil.resolve_name(name)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs; `make docs` builds the site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()


def test_the_table_of_gauss_newton_is_what_was_measured() -> None:
    """Medians of each row of ``solvers.csv``."""
    measured = pd.read_csv(ROOT / "results/tables/solvers.csv").query("unknown == 'u'")
    rows = measured.groupby("row", sort=False)[["l2", "mse", "seconds", "estimate"]].median()
    printed = re.findall(
        r"^\|[^|]*\|[^|]*\| (\S+)(?: \(MSE (\S+)\))? \| (\d+) \| (\S+) \|$",
        TEXTS["docs/benchmarks.md"].partition("## Digits by Gauss–Newton")[2].partition("##")[0],
        re.M,
    )
    short = [f"{value:.1e}".replace("e-0", "e-") for value in rows.l2]
    rounded = {
        name: [f"{value:.0e}".replace("e-0", "e-") for value in rows[name]]
        for name in ("mse", "estimate")
    }
    expected = {
        (l2, f"{seconds:.0f}", estimate): mse
        for l2, seconds, estimate, mse in zip(
            short, rows.seconds, rounded["estimate"], rounded["mse"], strict=True
        )
    }
    assert {(l2, seconds, estimate) for l2, _, seconds, estimate in printed} == set(expected)
    for l2, mse, seconds, estimate in printed:
        assert mse in ("", expected[l2, seconds, estimate])
