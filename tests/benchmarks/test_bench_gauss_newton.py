"""`make bench`: the dense Gauss–Newton steps have the library's residuals and Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import gauss_newton

SMALL = ("encoder.encoding.n_levels=2", "encoder.encoding.base_resolution=3",
         "encoder.network.width=5", "task.n_residual=11", "trainer.accelerator=cpu",
         "trainer.num_threads=1")  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        gauss_newton.DenseSteps,
        pytest.param(gauss_newton.DenseStepsOfAll, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", gauss_newton.CASES)
def test_all_have_the_same_residuals_and_jacobian(
    case: str, make: type[gauss_newton.DenseSteps]
) -> None:
    cfg = gauss_newton.config(case, SMALL)
    r, jacobian = gauss_newton.OurSteps(cfg).residuals.value_and_jacobian()
    dense = make(cfg)
    start = dense.parameters()
    with torch.no_grad():
        np.testing.assert_allclose(dense.value(start).numpy(), r, rtol=1e-12, atol=1e-14)
        expected = np.hstack([jacobian.table.toarray(), jacobian.dense])
        found = dense.jacobian(start).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())
