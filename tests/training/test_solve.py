"""`diffhash.solve`: a problem in, a solution out."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

import diffhash as dh
from diffhash.encodings import Identity
from diffhash.geometry import Box, Interval
from diffhash.jets import autograd_jet
from diffhash.optim import FirstOrder, GaussNewton, Task
from diffhash.problems import Derivatives, Heat1D, measured
from diffhash.problems.convection import Convection
from diffhash.training import UntrainedError
from diffhash.training.fields import default_field, problem_field
from diffhash.training.samplers import Resample
from diffhash.training.weightings import GradientNorm


class Rotation(dh.Problem):
    """u' = ω v, v' = -ω u, with ω to be found."""

    unknowns = ("u", "v")
    domain = Interval(t=(0, 1))

    def __init__(self) -> None:
        super().__init__()
        self.omega = dh.Coefficient(1.5, true=2.0)

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("motion", self.domain, self._motion), self.labels()]

    def _motion(self, x: Tensor, d: Derivatives) -> Tensor:
        return dh.stack(d.u_t - self.omega * d.v, d.v_t + self.omega * d.u)

    def solution(self, x: Tensor) -> Tensor:
        return dh.stack((2 * x[:, 0]).sin(), (2 * x[:, 0]).cos())


class Bump(dh.Problem):
    """A problem with u = 0 on the boundary by its ansatz."""

    domain = Box(x=(-1, 1), y=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy, "exact")]

    def ansatz(self, x: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        return 0 * x[:, 0], (1 - x[:, 0] ** 2) * x[:, 1] * (1 - x[:, 1])

    def solution(self, x: Tensor) -> Tensor:
        return (torch.pi * x).sin().prod(dim=1)


@pytest.fixture(scope="module")
def rotation() -> dh.Solution:
    problem = Rotation()
    torch.manual_seed(0)
    encoding = dh.GridEncoding(1, 3, 4, base_resolution=4, interpolation="quintic", init_scale=0.1)
    field = problem_field(problem, encoding, dh.MLP(12, 2, 16, 1))
    task = Task(n_residual=200, n_labels=20)
    return dh.solve(problem, field, task=task, epochs=600, learning_rate=1e-2, progress=False)


def test_it_finds_two_unknowns_and_a_coefficient(rotation: dh.Solution) -> None:
    assert rotation.diverged_epoch is None
    assert max(rotation.relative_l2.values()) < 5e-3
    assert rotation.metrics["omega"] == pytest.approx(2.0, rel=2e-2)
    t = torch.tensor([[0.25], [0.5]], dtype=torch.float64)
    torch.testing.assert_close(
        rotation(t).double(), rotation.problem.solution(t), rtol=0, atol=2e-2
    )
    v_t = rotation.jet(t, "v_t")["v_t"]
    torch.testing.assert_close(v_t.double(), -2 * (2 * t[:, 0]).sin(), rtol=0, atol=0.2)
    assert list(rotation.history["epoch"]) == [100.0, 200.0, 300.0, 400.0, 500.0, 600.0]


def test_printed_it_says_errors_and_coefficients(rotation: dh.Solution) -> None:
    text = repr(rotation)
    assert text.startswith(f"<Solution of {rotation.title}; ")
    assert f"u {rotation.relative_l2['u']:.1e}" in text
    assert text.endswith(" s>")
    for name, value in rotation.problem.named_parameters():
        assert f"{name} {value.item():.6g}" in text


def test_it_is_saved_loaded_and_exported(rotation: dh.Solution, tmp_path: Path) -> None:
    rotation.save(tmp_path / "solution.pt")
    problem = Rotation()
    encoding = dh.GridEncoding(1, 3, 4, base_resolution=4, interpolation="quintic")
    field = problem_field(problem, encoding, dh.MLP(12, 2, 16, 1))
    again = dh.Solution.load(tmp_path / "solution.pt", problem, field)
    t = torch.rand(5, 1, dtype=torch.float64)
    assert torch.equal(again(t), rotation(t))
    assert again.metrics == rotation.metrics
    assert dict(again.problem.named_parameters())["omega"].item() == rotation.metrics["omega"]
    assert problem.omega.item() == 1.5
    assert again.history.equals(rotation.history)
    rotation.export(tmp_path / "field.pt2")
    program = torch.export.load(tmp_path / "field.pt2").module()
    torch.testing.assert_close(program(t), rotation(t))
    (tmp_path / "other").write_text("no solution")
    with pytest.raises(ValueError, match=r"other: no file that Solution\.save has written$"):
        dh.Solution.load(tmp_path / "other", problem, field)
    with pytest.raises(ValueError, match="not a solution of this problem and field"):
        dh.Solution.load(tmp_path / "solution.pt", problem, default_field(problem))


def test_another_program_runs_what_was_exported(rotation: dh.Solution, tmp_path: Path) -> None:
    """It imports the operators, and nothing else of the package."""
    rotation.export(tmp_path / "field.pt2")
    code = (
        "import sys, torch, diffhash.ops.operators\n"
        "program = torch.export.load(sys.argv[1]).module()\n"
        "print(*program(torch.tensor([[0.5]], dtype=torch.float64)).flatten().tolist())\n"
        "assert 'diffhash.training' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "field.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    u, v = map(float, done.stdout.split())
    expected = rotation(torch.tensor([[0.5]], dtype=torch.float64))
    torch.testing.assert_close(torch.tensor([[u, v]], dtype=torch.float64), expected.double())


def test_an_ansatz_is_exact_on_the_boundary_and_trains() -> None:
    problem = Bump()
    network = dh.MLP(2, 1, 16, 2, dtype=torch.float64)
    field = problem_field(problem, Identity(2, dtype=torch.float64), network)
    task = Task(n_residual=256)
    before = dh.solve(problem, field, task=task, epochs=1, progress=False).metrics["l2_u"]
    solution = dh.solve(problem, field, task=task, epochs=200, learning_rate=1e-2, progress=False)
    assert solution.metrics["l2_u"] < before / 10
    edge = problem.domain.boundary().sample(50)
    assert solution(edge).abs().max() < 1e-15
    x = problem.domain.sample(20, seed=1)
    jet = solution.jet(x, ("u_xx", "u_xy"))
    truth = autograd_jet(solution.field, x, jet.rows)
    torch.testing.assert_close(jet.data, truth.data.detach(), rtol=1e-9, atol=1e-9)


class Ramp(dh.Problem):
    """A field with an ansatz."""

    domain = Box(x=(0, 1), t=(0, 1))

    def __init__(self, ansatz: Any, periodic: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.ansatz, self.periodic = ansatz, periodic

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_t)]


@pytest.mark.parametrize(
    ("ansatz", "message"),
    [
        (lambda x: (torch.as_tensor(x.detach().numpy()[:, 0] ** 2), x[:, 1]), "its g varies"),
        (lambda x: (x[:, 0], x[:, 1].detach() ** 2), "its φ varies with x where autograd"),
        (lambda x: (np.sin(x[:, 0]), x[:, 1]), "ansatz cannot be computed at .*torch operations"),
    ],
)
def test_an_ansatz_that_autograd_cannot_follow_is_refused(ansatz: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dh.solve(Ramp(ansatz), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("g", "fits"),
    [
        (lambda x: x[:, 0] ** 2, False),
        (lambda x: x[:, 0] * (1 - x[:, 0]), False),  # its slope differs
        (lambda x: (2 * torch.pi * x[:, 0]).sin(), True),
        (lambda x: 0 * x[:, 0] + 3, True),
    ],
)
def test_an_ansatz_has_the_periods_of_the_field(g: Any, fits: bool) -> None:
    problem = Ramp(lambda x: (g(x), x[:, 1]), periodic=("x",))
    if fits:
        dh.solve(problem, epochs=1, progress=False)
    else:
        with pytest.raises(ValueError, match=r"ansatz: .* differs between the two sides across x"):
            dh.solve(problem, epochs=1, progress=False)


def test_a_solution_keeps_its_field_when_training_goes_on_from_it() -> None:
    problem = Bump()
    first = dh.solve(problem, epochs=2, progress=False)
    assert isinstance(first.field, dh.Field)
    x = problem.domain.sample(5)
    before = first(x)
    second = dh.solve(problem, first.field, epochs=2, progress=False)
    assert torch.equal(first(x), before) and not torch.equal(second(x), before)


def test_divergence_and_interruption_are_warned_of(tmp_path: Path) -> None:
    class Root(Bump):
        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx - d.u.sqrt())]

    with pytest.warns(UserWarning, match="Root: .*; diverged at epoch 1$"):
        dh.solve(Root(), epochs=2, progress=False)

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            pl_module.stop_requested = True

    with pytest.warns(UserWarning, match="Bump: .*, interrupted") as told:
        solution = dh.solve(Bump(), epochs=300, callbacks=[Interrupt()], progress=False)
    assert told[0].filename == __file__  # and no line of the package
    assert solution.interrupted and solution.history.epoch.iloc[-1] < 300
    solution.save(tmp_path / "part.pt")
    assert dh.Solution.load(tmp_path / "part.pt", Bump()).interrupted
    with pytest.raises(
        ValueError, match="it is a solution of Bump; give that instead of Convection"
    ):
        dh.Solution.load(tmp_path / "part.pt", Convection())


def test_sigterm_ends_the_program_before_other_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Terminate(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.warns(UserWarning, match="interrupted"):
        solution = dh.solve(Bump(), epochs=300, callbacks=[Terminate()], progress=False)
    assert solution.interrupted
    with pytest.raises(SystemExit, match="143"):
        dh.solve(Bump(), epochs=2, progress=False)
    assert capsys.readouterr().err.endswith("terminated: no other training is started\n")
    assert not dh.solve(Bump(), epochs=2, progress=False).interrupted


def test_an_exact_solution_that_does_not_fit_is_warned_of() -> None:
    class Other(Heat1D):
        def solution(self, x: Tensor) -> Tensor:
            return 2 * super().solution(x)

    class Open(Heat1D):
        def conditions(self) -> list[dh.Condition]:
            return [c for c in super().conditions() if c.name != "start"]

    for problem in (Other(), Open()):
        with pytest.warns(UserWarning, match="differs from the exact solution by .*: either"):
            dh.solve(problem, optimizer="gauss_newton", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dh.solve(Heat1D(), optimizer="gauss_newton", progress=False)


@pytest.mark.parametrize(("start", "warns"), [(40.0, True), (1.5, False)])
def test_a_coefficient_that_changes_the_size_of_an_equation_is_warned_of(
    start: float, warns: bool
) -> None:
    problem = Rotation()
    problem.omega = dh.Coefficient(start)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        quickly(problem, optimizer="gauss_newton", epochs=60)
    told = [str(w.message) for w in found if "solve again" in str(w.message)]
    assert len(told) == warns
    assert not warns or told[0].startswith("omega from 40 to ")


def test_the_last_line_tells_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    solution = dh.solve(Bump(), epochs=1)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Bump: ") and f"{solution.estimate:.1e}" in last


def test_points_are_real_numbers(rotation: dh.Solution) -> None:
    with pytest.raises(ValueError, match=r"points are torch\.complex64; give real numbers"):
        rotation(torch.zeros(2, 1, dtype=torch.complex64))


def test_the_default_field_is_periodic_where_the_problem_is() -> None:
    solution = dh.solve(Convection(), task=Task(n_residual=50), epochs=2, progress=False)
    assert "loss_period" not in solution.history
    t = torch.rand(5, 1, dtype=torch.float64)
    left, right = (torch.cat([0 * t + x, t], dim=1) for x in (0.0, 2 * torch.pi))
    torch.testing.assert_close(solution(left), solution(right), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "residual",
    [
        lambda x, d: d.u_t + torch.sin(x) * d.u,  # all columns of x
        lambda x, d: d.u_t + math.sin(d.u),
        lambda x, d: d.u_t + np.sin(d.u),
        lambda x, d: d.u_t + x[:, 2],
        lambda x, d: d.u_t * "abc",
        lambda x, d: d.u_t * [1, 2],
        lambda x, d: d["u_t"],
        lambda x, d: dh.stack([d.u_t, d.u]),  # type: ignore[arg-type]
    ],
)
def test_a_residual_that_cannot_be_computed_names_its_condition(residual: object) -> None:
    class Broken(dh.Problem):
        domain = Box(x=(0, 1), t=(0, 1))

        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("motion", self.domain, residual)]  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"^motion: .*columns of x are x\[:, j\].*torch\.sin"):
        dh.solve(Broken(), epochs=1)


@pytest.mark.parametrize("optimizer", ["adam", "gauss_newton"])
@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (lambda x, d: (d.u_t - 1).detach(), "has no gradient in what it reads"),
        (lambda x, d: torch.tensor(d.u.tolist()) ** 2, "has no gradient in what it reads"),
        (lambda x, d: d.u_t + d.u.detach(), "is linear .* finds other slopes"),
        (lambda x, d: dh.stack(d.u.detach(), d.u_t), "is linear .* finds other slopes"),
    ],
)
def test_a_residual_that_is_cut_off_from_its_gradient_is_refused(
    residual: object, message: str, optimizer: Any
) -> None:
    class Cut(dh.Problem):
        domain = Box(x=(0, 1), t=(0, 1))

        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("motion", self.domain, residual)]  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=rf"^motion: its residual {message}.*detach\(\)"):
        quickly(Cut(), optimizer=optimizer)


def test_a_weight_may_be_cut_off_and_a_branch_may_divide_by_zero() -> None:
    class Weighted(_Decay):
        def conditions(self) -> list[dh.Condition]:
            def once(x: Tensor, d: Derivatives) -> Tensor:
                at_start = x[:, 1] < 0.5
                return torch.where(at_start, d.u - 1, d.u / (~at_start).double())

            return [
                dh.Condition("decay", self.domain, lambda x, d: (d.u_t + d.u) / d.u_x.detach()),
                dh.Condition("once", self.domain, once),
            ]

    assert quickly(Weighted()).history.loss.notna().all()


@pytest.mark.parametrize("optimizer", ["adam", "gauss_newton"])
def test_it_trains_without_a_graph_around_it(optimizer: Any) -> None:
    expected = quickly(_Decay(), optimizer=optimizer).history.loss
    with torch.no_grad():
        assert quickly(_Decay(), optimizer=optimizer).history.loss.equals(expected)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"^solve: torch\.inference_mode"):
        quickly(_Decay(), optimizer=optimizer)


def test_a_class_instead_of_a_problem_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give an instance of a Problem"):
        dh.solve(Rotation)  # type: ignore[arg-type]


class _Promising(dh.Problem):
    """A problem whose field must have its values at the ends of x, and its period in y."""

    domain = Box(x=(0, 1), y=(0, 1))
    periodic = ("y",)

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy + d.u)]

    def ansatz(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0], x[:, 0] * (1 - x[:, 0])


@pytest.mark.parametrize(
    ("periodic", "given", "error"),
    [
        ((1,), {"domain": [(0, 0.5), (0, 1)]}, r"along x is 0 to 0\.5, the problem's 0 to 1"),
        ((1,), {"ansatz": None}, "ansatz=problem.ansatz"),
        ((), {}, r"periodic along y .*periodic=\(1,\)"),
        ((0, 1), {}, r"it is periodic along x, and the problem is not: leave 0 out of .*\('x',\)"),
        ((1,), {"domain": [(0, 1), (0, 2)]}, "its period along y is 2, .*; the problem's is 1: "),
    ],
)
def test_a_field_that_does_not_hold_what_the_problem_leaves_to_it_is_refused(
    periodic: tuple[int, ...], given: dict[str, Any], error: str
) -> None:
    problem = _Promising()
    encoding = dh.GridEncoding(
        2, n_levels=1, base_resolution=4, interpolation="cubic", periodic=periodic
    )
    settings = {"domain": problem.domain.bounds, "ansatz": problem.ansatz} | given
    field = dh.Field(encoding, dh.Linear(2, 1), names=problem.names, **settings)
    with pytest.raises(ValueError, match=error):
        dh.solve(problem, field, task=Task(n_residual=50), epochs=1, progress=False)


def test_a_field_of_a_longer_period_than_the_domain_is_free_there() -> None:
    problem = _Decay()
    encoding = dh.FourierFeatures(2, 4, periodic=(0,), seed=0)
    network = dh.MLP(encoding.n_output_dims, 1, 4, 1)
    for box, fits in (([(0, 2), (0, 1)], True), (problem.domain.bounds, False)):
        field = dh.Field(encoding, network, box, problem.names)
        if fits:
            dh.solve(problem, field, task=Task(n_residual=9), epochs=1, progress=False)
        else:
            with pytest.raises(ValueError, match="it is periodic along x, and the problem is not"):
                dh.solve(problem, field, task=Task(n_residual=9), epochs=1, progress=False)


class _Decay(dh.Problem):
    """u_t = -k u on [0, 1], with a known solution or data."""

    domain = Box(x=(0, 1), t=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        return [
            dh.Condition("decay", self.domain, lambda x, d: d.u_t + d.u),
            dh.Condition("start", self.domain.initial(), lambda x, d: d.u, target=1.0),
        ]


def quickly(problem: dh.Problem, *args: Any, **settings: Any) -> dh.Solution:
    given = {"task": Task(n_residual=50, n_boundary=10), "epochs": 2, "evaluation_points": 50}
    return dh.solve(problem, *args, **(given | {"progress": False} | settings))


class Rise(dh.Problem):
    """u = exp(k t), with numbers and texts as attributes."""

    domain = Interval(t=(0, 1))
    order = 1

    def __init__(self, k: Any = 0.5, start: str = "one", data: Any = None) -> None:
        self.k, self.start, self.data, self._powers = k, start, data, [1, k]

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("rise", self.domain, self._rise), self.labels()]

    def _rise(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t - self.k * d.u

    def ansatz(self, x: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        return 1 + self.k * x[:, 0], x[:, 0] ** 2

    def solution(self, x: Tensor) -> Tensor:
        return (self.k * x[:, 0]).exp()


@pytest.mark.parametrize("windows", [1, 2])
def test_a_solution_has_the_problem_as_it_was_when_it_was_solved(windows: int) -> None:
    problem = Heat1D(kappa=0.05)
    solution = quickly(problem, windows=windows)
    x = problem.domain.sample(5)
    exact = solution.problem.solution(x)
    problem.kappa = 0.5
    assert torch.equal(solution.problem.solution(x), exact)
    assert torch.equal(Heat1D(kappa=0.05).solution(x), exact)


@pytest.mark.parametrize("has_field", [True, False])
def test_a_solution_has_the_ansatz_as_it_was_when_it_was_solved(has_field: bool) -> None:
    problem, x = Rise(), torch.rand(5, 1, dtype=torch.float64)
    solution = quickly(problem, *([default_field(problem)] if has_field else []))
    before = solution(x)
    problem.k = 3.0
    assert torch.equal(solution(x), before)


def test_a_problem_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Rise: .* cannot: .*'module' .*outside of the problem"):
        quickly(Rise(data=math))


def test_loading_again_leaves_what_was_loaded_as_it_was(tmp_path: Path) -> None:
    """Nor does it change what is given, if the file is of another field."""
    problem, x = Rotation(), torch.rand(5, 1, dtype=torch.float64)
    field = default_field(problem)
    solutions = [quickly(problem, field, epochs=epochs) for epochs in (1, 3)]
    for index, solution in enumerate(solutions):
        solution.save(tmp_path / f"{index}.pt")
    start = field(x)
    loaded = [dh.Solution.load(tmp_path / f"{index}.pt", problem, field) for index in (0, 1)]
    for again, solution in zip(loaded, solutions, strict=True):
        assert torch.equal(again(x), solution(x))
        assert repr(again) == repr(solution)
    assert torch.equal(field(x), start) and problem.omega.item() == 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0.1}, r"Rise\.k = 0\.5; the given problem has 0\.1: give one that is built like"),
        ({"start": "two"}, r"Rise\.start = 'one'; the given problem has 'two'"),
        ({"_powers": (1, 2)}, r"Rise\._powers = \(1, 0\.5\); the given problem has \(1, 2\)"),
        ({"order": 2}, r"Rise\.order = 1; the given problem has 2"),
        ({"domain": Interval(t=(0, 2))}, r"Rise\.domain\.bounds = .*1.*; .* has .*2"),
        ({"k": np.float64(0.5) * (1 + 1e-15), "data": 3, "_powers": [1, 0.5]}, None),
    ],
)
def test_it_is_loaded_for_a_problem_with_the_same_settings(
    change: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    solution = quickly(Rise(k=np.float64(0.5)))
    solution.save(tmp_path / "rise.pt")
    problem = Rise()
    for name, value in change.items():
        setattr(problem, name, value)
    if message is None:
        again = dh.Solution.load(tmp_path / "rise.pt", problem)
        assert again.metrics == solution.metrics
    else:
        with pytest.raises(ValueError, match=rf"rise\.pt: it is a solution with {message}"):
            dh.Solution.load(tmp_path / "rise.pt", problem)


def test_a_file_that_does_not_tell_its_settings_is_loaded(tmp_path: Path) -> None:
    solution = quickly(Rise())
    solution.save(tmp_path / "rise.pt")
    state = torch.load(tmp_path / "rise.pt", weights_only=True)
    del state["settings"]
    torch.save(state, tmp_path / "rise.pt")
    assert dh.Solution.load(tmp_path / "rise.pt", Rise(k=0.1)).metrics == solution.metrics


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: there is no such file; give one that"):
        dh.Solution.load(tmp_path / "none.pt", Rise())


@pytest.mark.parametrize("optimizer", ["adam", "gauss_newton"])
@pytest.mark.parametrize("windows", [1, 2])
def test_it_is_loaded_into_the_default_field(optimizer: Any, windows: int, tmp_path: Path) -> None:
    solution = quickly(_Decay(), optimizer=optimizer, windows=windows)
    solution.save(tmp_path / "decay.pt")
    again = dh.Solution.load(tmp_path / "decay.pt", _Decay())
    x = torch.rand(7, 2, dtype=torch.float64)
    assert torch.equal(again(x), solution(x))
    assert repr(again) == repr(solution)


def test_windows_are_loaded_into_a_field_of_ones_own_and_exported(tmp_path: Path) -> None:
    problem = _Decay()
    encoding = dh.GridEncoding(2, n_levels=1, base_resolution=4, interpolation="cubic")
    field = problem_field(problem, encoding, dh.Linear(2, 1))
    solution = quickly(problem, field, windows=3)
    solution.save(tmp_path / "decay.pt")
    again = dh.Solution.load(tmp_path / "decay.pt", problem, field)
    x = torch.rand(50, 2, dtype=torch.float64)
    assert torch.equal(again(x), solution(x))
    solution.export(tmp_path / "decay.pt2")
    program = torch.export.load(tmp_path / "decay.pt2").module()
    torch.testing.assert_close(program(x), solution(x))


def test_derivatives_that_splines_do_not_have_are_refused() -> None:
    solution = quickly(_Decay())
    with pytest.raises(ValueError, match="solution: it needs u_xxxxxx, but derivatives of more"):
        solution.jet(torch.tensor([[0.5, 0.5]]), "u_xxxxxx")


def test_points_beyond_the_domain_are_refused_but_along_a_periodic_axis() -> None:
    solution = quickly(_Decay())
    for ask in (solution, lambda x: solution.jet(x, "u_t")):
        with pytest.raises(
            ValueError, match=r"^solution: t = 1\.5 of its point 2 is not in .* 0 to 1$"
        ):
            ask(torch.tensor([[0.5, 1.0], [0.5, 1.5]]))
    with pytest.raises(ValueError, match="x = nan of its point 1"):
        solution(torch.tensor([[float("nan"), 0.0]]))
    around = quickly(Convection())
    x = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    moved = x + torch.tensor([2 * torch.pi, 0.0])
    torch.testing.assert_close(around(moved), around(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": {"n_residual": 5}}, r"^task=.*: give a diffhash\.optim\.Task"),
        ({"sampler": "rad"}, r"^sampler='rad': give an instance of diffhash\.training\.samplers"),
        ({"weighting": "causal"}, r"^weighting='causal': give an instance of"),
        ({"schedule": "step"}, r"^schedule='step': give constant or cosine$"),
        ({"field": "spline"}, r"^field=str: give a diffhash\.Field$"),
        ({"optimizer": torch.optim.RAdam}, r"^optimizer=RAdam: .*make_optimizer=RAdam\)$"),
        ({"optimizer": GaussNewton}, r"^optimizer=GaussNewton: .* as GaussNewton\(\)$"),
        ({"optimizer": "soap"}, r"^optimizer='soap': give one of adam"),
        ({"accelerator": "cuda"}, r"^accelerator='cuda': give 'auto', 'cpu' or 'gpu'$"),
        ({"seed": "a"}, r"^seed='a': allowed are integers from 0"),
        ({"epochs": "10"}, r"^epochs='10': allowed are integers"),
        ({"tolerance": "1e-3"}, r"^tolerance='1e-3': give a positive number$"),
        ({"max_seconds": [1]}, r"^max_seconds=\[1\]: give a positive number$"),
        ({"betas": 0.9}, r"^betas=0\.9: give two numbers"),
        ({"callbacks": [print]}, r"^callbacks=<built-in function print>: give instances of"),
    ],
)
def test_a_setting_of_another_kind_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quickly(_Decay(), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"^accelerator=gpu: torch finds no CUDA device here"):
        quickly(_Decay(), accelerator="gpu")


def test_points_are_a_tensor_or_an_array() -> None:
    solution = quickly(_Decay())
    assert solution(np.zeros((3, 2))).shape == (3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^solution: points of DataFrame: give a tensor or an"):
        solution(pd.DataFrame({"x": [0.0], "t": [0.0]}))  # type: ignore[arg-type]


def test_the_field_of_windows_is_no_start_for_another_solution() -> None:
    solution = quickly(_Decay(), windows=2)
    with pytest.raises(ValueError, match=r"field=WindowedField: .*, as solution.field.fields.-1."):
        quickly(_Decay(), solution.field)


def test_an_unknown_that_no_condition_reads_is_refused() -> None:
    class Two(_Decay):
        unknowns = ("u", "v")

    with pytest.raises(ValueError, match=r"^Two\.unknowns: no condition reads v \(there are decay"):
        quickly(Two(), optimizer="gauss_newton")


def test_a_coefficient_that_no_condition_reads_is_refused_by_every_optimizer() -> None:
    class Known(_Decay):
        def __init__(self) -> None:
            super().__init__()
            self.k = dh.Coefficient(1.0)

    with pytest.raises(UntrainedError, match=r"^Known\.k: no condition reads it"):
        quickly(Known(), optimizer="gauss_newton")


@pytest.mark.parametrize("optimizer", ["adam", FirstOrder(), GaussNewton(adam_epochs=1)])
@pytest.mark.parametrize("start", [2e4, -2.8e-17])
def test_a_coefficient_far_from_1_is_warned_of_where_steps_are_learning_rates(
    optimizer: Any, start: float
) -> None:
    problem = Rotation()
    problem.omega = dh.Coefficient(start)
    with pytest.warns(UserWarning, match=rf"^omega starts at {start:g}, .* {start:g} \* self\.om"):
        quickly(problem, optimizer=optimizer)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e6])
def test_a_coefficient_does_not_depend_on_the_unit_of_the_data(size: float) -> None:
    class Rod(dh.Problem):
        domain = Box(x=(0, 1), t=(0, 1))

        def __init__(self) -> None:
            super().__init__()
            self.k = dh.Coefficient(0.1)

        def conditions(self) -> list[dh.Condition]:
            equation = dh.Condition("equation", self.domain, lambda x, d: d.u_t - self.k * d.u_xx)
            data = {"x": x, "t": t, "u": size * u}
            return [equation, measured("data", data, axes=["x", "t"], values=["u"])]

    x, t = np.random.default_rng(0).uniform(size=(2, 300))
    u = np.exp(-0.05 * np.pi**2 * t) * np.sin(np.pi * x)
    u += 0.5 * np.exp(-0.45 * np.pi**2 * t) * np.sin(3 * np.pi * x)
    solution = dh.solve(Rod(), optimizer="gauss_newton", progress=False)
    assert solution.metrics["k"] == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "start"), [("adam", 0.0), ("adam", 50.0), ("gauss_newton", 1e8)]
)
def test_other_coefficients_are_not_warned_of(optimizer: Any, start: float) -> None:
    problem = Rotation()
    problem.omega = dh.Coefficient(start)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        quickly(problem, optimizer=optimizer)
    assert not [w for w in found if "starts at" in str(w.message)]


def test_a_domain_that_was_forgotten() -> None:
    class Nowhere(_Decay):
        domain = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match=r"^Nowhere\.domain=None: give a domain"):
        quickly(Nowhere())


def test_solving_again_leaves_the_first_solution_as_it_was(tmp_path: Path) -> None:
    """Nothing is kept in the problem, a sampler or a weighting between two solutions."""
    problem, sampler, weighting = Rotation(), Resample(every=20), GradientNorm(every=30)

    def found() -> dh.Solution:
        return dh.solve(
            problem, task=Task(n_residual=200, n_labels=20), epochs=100, learning_rate=1e-2,
            sampler=sampler, weighting=weighting, evaluation_points=50, progress=False,
        )  # fmt: skip

    first = found()
    omega = first.metrics["omega"]
    second = found()
    assert second.metrics == first.metrics
    assert dict(first.problem.named_parameters())["omega"].item() == omega != 1.5
    assert problem.omega.item() == 1.5
