"""This library, trained as by ``train.py`` with the same settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks.case import compose_config
from benchmarks.peers.contender import Predict, Step, run, settings
from diffhash.experiment.build import build
from diffhash.training import FieldTraining, fit

given = settings()
setup = build(compose_config(given["overrides"]))


def _train(step: Step) -> Predict:
    training, done = setup.training, 0
    assert isinstance(training, FieldTraining)

    class Pause(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            nonlocal done
            if not done:  # the first batch does not count; the schedule starts after it
                training.max_seconds = training.train_seconds + given["seconds"]
            new, done = training.epochs_done - done, training.epochs_done
            if step(new):
                trainer.should_stop = True

    fit(training, "cpu", [Pause()])

    def predict(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return setup.field(torch.from_numpy(points)).numpy()

    return predict


run(given, sum(p.numel() for p in setup.field.parameters()), _train)
