"""A term of the loss: a condition at its collocation points."""

from __future__ import annotations

import copy
import math
from numbers import Real

import torch
from torch import Tensor, nn

from diffhash.geometry import Periodic, Surface
from diffhash.jets import Jet, Sum
from diffhash.problems import Condition, Problem
from diffhash.problems.condition import Measured
from diffhash.problems.problem import points_of
from diffhash.problems.tracer import (
    check_residual,
    collapsed,
    equations,
    is_enough,
    linear_form,
    taken_apart,
    trace,
)

_SPACINGS = 4  # spacings of floating-point numbers of an interval by which rounding moves a point
# Further points, by which the derivatives that a residual reads in general are found.
_FEW_POINTS, _OTHER_SEED = 256, 12345
_FLOOR = 0.01  # the least size of an equation's parts at a point, relative to their usual size


class Term(nn.Module):
    """weight · mean((residual(x, u) - target)²) over points and equations of a condition.

    Args:
        problem: the problem that has the condition.
        condition: the equation that u has to satisfy, and the set of points where it holds.
        n_points: the number N of points, or of pairs of points; measured values are all taken.
        weight: a factor besides the condition's own weight; a buffer, which training may change.
        rule: the rule by which points are placed; see `Domain.sample`.
        seed: the seed of that rule.

    Attributes:
        name: the condition's name. The history's column ``loss_<name>`` is the contribution of this
            term to the ``loss`` of the same row.
        x: points ``[N, d]``, or both points of each pair ``[2N, d]``; float64.
        target: ``[N, E]``, float64.
        rows: the derivatives in the jet from which the term is computed.
        read: the derivatives that the residual reads, of which ``rows`` may have sums.
        coefficients: ``[K, C, N, E]`` where the residual is linear in that jet, else None.
        is_linear: whether the residual is linear in that jet and has no trained coefficients.
        point_weights: w of the points, ``[N]``: the term is the mean of w · error²; None for 1.
        kept_errors: the errors of the latest step, ``[(R,) N, E]``; None where they are not kept.

    Raises:
        ValueError: a condition that cannot be evaluated: a residual or target of a wrong shape, not
            finite, or of a solution that is not known; points outside the domain's axes.
    """

    x: Tensor
    target: Tensor
    weight: Tensor
    normal: Tensor | None
    coefficients: Tensor | None
    point_weights: Tensor | None
    offset: Tensor | None
    kept_errors: Tensor | None
    fraction = 1.0  # the part of the whole term's points that a shard has
    _shard_of: tuple[Term, Tensor] | None = None

    def __init__(
        self,
        problem: Problem,
        condition: Condition,
        n_points: int,
        weight: float = 1.0,
        rule: str = "even",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.name, self.condition, self.names = condition.name, condition, problem.names
        if not isinstance(weight, Real) or not 0 <= weight < math.inf:
            raise ValueError(f"weights.{self.name}={weight}: give a finite number of at least 0")
        x, normal = points_of(condition, problem.domain, n_points, rule, seed)
        x, normal = x.clone(), None if normal is None else normal.clone()  # both may change
        self.is_paired = isinstance(condition.where, Periodic)
        first = x[: len(x) // 2] if self.is_paired else x
        self.rows, _ = trace(condition, self.names, first, normal)
        self._problem = (problem,)  # in a tuple, so that it is no submodule of the term
        target = problem.target(condition, first, normal).clone()
        self._check("its target", target)
        known = (first, normal)
        check_residual(condition, self.names, self.rows, *known)
        self.read = self.rows  # the derivatives that the residual reads
        self.rows = collapsed(condition, self.names, self.read, *known, [*problem.parameters()])
        form = linear_form(condition, self.names, self.read, self.rows, *known)
        self.is_linear = form is not None
        if self.is_paired:  # the residual is linear in the difference of two jets
            form = None
        measured = condition.where if isinstance(condition.where, Measured) else None
        weights = None if measured is None else measured.weights
        total = torch.tensor(float(weight) * condition.weight, dtype=torch.float64)
        buffers = {
            "x": x,
            "target": target,
            "normal": normal,
            "weight": total,
            "coefficients": None if form is None else form.coefficients,
            "offset": None if form is None else form.offset,
            "point_weights": None if weights is None else weights / weights.mean(),
            "kept_errors": None,
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self._converted = x, target

    def _check(self, what: str, tensor: Tensor) -> None:
        finite = tensor.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise ValueError(
                f"{self.name}: {what} is not finite at {int((~finite).sum())} of {len(finite)} "
                "points"
            )

    def __len__(self) -> int:
        return len(self.target)

    def kernel_form(self) -> tuple[Tensor, Tensor] | None:
        """Coefficients ``[K, C, N, E]`` and target ``[N, E]`` of the residual's linear form,
        for the kernel of linear least squares; None where the residual has no such form."""
        if self.coefficients is None or self.offset is None:
            return None
        return self.coefficients, self.target - self.offset

    def in_dtype(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Points and targets in the precision of training; converted once.

        Points stay in float64 where rounding would move them by more than 4 spacings of that
        precision, relative to the interval that they span; this is so for intervals far from 0.
        """
        x, target = self._converted
        if target.dtype != dtype or target.device != self.x.device:
            x, target = self.x, self.target.to(dtype)
            moved = (x.to(dtype).to(x.dtype) - x).abs().amax(dim=0)
            if (moved <= _SPACINGS * torch.finfo(dtype).eps * (x.amax(0) - x.amin(0))).all():
                x = x.to(dtype)
            self._converted = x, target
        return x, target

    def points(self, index: Tensor | None) -> Tensor:
        """The points at which a jet of the term is taken, or those with the indices ``index``."""
        if index is None:
            return self.x
        return self.x[torch.cat([index, index + len(self)]) if self.is_paired else index]

    def errors(self, jet: Jet, index: Tensor | None = None) -> Tensor:
        """residual - target, ``[.., N, E]``.

        Args:
            jet: the jet of u at `points`.
            index: indices of the points; None for all.

        Raises:
            ValueError: the residual has another shape than its target.
        """
        dtype = jet.data.dtype
        x, target = self.in_dtype(dtype)
        normal = None if self.normal is None else self.normal.to(dtype)
        if self.is_paired:
            x = x[: len(self)]
            first, second = jet.data.tensor_split(2, dim=-2)
            jet = Jet(first - second, jet.rows, jet.names)
        if index is not None:
            x, target = x[index], target[index]
            normal = None if normal is None else normal[index]
        value = equations(self.condition, x, taken_apart(jet, self.read), normal)
        if value.shape[-2:] != target.shape:
            # Broadcasting would silently turn N errors into N².
            raise ValueError(
                f"{self.name}: its residual is of shape {list(value.shape)}, its target of shape "
                f"{list(target.shape)}: give both alike"
            )
        return value.to(dtype) - target

    def violation(self, jet: Jet, sizes: Tensor, wave_number: float) -> tuple[Tensor, Tensor]:
        """The errors r, and how large they are beside the parts of the equation, ``[.., N, E]``:

            |r| / (Σ |∂r/∂d · d| + 0.01 · (rms Σ |∂r/∂d · d| + Σ |∂r/∂d| · size_d))

        with sums over the derivatives d of the unknowns that the residual r reads, and size_d the
        size of d for a wave of that amplitude and number of radians across the domain.

        Args:
            jet: the jet of u at the term's points, with the rows ``read``.
            sizes: the amplitude for each unknown, ``[C]`` or ``[R, C]``.
            wave_number: the number of radians.
        """
        data = jet.data.detach().double().requires_grad_(True)
        widths = data.new_tensor([high - low for low, high in self._problem[0].domain.bounds])
        orders = data.new_tensor([row for row in jet.rows if not isinstance(row, Sum)])
        waves = ((wave_number / widths) ** orders).prod(dim=1)
        size = (waves[:, None] * sizes.to(data)[..., None, :])[..., None, :]  # [.., K, 1, C]
        with torch.enable_grad():
            errors = self.errors(Jet(data, jet.rows, jet.names))
            gradients = [
                torch.autograd.grad(
                    errors[..., e].sum(), data, retain_graph=True, materialize_grads=True
                )[0].abs()
                for e in range(errors.shape[-1])
            ]
        slopes = torch.stack(gradients, dim=-1)  # [.., K, N, C, E]
        parts = (slopes * data.detach().abs()[..., None]).sum(dim=(-4, -2))
        typical = (slopes * size[..., None]).sum(dim=(-4, -2))
        floor = typical + parts.square().mean(dim=-2, keepdim=True).sqrt()
        errors = errors.detach()
        return errors, errors.abs() / (parts + _FLOOR * floor).clamp(min=1e-300)

    def loss(self, jet: Jet, index: Tensor | None = None) -> Tensor:
        """The term's contribution to the loss: a scalar, or ``[R]`` for replicas."""
        errors = self.errors(jet, index)
        self.keep_errors(errors.detach(), index)
        mean = self.mean_square(errors, index)
        part = self.weight.to(mean.dtype) * mean
        return part if self.fraction == 1 else self.fraction * part

    def mean_square(self, errors: Tensor, index: Tensor | None = None) -> Tensor:
        """mean(w · error²): the term without its weight."""
        squares = errors.square()
        weights = self.weights_of_points(squares.dtype, index)
        if weights is not None:
            squares = squares * weights[:, None]
        return squares.mean(dim=(-2, -1))

    def weights_of_points(self, dtype: torch.dtype, index: Tensor | None = None) -> Tensor | None:
        """w in the precision of training, at all points or at those with the indices ``index``."""
        weights = self.point_weights
        if weights is None:
            return None
        return (weights if index is None else weights[index]).to(dtype)

    @property
    def is_plain(self) -> bool:
        """Whether all points have the same weight and no errors are kept; read at every step."""
        buffers = self._buffers  # faster than attribute access of a module
        return buffers["point_weights"] is None and buffers["kept_errors"] is None

    @property
    def present_weight(self) -> float:
        """The factor of its mean square in the loss, which may change between steps."""
        weight = self._buffers["weight"]  # faster than attribute access of a module
        assert weight is not None
        return self.fraction * weight.item()

    def own_point_weights(self) -> None:
        """Give every point a weight, 1 if it has none, that can be changed in place."""
        given = self.point_weights
        self.point_weights = torch.ones_like(self.x[: len(self), 0]) if given is None else given

    def keep_errors(self, errors: Tensor, index: Tensor | None = None) -> None:
        """Copy errors into `kept_errors`, if they are kept."""
        if self.kept_errors is None:
            return
        if index is None:
            self.kept_errors.copy_(errors)
        else:
            self.kept_errors.index_copy_(-2, index, errors)

    def draw(self, n: int, rule: str, seed: int) -> Tensor:
        """Draw ``n`` points of the condition, ``[n, d]``, or pairs, ``[2n, d]``; see
        `Domain.sample`."""
        return points_of(self.condition, self._problem[0].domain, n, rule, seed)[0]

    def check_moves(self) -> None:
        """Raise `ValueError` unless the condition can be evaluated at other points."""
        if isinstance(self.condition.where, Measured):
            raise ValueError(f"{self.name}: it is of measured values, whose points are given")

    def prepare_to_move(self) -> None:
        """Find which derivatives the residual reads at points in general; call it before plans are
        made.

        A fixed ratio of derivatives, or a linear form of the residual, that holds at the first
        points alone is not used.

        Raises:
            ValueError: as `check_moves`.
        """
        self.check_moves()
        others, n = self._draw_alike(), len(self)
        x = torch.cat([self.x[:n], others[: len(others) // 2] if self.is_paired else others])
        known = x, self._normals(x)
        condition, parameters = self.condition, [*self._problem[0].parameters()]
        self.rows = collapsed(condition, self.names, self.read, *known, parameters)
        form = None
        if not self.is_paired:
            form = linear_form(condition, self.names, self.read, self.rows, *known)
        self.coefficients = None if form is None else form.coefficients[:, :, :n].contiguous()
        self.offset = None if form is None else form.offset[:n].contiguous()

    def _draw_alike(self) -> Tensor:
        return self.draw(max(len(self), _FEW_POINTS), "uniform", _OTHER_SEED).to(self.x)

    def _normals(self, x: Tensor) -> Tensor | None:
        where = self.condition.where
        return where.normals(x.cpu()).to(x) if isinstance(where, Surface) else None

    def at(self, x: Tensor) -> Term:
        """A copy of the term at other points, ``[M, d]``, or pairs of points, ``[2M, d]``.

        Raises:
            ValueError: as `check_moves`; a target or coefficients that are not finite there; or a
                residual that is linear at the present points, and not there.
        """
        self.check_moves()
        x = x.to(self.x, copy=True)
        self._check("its points", x)
        first = x[: len(x) // 2] if self.is_paired else x
        known = first, self._normals(first)
        target = self._problem[0].target(self.condition, *known).to(x)
        self._check("its target", target)
        condition, names, read = self.condition, self.names, self.read
        form = None
        if self.coefficients is not None:
            form = linear_form(condition, names, read, self.rows, *known)
        is_same = self.coefficients is None or form is not None
        if is_same and read != self.rows:
            is_same = is_enough(condition, names, read, self.rows, *known)
        if not is_same:
            raise ValueError(
                f"{self.name}: its residual is another function of the derivatives at new points "
                "than it was at the first: write it so that it is the same everywhere"
            )
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other.x, other.target, other.normal = x, target, known[1]
        other.point_weights = other.kept_errors = None
        if form is not None:
            other.coefficients, other.offset = form.coefficients, form.offset
        other._converted = x, target
        return other

    def move(self, x: Tensor) -> None:
        """Move the term to as many other points; all buffers that depend on them change in place.

        Weights of points stay with their indices.

        Raises:
            ValueError: as `at`, or for another number of points.
        """
        if x.shape != self.x.shape:
            raise ValueError(
                f"{self.name}: new points have the shape {list(x.shape)}, there are "
                f"{list(self.x.shape)}: give as many"
            )
        self._write(self.at(x))

    def _write(self, other: Term) -> None:
        for name in ("x", "target", "normal", "coefficients", "offset"):
            present = getattr(self, name)
            if present is not None:
                present.copy_(getattr(other, name))
        for converted, new in zip(self._converted, (other.x, other.target), strict=True):
            converted.copy_(new)

    def shard(self, index: int, count: int) -> Term:
        """The term at every ``count``-th point from ``index`` on, as a part of the same mean.

        The shard shares this term's weight, also when it changes.

        Raises:
            ValueError: there are fewer points than parts.
        """
        n = len(self)
        if n < count:
            raise ValueError(
                f"devices={count}: the term {self.name} has {n} points, each device needs at least "
                "one"
            )
        rows = torch.arange(index, n, count, device=self.x.device)
        part = self._some(rows)
        part.fraction = len(rows) / n
        part._shard_of = self, rows
        return part

    def update_shard(self) -> None:
        """If this is a `shard`, copy its points from the whole term again, in place."""
        if self._shard_of is not None:
            whole, rows = self._shard_of
            self._write(whole._some(rows))

    def _some(self, rows: Tensor) -> Term:
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.x = self.points(rows)
        for name in ("target", "normal", "offset", "point_weights"):
            whole = getattr(self, name)
            setattr(part, name, None if whole is None else whole[rows])
        if self.coefficients is not None:
            part.coefficients = self.coefficients[:, :, rows]
        part._converted = part.x, part.target
        return part
