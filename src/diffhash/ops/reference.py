"""The readable reference: the encoding as plain torch operations, differentiated by autograd.

It is slow and simple. The outputs and gradients of every fast path are tested against it.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from diffhash.ops.interpolation import evaluate
from diffhash.ops.layout import GridLayout, locate


def encode(x: Tensor, params: Tensor, layout: GridLayout, n_features_per_level: int) -> Tensor:
    """y_l(x) = Σ_k Π_j B_{k_j}(t_j) · θ[row_l(cell + k)]   (Eqs. 5, 8 and 11 of the paper).

    If a vertex has several degrees of freedom m, the sum is over them, too, with weights B_{k, m}.

    Args:
        x: points ``[N, d]``.
        params: the flat table ``[n_rows · F]``.

    Returns:
        ``[N, L·F]``, column ``l·F + f``.
    """
    table = params.view(-1, n_features_per_level)
    stencil = layout.interpolation
    outputs = []
    for level in layout.levels:
        cell, t = locate(level, x, layout.periodic_axes)
        weights = stencil.weights(t)  # [N, d, columns]
        y = x.new_zeros(len(x), n_features_per_level)
        for columns in product(range(stencil.columns), repeat=layout.n_input_dims):
            taps = torch.tensor([c // stencil.dofs for c in columns], device=x.device)
            dof = sum(c % stencil.dofs * stencil.dofs**j for j, c in enumerate(columns))
            row = layout.rows(level, cell + taps + stencil.first_tap) + dof
            weight = torch.stack([weights[:, j, c] for j, c in enumerate(columns)]).prod(dim=0)
            if stencil.step is not None:  # Eq. 10
                (weight,) = evaluate((stencil.step,), weight)
            y = y + weight[:, None] * table[row]
        outputs.append(y)
    return torch.cat(outputs, dim=1)
