"""Several processes that train one field together."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import DDPStrategy


class SharedPoints(DDPStrategy):
    """Lightning's DDP without its wrapper around the module.

    The wrapper expects one backward pass a batch, and sums gradients in threads of its own;
    `FieldTraining` takes many steps a batch, and sums the gradients itself.
    """

    def configure_ddp(self) -> None:
        """Copy the parameters of the first process to every process."""
        assert self.lightning_module is not None
        for tensor in self.lightning_module.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)
