"""Progress lines, and stopping when asked to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from torch import Tensor

from diffhash.jets import Jet
from diffhash.training import FieldTraining, GracefulStop, ProgressReport, callbacks

MakeTraining = Callable[..., FieldTraining]


def send_in_epoch(training: FieldTraining, signals: dict[int, int]) -> None:
    """Send this process ``signals[epoch]`` in that epoch."""
    rate = training.rate

    def sending(epoch: int) -> float:
        if epoch + 1 in signals:
            os.kill(os.getpid(), signals[epoch + 1])
        return rate(epoch)

    training.rate = sending  # type: ignore[method-assign]


def send(training: FieldTraining, signals: dict[int, int]) -> None:
    """Send this process ``signals[step]`` in that step of minibatches."""
    loss = training.objective.loss
    step = 0

    def sending(jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
        nonlocal step
        step += 1
        if step in signals:
            os.kill(os.getpid(), signals[step])
        return loss(jets, rows)

    training.objective.loss = sending  # type: ignore[method-assign]


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


@pytest.fixture(autouse=True)
def hangups_are_heard() -> Iterator[None]:
    """This also works under nohup, which leaves SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signum", STOPPING)
def test_a_signal_ends_training_after_the_epoch(
    make_training: MakeTraining,
    fit: Callable,
    capsys: pytest.CaptureFixture[str],
    signum: signal.Signals,
) -> None:
    before = [signal.getsignal(s) for s in STOPPING]
    training = make_training(epochs=50, chunk=10)
    send_in_epoch(training, {13: signum})
    with GracefulStop(training) as stop:
        fit(training, [stop])
    assert training.epochs_done == 13
    assert training.replicas[0].history[-1]["epoch"] == 13
    assert training.replicas[0].outcome is not None
    assert training.replicas[0].diverged_epoch is None
    assert "stopping after this epoch" in capsys.readouterr().err
    assert [signal.getsignal(s) for s in STOPPING] == before


def test_a_signal_before_the_first_step_waits_for_it(
    make_training: MakeTraining, fit: Callable
) -> None:
    training = make_training(epochs=50, chunk=10)
    configure = training.configure_optimizers

    def sending() -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return configure()

    training.configure_optimizers = sending  # type: ignore[method-assign]
    with GracefulStop(training) as stop:
        fit(training, [stop])
    assert training.epochs_done == 1
    assert training.replicas[0].outcome is not None


def test_what_nohup_has_ignored_stays_so(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(epochs=20, chunk=10)
    send_in_epoch(training, {13: signal.SIGHUP})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop(training) as stop:
            fit(training, [stop])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert training.epochs_done == 20


def test_an_epoch_of_minibatches_is_finished_first(
    make_training: MakeTraining, fit: Callable
) -> None:
    # With autograd, every step calls the loss of the objective: three steps an epoch.
    training = make_training(epochs=50, batch_size=4, derivatives="autograd")
    steps = []
    loss = training.objective.loss
    training.objective.loss = lambda *given: steps.append(given) or loss(*given)  # type: ignore
    send(training, {4: signal.SIGINT})
    with GracefulStop(training) as stop:
        fit(training, [stop])
    assert training.epochs_done == 2
    assert len(steps) == 2 * 3 + 1  # and the outcome's


def test_a_second_interrupt_ends_it_at_once(
    make_training: MakeTraining, fit: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    training = make_training(epochs=50, batch_size=1, derivatives="autograd")
    send(training, {13: signal.SIGINT, 14: signal.SIGINT})
    with pytest.raises(SystemExit) as caught, GracefulStop(training) as stop:
        fit(training, [stop])
    assert caught.value.code == 130
    assert training.replicas[0].outcome is None
    assert "nothing is recorded" in capsys.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_signals_besides_do_not_hurry_it(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(epochs=50, batch_size=1, derivatives="autograd")
    send(training, {11: signal.SIGTERM, 12: signal.SIGINT, 13: signal.SIGTERM})
    with GracefulStop(training) as stop:
        fit(training, [stop])
    assert training.epochs_done == 2  # ten steps an epoch
    assert training.replicas[0].outcome is not None


def test_progress_lines(
    make_training: MakeTraining,
    fit: Callable,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(0, 1000, 4))  # seconds
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(ticks))
    training = make_training(epochs=50, chunk=5)
    fit(training, [ProgressReport("a [title]")])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("a [title]: ")]
    assert [line.split()[2] for line in lines] == ["15/50", "30/50", "45/50", "50/50"]
    assert "loss" in lines[0] and "mse_u" in lines[0]
    assert "\x1b" not in captured.err  # no terminal, no escape codes
    assert captured.out == ""
