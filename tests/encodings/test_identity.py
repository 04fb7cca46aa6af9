"""The identity encoding: coordinates in, coordinates out."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from diffhash import Identity


def test_the_identity_returns_its_input_in_its_own_precision() -> None:
    x = torch.rand(5, 3, dtype=torch.float64)
    y = Identity(3)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x.float(), rtol=0, atol=0)


def test_its_jet_has_unit_slopes_and_no_curvature() -> None:
    x = torch.rand(4, 2)
    jet = Identity(2).jet(x, 2)
    assert jet[1, 0].tolist() == [[1.0, 0.0]] * 4
    assert jet[0, 1].tolist() == [[0.0, 1.0]] * 4
    assert all((jet[alpha] == 0).all() for alpha in ((2, 0), (1, 1), (0, 2)))


def test_points_of_a_wrong_shape_are_refused() -> None:
    encoding = Identity(2)
    for call in (encoding, partial(encoding.jet, rows=2), partial(encoding.plan, rows=2)):
        with pytest.raises(ValueError, match=r"shape \[N, 2\]"):
            call(torch.rand(3, 3))


def test_periodic_axes_are_cosines_and_sines() -> None:
    encoding = Identity(3, dtype=torch.float64, periodic=(2, 0))
    x = torch.tensor([[0.0, 0.3, 0.25], [1.0, 0.3, -0.75]], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.0, 0.3, 0.0, 1.0], dtype=torch.float64).expand(2, 5)
    torch.testing.assert_close(encoding(x), expected, rtol=0, atol=1e-15)
    assert encoding.n_output_dims == 5
    torch.testing.assert_close(encoding.jet(x, 2).data[:, 0], encoding.jet(x, 2).data[:, 1])
    with pytest.raises(ValueError, match=r"periodic=\(3,\).*from 0 to 2"):
        Identity(3, periodic=(3,))
