"""Columns of a Jacobian that are kept as factors, against the same columns written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffhash.networks.jacobian import LayerRows
from diffhash.optim.layers import Layer

# Numbers of rows of the jets and of points: one part, several, more points than a block, many rows.
_PARTS = [[(1, 5)], [(3, 7), (1, 4)], [(1, 600), (3, 500)], [(10, 9), (2, 70)]]


@pytest.mark.parametrize("widths", [(6, 5), (40, 60), (30, 1)], ids=str)
@pytest.mark.parametrize("parts", _PARTS, ids=str)
def test_products_are_those_of_the_matrix(
    parts: list[tuple[int, int]], widths: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    n_inputs, n_outputs = widths
    made = [
        LayerRows(
            torch.randn(k, n, n_inputs + 1, dtype=torch.float64, generator=generator),
            torch.randn(k, n, n_outputs, dtype=torch.float64, generator=generator),
        )
        for k, n in parts
    ]
    layer = Layer(made)
    rows = []
    for inputs, gradients in made:
        for n in range(inputs.shape[1]):
            both = gradients[:, n].T @ inputs[:, n]
            rows.append(torch.cat([both[:, :-1].flatten(), both[:, -1]]))
    dense = torch.stack(rows).numpy()
    np.testing.assert_allclose(layer.dense(), dense, rtol=1e-12, atol=1e-12)
    assert layer.n_columns == dense.shape[1] == n_outputs * (n_inputs + 1)
    v, w = (np.random.default_rng(1).normal(size=n) for n in dense.shape[::-1])
    out = np.ones((len(dense), len(dense)))
    layer.add_gram(out)
    size = np.abs(dense).max() ** 2 * dense.shape[1]
    for own, other in (
        (layer @ v, dense @ v), (layer.transposed(w), w @ dense),
        (layer.squares(), np.square(dense).sum(axis=0)),
        (np.triu(out - 1), np.triu(dense @ dense.T)),
    ):  # fmt: skip
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-13 * size)
