"""Which derivatives a residual reads, and whether it is linear in them, found by calling it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from diffhash.jets import Jet, Names, Row, Sum, combined, expanded, jet_rows
from diffhash.ops.backends import MultiIndex
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, NotReadError, Recorder

_FEW = (5, 7)  # two numbers of points, by which the axes of equations and points are distinguished
_PROBED = 64  # points at which the weights of a sum are determined
_SCALES = (1.0, 1e-3, 1e3)  # scales of the jets by which linearity is tested
_TOLERANCE = 1e-9
_ROUND_OFF = 1e-5
_CUTS = "detach(), torch.tensor(…), numpy and torch.no_grad()"  # operations without a graph


@dataclass(frozen=True)
class LinearForm:
    """residual = Σ_kc coefficients[k, c] ∂_k u_c + offset, at each point.

    Attributes:
        coefficients: ``[K, C, N, E]``.
        offset: ``[N, E]``.
    """

    coefficients: Tensor
    offset: Tensor


def equations(condition: Condition, x: Tensor, jet: Jet, normal: Tensor | None) -> Tensor:
    """The residual of a condition at N points with the jet of u there, as ``[.., N, E]``.

    Raises:
        ValueError: the residual does not return ``[.., N]`` or ``[.., N, E]``, or reads a
            derivative that the jet does not have.
    """
    try:
        value = condition.residual(x, Derivatives(jet, normal))
    except NotReadError as error:
        raise ValueError(f"{condition.name}: {error}") from None
    return as_equations(condition, value, (*jet.data.shape[:-3], jet.data.shape[-2]))


def as_equations(condition: Condition, value: object, points: tuple[int, ...]) -> Tensor:
    """A residual ``[.., N]`` or ``[.., N, E]`` as ``[.., N, E]``.

    Raises:
        ValueError: the residual has neither shape.
    """
    if isinstance(value, Tensor) and value.is_floating_point():
        if value.shape == points:
            return value[..., None]
        if value.ndim == len(points) + 1 and value.shape[:-1] == points and value.shape[-1]:
            return value
    got = type(value).__name__
    if isinstance(value, Tensor):
        got = f"{value.dtype} of shape {list(value.shape)}"
    raise ValueError(
        f"{condition.name}: its residual is {got} at {points[-1]} points; give floating-point "
        f"numbers, one for each point {list(points)}, or stack(…) of several equations "
        f"{[*points, 'E']}; columns of x are x[:, j]"
    )


def trace(
    condition: Condition, names: Names, x: Tensor, normal: Tensor | None
) -> tuple[tuple[Row, ...], int]:
    """The rows of the jet that a residual reads, and its number of equations E.

    Raises:
        ValueError: the residual cannot be computed, has another shape than ``[N]`` or ``[N, E]``,
            reads neither an unknown nor a derivative, or has no gradient in what it reads.
    """
    found: set[MultiIndex] = set()
    counts, any_gradient = [], False
    for n in _FEW:
        read, value = _recorded(condition, names, x, normal, n)
        columns = as_equations(condition, value, (n,))
        counts.append(columns.shape[-1])
        any_gradient |= columns.requires_grad
        found.update(alpha for _, alpha in read)
    if counts[0] != counts[1]:
        raise ValueError(
            f"{condition.name}: its residual is of shape [N, N] for N points: [N] and [N, 1] were "
            "mixed, and broadcast; columns of x are x[:, j]"
        )
    if not found:
        raise ValueError(
            f"{condition.name}: its residual reads neither an unknown nor a derivative"
        )
    if not any_gradient and not torch.is_inference_mode_enabled():  # which has no graph
        raise ValueError(
            f"{condition.name}: its residual has no gradient in what it reads of d: compute it by "
            f"torch operations, without {_CUTS}"
        )
    return jet_rows(frozenset(found), len(names.axes)), counts[0]


def unknowns_read(condition: Condition, names: Names, x: Tensor, normal: Tensor | None) -> set[str]:
    """The names of the unknowns of which a residual reads the value or a derivative."""
    read, _ = _recorded(condition, names, x, normal, _FEW[0])
    return {names.unknowns[component] for component, _ in read}


@torch.enable_grad()
def _recorded(
    condition: Condition, names: Names, x: Tensor, normal: Tensor | None, n: int
) -> tuple[set[tuple[int, MultiIndex]], object]:
    """Components and multi-indices that a residual reads at ``n`` points, and its value there."""
    few = torch.arange(n) % len(x)
    picked = None if normal is None else normal[few]
    recorder = Recorder(names, n, picked, x.device)
    value = _run(condition, x[few], recorder)
    return set(recorder.read), value


def _run(condition: Condition, x: Tensor, d: Derivatives) -> object:
    try:
        with computed(f"{condition.name}: its residual", x):
            return condition.residual(x, d)
    except AttributeError as error:
        raise ValueError(f"{condition.name}: {error}") from error


@contextmanager
def computed(what: str, x: Tensor) -> Iterator[None]:
    """Convert errors of a problem's function at points to a `ValueError` that begins with
    ``what``."""
    try:
        yield
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        # Errors of shapes that do not fit, or of a tensor, text or list instead of a number.
        if isinstance(error, ValueError) and "tensor" not in str(error):
            raise  # an error that the problem itself raises
        raise ValueError(
            f"{what} cannot be computed at {len(x)} points: {error}; columns of x are x[:, j], and "
            "functions of them torch's, as torch.sin"
        ) from error


def check_residual(
    condition: Condition,
    names: Names,
    rows: tuple[Row, ...],
    x: Tensor,
    normal: Tensor | None,
) -> None:
    """Evaluate the residual on random jets.

    Raises:
        ValueError: the value at a point depends on other points, or is finite for none of the jets.
    """
    shape = (len(rows), len(x), len(names.unknowns))
    generator = torch.Generator().manual_seed(1)
    finite = torch.zeros(len(x), dtype=torch.bool)
    positive = torch.rand(shape, dtype=torch.float64, generator=generator) + 0.5
    signed = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    few = _far_from_the_first(x)
    for data in (positive, *signed, *(-s for s in signed)):
        jet = Jet(data, rows, names)
        value = equations(condition, x, jet, normal).detach()
        _check_pointwise(condition, x, jet, normal, value, few)
        finite |= value.isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(
            f"{condition.name}: its residual is not finite at {int((~finite).sum())} of "
            f"{len(finite)} points, whatever the unknowns are"
        )


@torch.enable_grad()
def linear_form(
    condition: Condition,
    names: Names,
    rows: tuple[Row, ...],
    inner: tuple[Row, ...],
    x: Tensor,
    normal: Tensor | None,
) -> LinearForm | None:
    """The residual as a linear form in the jet. It is None where the residual is not linear, or has
    coefficients that are trained.

    Args:
        condition: the condition with the residual.
        names: the names of axes and unknowns.
        rows: the rows that the residual reads.
        inner: the rows of the jet: the same, or their `collapsed` rows.
        x: points ``[N, d]``.
        normal: normals on a boundary.

    Raises:
        ValueError: autograd's derivatives of the residual are wrong.
    """
    n, n_components = len(x), len(names.unknowns)

    def residual(data: Tensor) -> Tensor:
        jet = taken_apart(Jet(data, inner, names), rows)
        return equations(condition, x, jet, normal)

    zeros = torch.zeros(len(inner), n, n_components, dtype=torch.float64, device=x.device)
    offset = residual(zeros)
    if offset.requires_grad:  # the residual has trained coefficients
        return None
    parts = []
    for row in range(len(inner)):
        for component in range(n_components):
            unit = zeros.clone()
            unit[row, :, component] = 1
            parts.append(residual(unit) - offset)
    if any(part.requires_grad for part in parts):
        return None
    coefficients = torch.stack(parts).unflatten(0, (len(inner), n_components))
    for scale in _SCALES:
        data = (scale * _random_jet(names, inner, n, x.device)).requires_grad_(True)
        value = residual(data)
        terms = data.movedim(-1, 1)[..., None] * coefficients
        expected = terms.sum(dim=(0, 1)) + offset
        tolerance = _TOLERANCE * (terms.abs().sum(dim=(0, 1)) + offset.abs())
        if not ((value - expected).abs() <= tolerance).all():
            return None
    if value.requires_grad:
        _check_slopes(condition, value, data, coefficients, offset)
    return LinearForm(coefficients.detach(), offset.detach())


def _check_slopes(
    condition: Condition, value: Tensor, data: Tensor, coefficients: Tensor, offset: Tensor
) -> None:
    """Compare autograd's derivatives of a linear residual with its coefficients, which training
    with some optimizers uses instead."""
    weights = torch.arange(1.0, value.shape[-1] + 1).to(value)  # different for each equation
    [slopes] = torch.autograd.grad((value * weights).sum(), data, materialize_grads=True)
    expected = (coefficients * weights).sum(dim=-1).movedim(1, -1)
    size = expected.abs() + (offset.abs() * weights).sum(dim=-1, keepdim=True)
    # A division by 0 in the branch of a `where` that is not selected is NaN in derivatives alone.
    if ((slopes - expected).abs() > 1e-6 * size).logical_and(slopes.isfinite()).any():
        raise ValueError(
            f"{condition.name}: its residual is linear in what it reads of d, and autograd finds "
            f"other slopes: leave out {_CUTS}"
        )


def _far_from_the_first(x: Tensor) -> Tensor:
    """Indices of half of the points, the farthest from the first one first, because a residual may
    branch on its first point."""
    if len(x) < 2:
        return torch.arange(0)
    distance = ((x - x[0]) / (x.amax(0) - x.amin(0)).clamp_min(1e-300)).abs().sum(dim=1)
    return distance.argsort(descending=True)[: -(-len(x) // 2)]


def _check_pointwise(
    condition: Condition, x: Tensor, jet: Jet, normal: Tensor | None, value: Tensor, few: Tensor
) -> None:
    """Refuse a residual whose values at a few points differ from those at the same among all."""
    if not len(few):
        return
    picked = None if normal is None else normal[few]
    fewer = equations(condition, x[few], Jet(jet.data[:, few], jet.rows, jet.names), picked)
    fewer = fewer.detach()
    value = value[few]
    # A trained coefficient may be a network, whose sums depend on the number of points.
    atol = _ROUND_OFF * value.where(value.isfinite(), 0).abs().max().item()
    if not torch.allclose(fewer, value, rtol=0, atol=atol, equal_nan=True):
        raise ValueError(
            f"{condition.name}: its residual at a point depends on the other points; a condition "
            "is an equation at each point"
        )


@torch.enable_grad()
def collapsed(
    condition: Condition,
    names: Names,
    rows: tuple[Row, ...],
    x: Tensor,
    normal: Tensor | None,
    parameters: Sequence[Tensor],
) -> tuple[Row, ...]:
    """The rows of a smaller jet that is enough for the residual.

    Where the residual reads the highest derivatives only in one combination with fixed weights,
    such as u_xx + u_yy, they become one `Sum`; see `taken_apart`.

    Args:
        condition: the condition with the residual.
        names: the names of axes and unknowns.
        rows: the rows that the residual reads.
        x: points ``[N, d]``.
        normal: normals on a boundary.
        parameters: the trained parameters; weights that depend on them are not fixed.
    """
    plain = [row for row in rows if not isinstance(row, Sum)]
    top = [alpha for alpha in plain if not _is_below_another(alpha, plain)]
    if len(top) < 2:
        return rows
    at = [plain.index(alpha) for alpha in top]
    few = torch.linspace(0, len(x) - 1, min(len(x), _PROBED)).long()
    some = (x[few], None if normal is None else normal[few])
    slopes = torch.cat(
        [_slopes(condition, names, rows, *some, scale)[at].flatten(1) for scale in _SCALES],
        dim=1,
    )
    sums, left = [], list(range(len(top)))
    while left:
        group = _proportional(slopes, left, parameters)
        if len(group) > 1:
            sums.append(Sum(tuple((weight, top[i]) for i, weight in group.items())))
        left = [i for i in left if i not in group]
    summed = {alpha for one in sums for _, alpha in one.terms}
    fewer = jet_rows((*[alpha for alpha in plain if alpha not in summed], *sums), len(top[0]))
    known = (condition, names, rows, fewer, x, normal)
    if not is_enough(*known):
        return rows
    with _shaken(parameters) as are_trained:
        return fewer if not are_trained or is_enough(*known) else rows


def _proportional(
    slopes: Tensor, left: Sequence[int], parameters: Sequence[Tensor]
) -> dict[int, float]:
    """The weights of the first of the derivatives ``left`` and of those whose slopes are a fixed
    multiple of its slopes."""
    first, *others = left
    group, line = {first: 1.0}, slopes[first]
    best = line.abs().argmax()
    for other in others:
        weight = slopes[other, best] / line[best]
        fixed = bool(weight.isfinite()) and bool(weight) and not _depends_on(weight, parameters)
        if fixed and torch.allclose(slopes[other], weight * line, rtol=1e-11, atol=0):
            group[other] = weight.item()
    return group


def taken_apart(jet: Jet, rows: tuple[Row, ...]) -> Jet:
    """A jet of ``rows`` from a jet of `collapsed` rows.

    Where the residual reads derivatives only in a sum, the first of them is set to the whole sum,
    divided by its weight, and the others are set to 0.
    """
    if jet.rows == rows:
        return jet
    found: dict[Row, Tensor] = dict(zip(jet.rows, jet.data.unbind(-3), strict=True))
    zeros = torch.zeros_like(found[jet.rows[0]])
    for row in jet.rows:
        if isinstance(row, Sum):
            weight, first = row.terms[0]
            found[first] = found[row] if weight == 1 else found[row] / weight
    data = torch.stack([found.get(row, zeros) for row in rows], dim=-3)
    return Jet(data, rows, jet.names)


def operator_size(
    condition: Condition,
    names: Names,
    widths: Sequence[float],
    wave_number: float,
    x: Tensor,
    normal: Tensor | None,
) -> float:
    """The size of a residual for a wave of amplitude 1: √(mean Σ_kc (∂residual/∂(∂_k u_c) s_k)²)
    over points and equations, with s_k = Π_j (wave_number / width_j)^(k_j).

    The derivatives of a nonlinear residual are taken at random numbers of the sizes s_k. A point
    with a derivative that is not finite, such as that of √u below 0, is left out; the size is NaN
    if no point remains.

    Args:
        condition: the condition with the residual.
        names: the names of axes and unknowns.
        widths: the width of the domain along each axis.
        wave_number: the number of radians of the wave across the domain.
        x: points ``[N, d]``.
        normal: normals on a boundary.
    """
    rows, _ = trace(condition, names, x, normal)
    sizes = torch.tensor(
        [
            math.prod((wave_number / width) ** m for width, m in zip(widths, row, strict=True))
            for row in rows
            if not isinstance(row, Sum)
        ],
        dtype=torch.float64,
    )[:, None, None]
    slopes = _slopes(condition, names, rows, x, normal, sizes).detach() * sizes[..., None]
    squares = slopes.square().sum(dim=(0, 2))
    if not (finite := squares.isfinite()).all():
        squares = squares[finite]
    return squares.mean().sqrt().item()


def _slopes(
    condition: Condition,
    names: Names,
    rows: tuple[Row, ...],
    x: Tensor,
    normal: Tensor | None,
    scale: float | Tensor,
) -> Tensor:
    """The derivatives of every equation in the jet, at a random jet: ``[K, N, C, E]``."""
    jet = (scale * _random_jet(names, rows, len(x), x.device)).requires_grad_(True)
    value = equations(condition, x, Jet(jet, rows, names), normal)
    columns = [
        torch.autograd.grad(column.sum(), jet, create_graph=True, materialize_grads=True)[0]
        if column.requires_grad
        else torch.zeros_like(jet)
        for column in value.unbind(-1)
    ]
    return torch.stack(columns, dim=-1)


def _random_jet(names: Names, rows: tuple[Row, ...], n_points: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (len(rows), n_points, len(names.unknowns))
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device)


@contextmanager
def _shaken(parameters: Sequence[Tensor]) -> Iterator[bool]:
    """Change the trained parameters within the block, and yield whether there are any."""
    trained = [p for p in parameters if p.requires_grad]
    generator, own = torch.Generator().manual_seed(0), [p.data for p in trained]
    try:
        for p in trained:
            noise = torch.rand(p.shape, dtype=torch.float64, generator=generator) + 0.5
            p.data = p.data + (noise * (0.1 + 0.1 * p.data.abs())).to(p.dtype)
        yield bool(trained)
    finally:
        for p, data in zip(trained, own, strict=True):
            p.data = data


def _depends_on(weight: Tensor, parameters: Sequence[Tensor]) -> bool:
    trained = [p for p in parameters if p.requires_grad]
    if not weight.requires_grad or not trained:
        return False
    found = torch.autograd.grad(weight, trained, allow_unused=True, retain_graph=True)
    return any(g is not None and bool((g.abs() > 1e-12).any()) for g in found)


def is_enough(
    condition: Condition,
    names: Names,
    rows: tuple[Row, ...],
    fewer: tuple[Row, ...],
    x: Tensor,
    normal: Tensor | None,
) -> bool:
    """Whether the residual can be computed from the rows ``fewer``."""
    alphas, _ = expanded(fewer)
    for scale in _SCALES:
        data = scale * _random_jet(names, rows, len(x), x.device)
        by_alpha = torch.stack([data[rows.index(alpha)] for alpha in alphas])
        jet = taken_apart(Jet(combined(by_alpha, fewer), fewer, names), rows)
        own = equations(condition, x, Jet(data, rows, names), normal)
        if not torch.allclose(equations(condition, x, jet, normal), own, rtol=1e-9, atol=0):
            return False
    return True


def _is_below_another(alpha: MultiIndex, rows: Sequence[MultiIndex]) -> bool:
    return any(
        other != alpha and all(a <= b for a, b in zip(alpha, other, strict=True)) for other in rows
    )
