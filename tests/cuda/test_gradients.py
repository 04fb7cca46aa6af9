"""Losses and all gradients of a field with Triton's grid kernels, interpreted on a CPU, against
torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from diffhash import MLP, Field, GridEncoding
from diffhash.jets import Sum
from diffhash.networks import stack_fields
from diffhash.optim import Task
from diffhash.training.planned import PlannedBackward
from tests.optim.written import EXPECTED

if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU here, not in the interpreter", allow_module_level=True)

BOX = ((0.0, 2.0), (-1.0, 1.0))
ROWS = ("u_xy", Sum(((1.0, (2, 0)), (-0.5, (0, 2)))))


def make_field(interpolation: str, backend: str, dtype: torch.dtype, replicas: int | None) -> Field:
    def one(seed: int) -> Field:
        torch.manual_seed(seed)
        encoding = GridEncoding(
            2, n_levels=2, base_resolution=3, log2_hashmap_size=4, interpolation=interpolation,
            init_scale=0.5, backend=backend,
        )  # fmt: skip
        network = MLP(encoding.n_output_dims, 1, width=4, depth=1)
        return Field(encoding, network, BOX).to(dtype)  # of the same numbers in both precisions

    return one(0) if replicas is None else stack_fields([one(seed) for seed in range(replicas)])


def gradients(field: Field, way: str) -> list[Tensor]:
    """A jet and the gradients of its mean square: by autograd, with or without a plan, or a vjp."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(7, 2, dtype=torch.float64, generator=generator) * 2 - torch.tensor([0.0, 1.0])
    field.zero_grad()
    if way == "vjp":
        jet, vjp = field.plan(x, ROWS).jet_and_vjp()
        vjp(2 * jet.data / jet.data.numel())
    else:
        jet = field.jet(x, ROWS) if way == "jet" else field.plan(x, ROWS).jet()
        jet.data.square().mean().backward()
    found = [parameter.grad for parameter in field.parameters()]
    assert all(gradient is not None for gradient in found)
    return [jet.data.detach(), *(gradient for gradient in found if gradient is not None)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("way", ["jet", "plan", "vjp"])
@pytest.mark.parametrize(
    ("interpolation", "replicas"),
    [
        ("linear", 2),
        pytest.param("cubic", None, marks=pytest.mark.slow),
        pytest.param("hermite", 2, marks=pytest.mark.slow),
    ],
)
def test_mixed_derivatives_and_sums(
    interpolation: str, replicas: int | None, way: str, dtype: torch.dtype
) -> None:
    found = gradients(make_field(interpolation, "triton", dtype, replicas), way)
    expected = gradients(make_field(interpolation, "torch", torch.float64, replicas), way)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        atol = 2**10 * torch.finfo(dtype).eps * other.abs().max().item()
        torch.testing.assert_close(one.double(), other, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("problem", "interpolation"),
    [("inverse", "cubic"), pytest.param("layers", "quintic", marks=pytest.mark.slow)],
)
def test_a_whole_loss(problem: str, interpolation: str) -> None:
    """The loss is planned as in training, with trained coefficients."""
    results = []
    for backend in ("triton", "torch"):
        made = EXPECTED[problem].make()
        torch.manual_seed(0)
        encoding = GridEncoding(
            made.n_dims, n_levels=2, base_resolution=3, interpolation=interpolation,
            init_scale=0.5, dtype=torch.float64, backend=backend,
        )  # fmt: skip
        network = MLP(encoding.n_output_dims, 2, width=4, depth=2, dtype=torch.float64)
        field = Field(encoding, network, made.domain.bounds, made.names)
        objective = Task(n_residual=9, n_boundary=7, wave_number=None).objective(made)
        plans = [field.plan(term.x, term.rows) for term in objective.terms]
        loss = PlannedBackward(objective, plans)()
        parameters = [*field.parameters(), *made.parameters()]
        results.append([loss, *(p.grad for p in parameters)])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        atol = 1e-12 * other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=atol)
