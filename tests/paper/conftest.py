"""Fake records of the paper's rows, and small real runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import run
from diffhash.experiment.workers import Command
from diffhash.paper import reproduce
from tests import composition
from tests.experiment.conftest import (  # noqa: F401
    blank_figure,
    command_line,
    config,
    root,
    start,
    tiny,
)
from tests.fake_runs import (  # noqa: F401
    _paper_runs,
    make_record,
    paper,
    paper_runs,
    run_script,
    write_run,
)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the jobs that were started; they run in this process, one after another."""
    titles: list[str] = []

    def run_here(commands: Sequence[Command], workers: int) -> list[Command]:
        failed = []
        for command in commands:
            titles.append(command.title)
            with suppress(ConfigError):
                run(composition.config(*command.arguments))
            if not command.succeeded():
                failed.append(command)
        return failed

    monkeypatch.setattr(reproduce, "run_side_by_side", run_here)
    return titles
