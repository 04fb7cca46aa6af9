"""Checkpoints: on disk, of several replicas, and of one.

A file is complete or absent, and carries its own SHA-256: torch.save's zip archive has it as its
comment, over everything before it. Without one (an older file) nothing is compared.
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

LOGGERS = "loggers"  # in a checkpoint: versions of the loggers of each replica
_DIGEST = 64  # hexadecimal digits
_END = struct.Struct("<4s16xH")  # a zip archive's last record, and the length of the comment
_MAGIC = b"PK\5\6"


class DamagedError(ValueError):
    """The bytes of a checkpoint are not the ones that were written."""


def write_checkpoint(path: Path | str, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint so that ``path`` holds the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written; the error names ``path``, whose content is as it was.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(-2, os.SEEK_END)
    buffer.write(struct.pack("<H", _DIGEST))
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    write_file_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def read_checkpoint_file(path: Path | str) -> dict[str, Any]:
    """Load what `write_checkpoint` wrote, on the CPU and mapped from the file.

    Raises:
        DamagedError: its bytes have changed since.
        Exception: it is no such file; whatever unpickling it raises.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    check_digest(path)
    return checkpoint


def check_digest(path: Path | str) -> None:
    """Compare a checkpoint's bytes with the digest that they carry.

    Raises:
        DamagedError: they differ.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size))
        end = file.read()
        if len(end) == _END.size and _END.unpack(end) == (_MAGIC, 0):
            return  # of an older version: without a comment
        digest, left = hashlib.sha256(), max(0, size - _DIGEST)
        file.seek(0)
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        if file.read() != digest.hexdigest().encode():
            raise DamagedError(f"{path}: its bytes are not those that were written")


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints by `write_checkpoint`, checked when they are read.

    Lightning's own go through a temporary folder, and from another file system by copying.
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
        checkpoint: of `FieldTraining` with a field of several replicas.
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
