"""Terms of wrong shapes, kinds or values are refused: none is broadcast, cut or read beyond."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import Jet
from diffhash.problems import Poisson1D
from diffhash.tasks import Task, Term, pinn_task

D = torch.float64
X = torch.linspace(0, 1, 5, dtype=D)[:, None]
Y = X.sin()
ones = partial(torch.ones, dtype=D)


def value_error(x: Tensor, u: Jet, target: Tensor) -> Tensor:
    return u.value - target


def make(**changed: Any) -> Term:
    settings: dict[str, Any] = {
        "name": "data",
        "x": X,
        "target": Y,
        "rows": 0,
        "error": value_error,
        "weight": 1.0,
    }
    return Term(**settings | changed)


def with_one(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[..., 2, :] = value
    return tensor


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": Y[:, 0]}, r"data: target has the shape \[5\]; give \[5, E\]"),
        ({"target": Y[None]}, r"target has the shape \[1, 5, 1\]"),
        ({"target": Y[:3]}, r"target has the shape \[3, 1\]; give \[5, E\] for the 5 points"),
        ({"target": torch.cat([Y, Y])}, r"target has the shape \[10, 1\]"),
        ({"target": Y[:1]}, r"target has the shape \[1, 1\]"),
        ({"target": Y[:, :0]}, r"target has the shape \[5, 0\]"),
        ({"target": Y.long()}, r"target is torch\.int64; give a floating-point tensor"),
        ({"target": Y + 0j}, r"target is torch\.complex128"),
        ({"target": Y.numpy()}, r"target is ndarray"),
        ({"target": with_one(Y, nan)}, r"data: target is not finite at 1 of 5 points"),
        ({"target": with_one(Y, -inf)}, r"target is not finite at 1 of 5 points"),
        ({"target": Y.clone().requires_grad_()}, r"target requires a gradient"),
        ({"x": X[:, 0]}, r"data: x has the shape \[5\]; give \[N, d\]"),
        ({"x": X[:0], "target": Y[:0]}, r"x has the shape \[0, 1\]"),
        ({"x": X[:, :0]}, r"x has the shape \[5, 0\]"),
        ({"x": X.long()}, r"x is torch\.int64"),
        ({"x": with_one(X, nan)}, r"x is not finite at 1 of 5 points"),
        ({"x": X.clone().requires_grad_()}, r"x requires a gradient"),
        ({"x": X.expand(5, 2), "rows": (0,)}, r"\(0,\) is no derivative: give .* of 2 orders"),
        ({"rows": (0, 0)}, r"\(0, 0\) is no derivative"),
        ({"rows": (-1,)}, r"\(-1,\) is no derivative"),
        ({"coefficients": ones(1, 5, 1)}, r"\[1, 5, 1\]; give \[1, comp.*, 5, 1\]"),
        ({"coefficients": ones(2, 1, 5, 1)}, r"\[2, 1, 5, 1\]; give \[1, comp.*, 5, 1\]"),
        ({"coefficients": ones(1, 1, 5, 2)}, r"\[1, 1, 5, 2\]; give \[1, comp.*, 5, 1\]"),
        ({"coefficients": ones(1, 1, 4, 1)}, r"\[1, 1, 4, 1\]; give \[1, comp.*, 5, 1\]"),
        (
            {"coefficients": with_one(Y[None, None], nan)},
            r"coefficients is not finite at 1 of 5 points",
        ),
        ({"weight": torch.tensor(1.0)}, r"data_weight=1\.0: give a finite number"),
        ({"weight": "1"}, r"data_weight=1: give a finite number"),
        ({"name": ""}, r"name='': give a term a name"),
        ({"name": "a\nb"}, r"name='a\\nb'"),
    ],
)
def test_a_term_is_made_of_what_fits(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changed)


def test_two_terms_have_two_names() -> None:
    with pytest.raises(ValueError, match="2 terms are named 'data'"):
        Task([make(), make(name="other"), make()])


@pytest.mark.parametrize("terms", [[], [torch.nn.Linear(1, 1)], [None]])
def test_a_task_is_made_of_terms(terms: list[Any]) -> None:
    with pytest.raises(ValueError, match="give at least one Term"):
        Task(terms)


@pytest.mark.parametrize("value", [None, 1.0, (torch.zeros(5, 1),)])
def test_what_is_no_tensor_is_named(value: Any) -> None:
    class Wrong(Poisson1D):
        def operator(self, x: Tensor, u: Jet) -> Any:
            return value

    with pytest.raises(ValueError, match=r"Wrong.operator is \w+; give a tensor"):
        pinn_task(Wrong(), n_labels=0, n_residual=5)
    x = torch.zeros(5, 1)
    term = Term("data", x, x, 0, lambda x, u, target: value, 1.0)
    with pytest.raises(ValueError, match=r"data: its error is \w+; give a tensor"):
        Task([term]).loss([Jet(torch.zeros(1, 5, 1), ((0,),))])


def test_points_and_targets_in_float32_are_kept_as_they_are() -> None:
    term = make(x=X.float(), target=Y.float())
    assert term.x.dtype == term.target.dtype == D
    assert torch.equal(term.target, Y.float().double())


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lambda x, u, y: (u.value - y)[..., 0], "float64"),
        (lambda x, u, y: (u.value - y).mean(), "float64"),
        (lambda x, u, y: (u.value - y).mean(dim=-2, keepdim=True), "float64"),
        (lambda x, u, y: (u.value - y)[..., :1, :], "float64"),
        (lambda x, u, y: torch.cat([u.value, u.value], dim=-1) - y, "float64"),
        (lambda x, u, y: (u.value - y) + 0j, "complex128"),
        (lambda x, u, y: (u.value - y).round().long(), "int64"),
        (lambda x, u, y: u.value == y, "bool"),
    ],
)
def test_an_error_is_one_number_for_each_target(
    error: Any, kind: str, n_outputs: int, replicas: tuple[int, ...]
) -> None:
    task = Task([make(error=error)])
    jet = Jet(torch.zeros(*replicas, 1, 5, n_outputs, dtype=D), ((0,),))
    wanted = r", ".join(str(n) for n in (*replicas, 5, 1))
    message = rf"data: its error is torch\.{kind} of shape .* {n_outputs} comp.*\[{wanted}\]$"
    with pytest.raises(ValueError, match=message):
        task.loss([jet])
    rows = [torch.tensor([0, 3])]
    with pytest.raises(ValueError, match="data: its error is"):
        task.loss([Jet(jet.data[..., :2, :], ((0,),))], rows)


def test_two_components_do_not_fit_the_labels_of_one() -> None:
    task = Task([make()])
    with pytest.raises(ValueError, match=r"shape \[5, 2\], for a target of shape \[5, 1\] and 2"):
        task.loss([Jet(torch.zeros(1, 5, 2, dtype=D), ((0,),))])


def test_the_parts_add_up_to_the_loss() -> None:
    task = pinn_task(Poisson1D(), n_labels=4, n_residual=6, data_weight=0.3)
    data = [torch.ones(len(t.rows), len(t), 1, dtype=D) for t in task.terms]
    loss = task.loss([Jet(d, t.rows) for d, t in zip(data, task.terms, strict=True)])
    assert len(task.parts) == 2
    assert task.parts[0] + task.parts[1] == loss
    assert task.parts[0] == 0.3 * (1 - task.terms[0].target).square().mean()


def test_errors_get_points_that_float32_can_tell_apart_or_float64() -> None:
    given = []

    def error(x: Tensor, u: Jet, target: Tensor) -> Tensor:
        given.append(x)
        return torch.sin(x) * u.value - target

    def loss(x: Tensor) -> Tensor:
        return Task([make(x=x, error=error)]).loss([Jet(torch.ones(1, 5, 1), ((0,),))])

    far = 1e6 + X / 3
    assert loss(X).dtype == loss(far).dtype == torch.float32
    assert [x.dtype for x in given] == [torch.float32, torch.float64]
    assert torch.equal(given[1], far)


CODE: dict[str, Callable[[Tensor, Jet], Tensor]] = {
    "mixed [N] and [N, 1]": lambda x, u: u[2,] + x[:, 0] * u.value,
    "a mixed column beside a good one": lambda x, u: torch.cat(
        [u.value, x[:, 0] * u.value], dim=-1
    ),
    "flat": lambda x, u: u[2,][..., 0],
    "a mean": lambda x, u: u[2,].mean(),
    "a mean over points": lambda x, u: u[2,].mean(dim=-2, keepdim=True),
    "no column": lambda x, u: u.value[..., 1:],
}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("code", CODE)
def test_an_operator_has_rows_of_equations(code: str, linear: bool) -> None:
    class Own(Poisson1D):
        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return CODE[code](x, u)

    Own.linear = linear
    with pytest.raises(ValueError, match=r"Own\.operator has the shape .* give \[N, equations\]"):
        pinn_task(Own(), n_labels=3, n_residual=8)


def test_an_operator_and_its_own_source_that_are_both_mixed() -> None:
    class Own(Poisson1D):
        linear = False

        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return x[:, 0] * u.value

        def source(self, x: Tensor) -> Tensor:
            return x[:, 0] * x

    (term,) = pinn_task(Own(), n_labels=0, n_residual=8).terms
    jet = Jet(torch.zeros(3, 8, 1, dtype=D), term.rows)
    with pytest.raises(ValueError, match=r"Own\.operator has the shape \[8, 8\]"):
        Task([term]).loss([jet])


def test_as_many_equations_as_points_are_no_mistake() -> None:
    class Own(Poisson1D):
        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return torch.cat([u.value, x * u.value], dim=-1)

    (term,) = pinn_task(Own(), n_labels=0, n_residual=2).terms
    assert term.target.shape == (2, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda x: torch.ones(len(x), dtype=D), r"residual: target has the shape \[8\]"),
        (lambda x: torch.ones(1, 1, dtype=D), r"residual: target has the shape \[1, 1\]"),
        (lambda x: torch.tensor(1.0), r"residual: target has the shape \[\]"),
        (lambda x: torch.ones(len(x), 1) / 0, r"residual: target is not finite at 8 of 8 points"),
        (lambda x: 1.0, r"residual: target is float"),
        (lambda x: torch.ones(len(x), 2), r"residual: coefficients has the shape \[3, 1, 8, 1\]"),
    ],
)
def test_a_source_of_its_own_fits_the_points(source: Any, message: str) -> None:
    class Own(Poisson1D):
        def source(self, x: Tensor) -> Tensor:
            return source(x)

    with pytest.raises(ValueError, match=message):
        pinn_task(Own(), n_labels=0, n_residual=8)


def test_labels_that_are_not_numbers() -> None:
    class Own(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return torch.where(x > 0.3, nan, x)

        def source(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match="data: target is not finite at 4 of 10 points"):
        pinn_task(Own(), n_labels=10, n_residual=8)
