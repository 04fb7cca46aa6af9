"""The folder of a run: written under another name, and published when it is complete.

Beside a run's folder ``X`` there may be folders that readers ignore:

- ``X.partial``: the files of a run that is not yet published, or of a killed run. The same run
  (with the same settings), started again, continues from its checkpoint.
- ``X.old.partial``: the earlier record, while the new record replaces it, if the file system cannot
  exchange two folders.
- ``X.aside-1.partial``: other files that were in the way under that name: the checkpoint of another
  run, or files that no run has written.

A folder with the file ``.unpublished`` belongs to a run that is not yet complete. If ``X`` has this
file, its record is the new one, and the first two of these folders are to be removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffhash._files import flush, write_text_atomically
from diffhash.experiment.build import config_hash
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.locks import take_lock
from diffhash.results.formats import printable
from diffhash.results.reading import read_config
from diffhash.results.record import (
    CONFIG_FILE,
    HISTORY_FILE,
    PARTIAL,
    PREDICTIONS_FILE,
    RESULT_FILE,
    RecordError,
    RunRecord,
    read_record,
    write_record,
)

CHECKPOINT_FILE = "checkpoint.ckpt"
FIGURE_FILE = "predictions.png"
WANDB, LOGS = "wandb", "logs"  # the loggers' folders
_DEFAULT_PROBLEM = "poisson1d"  # as in configs/train.yaml; folders name other problems
_MARKER = ".unpublished"
# The files of a run, in the order in which they are removed; a folder with any other file is never
# replaced.
_FILES = (CHECKPOINT_FILE, RESULT_FILE, HISTORY_FILE, PREDICTIONS_FILE, FIGURE_FILE, CONFIG_FILE)
_TEMPORARY = re.compile(r"\.({})\.\d+\.tmp\.\w+".format("|".join(f.split(".")[0] for f in _FILES)))
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class FileError(OSError):
    """A file of a run could not be written or read; the message names the file and a remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class Place:
    """The folder of a run, and the setting that chooses the folder."""

    setting: str
    final: Path

    @property
    def partial(self) -> Path:
        return _beside(self.final, PARTIAL)


@dataclass(frozen=True)
class RunFolder:
    """The folder in which a run writes (``partial``), and its name in the end (``final``).

    ``continues``: whether the run is resumed from the present content of ``final``.
    """

    partial: Path
    final: Path
    continues: bool = False
    _locks: list[int] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.partial / CHECKPOINT_FILE

    def publish(self, record: RunRecord) -> None:
        """Make the finished folder the record, in the place of an older record.

        If the run continues that record, the parts of its W&B run are kept, because each part is
        sent from its own files.
        """
        with naming(self.final):
            write_record(self.partial, record)
            for entry in os.scandir(self.partial):
                if entry.is_file(follow_symlinks=False):
                    with naming(Path(entry.path)):
                        flush(Path(entry.path))
            flush(self.partial)
            if self.continues:
                for part in (self.final / WANDB).glob("*run-*-*"):
                    (self.partial / WANDB).mkdir(exist_ok=True)
                    os.rename(part, self.partial / WANDB / part.name)
            self._take_place()
            flush(self.final.parent)
            _tidy(self.final)

    def discard(self) -> None:
        """Remove the files that the run has written."""
        with naming(self.partial):
            _remove(self.partial, self.final)

    def _take_place(self) -> None:
        if not os.path.lexists(self.final):
            os.rename(self.partial, self.final)
            return
        if self.final.is_dir():  # lock it, because it will be ``X.partial``
            self._locks.append(os.open(self.final, os.O_RDONLY))
            with suppress(OSError):
                fcntl.flock(self._locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _exchange(self.partial, self.final):
            os.rename(self.final, _beside(self.final, f".old{PARTIAL}"))
            os.rename(self.partial, self.final)


def places(cfg: DictConfig, seed_configs: Collection[DictConfig]) -> tuple[Place, list[Place]]:
    """The folder in which a run trains, and the folders of its seeds' records, which are the same
    without ``seeds``."""
    if cfg.run_dir is not None and Path(cfg.run_dir).name.endswith(PARTIAL):
        raise ConfigError(
            f"run_dir={cfg.run_dir}: a name that ends in {PARTIAL} is that of an unfinished run, "
            "which readers leave out; give another one (resume=RUN goes on with one)"
        )
    ends = [_destination(own) for own in seed_configs]
    if cfg.seeds is None:
        return ends[0], ends
    source = None if cfg.ckpt_path is None else Path(cfg.ckpt_path).parent
    if source is not None and source.name.endswith(f"seeds{PARTIAL}"):  # continue in that folder
        return Place(ends[0].setting, source.with_name(source.name.removesuffix(PARTIAL))), ends
    first = ends[0].final
    name = "seeds" if cfg.run_dir is not None else re.sub(r"seed\d+$", "seeds", first.name)
    return Place(ends[0].setting, first.with_name(name)), ends


def unfinished(cfg: DictConfig, place: Place) -> DictConfig | None:
    """The config of the killed run in ``place`` from whose checkpoint this run continues, or None.

    A run continues if it is the same run, with the same settings and resumed from the same
    checkpoint, or if ``ckpt_path`` names the killed run's checkpoint.
    """
    checkpoint = place.partial / CHECKPOINT_FILE
    if os.path.exists(place.final / _MARKER) or not os.path.isfile(checkpoint):
        return None
    if cfg.ckpt_path is not None and _same_file(checkpoint, cfg.ckpt_path):
        return _saved_config(place.partial) or cfg
    saved = _saved_config(place.partial)
    same = saved is not None and (
        (config_hash(saved), saved.get("ckpt_path")) == (config_hash(cfg), cfg.ckpt_path)
    )
    return saved if same else None


def published(cfg: DictConfig, place: Place) -> RunRecord | None:
    """The record of this run if it was killed after publishing, before the folder was cleaned up;
    else None."""
    if not os.path.exists(place.final / _MARKER):
        return None
    saved = _saved_config(place.final)
    if saved is None or config_hash(saved) != config_hash(cfg):
        return None
    resumed_there = cfg.ckpt_path == str(place.partial / CHECKPOINT_FILE)
    if not resumed_there and saved.get("ckpt_path") != cfg.ckpt_path:
        return None
    with run_folder(place, goes_on=False, ckpt_path=None) as folder:
        folder.discard()
    return read_record(place.final)


@contextmanager
def run_folder(
    place: Place, *, goes_on: bool, ckpt_path: str | None, made_anew: bool = False
) -> Iterator[RunFolder]:
    """Reserve the folder of a run, so that no other run can use it meanwhile.

    In the ``X.partial`` of a killed run, the checkpoint is kept if this run ``goes_on`` from it,
    and the parts of the W&B run if a run is resumed. Any other checkpoint, and files that no run
    has written, are kept under another name, which is printed to standard error.

    Args:
        place: the folder.
        goes_on: whether this run continues from the checkpoint in ``X.partial``.
        ckpt_path: the checkpoint from which this run is resumed; None for none.
        made_anew: whether this run computes the results of ``X.partial`` again, from another
            checkpoint.

    Raises:
        ConfigError: the folder cannot be written, another run uses it, or it has files that no run
            has written.
    """
    _check_replaceable(place)
    partial, locks = place.partial, []
    try:
        with naming(partial):
            while True:
                locks.append(_locked(place))
                if not _tidy(place.final):
                    if not _in_the_way(partial, goes_on, made_anew):
                        break
                    _set_aside(partial, place.final)
                os.close(locks.pop())
            _check_replaceable(place)
            kept = {WANDB} if ckpt_path is not None else set()
            if goes_on:
                kept |= {WANDB, CHECKPOINT_FILE, CONFIG_FILE}
            (partial / _MARKER).touch()
            _remove_known(partial, kept | {_MARKER})
    except BaseException:
        for lock in locks:
            os.close(lock)
        with suppress(OSError):
            partial.rmdir()  # succeeds only if it is empty
        raise
    continues = ckpt_path is not None and _same_file(place.final, Path(ckpt_path).parent)
    if (place.final / RESULT_FILE).is_file() and not continues:
        told = f"{place.setting}: has an earlier record, which this run replaces when it ends"
        print(printable(told), file=sys.stderr)
    claimed = RunFolder(partial, place.final, continues, locks)
    try:
        yield claimed
    except BaseException:
        with suppress(OSError):
            own = os.path.samestat(os.fstat(locks[0]), os.stat(partial))
            if own and not claimed.checkpoint.exists() and not (partial / WANDB).exists():
                claimed.discard()
        raise
    finally:
        for lock in locks:
            os.close(lock)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name ``path`` to an `OSError` of the block that names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def save_config(cfg: DictConfig, directory: Path) -> None:
    """Write ``config.yaml`` with every value resolved."""
    path = directory / CONFIG_FILE
    with naming(path):
        write_text_atomically(path, OmegaConf.to_yaml(cfg, resolve=True))


def _destination(cfg: DictConfig) -> Place:
    if cfg.run_dir is None:
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        name = f"{now}_seed{cfg.seed}"
        problem = "" if cfg.problem.name == _DEFAULT_PROBLEM else f"{cfg.problem.name}_"
        kind = f"{problem}{cfg.encoder.name}_{cfg.task.name}"
        return Place(
            f"runs_dir={cfg.runs_dir}",
            Path(cfg.runs_dir) / kind.replace("/", "-") / name,
        )
    folder = Path(cfg.run_dir)
    if os.path.islink(folder):
        folder = Path(os.path.realpath(folder))
        if os.path.islink(folder):
            raise ConfigError(f"run_dir={cfg.run_dir}: is a link that leads back to itself")
    if folder.name in ("", ".."):
        raise ConfigError(f"run_dir={cfg.run_dir}: give a folder of the run's own")
    return Place(f"run_dir={cfg.run_dir}", folder)


def _check_replaceable(place: Place) -> None:
    """Refuse a folder that is no run's. A run's folder has a record, and only files that runs
    write."""
    setting, final = place.setting, place.final
    advice = "give a folder, new or of an earlier run"
    try:
        if not final.exists():
            return
        if not final.is_dir():
            raise ConfigError(f"{setting}: is a file; {advice}")
        names = sorted(entry.name for entry in os.scandir(final))
        foreign = _foreign(final)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot be read ({error.strerror})") from error
    if foreign:
        raise ConfigError(f"{setting}: holds {foreign[0]}, which no run has written; {advice}")
    if not names or _MARKER in names:
        return
    if RESULT_FILE not in names:
        raise ConfigError(f"{setting}: holds {names[0]}, but no record of a run; {advice}")
    try:
        read_record(final)
    except (OSError, RecordError) as error:
        raise ConfigError(
            f"{setting}: its record cannot be read ({error}); move it away, or {advice}"
        ) from error


def _locked(place: Place) -> int:
    """Make ``X.partial`` and lock it; return the descriptor, which holds the lock until it is
    closed."""
    partial = place.partial
    try:
        while True:
            if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
                _set_aside(partial, place.final)
            partial.mkdir(parents=True, exist_ok=True)
            lock = os.open(partial, os.O_RDONLY)
            try:
                take_lock(lock, partial, "run", f"{place.setting}: another run is writing there")
            except ConfigError:
                os.close(lock)
                raise
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(partial)):
                    return lock
            os.close(lock)  # another run has just published or removed it
    except OSError as error:
        raise ConfigError(f"{place.setting}: cannot be written ({error.strerror})") from error


def _in_the_way(partial: Path, goes_on: bool, made_anew: bool) -> bool:
    """Whether ``X.partial`` has files that this run can neither continue nor delete."""
    names = {entry.name for entry in os.scandir(partial)}
    if not names or goes_on:
        return False
    if _MARKER not in names or _foreign(partial):
        return True
    return CHECKPOINT_FILE in names and not made_anew


def _tidy(final: Path) -> bool:
    """Finish a `RunFolder.publish` that was interrupted; return whether a new record was
    published."""
    partial, old = (_beside(final, suffix) for suffix in (PARTIAL, f".old{PARTIAL}"))
    marker = final / _MARKER
    with naming(final):
        if marker.exists():  # the record is the new one
            for folder in (partial, old):
                if os.path.lexists(folder):
                    _remove(folder, final)
            marker.unlink(missing_ok=True)
            return True
        if os.path.lexists(old):
            if os.path.lexists(final):
                _set_aside(old, final)
            else:
                os.rename(old, final)
    return False


def _remove(folder: Path, final: Path) -> None:
    """Delete a run's folder; a folder with any other file is set aside as a whole."""
    if folder.is_symlink() or not folder.is_dir() or _foreign(folder):
        _set_aside(folder, final)
        return
    _remove_known(folder)
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _set_aside(folder, final)  # another process has just added a file


def _remove_known(folder: Path, kept: Collection[str] = ()) -> None:
    """Delete the files that runs write, and the marker last, which marks the folder as a run's."""
    temporary = [e.name for e in os.scandir(folder) if _TEMPORARY.fullmatch(e.name)]
    for name in (*temporary, *_FILES, WANDB, LOGS, _MARKER):
        path = folder / name
        if name in kept:
            continue
        if name in (WANDB, LOGS) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def _foreign(folder: Path) -> list[str]:
    """The names in a folder that no run has written: other names, or links and folders with a run's
    names."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not (
            entry.is_dir(follow_symlinks=False)
            if entry.name in (WANDB, LOGS)
            else entry.is_file(follow_symlinks=False)
            and (entry.name in (*_FILES, _MARKER) or _TEMPORARY.fullmatch(entry.name))
        )
    )


def _set_aside(path: Path, final: Path) -> None:
    """Rename ``path`` to a name that readers ignore, and report the new name."""
    number = 1
    while os.path.lexists(aside := _beside(final, f".aside-{number}{PARTIAL}")):
        number += 1
    os.rename(path, aside)
    kept = f"kept: what {path} held, not of this run, is now {aside}"
    print(printable(kept), file=sys.stderr)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths atomically; return False if the system does not support that."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(one), os.fsencode(other)
    failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return not failed


def _saved_config(directory: Path) -> DictConfig | None:
    try:
        return OmegaConf.create(read_config(directory / CONFIG_FILE))
    except (RecordError, OmegaConfBaseException, OSError):  # absent, or not a config
        return None


def _same_file(one: Path, other: Path | str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _beside(final: Path, suffix: str) -> Path:
    return final.with_name(final.name + suffix)
