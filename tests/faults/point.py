"""One point: a command that is disturbed at one file operation, and the checks afterwards."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffhash.experiment import workers
from diffhash.experiment.restore import restore
from diffhash.results.record import RunRecord, read_history, read_predictions, read_record
from diffhash.training import FieldTraining
from diffhash.training.solution import Solution
from tests.faults import shim as modes
from tests.faults.forked import Ended, call, telling_line
from tests.faults.scenarios import ROOT, Command, Scenario
from tests.faults.shim import Operation, Shim

_FILES = ("result.json", "config.yaml", "history.csv", "predictions.csv", "checkpoint.ckpt")
_PATIENCE = 60.0  # seconds of a command
_FOREIGN = ("runs/notes.txt", "runs/a.txt")  # a user's files beside the records


@dataclass
class CommandResult:
    """The end of a command; ``steps`` is its number of training steps if it was not killed."""

    ended: Ended
    steps: int
    operations: list[Operation]
    fired: int

    @property
    def code(self) -> int:
        return self.ended.code

    @property
    def err(self) -> str:
        return self.ended.err


@dataclass
class Faults:
    """The faults found at a point, as sentences by kind."""

    lost: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(asdict(self).values())


class Laboratory:
    """Runs commands in forked processes, below a folder of its own for each point."""

    def __init__(self, work: Path, shim: Shim) -> None:
        self._work, self._shim = work, shim

    # ------------------------------------------------------------------------------- scenarios

    def _template(self, scenario: Scenario) -> Path:
        return self._work / "before" / scenario.name

    def _undisturbed(self, scenario: Scenario) -> Path:
        return self._work / "undisturbed" / scenario.name

    def prepare(self, scenario: Scenario) -> list[Operation]:
        """Make the files that exist before the command, run it undisturbed, and return its
        operations.

        Raises:
            RuntimeError: a command fails without a disturbance.
        """
        template, undisturbed = self._template(scenario), self._undisturbed(scenario)
        (template / "runs").mkdir(parents=True)
        for name in _FOREIGN:
            (template / name).write_text("the user's own\n")
        for command in scenario.before:
            self._succeed(command, template)
        scenario.arrange(template)
        shutil.copytree(template, undisturbed)
        outcome = self._succeed(scenario.command, undisturbed)
        for final in scenario.finals:
            if reason := _incomplete(undisturbed / final):
                raise RuntimeError(f"{scenario.name}, undisturbed: {reason}")
        return outcome.operations

    def _succeed(self, command: Command, root: Path) -> CommandResult:
        outcome = self._run(command, root)
        if outcome.code:
            raise RuntimeError(f"{' '.join(command)}: exit code {outcome.code}: {outcome.err}")
        return outcome

    # ------------------------------------------------------------------------------- one point

    def try_point(self, scenario: Scenario, mode: int, at: int, error: int) -> dict[str, Any]:
        """Disturb the command at its operation ``at``, and return the faults found."""
        root = Path(tempfile.mkdtemp(dir=self._work))
        faults = Faults()
        try:
            shutil.copytree(self._template(scenario), root, dirs_exist_ok=True)
            outcome = self._run(scenario.command, root, mode, at, error)
            self._after(scenario, root, outcome, mode, faults)
            self._again(scenario, root, faults)
        except Exception:  # of the checks themselves
            faults.crashes.append(traceback.format_exc())
        finally:
            if not os.environ.get("FAULTS_KEEP"):
                shutil.rmtree(root)
        operation = outcome.operations[at - 1] if len(outcome.operations) >= at else None
        return {
            "operation": str(operation),
            "reached": outcome.fired > 0,
            "faults": asdict(faults),
            "kept": str(root),
        }

    def _after(
        self, scenario: Scenario, root: Path, outcome: CommandResult, mode: int, faults: Faults
    ) -> None:
        """Check the state right after the disturbance."""
        killed = mode in (modes.KILL, modes.KILL_IN_WRITE)
        if outcome.ended.outlived:
            faults.crashes.append(f"{len(outcome.ended.outlived)} processes outlive the killed one")
        for final in scenario.finals:
            was = self._template(scenario) / final / "result.json"
            if reason := _incomplete(root / final):
                if (root / final / "result.json").exists():
                    faults.half.append(f"{final}: {reason}")
                elif was.exists():
                    faults.lost.append(f"{final}: neither the old record nor the new one")
            elif not any(
                (folder / final).exists() and _same(root / final, folder / final)
                for folder in (self._undisturbed(scenario), self._template(scenario))
            ):
                faults.wrong.append(f"{final}: a record of other results")
        self._others_are_intact(scenario, root, faults)
        if killed or not outcome.fired:
            if outcome.code not in (-signal.SIGKILL, 0, 1):
                faults.crashes.append(f"exit code {outcome.code}: {outcome.err[-300:]}")
            return
        self._judge_error(scenario, root, outcome, faults)

    def _judge_error(
        self, scenario: Scenario, root: Path, outcome: CommandResult, faults: Faults
    ) -> None:
        """Check that a failed operation is one error line, or a warning beside a whole record."""
        if "Traceback" in outcome.err:
            faults.tracebacks.append(telling_line(outcome.err))
        if outcome.code < 0 or outcome.code > 128:
            faults.crashes.append(f"exit code {outcome.code}: {telling_line(outcome.err)}")
        elif outcome.code == 0:
            for final in scenario.finals:
                if _incomplete(root / final) or not _same(
                    root / final, self._undisturbed(scenario) / final
                ):
                    faults.lost.append(f"{final}: not recorded, and yet the exit code is 0")
        elif not re.search(r"^(error|train\.py|reproduce_tables): .", outcome.err, re.MULTILINE):
            faults.tracebacks.append(f"no error line: {telling_line(outcome.err)}")

    def _others_are_intact(self, scenario: Scenario, root: Path, faults: Faults) -> None:
        """Check that files that the command does not replace are unchanged."""
        template = self._template(scenario)
        for path in template.rglob("*"):
            name = path.relative_to(template)
            if path.is_dir() or any(
                name.is_relative_to(final) or name.is_relative_to(final + ".partial")
                for final in scenario.finals
            ):
                continue
            if not (root / name).is_file() or (root / name).read_bytes() != path.read_bytes():
                faults.lost.append(f"{name}: not this command's, and gone or changed")

    def _again(self, scenario: Scenario, root: Path, faults: Faults) -> None:
        """Check that the same command then succeeds, with the records of an undisturbed one."""
        trained = all(
            _trained(root, final, self._undisturbed(scenario)) for final in scenario.finals
        )
        done = all(
            not _incomplete(root / final)
            and _same(root / final, self._undisturbed(scenario) / final)
            for final in scenario.finals
        )
        in_order = not any((root / final / ".unpublished").exists() for final in scenario.finals)
        outcome = self._run(scenario.command, root)
        if "Traceback" in outcome.err:
            faults.tracebacks.append(f"again: {telling_line(outcome.err)}")
        if outcome.code:
            faults.lost.append(f"again: exit code {outcome.code}: {telling_line(outcome.err)}")
            return
        # A run that is recorded and in order is finished: the same command makes it anew. So are
        # seeds that are all recorded.
        finished = done and (in_order or len(scenario.finals) > 1)
        if trained and outcome.steps and not finished:
            faults.lost.append(f"again: trains {outcome.steps} steps though training had finished")
        for final in scenario.finals:
            if reason := _incomplete(root / final):
                faults.half.append(f"again: {final}: {reason}")
            elif not _same(root / final, self._undisturbed(scenario) / final):
                faults.wrong.append(f"again: {final}: other results than of an undisturbed run")
        self._others_are_intact(scenario, root, faults)
        here, there = (_names(folder / "runs") for folder in (root, self._undisturbed(scenario)))
        left = here - there
        if scenario.name == "reproduction":
            # It leaves finished records alone, also one that is whole but for this mark, which the
            # next run there removes.
            left = {name for name in left if not name.endswith("/.unpublished")}
        if left:
            faults.half.append(f"again: leaves {', '.join(sorted(left))}")

    # ----------------------------------------------------------------------------- one command

    def _run(
        self, command: Command, root: Path, mode: int = modes.COUNT, at: int = 0, error: int = 0
    ) -> CommandResult:
        steps = self._work / f"{os.getpid()}.steps"
        steps.unlink(missing_ok=True)
        (root / "tmp").mkdir(exist_ok=True)
        with self._shim.counting():

            def run() -> None:
                os.chdir(root)
                os.environ["TMPDIR"] = str(root / "tmp")
                tempfile.tempdir = None
                count = count_steps()
                # Processes of the reproduction come from this one: the shim counts in them, too.
                workers.preloaded = lambda: multiprocessing.get_context("fork")  # type: ignore
                # Drawing takes longer than all else of a tiny run; writing the file does not.
                Solution.plot = lambda *_: Figure(figsize=(1, 1))  # type: ignore[method-assign]
                script = str(ROOT / command[0])
                sys.argv = [script, *command[1:]]
                self._shim.arm(root, mode, at, error)
                try:
                    runpy.run_path(script, run_name="__main__")
                finally:
                    steps.write_text(str(count[0]))

            ended = call(run, self._work / str(os.getpid()), _PATIENCE)
            count = int(steps.read_text()) if steps.exists() else 0
            return CommandResult(ended, count, self._shim.operations, self._shim.fired)


def count_steps() -> list[int]:
    """Count this process's training steps."""
    count = [0]
    step = FieldTraining.training_step

    def counted(self: FieldTraining, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return step(self, *args, **kwargs)

    FieldTraining.training_step = counted  # type: ignore[method-assign]
    return count


# ------------------------------------------------------------------------------------- records


def _incomplete(directory: Path) -> str | None:
    """The reason why there is no whole and consistent record; None if there is one."""
    files = [directory / name for name in _FILES]
    stats = [file.stat() if file.is_file() else None for file in files]
    return _flaw(directory, tuple(s and (s.st_ino, s.st_size, s.st_mtime_ns) for s in stats))


@lru_cache(maxsize=32)
def _flaw(directory: Path, state: tuple[Any, ...]) -> str | None:
    """The flaw of a record whose files are in ``state``; None if it has none."""
    try:
        record = read_record(directory)
        history, predictions = read_history(directory), read_predictions(directory)
        restored = restore(directory, len(predictions)).metrics()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    last = history.iloc[-1]
    error = float(np.mean((predictions["u"] - predictions["exact_u"]) ** 2))
    if int(last["epoch"]) != record.epochs:
        return f"history up to epoch {last['epoch']:.0f}, the record's is {record.epochs}"
    assert record.mse_u is not None
    if not np.allclose([last["mse_u"], error, restored["mse_u"]], record.mse_u, rtol=1e-3):
        return "history, predictions or checkpoint are not this record's"
    return None


def _same(one: Path, other: Path) -> bool:
    """Whether two whole records are of the same run, to the last bit."""
    a, b = (_facts(read_record(directory)) for directory in (one, other))
    histories = [
        pd.read_csv(d / "history.csv", dtype=str).drop(columns="seconds") for d in (one, other)
    ]
    predictions = [(d / "predictions.csv").read_bytes() for d in (one, other)]
    states = [_state(d / "checkpoint.ckpt") for d in (one, other)]
    return (
        a == b
        and histories[0].equals(histories[1])
        and predictions[0] == predictions[1]
        and states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    )


def _facts(record: RunRecord) -> tuple[Any, ...]:
    names = ("status", "seed", "epochs", "epochs_requested", "config_hash", "metrics")
    return tuple(getattr(record, name) for name in names)


def _state(checkpoint: Path) -> dict[str, Any]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if torch.is_tensor(value)}


def _trained(root: Path, final: str, undisturbed: Path) -> bool:
    """Whether the checkpoint of the finished training is there, published or not."""
    expected = torch.load(undisturbed / final / "checkpoint.ckpt", weights_only=True)
    for folder in (root / final, root / (final + ".partial")):
        try:
            found = torch.load(folder / "checkpoint.ckpt", weights_only=True)
            if found["diffhash"]["epochs_done"] == expected["diffhash"]["epochs_done"] and all(
                torch.equal(value, expected["state_dict"][name])
                for name, value in found["state_dict"].items()
                if torch.is_tensor(value)
            ):
                return True
        except Exception:  # none, or a part of one
            continue
    return False


def _names(root: Path) -> set[str]:
    """The names of all files below a folder, without the numbers of processes in them."""
    paths = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
    return {re.sub(r"\d{3,}", "N", str(path)) for path in paths}
