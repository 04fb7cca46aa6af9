"""Unfinished runs: the files that are kept, resumed runs, and files of others, which stay."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from diffhash.experiment import run as run_module
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.folder import FileError, RunFolder
from diffhash.experiment.run import run
from diffhash.results import find_records, read_history, read_record
from diffhash.training import FieldTraining, RegularCheckpoints
from diffhash.training.solution import Solution

Call = Callable[..., Any]
KILLED = 9


def die(*_: object, **__: object) -> None:
    os._exit(KILLED)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def killed(train: Call) -> Call:
    """``killed(owner, name, *overrides)``: train in a process that dies at the ``nth`` call of
    ``owner.name``; with ``of``, only calls count whose first argument is that file."""

    def end(owner: Any, name: str, *overrides: str, nth: int = 1, of: str | None = None) -> None:
        if (child := os.fork()) == 0:
            try:
                calls, real = 0, getattr(owner, name)

                def count(*arguments: Any, **options: Any) -> Any:
                    nonlocal calls
                    calls += of is None or Path(arguments[0]).name == of
                    return (die if calls == nth else real)(*arguments, **options)

                setattr(owner, name, count)
                train(*overrides)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED

    return end


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """``without_training()``: let every later step of training fail."""

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(FieldTraining, "training_step", refuse)


def assert_same(directory: Path, expected: Path) -> None:
    """Two folders have equal records, except for times."""
    assert names(directory) == names(expected)
    one, other = (read_history(d).drop(columns="seconds") for d in (directory, expected))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    one, other = (d / "predictions.csv" for d in (directory, expected))
    assert one.read_bytes() == other.read_bytes()
    one, other = (read_record(d) for d in (directory, expected))
    assert (one.status, one.epochs, one.loss) == (other.status, other.epochs, other.loss)


@pytest.mark.parametrize("settings", [(), ("trainer.learning_rate=1e30",)], ids=["", "diverged"])
def test_finished_training_is_recorded_without_training_again(
    train: Call, killed: Call, without_training: Call, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    whole, _ = train(*settings, f"run_dir={tmp_path}/whole")
    _, before = train("seed=5")
    places = {
        "evaluation": (FieldTraining, "on_train_end"),
        "rename": (os, "rename"),  # of the finished folder, which becomes the record
    }
    for name in places:
        killed(*places[name], *settings, f"run_dir={tmp_path}/{name}")
    # Over an earlier record, whose folder is locked before it is exchanged with the finished one.
    killed(fcntl, "flock", *settings, nth=2)
    assert find_records(tmp_path) == [(tmp_path / "run", before), (whole, read_record(whole))]
    without_training()
    for name in places:
        assert_same(train(*settings, f"run_dir={tmp_path}/{name}")[0], whole)
    assert_same(train(*settings)[0], whole)
    assert names(tmp_path) == {"run", "whole", *places}


def without_exchange(
    name: str | None, *arguments: Any, load: Any = ctypes.CDLL, **options: Any
) -> Any:
    """Load a library; the C library is loaded without ``renameat2``."""
    library = load(name, *arguments, **options)
    if name is None:
        library.__class__ = WithoutExchange
    return library


class WithoutExchange(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        if name == "renameat2":
            raise AttributeError(name)
        return super().__getattr__(name)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "rename"])
def test_an_exchange_of_records_that_was_cut_short(
    train: Call,
    killed: Call,
    without_training: Call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    exchanges: bool,
) -> None:
    """Nothing is lost, even where the file system cannot exchange two folders."""
    if not exchanges:
        monkeypatch.setattr(ctypes, "CDLL", without_exchange)
        train("seed=5", f"run_dir={tmp_path}/between")
        # The third renames the new folder; before it, the record and the old folder are renamed.
        killed(os, "rename", f"run_dir={tmp_path}/between", nth=2)
        assert names(tmp_path) == {"between.partial", "between.old.partial"}
    before, _ = train("seed=5")
    killed(os, "unlink", of="result.json")  # of the old record
    assert read_record(before).seed == 0
    assert [path for path, _ in find_records(tmp_path)] == [before]
    without_training()
    directory, record = train()
    assert record == read_record(directory)
    if not exchanges:
        train(f"run_dir={tmp_path}/between")
    assert names(tmp_path) == ({"run"} if exchanges else {"run", "between"})
    assert not (directory / ".unpublished").exists()


def test_a_killed_run_goes_on_and_another_one_leaves_it_alone(
    train: Call, killed: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(run_module, "CHUNKS_BETWEEN_CHECKPOINTS", 1)
    whole, _ = train(f"run_dir={tmp_path}/whole")
    killed(RegularCheckpoints, "on_train_epoch_end", nth=3)
    aside, partial = tmp_path / "run.aside-1.partial", tmp_path / "run.partial"
    left = (partial / "checkpoint.ckpt").read_bytes()

    other, _ = train("seed=1")
    assert f"is now {aside}" in capsys.readouterr().err
    assert (aside / "checkpoint.ckpt").read_bytes() == left
    assert [path for path, _ in find_records(tmp_path)] == [other, whole]

    aside.rename(partial)
    assert_same(train()[0], whole)
    assert f"going on from {partial}/checkpoint.ckpt" in capsys.readouterr().err
    assert names(tmp_path) == {"run", "whole"}


@pytest.mark.parametrize("nth", [1, 2])
def test_seeds_that_were_trained_to_their_end(
    tiny_config: Call, killed: Call, without_training: Call, tmp_path: Path, nth: int
) -> None:
    settings = ("seeds=[3,1]", "trainer.learning_rate=0.01")
    whole = run(tiny_config(*settings, f"run_dir={tmp_path}/whole"))
    killed(RunFolder, "publish", *settings, nth=nth)  # of two; the joint checkpoint is one of both
    assert len(find_records(tmp_path / "run")) == nth - 1
    without_training()
    for (directory, _), (expected, _) in zip(
        run(tiny_config(*settings, f"run_dir={tmp_path}/run")), whole, strict=True
    ):
        assert_same(directory, expected)
    assert names(tmp_path / "run") == {"seed1", "seed3"}


# ------------------------------------------------------------------- what is for the eye alone


@pytest.mark.usefixtures("real_figure")
def test_a_run_may_have_any_name(train: Call) -> None:
    directory, _ = train(r"name='$\frac{a $ {0} %s'")
    assert (directory / "predictions.png").exists()


def test_a_figure_that_fails_is_a_warning(
    train: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no\nfigure")

    monkeypatch.setattr(Solution, "plot", fails)
    directory, record = train()
    assert read_record(directory) == record
    assert "predictions.png" not in names(directory)
    expected = "warning: the run is recorded without its figure (RuntimeError: no figure)\n"
    assert capsys.readouterr().err.endswith(expected)


# --------------------------------------------------------------------------- files of others


def test_files_of_others_stay(train: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files stay under every name that a run uses, whenever they appear there."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds config\.yaml, but no record of a run"):
        train(f"run_dir={mine}")
    (mine / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"its record cannot be read .* give a folder, new"):
        train(f"run_dir={mine}")
    assert names(tmp_path) == {"mine"}

    for number, make in enumerate(
        (
            lambda partial: partial.symlink_to(mine),
            lambda partial: partial.write_text("mine"),
            lambda partial: (partial.mkdir(), (partial / "checkpoint.ckpt").write_text("mine")),
        ),
        start=1,
    ):
        make(tmp_path / "run.partial")
        train()
        assert names(tmp_path) == {
            *("mine", "run"),
            *(f"run.aside-{n}.partial" for n in range(1, number + 1)),
        }
    assert names(mine) == {"config.yaml", "result.json"}
    assert (tmp_path / "run.aside-1.partial").is_symlink()
    assert (tmp_path / "run.aside-2.partial").read_text() == "mine"
    assert (tmp_path / "run.aside-3.partial/checkpoint.ckpt").read_text() == "mine"

    def added_meanwhile(*arguments: Any) -> None:
        (tmp_path / "run/notes.md").write_text("mine")
        on_train_end(*arguments)

    on_train_end = FieldTraining.on_train_end
    monkeypatch.setattr(FieldTraining, "on_train_end", added_meanwhile)
    directory, record = train("seed=1")
    assert read_record(directory) == record
    assert (tmp_path / "run.aside-4.partial/notes.md").read_text() == "mine"
    assert (tmp_path / "run.aside-4.partial/checkpoint.ckpt").exists()


# ------------------------------------------------------------------------ what cannot be written


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_line_and_nothing_is_half(
    train: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    monkeypatch.setattr(run_module, "CHUNKS_BETWEEN_CHECKPOINTS", 1)
    directory, before = train()
    fsync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".ckpt") and calls > 5:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError) as caught:
            train("seed=1", "trainer.epochs=20")
    checkpoint = tmp_path / "run.partial/checkpoint.ckpt"
    assert str(caught.value) == (
        f"{checkpoint}: {os.strerror(code)}; what was trained stays, go on with resume={checkpoint}"
    )
    assert read_record(directory) == before
    assert not [name for name in names(checkpoint.parent) if ".tmp" in name]
    done = torch.load(checkpoint, weights_only=True)["diffhash"]["epochs_done"]
    assert 0 < done < 20
    assert train("seed=1", "trainer.epochs=20")[1].epochs == 20


def test_a_file_system_without_locks(
    train: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", absent)
    assert train()[1].status == "completed"
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err


def test_names_that_are_too_long(train: Call, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written \(File name too long\)$"):
        train(f"run_dir={tmp_path}/{'x' * 250}")
    with pytest.raises(ConfigError, match=r"cannot be read \(File name too long\)$"):
        train(f"run_dir={tmp_path}/{'x' * 300}")
    assert not list(tmp_path.iterdir())
