"""C files are compiled once on this machine, or give one clear error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffhash.native import CompilerError, compiled, compiler

SOURCES = Path(compiler.__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("DIFFHASH_CACHE", str(tmp_path / "cache"))
    compiled.cache_clear()
    yield tmp_path / "cache"
    compiled.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "answer.c"
    file.write_text("int answer(void) { return ANSWER; }\n")
    return file


def test_constants_are_compiled_in(source: Path) -> None:
    assert compiled(source, ANSWER=42).answer() == 42
    assert compiled(source, ANSWER=7).answer() == 7


def test_a_library_is_compiled_once_and_a_changed_source_anew(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(source, ANSWER=42)
    (library,) = cache.iterdir()
    before = library.stat().st_mtime_ns
    compiled.cache_clear()
    assert compiled(source, ANSWER=42).answer() == 42
    assert [file.stat().st_mtime_ns for file in cache.iterdir()] == [before]
    source.write_text("int answer(void) { return -ANSWER; }\n")
    compiled.cache_clear()
    assert compiled(source, ANSWER=42).answer() == -42


def test_the_compiler_that_cc_names_is_used_and_quoted_when_it_fails(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", f"{sys.executable} -c 'import sys; sys.exit(\"disk on fire\")'")
    with pytest.raises(CompilerError, match="disk on fire"):
        compiled(source, ANSWER=42)
    assert list(cache.iterdir()) == []


def test_no_compiler_at_all_is_said(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match="no C compiler here"):
        compiled(source, ANSWER=42)


def test_a_cache_that_cannot_be_written_is_said(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(CompilerError, match=r"cannot compile into .*cache"):
        compiled(source, ANSWER=42)


def own(folder: Path) -> Path:
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    return folder


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_cache_that_others_can_write_is_refused(source: Path, cache: Path, mode: int) -> None:
    own(cache).chmod(mode)
    with pytest.raises(CompilerError, match=r"writable by nobody else.*chmod go-w"):
        compiled(source, ANSWER=42)
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_a_cache_of_somebody_else_is_refused(source: Path, cache: Path) -> None:
    os.chown(own(cache), 54321, 54321)
    with pytest.raises(CompilerError, match="must belong to this user"):
        compiled(source, ANSWER=42)


def test_a_cache_is_made_for_its_user_alone(source: Path, cache: Path) -> None:
    before = os.umask(0o002)
    try:
        compiled(source, ANSWER=42)
    finally:
        os.umask(before)
    (library,) = cache.iterdir()
    assert [file.stat().st_mode & 0o777 for file in (cache, library)] == [0o700, 0o700]


def test_the_default_cache_is_tightened_and_what_others_could_change_in_it_made_anew(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DIFFHASH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled(source, ANSWER=42)
    folder = tmp_path / "diffhash"
    (library,) = folder.iterdir()
    library.chmod(0o770)
    folder.chmod(0o775)
    compiled.cache_clear()
    assert compiled(source, ANSWER=42).answer() == 42
    assert [file.stat().st_mode & 0o777 for file in (folder, library)] == [0o700, 0o700]


def test_a_damaged_library_is_noticed_and_made_anew(source: Path, cache: Path) -> None:
    compiled(source, ANSWER=42)
    (library,) = cache.iterdir()
    good = library.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content in (b"", good[: len(good) // 2], good[:-1], flipped, b"not a library" * 1000):
        library.unlink()  # the file that is loaded stays as it is
        library.write_bytes(content)
        library.chmod(0o700)
        compiled.cache_clear()
        assert compiled(source, ANSWER=42).answer() == 42
        assert library.read_bytes() == good


def test_a_home_is_not_needed(source: Path, tmp_path: Path) -> None:
    """Some containers have neither HOME nor an entry of the user in the table of users."""
    code = (
        "import pathlib, pwd, warnings; from diffhash.native import compiled\n"
        "def missing(_): raise KeyError\n"
        "pwd.getpwuid = missing\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    source = pathlib.Path({str(source)!r})\n"
        "    answers = [compiled(source, ANSWER=n).answer() for n in (1, 2)]\n"
        "print(answers, [str(w.message).split(':')[0] for w in caught])"
    )
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(SOURCES)}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    said = "kernels are compiled anew in every process, which takes seconds"
    assert child.stdout == f"[1, 2] ['{said}']\n", child.stderr
    assert not list(tmp_path.glob("diffhash-*"))


def test_sources_are_read_as_utf_8_whatever_the_locale(source: Path, cache: Path) -> None:
    source.write_text("/* ∂u/∂x */ int answer(void) { return ANSWER; }\n", encoding="utf-8")
    code = (
        "import pathlib; from diffhash.native import compiled\n"
        f"print(compiled(pathlib.Path({str(source)!r}), ANSWER=42).answer())"
    )
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **ascii_locale},
        capture_output=True,
        text=True,
    )
    assert child.stdout == "42\n", child.stderr


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("true", "made no library"),
        ("sh -c 'for last; do :; done; echo nonsense > \"$last\"' cc", "cannot load"),
        ("/nowhere/cc", "cannot compile into"),
        ("false", "failed: exit status 1"),
    ],
)
def test_a_compiler_that_does_not_do_its_work_is_said(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    monkeypatch.setenv("CC", does)
    with pytest.raises(CompilerError, match=said):
        compiled(source, ANSWER=42)
    assert list(cache.iterdir()) == []


def test_a_compiler_that_hangs_is_stopped_with_its_children_and_not_tried_again(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alive, hanging = tmp_path / "alive", tmp_path / "cc"
    hanging.write_text(f"#!/bin/sh\n(sleep 1; touch {alive}) & sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(compiler, "TIMEOUT", 0.3)
    monkeypatch.setenv("CC", str(hanging))
    begin = time.monotonic()
    for answer in (1, 2):
        with pytest.raises(CompilerError, match="did not finish"):
            compiled(source, ANSWER=answer)
    assert time.monotonic() - begin < 30
    time.sleep(1.0)
    assert not alive.exists()


def test_every_kind_of_work_that_torch_takes_over_is_said_once(tmp_path: Path) -> None:
    code = (
        "import warnings, torch\n"
        "from diffhash import *\n"
        "from diffhash.training.adam import LeanAdam\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for dtype in (torch.float32, torch.float64):\n"
        "        e = GridEncoding(1, n_levels=2, seed=0, dtype=dtype)\n"
        "        for f in (MLP, SIREN):\n"
        "            Field(e, f(4, dtype=dtype), [(0, 1)]).jet(torch.rand(3, 1, dtype=dtype), 2)\n"
        "        p = torch.nn.Parameter(torch.zeros(2, dtype=dtype)); p.grad = torch.ones_like(p)\n"
        "        LeanAdam([p], captured=False).step()\n"
        "print(*sorted(str(w.message).split(':')[0] for w in caught), sep='\\n')"
    )
    environment = {**os.environ, "CC": "/nowhere/cc", "DIFFHASH_CACHE": str(tmp_path / "c")}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert child.stdout.splitlines() == [
        "Adam's steps are computed by torch, a few times slower",
        "grids are computed by torch, several times slower",
        "networks are computed by torch, several times slower",
    ], child.stderr
