"""The columns that describe the machine and the software of a measurement, and its progress."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console

from diffhash.experiment.environment import describe_environment
from diffhash.training.callbacks import SECONDS_BETWEEN_LINES, progress_bar

ENVIRONMENT = (
    *("threads", "device", "device_name", "torch", "triton", "cuda", "jax", "python"),
    *("diffhash_commit", "date"),
)


def environment_columns(device: torch.device) -> dict[str, Any]:
    """The columns `ENVIRONMENT`, which are the same in every row."""
    on_cuda = device.type == "cuda"
    found = describe_environment("gpu" if on_cuda else "cpu")
    commit = found["git_commit"] or ""
    return {
        "threads": torch.get_num_threads(),
        "device": device.type,
        "device_name": found["device"] if on_cuda else found["processor"],
        "torch": found["torch"],
        "triton": _version("triton"),
        "cuda": torch.version.cuda or "",
        "jax": _version("jax"),
        "python": found["python"],
        "diffhash_commit": commit + ("+changes" if found["git_dirty"] else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def slug(device: torch.device) -> str:
    """``cpu``, or the name of a GPU in a form for file names."""
    if device.type != "cuda":
        return "cpu"
    name = torch.cuda.get_device_name(device).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal, plain lines elsewhere; both on standard error."""
    console = Console(stderr=True)
    done, next_line = 0, time.monotonic() + SECONDS_BETWEEN_LINES
    with progress_bar(console) as bar:
        task = bar.add_task(title, total=total, status="")

        def advance(status: str) -> None:
            """Show the status of the next part."""
            nonlocal done, next_line
            bar.update(task, completed=done, status=status)
            if not console.is_terminal and time.monotonic() >= next_line:
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
                print(f"{title}: {done}/{total}  {status}", file=sys.stderr, flush=True)
            done += 1

        yield advance
        bar.update(task, completed=total, status="")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
