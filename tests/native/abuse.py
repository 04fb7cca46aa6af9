"""Abusive calls of every function that hands tensors to C, and their correct outcomes.

Every operand of every such call is replaced by tensors that its kernel was not made for: of another
dtype, shape, order or device, without memory, too large. Each call must end in a Python exception,
or in the value that plain torch gives in double precision for the same numbers. Anything else is a
fault, and so is any output of a sanitizer meanwhile:

    python abuse.py [SUBSTRING]        prints the counts; exit status 1 after a fault
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from diffhash import MLP, Field, FourierFeatures, GridEncoding, Identity
from diffhash.jets import jet_rows, named_activation
from diffhash.networks.taylor import (
    network_jet,
    network_jet_and_vjp,
    network_jet_reference,
)
from diffhash.ops.grid import gather, grid_plan, scatter
from diffhash.ops.layout import grid_layout
from diffhash.training.adam import LeanAdam

Tensors = Sequence[Tensor]
Operands = dict[str, Tensor]
# Errors that a call may raise; others, such as AttributeError, are faults.
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError, IndexError, AssertionError)
HUGE = 2**46  # rows: more bytes than there are addresses


@dataclass(frozen=True)
class Abuse:
    """One abusive call: ``act`` makes it, ``right`` gives the right values, if there are any."""

    name: str
    act: Callable[[], Tensors]
    right: Callable[[], Tensors]

    def verdict(self) -> str:
        """``refused``, ``right``, or ``wrong: `` and the reason."""
        try:
            got = [t.detach().clone() for t in self.act()]
        except REFUSALS:
            return "refused"
        except Exception as error:
            return f"wrong: {type(error).__name__}: {error}"
        if not any(t.numel() for t in got) or any(_has_no_numbers(t) for t in got):
            return "right"  # of nothing, or traced
        try:
            expected = [t.detach().double() for t in self.right()]
        except Exception as error:
            return f"wrong: no error, where torch gives {type(error).__name__}: {error}"
        for one, other in zip(got, expected, strict=True):
            if one.shape != other.shape:
                return f"wrong: shape {list(one.shape)}, right is {list(other.shape)}"
            other = other.to(one.dtype)  # beyond its range it is infinite
            finite = other.isfinite()
            if not torch.equal(finite, one.isfinite()):
                return f"wrong: {(~one.isfinite()).sum()} not finite, right are {(~finite).sum()}"
            one, other = one[finite].double(), other[finite].double()
            size = other.abs().max().item() if len(other) else 0.0
            if not torch.allclose(one, other, rtol=1e-3, atol=2e-4 * size + 1e-6):
                return f"wrong: {one[:3].tolist()}, right is {other[:3].tolist()}"
        return "right"


def _has_no_numbers(t: Tensor) -> bool:
    return isinstance(t, FakeTensor) or t.is_meta


class _Subclass(Tensor):
    pass


def _negative(t: Tensor) -> Tensor:
    return torch._neg_view(-t)


def _strided(t: Tensor) -> Tensor:
    return torch.stack([t, t + 1], dim=-1)[..., 0]


def _transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT if t.ndim > 1 else t.flip(0).flip(0)


def _misaligned(t: Tensor) -> Tensor:
    data = bytearray(1) + bytearray(t.contiguous().numpy().tobytes())
    return torch.frombuffer(data, dtype=t.dtype, offset=1).view(t.shape)


def _without_memory(t: Tensor) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def _fake(t: Tensor) -> Tensor:
    with FakeTensorMode():
        return torch.ones(t.shape, dtype=t.dtype)


def _inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def _with(t: Tensor, value: float) -> Tensor:
    t = t.clone()
    t.view(-1)[t.numel() // 2] = value
    return t


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float64": lambda t: t.double(),
    "float32": lambda t: t.float(),
    "int32": lambda t: t.int(),
    "int64": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "complex64": lambda t: t.to(torch.complex64),
    "on meta": lambda t: t.to("meta"),
    "strided": _strided,
    "transposed": _transposed,
    "a negative view": _negative,
    "misaligned": _misaligned,
    "one row repeated": lambda t: t[:1].expand(t.shape),
    "one row fewer": lambda t: t[:-1].clone(),
    "one row more": lambda t: torch.cat([t, t[:1]]),
    "one column fewer": lambda t: t[..., :-1].clone(),
    "one column more": lambda t: torch.cat([t, t[..., :1]], dim=-1),
    "an axis more": lambda t: t[None].clone(),
    "two of an axis more": lambda t: torch.stack([t, t]),
    "an axis less": lambda t: t[0].clone(),
    "axes swapped": lambda t: t.transpose(0, -1).contiguous(),
    "the middle one shorter": lambda t: t.narrow(t.ndim // 2, 0, t.shape[t.ndim // 2] // 2).clone(),
    "a scalar": lambda t: t.new_zeros(()),
    "empty": lambda t: t[:0].clone(),
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: t.to_sparse_csr(),
    "fake": _fake,
    "without memory": _without_memory,
    "huge": lambda t: t[:1].expand(HUGE, *t.shape[1:]),
    "huge columns": lambda t: t[..., :1].expand(*t.shape[:-1], HUGE),
    "a NaN": lambda t: _with(t, float("nan")),
    "an infinity": lambda t: _with(t, float("inf")),
    "a large number": lambda t: _with(t, 1e2),
    "of a subclass": lambda t: t.clone().as_subclass(_Subclass),
    "made in inference mode": _inference,
}


def _dense(t: Tensor) -> Tensor:
    """The numbers of a tensor, dense and in double precision."""
    if t.numel() > 2**30 or t.device.type != "cpu" or t.is_complex():
        raise ValueError("it has no right value")
    return t.detach().as_subclass(Tensor).to_dense().clone().double()


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@dataclass(frozen=True)
class Seam:
    """A call that reaches C: ``act`` by the kernels, ``right`` by torch in double precision.

    Attributes:
        name: the name of the call.
        operands: valid operands.
        act: the call, as a function of the operands.
        right: the values, as a function of the operands in double precision.
    """

    name: str
    operands: Operands
    act: Callable[[Operands], Tensors]
    right: Callable[[Operands], Tensors]

    def abuses(self) -> Iterator[Abuse]:
        for name in self.operands:
            for change in CHANGES:
                # torch's own operations, which come first, crash without memory.
                if change != "without memory" or name not in ("x", "g", "coefficients", "target"):
                    yield self._abuse(name, change)
        yield Abuse(
            f"{self.name}: nothing changed",
            lambda: self.act(self._copy()),
            lambda: self.right({n: _dense(t) for n, t in self.operands.items()}),
        )

    def _copy(self) -> Operands:
        return {n: t.clone() for n, t in self.operands.items()}

    def _abuse(self, name: str, change: str) -> Abuse:
        def changed() -> Operands:
            operands = self._copy()
            return {**operands, name: CHANGES[change](operands[name])}

        def right() -> Tensors:
            return self.right({n: _dense(t) for n, t in changed().items()})

        return Abuse(f"{self.name}: {name} {change}", lambda: self.act(changed()), right)


LAYOUT = grid_layout(2, "cubic", 2, 5, 3, 2.0)
ALPHAS = ((0, 0), (1, 0), (0, 2))
TANH = named_activation("tanh")
WIDTHS, ROWS = (4, 9, 7, 1), jet_rows(2, 1)
N_PARAMS = sum((a + 1) * b for a, b in pairwise(WIDTHS))


def _grid_seams(dtype: torch.dtype, replicas: tuple[int, ...]) -> Iterator[Seam]:
    n, name = 7, f"{dtype}{list(replicas)}"
    x = _random(n, 2, dtype=dtype).sigmoid()
    table = _random(*replicas, LAYOUT.n_rows * 3, dtype=dtype)
    g = _random(*replicas, len(ALPHAS), n, 6, dtype=dtype)

    def by(backend: str, f: Callable[..., Tensor]) -> Callable[[Operands], Tensors]:
        def act(o: Operands) -> Tensors:
            return [f(*o.values(), LAYOUT, ALPHAS, backend)]

        return act

    for f, operand in ((gather, table), (scatter, g)):
        # The shapes of tables and gradients tell the number of features, and are not checked.
        yield Seam(
            f"{f.__name__} {name}", {"x": x, "operand": operand}, by("native", f), by("torch", f)
        )

    def planned(
        backend: str, dtype: torch.dtype, transposed: bool
    ) -> Callable[[Operands], Tensors]:
        def act(o: Operands) -> Tensors:
            plan = grid_plan(o["x"], LAYOUT, ALPHAS, dtype, backend)
            return [plan.scatter(o["operand"]) if transposed else plan.gather(o["operand"])]

        return act

    for operand in (table, g):
        yield Seam(
            f"GridPlan.{'gather' if operand is table else 'scatter'} {name}",
            {"x": x, "operand": operand},
            planned("native", dtype, operand is g),
            planned("torch", torch.float64, operand is g),
        )


def _network_seams(dtype: torch.dtype, replicas: tuple[int, ...]) -> Iterator[Seam]:
    name = f"{dtype}{list(replicas)}"
    features = _random(*replicas, 3, 11, WIDTHS[0], dtype=dtype)
    params = _random(*replicas, N_PARAMS, dtype=dtype)
    g = _random(*replicas, 3, 11, 1, dtype=dtype)

    def right(o: Operands) -> Tensors:
        shape = (*o["params"].shape[:-1], *o["features"].shape[-3:-1], 1)
        if o["params"].shape[-1] != N_PARAMS or o["features"].shape[-3] != 3:
            raise ValueError("not of the network's shape")
        if o["g"].shape != shape or o["features"].ndim > o["params"].ndim + 2:
            raise ValueError("not of the jet's shape")
        leaves = [o[n].clone().requires_grad_() for n in ("features", "params")]
        out = network_jet_reference(*leaves, WIDTHS, ROWS, TANH)
        return [out, *torch.autograd.grad(out, leaves, o["g"])]

    def through_autograd(o: Operands) -> Tensors:
        leaves = [o[n].detach().requires_grad_() for n in ("features", "params")]
        out = network_jet(*leaves, WIDTHS, ROWS, TANH)
        return [out, *torch.autograd.grad(out, leaves, o["g"])]

    def by_vjp(o: Operands) -> Tensors:
        out, vjp = network_jet_and_vjp(o["features"], o["params"], WIDTHS, ROWS, TANH, True)
        params_grad, features_grad = vjp(o["g"])
        assert features_grad is not None
        return [out, features_grad, params_grad]

    operands = {"features": features, "params": params, "g": g}
    yield Seam(f"network_jet {name}", operands, through_autograd, right)
    yield Seam(f"network_jet_and_vjp {name}", operands, by_vjp, right)


def _field(encoder: str, dtype: torch.dtype) -> Field:
    torch.manual_seed(0)
    if encoder == "grid":
        encoding = GridEncoding(
            1,
            n_levels=2,
            base_resolution=3,
            log2_hashmap_size=4,
            interpolation="cubic",
            init_scale=1.0,
            dtype=dtype,
            seed=0,
        )
    elif encoder == "fourier":
        encoding = FourierFeatures(1, 2, dtype=dtype, seed=0)
    else:
        encoding = Identity(1, dtype=dtype)
    network = MLP(encoding.n_output_dims, 2, width=7, depth=2, dtype=dtype)
    return Field(encoding, network, [(0.0, 2.0)])


def _set(field: Field, o: Operands) -> None:
    field.network.params.data = o["params"]
    if "table" in o:
        field.encoding.params.data = o["table"]  # type: ignore[union-attr]


def _field_seams(encoder: str, dtype: torch.dtype) -> Iterator[Seam]:
    """Calls of a plan that is made of a good field, whose parameters are then replaced."""
    n, start = 13, _field(encoder, dtype)
    name = f"{encoder} {dtype}"
    operands = {"params": start.network.params.detach().clone()}
    if encoder == "grid":
        operands["table"] = start.encoding.params.detach().clone()  # type: ignore[union-attr]
    x = _random(n, 1, dtype=torch.float64).sigmoid() * 2
    equations = {
        "coefficients": _random(3, 2, n, 3, seed=1, dtype=torch.float64),
        "target": _random(n, 3, seed=2, dtype=torch.float64),
    }

    def truth(o: Operands) -> Field:
        field = _field(encoder, torch.float64)
        # Another axis of the network alone is that of replicas, which share the features.
        if o["params"].shape[-1] != operands["params"].shape[-1] or (
            "table" in o and (o["table"].shape, o["params"].ndim) != (operands["table"].shape, 1)
        ):
            raise ValueError("not of the field's shape")
        _set(field, o)
        return field

    def squares(o: Operands) -> Tensors:
        field = _field(encoder, dtype)
        one = field.plan(x, 2).least_squares(o["coefficients"], o["target"])
        assert one is not None
        _set(field, o)
        return [one(0.5), *(p.grad for p in field.parameters() if p.grad is not None)]

    def right_squares(o: Operands) -> Tensors:
        field = truth(o)
        if (
            o["coefficients"].shape[:3] != (3, 2, n)
            or o["target"].shape != o["coefficients"].shape[2:]
        ):
            raise ValueError("not of the jet's shape")
        jet = field.jet(x, 2).data
        error = torch.einsum("kcne,...knc->...ne", o["coefficients"], jet) - o["target"]
        losses = 0.5 * error.square().mean((-2, -1))
        return [losses, *torch.autograd.grad(losses.sum(), list(field.parameters()))]

    yield Seam(f"squares {name}", {**operands, **equations}, squares, right_squares)

    def jet_and_vjp(o: Operands) -> Tensors:
        field = _field(encoder, dtype)
        plan = field.plan(x, 2)
        _set(field, o)
        jet, vjp = plan.jet_and_vjp()
        vjp(o["g"])
        return [jet.data, *(p.grad for p in field.parameters() if p.grad is not None)]

    def right_jet(o: Operands) -> Tensors:
        field = truth(o)
        data = field.jet(x, 2).data
        return [data, *torch.autograd.grad(data, list(field.parameters()), o["g"])]

    g = {"g": _random(3, n, 2, seed=3, dtype=dtype)}
    yield Seam(f"FieldPlan.jet_and_vjp {name}", {**operands, **g}, jet_and_vjp, right_jet)

    def points(o: Operands) -> Tensors:
        jet = _field(encoder, dtype).plan(o["x"], 2).jet()
        return [jet.data]

    def right_points(o: Operands) -> Tensors:
        return [_field(encoder, dtype).double().jet(o["x"], 2).data]

    yield Seam(f"Field.plan {name}", {"x": x}, points, right_points)


def _adam_seams(dtype: torch.dtype) -> Iterator[Seam]:
    operands = {
        "parameter": _random(5, 3, dtype=dtype),
        "gradient": _random(5, 3, seed=1, dtype=dtype),
        "exp_avg": _random(5, 3, seed=2, dtype=dtype),
        "exp_avg_sq": _random(5, 3, seed=3, dtype=dtype).square(),
        "step": torch.tensor(4.0),
    }

    def step(o: Operands) -> Tensors:
        parameter = torch.nn.Parameter(o["parameter"])
        optimizer = LeanAdam([parameter], captured=False)
        optimizer.set_rate(0.1)
        optimizer.state[parameter] = {n: o[n] for n in ("step", "exp_avg", "exp_avg_sq")}
        parameter.grad = o["gradient"]
        optimizer.lean_step()
        state = optimizer.state[parameter]
        return [parameter, *(state[n] for n in ("exp_avg", "exp_avg_sq", "step"))]

    def right(o: Operands) -> Tensors:
        if len({o[n].shape for n in ("parameter", "gradient", "exp_avg", "exp_avg_sq")}) > 1:
            raise ValueError("of different shapes")
        if o["step"].shape != ():
            raise ValueError("a count has no axes")
        g, t = o["gradient"], o["step"] + 1
        m, v = 0.9 * o["exp_avg"] + 0.1 * g, 0.999 * o["exp_avg_sq"] + 0.001 * g * g
        change = 0.1 * m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        return [o["parameter"] - change, m, v, t]

    yield Seam(f"LeanAdam {dtype}", operands, step, right)


def seams() -> Iterator[Seam]:
    """All calls that hand tensors to C."""
    for dtype in (torch.float32, torch.float64):
        for replicas in ((), (2,)):
            yield from _grid_seams(dtype, replicas)
            yield from _network_seams(dtype, replicas)
        yield from _adam_seams(dtype)
        for encoder in ("grid", "fourier", "identity"):
            yield from _field_seams(encoder, dtype)


def abuses(containing: str = "") -> list[Abuse]:
    """All abusive calls whose names contain a text."""
    return [abuse for seam in seams() for abuse in seam.abuses() if containing in abuse.name]


def run(containing: str = "") -> tuple[Counter[str], list[str]]:
    """The numbers of calls that were refused, right or wrong, and the faults.

    New memory is filled with NaN meanwhile, which reveals results that are not written.
    """
    counts: Counter[str] = Counter()
    faults: list[str] = []
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for abuse in abuses(containing):
                verdict = abuse.verdict()
                counts[verdict.partition(":")[0]] += 1
                if verdict.startswith("wrong"):
                    faults.append(f"{abuse.name}: {verdict}")
    finally:
        torch.use_deterministic_algorithms(before)
    return counts, faults


if __name__ == "__main__":
    torch.set_num_threads(1)
    totals, wrong = run(*sys.argv[1:])
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(", ".join(f"{n} {verdict}" for verdict, n in sorted(totals.items())))
    sys.exit(bool(wrong))
