"""Seconds of training until the PINN task is solved as accurately as by the paper's best MLP.

The mark is the MSE of u that Table II prints for the MLP after 50,000 epochs. Each encoder trains
alone, from several seeds: hash encoders with the preset ``best``, the others as in their row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from benchmarks.case import compose_config
from benchmarks.machine import environment_columns
from benchmarks.ours import fit
from diffhash.experiment.build import build
from diffhash.paper.printed import load_paper_table
from diffhash.training import FieldTraining

# The number of epochs for each encoder, as in its row in the tables.
EPOCHS = {"mlp": 50_000, "ff": 50_000, "siren": 10_000, "linear": 10_000, "s2": 10_000,
          "cubic": 3000}  # fmt: skip
SEEDS = (0, 1, 2)
_CHUNK = 25  # epochs between two evaluations
CURVE_COLUMNS = ("encoder", "seed", "epoch", "seconds", "mse_u")
COLUMNS = (
    *("encoder", "seed", "epochs", "mark", "final_mse_u", "diverged_epoch"),
    *("seconds_to_reach", "seconds_to_stay", "epochs_to_reach", "train_seconds"),
)


def mark() -> float:
    """The paper's MSE of u in Table II for MLP 50k."""
    return float(load_paper_table("table2").loc["mlp_50k", "mse_u"])


def measure(
    device: torch.device,
    n_threads: int,
    advance: Callable[[str], None],
    seeds: Sequence[int] = SEEDS,
    epochs: dict[str, int] = EPOCHS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per run, and the curves; seconds are those inside optimizer steps.

    ``seconds_to_reach`` is the time at which the error first reaches the mark, ``seconds_to_stay``
    the time from which it is never above the mark again; NaN where there is no such time.
    """
    environment = environment_columns(device)
    rows, curves = [], []
    for encoder, budget in epochs.items():
        for seed in seeds:
            advance(f"{encoder} seed {seed}")
            cfg = compose_config(
                [
                    *(f"encoder={encoder}", "task=pinn", f"seed={seed}"),
                    *(f"trainer.epochs={budget}", f"trainer.chunk={_CHUNK}"),
                    f"trainer.num_threads={n_threads}",
                    f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
                    "trainer.evaluation_points=2000",
                ]
            )
            setup = build(cfg)
            assert isinstance(setup.training, FieldTraining)
            fit(setup.training, setup.accelerator)
            [replica] = setup.training.replicas
            curve = pd.DataFrame(replica.history).reindex(columns=["epoch", "seconds", "mse_u"])
            curves.append(curve.assign(encoder=encoder, seed=seed))
            row = {"encoder": encoder, "seed": seed, "epochs": budget, "mark": mark()}
            row |= {"diverged_epoch": replica.diverged_epoch, **_times(curve, mark())}
            rows.append(row | environment)
    return pd.DataFrame(rows), pd.concat(curves).reindex(columns=list(CURVE_COLUMNS))


def n_runs(seeds: Sequence[int] = SEEDS, epochs: dict[str, int] = EPOCHS) -> int:
    """The number of calls of ``advance`` by `measure`."""
    return len(seeds) * len(epochs)


def summary(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each encoder, then the ratio of cubic to the MLP."""
    medians: dict[tuple[str, str], float] = {}
    for encoder in dict.fromkeys(frame["encoder"]):
        runs = frame.query(f"encoder == {encoder!r}")
        parts = []
        for how in ("reach", "stay"):
            seconds = runs[f"seconds_to_{how}"].to_numpy(float)
            n = int(np.isfinite(seconds).sum())
            # NaN, a mark that is never reached, is later than any time.
            medians[encoder, how] = float(np.median(np.where(np.isnan(seconds), np.inf, seconds)))
            parts.append(f"{n} of {len(runs)} seeds {how}, median {medians[encoder, how]:.3g} s")
        yield f"{encoder}, MSE of u below {frame['mark'].iloc[0]:.1e}: {'; '.join(parts)}"
    if {"cubic", "mlp"} <= set(frame["encoder"]):
        reach, stay = (medians["cubic", how] / medians["mlp", how] for how in ("reach", "stay"))
        yield (
            f"cubic over mlp, seconds to that error: {stay:.3g} until it stays (target: at most "
            f"0.1), {reach:.3g} until it is first reached"
        )


def _times(curve: pd.DataFrame, target: float) -> dict[str, float]:
    below = (curve["mse_u"] <= target).to_numpy()
    seconds, epochs = curve["seconds"].to_numpy(), curve["epoch"].to_numpy()
    first = int(below.argmax()) if below.any() else None
    above = np.flatnonzero(~below)
    last = above[-1] + 1 if len(above) else 0  # the evaluation after the last one above
    return {
        "final_mse_u": float(curve["mse_u"].iloc[-1]),
        "seconds_to_reach": float("nan") if first is None else float(seconds[first]),
        "epochs_to_reach": float("nan") if first is None else float(epochs[first]),
        "seconds_to_stay": float(seconds[last]) if last < len(seconds) else float("nan"),
        "train_seconds": float(seconds[-1]),
    }
