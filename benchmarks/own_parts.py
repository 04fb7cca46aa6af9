"""The gain from two parts of our own that torch has too: Adam's kernel and the pool of threads.

Each case of the paper is trained as it is; with torch's fused Adam instead of our kernel; and with
OpenMP, whose threads torch's kernels use, instead of our pool. All three are timed on a machine
that does nothing else, and beside a process that keeps one core busy.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch

from benchmarks.case import compose_config
from benchmarks.machine import environment_columns
from benchmarks.ours import OURS, Ours
from benchmarks.sample import Contender, Sample, compared, ratios, take_turns
from benchmarks.steps import Options
from diffhash.native import compiled
from diffhash.training import adam

TORCH_ADAM, OPENMP = "torch's Adam", "OpenMP"
CASES = (("mlp", "data"), ("mlp", "pinn"), ("cubic", "data"), ("cubic", "pinn"))
MACHINES = ("quiet", "busy")
COLUMNS = (
    *("encoder", "task", "machine", "contender", "ms", "ms_min", "ms_max", "repetitions"),
    "ours_over_this",
)
_POOL = Path(__file__).with_name("openmp_threads.c")


class Variant:
    """Our step, with one of its parts replaced.

    Args:
        name: the name of the variant.
        ours: our step.
        instead: makes the context in which the part is replaced.
    """

    def __init__(
        self, name: str, ours: Ours, instead: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.name, self._ours, self._instead = name, ours, instead

    def sample(self, seconds: float) -> Sample:
        """A sample of our step with the part replaced."""
        with self._instead():
            return self._ours.sample(seconds)


def torch_adam() -> AbstractContextManager[Any]:
    """The context in which Adam's steps are torch's fused ones."""
    return mock.patch.object(adam, "_kernel", lambda dtype: None)


@contextmanager
def openmp() -> Iterator[None]:
    """The context in which OpenMP divides the work among threads."""
    libraries = [
        compiled("network.c", REAL="float"),
        compiled("adam.c", REAL="float", SQRT="sqrtf"),
    ]
    pointers = [ctypes.c_void_p.in_dll(library, "parallel_for") for library in libraries]
    pools = [pointer.value for pointer in pointers]
    with mock.patch.dict(os.environ, CC=f"{os.environ.get('CC', 'cc')} -fopenmp"):
        other = ctypes.cast(compiled(_POOL).parallel_for_by_openmp, ctypes.c_void_p).value
    for pointer in pointers:
        pointer.value = other
    try:
        yield
    finally:
        for pointer, pool in zip(pointers, pools, strict=True):
            pointer.value = pool


@contextmanager
def busy() -> Iterator[None]:
    """The context in which another process keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def n_cases() -> int:
    """The number of calls of ``advance`` by `measure`."""
    return len(CASES) * len(MACHINES)


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """One row for each case, machine and contender: median and range of milliseconds per step.

    Args:
        advance: called with the name of each case and machine before they are measured.

    Raises:
        ValueError: the device is not a CPU.
    """
    if options.device != torch.device("cpu"):
        raise ValueError(f"device={options.device}: the parts are those of a CPU's steps")
    return pd.DataFrame(_rows(options, advance)).assign(**environment_columns(options.device))


def _rows(options: Options, advance: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for encoder, task in CASES:
        cfg = compose_config([f"encoder={encoder}", f"task={task}", *options.overrides])
        variants = {OURS: nullcontext, TORCH_ADAM: torch_adam, OPENMP: openmp}
        contenders: list[Contender] = [
            Variant(name, Ours(cfg), instead) for name, instead in variants.items()
        ]
        for machine in MACHINES:
            advance(f"{encoder} {task}, {machine}")
            with busy() if machine == "busy" else nullcontext():
                samples = take_turns(
                    contenders, options.repetitions, options.seconds, options.n_threads
                )
            for row in compared(samples, OURS):
                yield {"encoder": encoder, "task": task, "machine": machine} | row


def summary(frame: pd.DataFrame) -> list[str]:
    """A line for each case and machine: the time of our step, and its ratios to the others'."""
    lines = []
    for _, rows in frame.groupby(["encoder", "task", "machine"], sort=False):
        encoder, task, machine = rows.iloc[0][["encoder", "task", "machine"]]
        lines.append(f"{encoder} {task}, {machine} machine: {ratios(rows, OURS, 'times with')}")
    return lines
