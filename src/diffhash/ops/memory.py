"""The size of memory, and errors of too little memory."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CONTAINER_LIMITS = (  # cgroups, version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def physical_memory() -> int:
    """The memory in bytes of this machine, or of the container of this process."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in CONTAINER_LIMITS:
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation has failed; on a CPU torch has no exception class for that."""
    of_torch = isinstance(error, RuntimeError) and "allocate" in str(error)
    return of_torch or isinstance(error, (MemoryError, torch.OutOfMemoryError))
