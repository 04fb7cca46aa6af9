"""Measurements: interleaved repetitions, the peak memory of a call, the bandwidth of a device."""

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
    """The milliseconds of one call; on a CUDA device, between events around it."""
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
    """Milliseconds of repeated calls, in turns, so that the machine's state is the same for all.

    Args:
        calls: the calls by name; each takes the number of the repetition.
        repetitions: the number of repetitions of each call.
        seconds: the total time after which a call is not repeated any more.

    Returns:
        The times of each call, at least one.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repetitions):
        for name, call in calls.items():
            if i == 0 or sum(times[name]) < 1e3 * seconds:
                times[name].append(time_call(partial(call, i), device))
    return times


def peak_memory(call: Callable[[], T], device: torch.device) -> tuple[T, int, int]:
    """The result of a call, and the bytes of its tensors: the peak, and those that remain after it.

    Only tensors made during the call count. On a CPU they are counted at each operation, which
    slows the call down, so that another call must be timed.
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
    """Counts the bytes of the storages that operations make, for as long as these exist."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # The storages of the arguments are not new.
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
    """The storage of a dense tensor, else None; the parts of a sparse one are separate tensors."""
    if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
        return leaf.untyped_storage()
    return None


def copy_bandwidth(device: torch.device, n_bytes: int = 2**30) -> float:
    """The rate of a large copy within the device in GB/s (10⁹ bytes), reads and writes counted."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = interleave({"copy": lambda _: target.copy_(source)}, device, 10, 2.0)["copy"]
    return 2 * n_bytes / (1e6 * min(times))
