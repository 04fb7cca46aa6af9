"""Adam's step equals torch's with every backend."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from diffhash.training import adam
from diffhash.training.adam import LeanAdam


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(adam, "kernel_of", lambda dtype: None)
    elif adam.kernel_of(torch.float32) is None:
        pytest.skip("no C compiler")
    return request.param


def parameters(dtype: torch.dtype, sizes: tuple[int, ...] = (1, 7, 70001)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=generator, dtype=dtype).requires_grad_() for n in sizes]


def take_steps(
    optimizer: Adam, step: Callable[[], object], tensors: list[Tensor], rates: list
) -> None:
    """Steps along random gradients of all sizes, zero included."""
    generator = torch.Generator().manual_seed(1)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        for tensor in tensors:
            scale = torch.logspace(-12, 3, len(tensor), dtype=tensor.dtype)
            scale[::5] = 0
            noise = torch.randn(len(tensor), generator=generator, dtype=tensor.dtype)
            tensor.grad = noise * scale
        step()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch(
    backend: str, dtype: torch.dtype, betas: tuple[float, float]
) -> None:
    rates = [1e-2, 1e-2, 0.0, 1e-3] * 10
    theirs, ours = parameters(dtype), parameters(dtype)
    reference = Adam(theirs, betas=betas)
    take_steps(reference, reference.step, theirs, rates)
    optimizer = LeanAdam(ours, captured=False, betas=betas)
    take_steps(optimizer, optimizer.lean_step, ours, rates)
    tolerance = 10 * len(rates) * torch.finfo(dtype).eps  # every step rounds a few times
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        for name in ("exp_avg", "exp_avg_sq", "step"):
            mine, its = optimizer.state[a][name], reference.state[b][name]
            torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


def test_the_step_that_lightning_calls_is_the_same(backend: str) -> None:
    plain, wrapped = parameters(torch.float64), parameters(torch.float64)
    lean, optimizer = LeanAdam(plain, captured=False), LeanAdam(wrapped, captured=False)
    take_steps(lean, lean.lean_step, plain, [1e-2] * 3)
    seen: list[float] = []
    take_steps(optimizer, lambda: seen.append(optimizer.step(lambda: 7.0)), wrapped, [1e-2] * 3)
    assert seen == [7.0] * 3
    assert all(torch.equal(a, b) for a, b in zip(plain, wrapped, strict=True))


def test_state_passes_from_and_to_torch(backend: str) -> None:
    """Checkpoints of both have the same format."""
    theirs, ours = parameters(torch.float64), parameters(torch.float64)
    reference = Adam(theirs, fused=True)
    take_steps(reference, reference.step, theirs, [1e-2] * 3)
    for mine, its in zip(ours, theirs, strict=True):
        mine.data.copy_(its)
    optimizer = LeanAdam(ours, captured=False)
    optimizer.load_state_dict(deepcopy(reference.state_dict()))
    optimizer.set_captured(captured=False)
    take_steps(reference, reference.step, theirs, [1e-2] * 3)
    take_steps(optimizer, optimizer.lean_step, ours, [1e-2] * 3)
    reference.load_state_dict(deepcopy(optimizer.state_dict()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_what_has_no_gradient_stays(backend: str) -> None:
    first, second = parameters(torch.float32, (3, 4))
    before = second.detach().clone()
    optimizer = LeanAdam([first, second], captured=False)
    optimizer.set_rate(1e-2)
    first.grad = torch.ones_like(first)
    optimizer.lean_step()
    assert torch.equal(second, before) and second not in optimizer.state
    optimizer.forget_gradients()
    before = first.detach().clone()
    optimizer.lean_step()
    assert torch.equal(first, before)


def test_gradients_and_parameters_of_any_shape(backend: str) -> None:
    parameter = torch.zeros(3, 5, dtype=torch.float64).requires_grad_()
    optimizer = LeanAdam([parameter], captured=False)
    optimizer.set_rate(1e-2)
    gradient = torch.arange(1.0, 16.0, dtype=torch.float64).reshape(5, 3).T
    parameter.grad = gradient  # transposed: not contiguous
    optimizer.lean_step()
    torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, -1e-2))
    torch.testing.assert_close(optimizer.state[parameter]["exp_avg"], 0.1 * gradient)


def test_nan_spoils_its_own_element_alone(backend: str) -> None:
    [parameter] = parameters(torch.float32, (9,))
    optimizer = LeanAdam([parameter], captured=False)
    optimizer.set_rate(1e-2)
    parameter.grad = torch.ones_like(parameter)
    parameter.grad[4] = float("nan")
    optimizer.lean_step()
    assert parameter.isnan().nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("change", [lambda t: t.double(), lambda t: t[:-1], lambda t: t[:, None]])
def test_a_state_that_does_not_fit_is_refused(
    backend: str, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    [parameter] = parameters(torch.float32, (9,))
    optimizer = LeanAdam([parameter], captured=False)
    parameter.grad = torch.ones_like(parameter)
    optimizer.lean_step()
    before = parameter.detach().clone()
    optimizer.state[parameter][name] = change(optimizer.state[parameter][name])
    with pytest.raises(ValueError, match=name):
        optimizer.lean_step()
    assert torch.equal(parameter, before)


def test_another_kind_of_adam_is_refused(backend: str) -> None:
    theirs = parameters(torch.float64, (5,))
    reference = Adam(theirs, fused=True, weight_decay=0.1)
    take_steps(reference, reference.step, theirs, [1e-2])
    [ours] = parameters(torch.float64, (5,))
    optimizer = LeanAdam([ours], captured=False)
    optimizer.load_state_dict(reference.state_dict())
    ours.grad = torch.ones_like(ours)
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.lean_step()


def test_a_parameter_whose_elements_do_not_lie_in_order(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(4, 3, generator=generator)
    plain, turned = flat.clone().requires_grad_(), nn.Parameter(flat.clone())
    turned.data = turned.data.T.contiguous().T
    for parameter in (plain, turned):
        optimizer = LeanAdam([parameter], captured=False)
        optimizer.set_rate(1e-2)
        for _ in range(3):
            parameter.grad = flat.sin()
            optimizer.lean_step()
    assert torch.equal(plain, turned)
