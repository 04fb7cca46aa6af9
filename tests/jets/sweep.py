"""Random sets of rows, fields, and the exact jets to compare theirs with."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity, Linear
from diffhash.jets import Row, Sum, autograd_jet, jet_rows

BOX = [(-1.0, 2.0), (0.5, 1.0), (0.0, 3.0), (2.0, 2.5)]
ACTIVATIONS = ("tanh", "silu", "gelu", "softplus", "sine", "skip")


@st.composite
def row_sets(draw: st.DrawFn, max_order: int = 4) -> tuple[int, tuple[Row, ...]]:
    """A number of axes, and the rows of a jet of a few derivatives and sums."""
    d = draw(st.integers(1, 4))
    alphas = st.lists(st.integers(0, d - 1), max_size=max_order).map(
        lambda axes: tuple(axes.count(j) for j in range(d))
    )
    weights = st.sampled_from([-2.5, -1.0, 0.1, 1.0, 3.0])
    terms = st.tuples(weights, alphas.filter(any))
    sums = st.lists(terms, min_size=1, max_size=4).map(lambda terms: Sum(tuple(terms)))
    asked = draw(st.lists(alphas, max_size=2)) + draw(st.lists(sums, max_size=2))
    return d, jet_rows(asked, d)


def make_field(
    encoder: str,
    activation: str,
    d: int,
    n_outputs: int = 1,
    depth: int = 2,
    seed: int = 0,
    **settings: Any,
) -> Field:
    """A field of a few parameters on `BOX`; encoders are interpolations, identity and fourier."""
    torch.manual_seed(seed)
    dtype = torch.float64
    if encoder == "identity":
        encoding = Identity(d, dtype=dtype)
    elif encoder == "fourier":
        encoding = FourierFeatures(d, 3, sigma=0.3, dtype=dtype)
    else:
        sizes: dict[str, Any] = {"n_levels": 2, "base_resolution": 3, "log2_hashmap_size": 8}
        sizes["init_scale"] = 0.5
        sizes |= settings
        encoding = GridEncoding(d, interpolation=encoder, dtype=dtype, seed=seed, **sizes)
    n = encoding.n_output_dims
    if activation == "linear":
        network = Linear(n, n_outputs, dtype=dtype)
    elif activation == "sine":
        network = SIREN(n, n_outputs, 7, depth, omega_0=2.0, dtype=dtype)
    elif activation == "skip":
        network = MLP(n, n_outputs, 7, depth, skip=True, dtype=dtype)
        torch.nn.init.uniform_(network.params, -0.5, 0.5)  # its last layer is 0
    else:
        network = MLP(n, n_outputs, 7, depth, activation, dtype=dtype)
    return Field(encoding, network, BOX[:d])


def points(n: int, d: int, seed: int = 1) -> Tensor:
    """Random points in `BOX`, in float64."""
    unit = torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low, high = torch.tensor(BOX[:d], dtype=torch.float64).T
    return low + (high - low) * unit


def truth(f: Any, x: Tensor, rows: tuple[Row, ...]) -> tuple[Tensor, Tensor]:
    """Rows by nested autograd ``[.., K, N, C]``, and the size of the terms of each row ``[K]``."""
    parts = [row.terms if isinstance(row, Sum) else ((1.0, row),) for row in rows]
    jet = autograd_jet(f, x, jet_rows([alpha for terms in parts for _, alpha in terms], x.shape[1]))
    found = [sum(w * jet[alpha] for w, alpha in terms) for terms in parts]
    sizes = [
        sum(abs(w) * jet[alpha].detach().abs().max().item() for w, alpha in terms)
        for terms in parts
    ]
    return torch.stack(found, dim=-3), torch.tensor(sizes, dtype=torch.float64)  # type: ignore[arg-type]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
