"""Check an installed wheel, outside of a clone: python check.py.

Without a compiler its kernels must be there, without warnings, and equal torch's results; a
training run must end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path

os.environ["CC"] = "/nowhere/cc"

import torch

import diffhash
from diffhash import MLP, Field, GridEncoding


def main() -> None:
    package = Path(diffhash.__file__).parent
    assert (package / "configs" / "train.yaml").is_file(), package
    warnings.simplefilter("error")
    cases = ((1, "cubic"), (2, "quintic"), (2, "linear"), (3, "s2"))
    for (d, name), dtype in product(cases, (torch.float32, torch.float64)):
        jets = {}
        for backend in ("native", "torch"):
            torch.manual_seed(0)
            encoding = GridEncoding(
                d, n_levels=3, interpolation=name, backend=backend, init_scale=1.0, dtype=dtype,
                seed=0,
            )  # fmt: skip
            x = torch.rand(50, d, dtype=dtype)
            jets[backend] = [encoding.jet(x, 2).data, encoding.plan(x, 2).jet().data]
        for one, other in zip(*jets.values(), strict=True):
            size = other.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
            assert ((one - other).abs() / size).max() < 1e4 * torch.finfo(dtype).eps
    encoding = GridEncoding(2, n_levels=2, interpolation="cubic")
    field = Field(encoding, MLP(encoding.n_output_dims, width=16), [(0, 1)] * 2)
    assert field.jet(torch.rand(9, 2), 2).data.isfinite().all()
    print("kernels of the wheel give what torch gives")
    command = [sys.executable, "-c", "from diffhash.cli import main; main()", "train"]
    settings = ["encoder=cubic", "trainer.epochs=50", "trainer.accelerator=cpu", "run_dir=run"]
    try:
        import hydra  # noqa: F401
    except ModuleNotFoundError:
        return
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, *settings], cwd=folder, capture_output=True, text=True, check=False
        )
    print(done.stdout, done.stderr, sep="", end="")
    assert done.returncode == 0 and "computed by torch" not in done.stderr


if __name__ == "__main__":
    main()
