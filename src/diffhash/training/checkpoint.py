"""Checkpoints on disk, and the part of a checkpoint that belongs to one replica.

A file is complete or absent. The comment of torch.save's zip archive is the SHA-256 of all bytes
before it. A file without this comment, from an older version, is not checked.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from diffhash._files import write_file_atomically

LOGGERS = "loggers"  # a checkpoint's key for the versions of each replica's loggers
_DIGEST = 64  # hexadecimal digits
_END = struct.Struct("<4s16xH")  # a zip archive's last record, and the length of the comment
_MAGIC = b"PK\5\6"


class DamagedError(ValueError):
    """The bytes of a checkpoint are not the ones that were written."""


def write_checkpoint(path: Path | str, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint atomically: ``path`` holds the old or the new checkpoint, never a part.

    Raises:
        OSError: the file cannot be written; the error names ``path``, whose content is unchanged.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(-2, os.SEEK_END)
    buffer.write(struct.pack("<H", _DIGEST))
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    write_file_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def read_checkpoint_file(path: Path | str) -> dict[str, Any]:
    """Load a checkpoint of `write_checkpoint` on the CPU, mapped from the file.

    Raises:
        DamagedError: the file's bytes have changed since it was written.
        Exception: the file is no checkpoint; the error is that of unpickling.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    check_digest(path)
    return checkpoint


def check_digest(path: Path | str) -> None:
    """Compare the digest of a checkpoint's bytes with the digest in the file.

    Raises:
        DamagedError: the digests differ.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size))
        end = file.read()
        if len(end) == _END.size and _END.unpack(end) == (_MAGIC, 0):
            return  # a file of an older version, without a comment
        digest, left = hashlib.sha256(), max(0, size - _DIGEST)
        file.seek(0)
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        if file.read() != digest.hexdigest().encode():
            raise DamagedError(f"{path}: its bytes are not those that were written")


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes Lightning's checkpoints by `write_checkpoint`, and checks them when they are read.

    Lightning itself writes to a temporary folder, and copies the file from there if the folder is
    on another file system, which is not atomic.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None
    ) -> None:
        write_checkpoint(path, checkpoint)

    def load_checkpoint(self, path: Path | str, *arguments: Any, **options: Any) -> dict[str, Any]:
        check_digest(path)
        return super().load_checkpoint(path, *arguments, **options)


def one_replica(checkpoint: dict[str, Any], index: int) -> dict[str, Any]:
    """The checkpoint that replica ``index`` of a run would have left if it had trained alone.

    Args:
        checkpoint: a checkpoint of `FieldTraining` with a field of several replicas.
    """

    def part(tensor: Tensor) -> Tensor:
        return tensor[index].clone() if tensor.ndim else tensor

    states = [
        {
            **optimizer,
            "state": {
                key: {name: part(value) for name, value in state.items()}
                for key, state in optimizer["state"].items()
            },
        }
        for optimizer in checkpoint["optimizer_states"]
    ]
    own = checkpoint["diffhash"]
    replica = own["replicas"][index]
    origin = dict(own["origin"])
    if isinstance(origin.get("seed"), list):
        origin["seed"] = origin["seed"][index]
    return {
        **checkpoint,
        "state_dict": {name: part(tensor) for name, tensor in checkpoint["state_dict"].items()},
        "optimizer_states": states,
        LOGGERS: [checkpoint[LOGGERS][index]] if LOGGERS in checkpoint else [{}],
        "diffhash": own
        | {"replicas": [replica], "epochs_done": replica["epochs_done"], "origin": origin},
    }
