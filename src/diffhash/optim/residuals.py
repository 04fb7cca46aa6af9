"""Residuals of an objective as one vector, and its Jacobian in all trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from diffhash.encodings import Encoding, GridEncoding
from diffhash.jets import Jet
from diffhash.networks import Field, FieldPlan
from diffhash.networks.jacobian import JacobianRows, LayerRows
from diffhash.ops.layout import Level
from diffhash.optim.jacobian import Jacobian, Products
from diffhash.optim.layers import Layer
from diffhash.optim.objective import Objective
from diffhash.optim.term import Term
from diffhash.problems import Coefficient

_PIECE = 2**22  # the number of weights of splines that are in memory at a time
_ALIKE = 1e6  # the largest condition number of a matrix of weights that is inverted
_SHORTEST = 1e-8  # the least length of a spline's column, relative to the longest column
_BENDING = 100.0  # the least length of a network's column beside a skip connection, likewise


class _ErrorsOf(nn.Module):
    """r as a function of the parameters of the field and the problem."""

    def __init__(self, residuals: Residuals) -> None:
        super().__init__()
        self.field, self.problem = residuals.field, residuals.objective.problem
        self._of = residuals._errors

    def forward(self) -> Tensor:
        return self._of()


class Residuals:
    """The vector r(θ) whose square |r|² is the objective's loss: the errors of every term, each
    multiplied by √(weight · point weight / (N E)).

    θ are the trained parameters of encoding, network and problem, in that order. Where a grid's
    features go through a `Linear` network, the network's weights stay constant, and the unknowns
    are the coefficients of u's splines instead of the table's entries: C for each row of the table,
    whatever the number of features.

    Where the splines of each level span those of the next coarser level, the Jacobian has columns
    for one level alone (`select`): the finest level, or a coarse one at the start of training.

    Args:
        objective: the objective whose terms give the residuals.
        field: the field that is trained.
        plans: plans of the field at each term's points; None to make them.
        of_entries: whether the unknowns are the table's entries even where they could be
            coefficients of splines.

    Attributes:
        objective: the objective.
        field: the field.
        coefficients: the trained parameters of the problem, by their names.
        n_stages: the number of levels that may be selected; 1 where the columns are of all levels.
        keeps_weights: whether the network is a `Linear` one whose weights stay constant.
        first_dense: the number of the network's first parameters that have no column.

    Raises:
        ValueError: a field without Jacobian.
    """

    def __init__(
        self,
        objective: Objective,
        field: Field,
        plans: Sequence[FieldPlan] | None = None,
        of_entries: bool = False,
    ) -> None:
        self.objective, self.field = objective, field
        self._plans = plans or [field.plan(term.x, term.rows) for term in objective.terms]
        self._table = [p for p in field.encoding.parameters() if p.requires_grad]
        inverses = _inverses(field) if self._table else None
        self.keeps_weights = inverses is not None
        self._inverses = None if of_entries else inverses
        self._levels = range(len(_levels_of(field.encoding)))  # levels that have columns
        self.n_stages = 1
        if self._inverses is not None and _is_nested(field.encoding):
            # Splines of a coarse grid are sums of splines of a finer grid with the same vertices.
            self.n_stages = len(self._levels)
            self.select(self.n_stages - 1)
        params = field.network.params
        self._n_unknowns = field.network.widths[-1]
        # Where the weights stay constant, only the biases of the network are trained.
        constants = params.numel() - self._n_unknowns
        self.first_dense = constants if self.keeps_weights else 0
        if not params.requires_grad:
            self.first_dense = params.numel()
        self.coefficients = {
            name: p for name, p in objective.problem.named_parameters() if p.requires_grad
        }

    @property
    def of_splines(self) -> bool:
        """Whether the unknowns are coefficients of u's splines instead of the table's entries."""
        return self._inverses is not None

    @property
    def is_linear(self) -> bool:
        """Whether r is linear in the unknowns of the Jacobian's columns."""
        of_weights = not self._table and len(self.field.network.widths) < 3
        return (
            (self.keeps_weights or of_weights)
            and not self.coefficients
            and all(term.is_linear for term in self.objective.terms)
        )

    @property
    def n_columns(self) -> int:
        """The number of the Jacobian's columns for the table, or for the splines in its place."""
        if self._inverses is None:
            return sum(p.numel() for p in self._table)
        levels = _levels_of(self.field.encoding)
        return sum(levels[k].n_rows for k in self._levels) * self._n_unknowns

    def select(self, stage: int) -> None:
        """Restrict the columns to one level, ``stage`` from 0 to `n_stages` - 1."""
        if self.n_stages > 1:
            self._levels = range(stage, stage + 1)

    def places(self) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """The positions ``[n, d]`` of the splines of the table's columns (see `GridLayout.places`;
        NaN for hashed rows and other encodings), the level of each, ``[n]``, and the axes that are
        periodic."""
        encoding = self.field.encoding
        if not self._table or not isinstance(encoding, GridEncoding):
            n_dims = self.objective.problem.n_dims
            return np.full((self.n_columns, n_dims), np.nan), np.zeros(self.n_columns, int), ()
        levels = [encoding.layout.levels[k] for k in self._levels]
        places = torch.cat([encoding.layout.places(level) for level in levels]).numpy()
        numbers = np.repeat(np.arange(len(levels)), [level.n_rows for level in levels])
        each = self.n_columns // len(places)  # columns for a row of the table
        return places.repeat(each, axis=0), numbers.repeat(each), encoding.periodic

    @property
    def parameters(self) -> list[nn.Parameter]:
        """θ: the parameters of encoding, network and problem."""
        return [*self._table, self.field.network.params, *self.coefficients.values()]

    @property
    def n_rows(self) -> int:
        """M, the number of residuals."""
        return sum(term.target.numel() for term in self.objective.terms)

    @property
    def n_dense(self) -> int:
        """The number of columns of the Jacobian's dense part."""
        n_network = self.field.network.params.numel() - self.first_dense
        return n_network + sum(p.numel() for p in self.coefficients.values())

    @property
    def coefficient_columns(self) -> dict[str, slice]:
        """The columns of each parameter of the problem, by its name: the last columns, in order."""
        ends = [*accumulate(p.numel() for p in self.coefficients.values())]
        first = self.n_columns + self.n_dense - (ends or [0])[-1]
        return {
            name: slice(first + end - p.numel(), first + end)
            for (name, p), end in zip(self.coefficients.items(), ends, strict=True)
        }

    @property
    def least_lengths(self) -> np.ndarray:
        """The least length of each column in the damping, relative to the longest column, ``[P]``.

        Columns of coefficients are damped by their own lengths, because a coefficient may start far
        from its value. So are those of splines, because they are short at the edge of a grid. Where
        u is a sum of splines, these are all columns. Where a skip connection makes u start as a sum
        of splines, these are the table's columns; there the network's columns are damped by more
        than the longest length, because steps along them make u nonlinear, and the table can reach
        most of the same changes.
        """
        if self.keeps_weights:
            return np.full(self.n_columns + self.n_dense, _SHORTEST)
        least = np.ones(self.n_columns + self.n_dense)
        if self.field.network.has_skip:
            least[: self.n_columns], least[self.n_columns :] = _SHORTEST, _BENDING
        for columns in self.coefficient_columns.values():
            least[columns] = _SHORTEST
        return least

    @property
    def units(self) -> np.ndarray:
        """The unit of each unknown in the damping, ``[P]``: the size of its start for a
        `Coefficient` that does not start at 0, and 1 for all others.

        A coefficient's column is the longer, the smaller the coefficient is. In units of the start
        its length does not depend on the units of the equation.
        """
        units = np.ones(self.n_columns + self.n_dense)
        for name, columns in self.coefficient_columns.items():
            p = self.coefficients[name]
            if isinstance(p, Coefficient):
                units[columns] = abs(p.start) or 1.0
        return units

    @property
    def n_bytes(self) -> int:
        """The memory of the Jacobian in bytes: 8 for each dense number, and 16 for each sparse one
        with its index."""
        encoding, per_row = self.field.encoding, 0
        if self._table:
            per_row = self.n_columns
        if self._table and isinstance(encoding, GridEncoding):
            of_level = self._n_unknowns if self.of_splines else encoding.n_features_per_level
            per_row = len(self._levels) * encoding.layout.n_taps * of_level
        return self.n_rows * (8 * self.n_dense + 16 * per_row)

    def _errors(self) -> Tensor:
        parts = [
            (term.errors(plan.jet()) * _scale(term)).flatten()
            for term, plan in zip(self.objective.terms, self._plans, strict=True)
        ]
        return torch.cat(parts)

    def value(self) -> np.ndarray:
        """Compute r ``[M]`` at the present parameters."""
        with torch.no_grad():
            return self._errors().double().numpy()

    def value_and_products(self) -> tuple[np.ndarray, Products]:
        """Compute r ``[M]``, and products with J without the matrix J.

        The unknowns must be the table's entries; see ``of_entries``.
        """
        assert self._inverses is None
        skipped = self.first_dense if self.field.network.params.requires_grad else 0
        trained = [p for p in self.parameters if p.requires_grad]
        products = Products(_ErrorsOf(self), trained, self.n_columns, skipped)
        return products.value, products

    @torch.enable_grad()
    def value_and_jacobian(self) -> tuple[np.ndarray, Jacobian]:
        """Compute r ``[M]`` and J ``[M, P]``."""
        n_network = self.field.network.params.numel() - self.first_dense
        n_rest = self.n_dense
        # Where J has more columns than rows, a step needs only products with J, not its entries.
        in_layers = self.first_dense == 0 and self.n_rows < n_network
        if in_layers:
            n_network, n_rest = 0, n_rest - n_network
        rest = torch.empty(self.n_rows, n_rest, dtype=torch.float64)
        values, tables, layers, n_done = [], [], [], 0
        for term, plan, index in self._pieces():
            jet, rows_of = plan.jet_and_rows(self.of_splines)
            leaf = jet.data.requires_grad_(True)
            errors = term.errors(Jet(leaf, jet.rows, jet.names), index) * _scale(term, index)
            n_points, n_equations = errors.shape
            values.append(errors.detach().flatten())
            own_rest = rest[n_done : n_done + errors.numel()].unflatten(0, errors.shape)
            n_done += errors.numel()
            found = []
            for e in range(n_equations):
                own = errors[:, e]
                (g,) = torch.autograd.grad(
                    own.sum(), leaf, retain_graph=True, materialize_grads=True
                )
                rows = _both_points(self._of_levels(rows_of(g)), term, n_points)
                if n_network:
                    _write(rows.network, own_rest[:, e, :n_network], self.first_dense)
                own_rest[:, e, n_network:] = self._by_coefficients(own)
                found.append(rows)
            tables.append(_csr(found, n_points, self.n_columns))
            layers.append(_by_layer(found) if in_layers else [])
        table = sparse.csr_array(sparse.vstack(tables, format="csr"))
        kept = [Layer(parts) for parts in zip(*layers, strict=True)]
        return torch.cat(values).double().numpy(), Jacobian(table, kept, rest.numpy())

    def _pieces(self) -> Iterator[tuple[Term, FieldPlan, Tensor | None]]:
        """Iterate over the terms with plans of their points, in pieces of a term's points where a
        plan of all of them would not store the weights of its splines."""
        encoding = self.field.encoding
        for term, plan in zip(self.objective.terms, self._plans, strict=True):
            size = len(term)
            if isinstance(encoding, GridEncoding):
                layout = encoding.layout
                size = _PIECE // (len(layout.levels) * layout.n_taps * len(term.rows))
            if size >= len(term):
                yield term, plan, None
                continue
            for index in torch.arange(len(term)).split(max(1, size)):
                yield term, self.field.plan(term.points(index), term.rows), index

    def _of_levels(self, rows: JacobianRows) -> JacobianRows:
        """Restrict rows to the levels that have columns."""
        levels = _levels_of(self.field.encoding)
        if len(self._levels) == len(levels) or rows.columns is None or rows.table is None:
            return rows
        offset = levels[self._levels[0]].first_row * self._n_unknowns
        kept = slice(self._levels.start, self._levels.stop)
        columns, table = (
            t.unflatten(1, (len(levels), -1))[:, kept].flatten(1)
            for t in (rows.columns, rows.table)
        )
        return rows._replace(columns=columns - offset, table=table)

    def _by_coefficients(self, errors: Tensor) -> Tensor:
        """∂errors/∂coefficients, ``[N, n]``, from two backward passes: the product vᵀJ is linear in
        v, so that its derivative in v is a column of J."""
        columns = []
        for coefficient in self.coefficients.values():
            v = torch.zeros_like(errors, requires_grad=True)
            (product,) = torch.autograd.grad(
                errors, coefficient, v, create_graph=True, materialize_grads=True
            )
            for number in product.flatten():
                if number.requires_grad:
                    (column,) = torch.autograd.grad(
                        number, v, retain_graph=True, materialize_grads=True
                    )
                else:
                    column = torch.zeros_like(errors)
                columns.append(column.detach())
        if not columns:
            return errors.new_zeros(len(errors), 0)
        return torch.stack(columns, dim=1)

    def parts(self, r: np.ndarray) -> list[float]:
        """The contribution of each term to |r|²."""
        ends = np.cumsum([term.target.numel() for term in self.objective.terms])[:-1]
        return [float(part @ part) for part in np.split(r, ends)]

    def state(self) -> list[Tensor]:
        """A copy of θ, for `restore`."""
        return [p.detach().clone() for p in self.parameters]

    def restore(self, state: Sequence[Tensor]) -> None:
        """Set θ to a copy that `state` has made."""
        with torch.no_grad():
            for p, before in zip(self.parameters, state, strict=True):
                p.copy_(before)

    def move(self, step: np.ndarray) -> None:
        """θ ← θ + step, where ``step [P]`` has a number for each column of the Jacobian."""
        delta = torch.from_numpy(step)
        by_table, by_dense = delta.split([self.n_columns, len(delta) - self.n_columns])
        with torch.no_grad():
            if self._inverses is None:
                _add(self._table, by_table)
            else:
                _add(self._table, self._features(by_table.reshape(-1, self._n_unknowns)))
            params = self.field.network.params
            n_network = params.numel() - self.first_dense
            params[self.first_dense :] += by_dense[:n_network].to(params)
            _add([*self.coefficients.values()], by_dense[n_network:])

    def _features(self, splines: Tensor) -> Tensor:
        """The change of the table with the smallest norm that gives a change of the splines."""
        assert self._inverses is not None
        encoding = self.field.encoding
        assert isinstance(encoding, GridEncoding)
        levels, chosen = encoding.layout.levels, self._levels
        parts = splines.split([levels[k].n_rows for k in chosen])
        changes = [part @ self._inverses[k].T for k, part in zip(chosen, parts, strict=True)]
        first = levels[chosen[0]].first_row * encoding.n_features_per_level
        table = splines.new_zeros(encoding.params.numel())
        flat = torch.cat(changes).flatten()
        table[first : first + len(flat)] = flat
        return table


def _add(parameters: Sequence[nn.Parameter], step: Tensor) -> None:
    for p, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
        p += part.reshape(p.shape).to(p)


def _levels_of(encoding: Encoding) -> Sequence[Level]:
    return encoding.layout.levels if isinstance(encoding, GridEncoding) else ()


def _is_nested(encoding: Encoding) -> bool:
    """Whether the splines of each level span those of the next coarser level: B-splines of odd
    degree, on grids each of which has all knots of the next coarser grid."""
    assert isinstance(encoding, GridEncoding)
    layout, levels = encoding.layout, encoding.layout.levels
    spline = layout.interpolation
    if spline.step is not None or spline.dofs > 1 or spline.continuity != spline.degree - 1:
        return False
    if layout.tcnn or not spline.degree % 2 or any(lv.hashed or lv.shift for lv in levels):
        return False
    return all(
        finer % coarser == 0
        for coarse, fine in pairwise(levels)
        for coarser, finer in zip(coarse.scales, fine.scales, strict=True)
    )


def _inverses(field: Field) -> list[Tensor] | None:
    """The pseudo-inverse ``[F, C]`` of each level's part of the weights of a `Linear` network on a
    grid; None for another field, or where a part has too few or nearly dependent features."""
    encoding, widths = field.encoding, field.network.widths
    if len(widths) > 2 or not isinstance(encoding, GridEncoding):
        return None
    weight, _ = field.network.layers[0]
    inverses = []
    for part in weight.detach().double().split(encoding.n_features_per_level, dim=1):
        if part.shape[0] > part.shape[1] or torch.linalg.cond(part) > _ALIKE:
            return None
        inverses.append(torch.linalg.pinv(part))
    return inverses


def _scale(term: Term, index: Tensor | None = None) -> Tensor:
    """√(weight · point weight / (N E)) at all points or the points ``index``, ``[N, 1]``; a scalar
    without point weights."""
    n_points, n_equations = term.target.shape
    scale = (term.weight / (n_points * n_equations)).sqrt()
    weights = term.point_weights
    if weights is None:
        return scale
    return scale * (weights if index is None else weights[index]).sqrt()[:, None]


def _both_points(rows: JacobianRows, term: Term, n_points: int) -> JacobianRows:
    """Merge the rows of both points of each pair, if the term's errors are differences of pairs."""
    if not term.is_paired:
        return rows
    network = tuple(
        LayerRows(*(torch.cat(factor.split(n_points, dim=1)) for factor in layer))
        for layer in rows.network
    )
    if rows.columns is None or rows.table is None:
        return JacobianRows(network)
    halves = [torch.cat([t[:n_points], t[n_points:]], dim=1) for t in (rows.columns, rows.table)]
    return JacobianRows(network, *halves)


def _write(layers: Sequence[LayerRows], out: Tensor, first: int) -> None:
    """Write the rows' derivatives in the network's parameters from ``first`` on into ``out``."""
    if first:
        out.copy_(torch.cat([layer.dense() for layer in layers], dim=1)[:, first:])
        return
    parts = out.split([layer.n_columns for layer in layers], dim=1)
    for layer, part in zip(layers, parts, strict=True):
        layer.write(part)


def _by_layer(equations: Sequence[JacobianRows]) -> list[LayerRows]:
    """The rows of all equations in each layer's parameters; a point's rows are consecutive."""
    return [
        LayerRows(
            *(torch.stack(factors, dim=2).flatten(1, 2) for factors in zip(*layer, strict=True))
        )
        for layer in zip(*(rows.network for rows in equations), strict=True)
    ]


def _csr(equations: Sequence[JacobianRows], n_points: int, size: int) -> sparse.csr_array:
    """The rows of all equations in the table's columns; a point's rows are consecutive."""
    n_rows = n_points * len(equations)
    if not size:
        return sparse.csr_array((n_rows, 0))
    columns = torch.stack([r.columns for r in equations if r.columns is not None], dim=1)
    values = torch.stack([r.table for r in equations if r.table is not None], dim=1)
    per_row = columns.shape[-1]
    starts = np.arange(n_rows + 1) * per_row
    data = values.double().flatten().numpy(), columns.flatten().numpy(), starts
    matrix = sparse.csr_array(data, shape=(n_rows, size))
    matrix.sum_duplicates()
    return matrix
