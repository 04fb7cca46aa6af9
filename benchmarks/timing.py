"""Clocks: interleaved repetitions, peak memory of a call, bandwidth of a device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call; on a CUDA device, between events around it."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    result = call()
    elapsed = 1e3 * (time.perf_counter() - begin)
    del result  # freed outside the measurement
    return elapsed


def interleave(
    calls: Mapping[str, Callable[[int], object]],
    device: torch.device,
    repetitions: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Milliseconds of repeated calls, in turns, so that all see the same state of the machine.

    Args:
        calls: each takes the number of the repetition.
        repetitions: of each call.
        seconds: a call that has taken this long in all is not repeated any more.

    Returns:
        For each call, at least one time.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repetitions):
        for name, call in calls.items():
            if i == 0 or sum(times[name]) < 1e3 * seconds:
                times[name].append(time_call(partial(call, i), device))
    return times


def peak_memory(call: Callable[[], T], device: torch.device) -> tuple[T, int, int]:
    """The result of a call, the most bytes of tensors it held at a time, and what it left.

    Only tensors made during the call count. On a CPU they are followed one operation at a time,
    which slows the call down: time another one.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        return result, peak, torch.cuda.memory_allocated(device) - before
    with _LiveTensors() as live:
        result = call()
    return result, live.peak, live.now


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Storages of the arguments are not new, whoever made them.
        old = {s._cdata for s in map(_storage, tree_leaves((args, kwargs))) if s is not None}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            storage = _storage(leaf)
            if storage is None or storage._cdata in old or storage._cdata in self._sizes:
                continue
            self._sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, storage._cdata)
        self.peak = max(self.peak, self.now)
        return result

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _storage(leaf: object) -> torch.UntypedStorage | None:
    """What a dense tensor lives in; the parts of a sparse one are tensors of their own."""
    if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
        return leaf.untyped_storage()
    return None


def copy_bandwidth(device: torch.device, n_bytes: int = 2**30) -> float:
    """GB/s (10⁹ bytes) that a large copy within the device moves, reads and writes counted."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = interleave({"copy": lambda _: target.copy_(source)}, device, 10, 2.0)["copy"]
    return 2 * n_bytes / (1e6 * min(times))
