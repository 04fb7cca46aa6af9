"""The machine and the versions with which a result was measured."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import torch

import diffhash

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def describe_environment(device: str) -> dict[str, Any]:
    """The versions, the machine and the git state, for a record.

    Args:
        device: Lightning's accelerator of the run, ``cpu`` or ``gpu``.
    """
    commit, dirty = _git_state(Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "diffhash": diffhash.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "gpu" else "cpu",
        "git_commit": commit,
        "git_dirty": dirty,
    }


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, in MB (10⁶ bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for the next step, which allocates the same sizes again.

    If the blocks were returned to the system, page faults would take a fifth of a PINN step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # glibc's largest value
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state(directory: Path) -> tuple[str | None, bool | None]:
    """The commit, and whether tracked source differs from it; None outside a git checkout."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        # Tables and figures may be rewritten during runs, and do not change what a run computes.
        changes = _git(directory, "status", "--porcelain", "--", ":/src", ":/configs")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes)


def _git(directory: Path, *arguments: str) -> str:
    # `git status` would lock the index to refresh it, and block the user's own git.
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode(errors="replace").strip()
