"""`diffhash train`: `train.py` without a clone and without the imports that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffhash.results import read_record

TINY = (
    *("encoder=mlp", "trainer.epochs=6", "trainer.num_threads=1", "trainer.accelerator=cpu"),
    *("task.n_residual=20", "trainer.evaluation_points=21"),
)


def _python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_it_trains_anywhere_without_the_imports_that_it_does_not_use(tmp_path: Path) -> None:
    code = (
        "import sys; from diffhash.cli import main\n"
        "try: main()\n"
        "finally: print(*{'torch._dynamo', 'scipy.signal', 'triton'} & sys.modules.keys())"
    )
    done = _python(code, "train", *TINY, "run_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    completed, imported = done.stdout.splitlines()
    assert completed.startswith("completed after 6 epochs")
    assert imported == ""
    assert read_record(tmp_path / "run").encoder == "mlp"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_its_messages_name_it(tmp_path: Path) -> None:
    code = "from diffhash.cli import main; main()"
    done = _python(code, "train", "encoder=cubical", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: encoder=cubical: ")
    done = _python(code, "train", "trainer.epochs=0", "--cfg", "job", cwd=tmp_path)
    assert "epochs: 0" in done.stdout


def test_a_warning_is_one_line_without_code(tmp_path: Path) -> None:
    code = "from diffhash.cli import main; main()"
    few = ("sampler=resample", "sampler.every=9")
    done = _python(code, "train", *TINY, *few, "run_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: sampler=Resample: with every=9 and epochs=6 the points" in done.stderr
    assert "main()" not in done.stderr


def test_without_the_package_train_py_names_the_environment() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-S", "-I", "train.py"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "source .venv/bin/activate" in done.stderr


@pytest.mark.slow
def test_what_lightning_left_out_comes_when_it_is_used(tmp_path: Path) -> None:
    code = """
from diffhash.cli.lean_lightning import import_lightning
import_lightning()
import sys, lightning as L, torch
assert "torch._dynamo" not in sys.modules
from lightning.pytorch.utilities.compile import OptimizedModule
from lightning.pytorch.utilities.types import Metric
assert not isinstance(torch.nn.Linear(1, 1), OptimizedModule)
import torchmetrics.classification
from torchmetrics import MeanMetric
assert isinstance(MeanMetric(), Metric) and isinstance(torchmetrics.Accuracy("binary"), Metric)

class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.example_input_array = torch.nn.Linear(2, 1), torch.ones(3, 2)
    def forward(self, x):
        return self.layer(x)
    def training_step(self, x):
        loss = self(x).square().mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

module = Module()
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = L.Trainer(accelerator="cpu", max_epochs=1, **options)
trainer.fit(module, torch.utils.data.DataLoader([torch.ones(2)] * 4))
assert trainer.callback_metrics["loss"] > 0
assert L.pytorch.utilities.model_summary.ModelSummary(module).total_flops == 12
assert isinstance(torch.compile(torch.nn.Linear(1, 1)), OptimizedModule)
"""
    done = _python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
