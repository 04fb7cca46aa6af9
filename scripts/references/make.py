"""Make the files of the package with references of problems without a solution in closed form.

``python scripts/references/make.py kdv_cosine …`` makes some of them; without names it makes all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the package scripts, which is not installed

from diffhash.cli.command import run_command  # noqa: E402
from diffhash.problems import zoo  # noqa: E402
from scripts.references import cavity, waves  # noqa: E402
from scripts.references.fit import write  # noqa: E402

FOLDER = ROOT / "src" / "diffhash" / "problems" / "reference_values"


_CAVITIES = {
    "cavity_100": (100.0, cavity.Cells()),
    "cavity_400": (400.0, cavity.Cells((1e-4, 1.5, 0.03), (2e-4, 1.5, 0.035), 9, 8)),
}
NAMES = (*waves.WAVES, *_CAVITIES)


def main() -> int:
    """Parse the command line, derive, write and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        how: Any
        if name in _CAVITIES:
            reynolds, how = _CAVITIES[name]
            reference = cavity.derive(how, zoo()["cavity"](reynolds))  # type: ignore[call-arg]
        else:
            how = waves.WAVES[name]
            reference = waves.derive(how, zoo()[name]())
        path = FOLDER / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        write(path, reference, how.quantum)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
        for what, error in {**reference.methods, **reference.errors}.items():
            print(f"  {error:.1e}  {what}", flush=True)
    return 0


if __name__ == "__main__":
    run_command("make.py", main)
