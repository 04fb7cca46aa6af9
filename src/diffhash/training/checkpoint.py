"""Checkpoints of several replicas, and of one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

LOGGERS = "loggers"  # in a checkpoint: versions of the loggers of each replica


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
    return {
        **checkpoint,
        "state_dict": {name: part(tensor) for name, tensor in checkpoint["state_dict"].items()},
        "optimizer_states": states,
        LOGGERS: [checkpoint[LOGGERS][index]] if LOGGERS in checkpoint else [[]],
        "diffhash": own | {"replicas": [replica], "epochs_done": replica["epochs_done"]},
    }
