"""The folder of a run: filled under another name, published when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from diffhash.experiment.checks import ConfigError
from diffhash.results.record import (
    CONFIG_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    RESULT_FILE,
    RunRecord,
    write_record,
)

CHECKPOINT_FILE = "checkpoint.ckpt"
FIGURE_FILE = "predictions.png"
WANDB = "wandb"
# What a run writes; a folder that holds anything else is never replaced.
_OWN = {
    RESULT_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    FIGURE_FILE,
    WANDB,
}


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes (``partial``), and what the folder is called in the end (``final``).

    ``continues``: it is resumed from what is in ``final`` now.
    """

    partial: Path
    final: Path
    continues: bool = False

    def publish(self, record: RunRecord) -> None:
        """Turn the finished folder into the record, in the place of an older one.

        Of a record that it continues, the parts of the W&B run stay: each part is sent from its
        own files.
        """
        if self.continues:
            for part in (self.final / WANDB).glob("*run-*-*"):
                (self.partial / WANDB).mkdir(exist_ok=True)
                os.rename(part, self.partial / WANDB / part.name)
        if self.final.exists():
            (self.final / RESULT_FILE).unlink(missing_ok=True)  # from here on the old one is absent
            shutil.rmtree(self.final)
        os.rename(self.partial, self.final)
        write_record(self.final, record)


@contextmanager
def run_folder(cfg: DictConfig) -> Iterator[RunFolder]:
    """Claim the folder that ``run_dir`` or ``runs_dir`` asks for; no other run gets it meanwhile.

    What a killed run left of its ``<name>.partial`` is removed, but for the checkpoint that
    ``ckpt_path`` resumes from, and, of a run that is resumed, the parts of its W&B run.

    Raises:
        ConfigError: it cannot be written, another run has it, or it holds files that are no run's.
    """
    setting, final = _destination(cfg)
    _check_replaceable(setting, final)
    partial = final.with_name(final.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{setting}: another run is writing there") from None
        _clear(partial, cfg.ckpt_path)
        yield RunFolder(partial, final, _is_in(cfg.ckpt_path, final))
    finally:
        os.close(lock)


def _destination(cfg: DictConfig) -> tuple[str, Path]:
    """The setting that chooses the folder, and the folder."""
    if cfg.run_dir is None:
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        name = f"{now}_seed{cfg.seed}"
        return f"runs_dir={cfg.runs_dir}", (
            Path(cfg.runs_dir) / f"{cfg.encoder.name}_{cfg.task.name}" / name
        )
    folder = Path(cfg.run_dir)
    if folder.is_symlink():
        folder = folder.resolve()
    return f"run_dir={cfg.run_dir}", folder


def _check_replaceable(setting: str, final: Path) -> None:
    if final.name in ("", ".."):
        raise ConfigError(f"{setting}: give a folder of the run's own")
    if not final.exists():
        return
    if not final.is_dir():
        raise ConfigError(f"{setting}: is a file; give a folder, new or of an earlier run")
    if foreign := sorted({entry.name for entry in final.iterdir()} - _OWN):
        raise ConfigError(
            f"{setting}: holds {foreign[0]}, which no run has written; "
            "give a folder, new or of an earlier run"
        )


def _is_in(ckpt_path: str | None, folder: Path) -> bool:
    return ckpt_path is not None and folder.exists() and folder.samefile(Path(ckpt_path).parent)


def _clear(partial: Path, ckpt_path: str | None) -> None:
    for entry in partial.iterdir():
        if ckpt_path is not None and (entry.name == WANDB or entry.samefile(ckpt_path)):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
