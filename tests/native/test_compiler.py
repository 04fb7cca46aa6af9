"""C files become libraries once, on this machine, or one clear error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffhash.native import CompilerError, compiled


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
