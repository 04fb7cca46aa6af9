"""Kernels compiled with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def sanitized_environment(cache: Path) -> dict[str, str] | str:
    """An environment whose kernels are compiled with sanitizers into ``cache``, or why there is
    none."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return "no gcc"
    libraries = []
    for name in ("libasan.so", "libstdc++.so.6"):  # the latter first, or exceptions are not found
        command = [gcc, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            return f"gcc has no {name}"
        libraries.append(path)
    options = {
        "detect_leaks": 0,  # Python leaks on purpose
        "allocator_may_return_null": 1,
        "malloc_fill_byte": 255,  # NaN
        "max_malloc_fill_size": 2**30,
    }
    return {
        **os.environ,
        "CC": f"{gcc} -fsanitize=address,undefined -fno-omit-frame-pointer -g1",
        "DIFFHASH_CACHE": str(cache),
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": ":".join(f"{name}={value}" for name, value in options.items()),
    }
