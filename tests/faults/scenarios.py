"""Commands that are killed or find the disk full, and the files before them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    *("trainer.chunk=1", "trainer.evaluation_points=16", "trainer.accelerator=cpu"),
    *("trainer.num_threads=1", "task.n_labels=8"),
)
_NETWORK = ("encoder.encoding.n_levels=2", "encoder.network.width=8")
# Eleven evaluations: one checkpoint on the way, and that of the end.
FULL, HALF = "trainer.epochs=11", "trainer.epochs=5"
Command = tuple[str, ...]  # a script of the repository and its arguments


def _train(*overrides: str) -> Command:
    return ("train.py", "encoder=cubic", "task=data", *_NETWORK, *TINY, *overrides)


@dataclass(frozen=True)
class Scenario:
    """A command that is run after the commands ``before``.

    Attributes:
        name: the name of the scenario.
        command: the command that is disturbed.
        finals: the folders of the records that it makes.
        before: the commands that are run before it.
        arrange: a function that then changes the folder.
        share: the number of its points for each one that is tried, more than 1 if they take long.
    """

    name: str
    command: Command
    finals: tuple[str, ...]
    before: tuple[Command, ...] = ()
    arrange: Callable[[Path], object] = lambda root: None
    share: int = 1


def _as_if_killed(root: Path) -> None:
    """Make ``runs/b.partial``, the folder of a run that was killed after a checkpoint."""
    (root / "runs/b.partial").mkdir()
    for name in ("config.yaml", "checkpoint.ckpt"):
        shutil.copy(root / "runs/a" / name, root / "runs/b.partial" / name)


def has_resume() -> bool:
    """Whether ``resume=RUN`` is a setting."""
    lines = (ROOT / "configs/train.yaml").read_text().splitlines()
    return any(line.startswith("resume:") for line in lines)


_HALF_RUN = _train(HALF, "run_dir=runs/a")
_ROWS = ("table1/mlp_10k", "table1/ff")


def scenarios() -> list[Scenario]:
    """All scenarios."""
    found = [
        Scenario("run", _train(FULL, "run_dir=runs/a"), ("runs/a",)),
        Scenario(
            "seeds",
            _train(FULL, "run_dir=runs/a", "seeds=[0,1,2]"),
            tuple(f"runs/a/seed{seed}" for seed in range(3)),
        ),
        Scenario(
            "replace",
            _train(FULL, "run_dir=runs/a", "seed=1"),
            ("runs/a",),
            (_train(FULL, "run_dir=runs/a"),),
        ),
        Scenario(
            "replace seeds",
            _train(FULL, "run_dir=runs/a", "seeds=[0,1,2]", "trainer.learning_rate=2e-3"),
            tuple(f"runs/a/seed{seed}" for seed in range(3)),
            (_train(FULL, "run_dir=runs/a", "seeds=[0,1,2]"),),
        ),
        Scenario(
            "resume elsewhere",
            _train(FULL, "run_dir=runs/b", "ckpt_path=runs/a/checkpoint.ckpt"),
            ("runs/b",),
            (_HALF_RUN,),
        ),
        Scenario(
            "resume in place",
            _train(FULL, "run_dir=runs/a", "ckpt_path=runs/a/checkpoint.ckpt"),
            ("runs/a",),
            (_HALF_RUN,),
        ),
        Scenario(
            "resume a killed run",
            _train(FULL, "run_dir=runs/b", "ckpt_path=runs/b.partial/checkpoint.ckpt"),
            ("runs/b",),
            (_HALF_RUN,),
            _as_if_killed,
        ),
        Scenario(
            "reproduction",
            (
                *("scripts/reproduce_tables.py", *TINY, FULL, "--jobs", "1", "--rows", *_ROWS),
                *("--runs", "runs", "--output", "out"),
            ),
            tuple(f"runs/{row}/seed0" for row in _ROWS),
            share=12,
        ),
    ]
    if has_resume():
        found.append(
            Scenario("resume=", ("train.py", "resume=runs/a", FULL), ("runs/a",), (_HALF_RUN,))
        )
    return found
