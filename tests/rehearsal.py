"""A device that replaces a GPU where there is none, with a GPU's rules and real numbers.

Tensors "on the GPU" are on torch's device ``meta``, which has shapes and no numbers. While a
`Rehearsal` is on, each has a twin in the CPU's memory, on which every operation is carried out.
The library finds a device that is no CPU, runs as on a GPU, and gets a GPU's errors: for operations
on tensors of two devices, and for waits for the device and copies from the host where these are
forbidden. A captured step is a list of operations that are carried out again, into the same memory.
Triton's kernels run in its interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from diffhash.ops.backends import triton_backend

DEVICE = torch.device("meta")
aten = torch.ops.aten

# Operations for which the host waits: they need a number there, or a size that numbers determine.
_WAITS = {
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.item.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
}
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_RESHAPING = {aten.set_.source_Tensor, aten.resize_.default, aten.unsqueeze_.default}

# Storages of meta tensors → the memory of their numbers. It outlives a rehearsal, as caches do.
_twins: dict[int, tuple[StorageWeakRef, Tensor]] = {}
# A sparse tensor on the device is an empty one, mapped to its numbers here.
_sparse_twins: WeakIdKeyDictionary = WeakIdKeyDictionary()


class Rehearsal(TorchDispatchMode):
    """A mode in which ``meta`` is a GPU.

    Attributes:
        traffic: the transfers between host and device: ("wait" | "upload" | "scalar", operation).
    """

    def __init__(self) -> None:
        super().__init__()
        self.traffic: list[tuple[str, str]] = []
        self._forbidding = False
        self._recording: list[Callable[[], None]] | None = None

    @contextmanager
    def nothing_but_kernels(self) -> Iterator[None]:
        """Refuse operations that wait for the device, or read the host's memory."""
        before, self._forbidding = self._forbidding, True
        try:
            yield
        finally:
            self._forbidding = before

    @contextmanager
    def capturing(self, graph: Graph) -> Iterator[None]:
        """Record operations in a graph; as on a GPU, they have no effect yet."""
        assert self._recording is None
        before = [(memory, memory.clone()) for _, memory in _twins.values()]
        self._recording = graph.operations
        try:
            with self.nothing_but_kernels():
                yield
        finally:
            self._recording = None
            for memory, numbers in before:
                memory.copy_(numbers)

    def launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        """Launch a kernel of Triton's with the numbers of the arguments."""
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        assert all(t.device == DEVICE for t in tensors), [t.device for t in tensors]
        numbers = [twin(a) if isinstance(a, Tensor) else a for a in arguments]

        def run() -> None:
            with _no_modes():
                kernel[grid](*numbers, **constants)

        run()
        self._note(run)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "diffhash":  # what it is made of obeys the same rules
            with self:
                return func.redispatch(
                    torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs
                )
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                return func.decompose(*args, **kwargs)
        flat, spec = tree_flatten((args, kwargs))
        tensors = [a for a in flat if isinstance(a, Tensor)]
        ours = [t for t in tensors if t.device == DEVICE]
        wanted = kwargs.get("device")
        to_us = wanted is not None and torch.device(wanted) == DEVICE
        if not ours and not to_us:
            return func(*args, **kwargs)
        returned = [r.alias_info for r in func._schema.returns]
        if returned and returned[0] is not None and not returned[0].is_write:
            return func(*args, **kwargs)  # a view: it has the numbers of what it is a view of
        self._check(func, tensors, ours, wanted)
        pairs = [(a, twin(a)) for a in flat if isinstance(a, Tensor)]
        numbers = iter([number for _, number in pairs])
        flat = [next(numbers) if isinstance(a, Tensor) else a for a in flat]
        flat = [torch.device("cpu") if isinstance(a, torch.device) else a for a in flat]
        cpu_args, cpu_kwargs = tree_unflatten(flat, spec)
        found = func(*cpu_args, **cpu_kwargs)
        if func in _RESHAPING:
            func(*args, **kwargs)
        given = {id(number): a for a, number in pairs}
        to_host = wanted is not None and not to_us
        host_is_written = func is aten.copy_.default and args[0].device != DEVICE
        fresh: list[Tensor] = []

        def ours_of(result: Tensor) -> Tensor:
            if id(result) in given:
                return given[id(result)]
            fresh.append(result)
            return result if to_host else on_device(result)

        result = tree_map_only(Tensor, ours_of, found)
        if not host_is_written:

            def again() -> None:
                leaves = [t for t in tree_flatten(func(*cpu_args, **cpu_kwargs))[0]]
                new = [t for t in leaves if isinstance(t, Tensor) and id(t) not in given]
                for old, value in zip(fresh, new, strict=True):
                    old.copy_(value)

            self._note(again)
        return result

    def _check(self, func: Any, tensors: list[Tensor], ours: list[Tensor], wanted: Any) -> None:
        hosts = [t for t in tensors if t.device != DEVICE]
        copies = func in (aten._to_copy.default, aten.copy_.default)
        masks = func in _INDEXING and any(t.dtype == torch.bool for t in ours)
        leaves = wanted is not None and torch.device(wanted) != DEVICE
        if func in _WAITS or masks or (copies and ours and (leaves or tensors[0] is not ours[0])):
            self._cross("wait", func)
        elif hosts and (copies or func in _INDEXING):
            self._cross("upload", func)
        elif any(t.ndim for t in hosts):
            places = ", ".join(f"{t.device}{list(t.shape)}" for t in tensors)
            raise RuntimeError(f"{func}: tensors on two devices: {places}")
        elif hosts:
            self._cross("scalar", func)

    def _cross(self, kind: str, func: Any) -> None:
        if self._forbidding:
            raise RuntimeError(f"{func}: {kind} between host and device inside a step")
        self.traffic.append((kind, str(func)))

    def _note(self, operation: Callable[[], None]) -> None:
        if self._recording is not None:
            self._recording.append(operation)


class _Uploads(TorchFunctionMode):
    """A mode that makes tensors from Python's numbers on the host first: torch itself makes
    ``meta`` tensors from nothing, and calls no mode."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(
                args[0].device
            )
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            tensor, index, *rest = args
            several = index if isinstance(index, tuple) else (index,)
            several = [
                torch.tensor(one).to(tensor.device) if isinstance(one, list) else one
                for one in several
            ]
            args = (tensor, tuple(several), *rest)
        return func(*args, **kwargs)


class Graph:
    """`torch.cuda.CUDAGraph`: operations that are carried out again."""

    def __init__(self) -> None:
        self.operations: list[Callable[[], None]] = []

    def replay(self) -> None:
        """Carry out the operations again, with the present numbers."""
        with _no_modes():
            for operation in self.operations:
                operation()


@contextmanager
def _no_modes() -> Iterator[None]:
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        yield


def twin(tensor: Tensor) -> Tensor:
    """The numbers of a tensor on the device, in the CPU's memory; any other tensor itself."""
    if tensor.device != DEVICE:
        return tensor
    if tensor in _sparse_twins:
        return _sparse_twins[tensor]
    _, memory = _twins[tensor.untyped_storage()._cdata]
    memory = memory.view(tensor.dtype) if memory.dtype != tensor.dtype else memory
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def on_device(numbers: Tensor) -> Tensor:
    """A tensor on the device with these numbers, without a copy."""
    if numbers.layout != torch.strided:
        made = torch.empty(numbers.shape, dtype=numbers.dtype, device=DEVICE)
        _sparse_twins[made] = numbers
        return made
    made = torch.empty_strided(numbers.shape, numbers.stride(), dtype=numbers.dtype, device=DEVICE)
    whole = numbers.detach().as_strided(
        (numbers.untyped_storage().nbytes() // numbers.itemsize,), (1,), 0
    )
    if numbers.storage_offset():
        made = torch.empty(len(whole), dtype=numbers.dtype, device=DEVICE).as_strided(
            numbers.shape, numbers.stride(), numbers.storage_offset()
        )
    storage = made.untyped_storage()
    _twins[storage._cdata] = StorageWeakRef(storage), whole
    return made


def _forget_the_dead() -> None:
    for key in [key for key, (storage, _) in _twins.items() if storage.expired()]:
        del _twins[key]


@contextmanager
def rehearsed() -> Iterator[Rehearsal]:
    """Let the library find the device as a GPU."""
    rehearsal = Rehearsal()
    stream = SimpleNamespace(wait_stream=lambda other: None)
    with pytest.MonkeyPatch.context() as patch, _Uploads(), rehearsal:
        patch.setattr(triton_backend, "launch", rehearsal.launch)
        patch.setattr(torch.cuda, "Stream", lambda: stream)
        patch.setattr(torch.cuda, "current_stream", lambda: stream)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", rehearsal.capturing)
        # The mode computes at once, so plans are made as without it.
        patch.setattr("diffhash.encodings.encoding.is_plain", lambda x: True)
        # torch's fused optimizers ask for the names of devices that have them.
        optimizers = import_module("torch.optim.optimizer")
        known = optimizers._get_fused_kernels_supported_devices
        patch.setattr(
            optimizers,
            "_get_fused_kernels_supported_devices",
            lambda: [*known(), DEVICE.type],
        )
        yield rehearsal
    _forget_the_dead()


class RehearsedGPU(Accelerator):
    """Lightning's accelerator for the device."""

    def setup_device(self, device: torch.device) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "rehearsed"


def strategy() -> SingleDeviceStrategy:
    """Lightning's strategy for the device."""
    return SingleDeviceStrategy(device=DEVICE)
