"""The device that replaces a GPU in tests has a GPU's rules, and real numbers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from tests.rehearsal import DEVICE, Graph, rehearsed, twin


def test_numbers_and_gradients_are_those_of_a_cpu() -> None:
    x, w = torch.randn(5, 3), torch.randn(2, 3)
    with rehearsed():
        on = w.to(DEVICE).requires_grad_(True)
        (x.to(DEVICE)[1:] @ on.mT).tanh().square().sum().backward()
        assert on.grad is not None
        found = on.grad.cpu()
    w.requires_grad_(True)
    (x[1:] @ w.mT).tanh().square().sum().backward()
    assert torch.equal(found, w.grad)  # type: ignore[arg-type]


def test_views_share_their_numbers() -> None:
    with rehearsed():
        x = torch.zeros(2, 3, device=DEVICE)
        x[:, 1].add_(2)
        x.T[[0, 2]] += 1
        x.view(3, 2)[1:].mul_(3)
        assert x.cpu().tolist() == [[1, 2, 3], [3, 6, 3]]


def test_two_devices_do_not_mix() -> None:
    with rehearsed() as rehearsal:
        x = torch.ones(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="two devices"):
            _ = x + torch.ones(3)
        before = len(rehearsal.traffic)
        _ = x * torch.tensor(2.0)  # as on a GPU
        assert rehearsal.traffic[before:] == [("scalar", "aten.mul.Tensor")]


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("wait", lambda x: x.sum().item()),
        ("wait", lambda x: bool((x > 0).all())),
        ("wait", lambda x: x.cpu()),
        ("wait", lambda x: x[x > 0]),
        ("wait", lambda x: x.nonzero()),
        ("upload", lambda x: torch.tensor([1.0, 2.0], device=DEVICE)),
        ("upload", lambda x: x.copy_(torch.ones(3))),
        ("upload", lambda x: x[torch.tensor([0, 1])]),
        ("scalar", lambda x: x * torch.tensor(2.0)),
    ],
)
def test_what_a_graph_cannot_capture_is_refused(kind: str, operation: object) -> None:
    assert callable(operation)
    with rehearsed() as rehearsal:
        x = torch.ones(3, device=DEVICE)
        operation(x)
        assert kind in [kind for kind, _ in rehearsal.traffic]
        with (
            pytest.raises(RuntimeError, match=f"{kind} between host and device"),
            torch.cuda.graph(Graph()),  # type: ignore[arg-type]
        ):
            operation(x)


def test_a_graph_computes_when_it_is_replayed() -> None:
    with rehearsed():
        x, total = torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            twice = 2 * x
            total.add_(twice)
        assert total.tolist() == [0, 0, 0]
        for value in (1.0, 5.0):
            x.fill_(value)
            graph.replay()
        assert twin(twice).tolist() == [10, 10, 10]
        assert total.tolist() == [12, 12, 12]
