"""Every setting that cannot be run is refused in one line, at once, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from diffhash.experiment.build import build
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import explained, one_line
from diffhash.experiment.schema import register
from tests.experiment.bad_settings import BY_HAND, Bad, bad_settings

TINY = ("encoder=mlp", "trainer.accelerator=cpu", "trainer.num_threads=1")


def refusal(root: Path, bad: Bad) -> str:
    """The message that ``train.py`` would print, without the ``error:`` in front."""
    first = [o for o in TINY if not any(p.startswith(o.split("=")[0] + "=") for p in bad.overrides)]
    overrides, configs = [*first, *bad.overrides], root / "configs"
    register()
    try:
        with initialize_config_dir(str(configs), version_base="1.3"):
            cfg = compose("train", overrides)
    except Exception as error:
        return explained(error, configs, overrides)
    with pytest.raises(ConfigError) as caught:
        build(cfg)
    return str(caught.value)


def failures(root: Path, cases: list[Bad]) -> list[Any]:
    wrong = []
    for bad in cases:
        try:
            line = refusal(root, bad)
        except BaseException as error:  # pytest's failure, or what would be a traceback
            wrong.append((bad.overrides, repr(error)[:300]))
            continue
        if "\n" in line or bad.word not in line or not line.strip() or len(line) > 600:
            wrong.append((bad.overrides, line))
    return wrong


def test_a_sample_of_bad_settings(root: Path) -> None:
    assert not failures(root, BY_HAND[::16])


def test_sizes_are_refused_before_anything_is_allocated(root: Path) -> None:
    huge = [bad for bad in BY_HAND if any("00000000" in one for one in bad.overrides)]
    assert not failures(root, huge[::3])


@pytest.mark.slow
def test_every_bad_setting(root: Path) -> None:
    assert not failures(root, bad_settings(500))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ValueError()", "ValueError in "),
        ("AssertionError()", "AssertionError in "),
        ("StopIteration()", "StopIteration in "),
        ("MemoryError()", "MemoryError in "),
        ("KeyError('x')", "KeyError 'x' in "),
        ("ValueError('a\\n  b')", "a b"),
    ],
)
def test_no_error_is_without_a_word(error: str, line: str) -> None:
    with pytest.raises(Exception) as caught:
        exec(f"raise {error}")
    assert one_line(caught.value).startswith(line)


def test_a_problem_that_refuses_without_a_word(
    tiny_config: Callable[..., Any], own_problem: Callable[[str], str]
) -> None:
    code = """
from diffhash.problems import Poisson1D

class Own(Poisson1D):
    def __init__(self):
        raise ValueError
"""
    with pytest.raises(ConfigError, match=r"^problem: ValueError in own_\w+\.py, line 6$"):
        build(tiny_config(own_problem(code), "problem=own"))
