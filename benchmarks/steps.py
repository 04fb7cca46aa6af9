"""The cost of a training step: with the library, the straightforward way, JAX, and the floor.

Every contender takes the steps of the same case (`benchmarks.case`), in turns in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import pandas as pd
import torch

from benchmarks.case import ENCODERS, TASKS, Case, build_case, compose_config
from benchmarks.floor import Floor
from benchmarks.machine import environment_columns
from benchmarks.ours import OURS, Ours
from benchmarks.sample import Contender, Sample, take_turns
from benchmarks.straightforward import STRAIGHTFORWARD, Straightforward

JAX, FLOOR = "jax", Floor.name
_KEY = ["encoder", "task"]
COLUMNS = (
    *_KEY,
    *("contender", "variant", "ms", "ms_min", "ms_max", "repetitions"),
    *("lightning_overhead", "ours_over_this"),
)


@dataclass(frozen=True)
class Options:
    """The settings of a measurement.

    Attributes:
        device: the device of the steps.
        n_threads: the number of threads of the CPU.
        repetitions: the number of samples of each contender.
        seconds: the shortest time of each sample.
        encoders: the encoders of the steps.
        with_jax: whether JAX is a contender; it must have been configured for the device.
    """

    device: torch.device
    n_threads: int
    repetitions: int
    seconds: float
    encoders: Sequence[str] = ENCODERS
    with_jax: bool = True

    @property
    def overrides(self) -> list[str]:
        """The overrides of all configs that are measured; evaluations are not part of a step."""
        accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        return [
            f"trainer.accelerator={accelerator}",
            f"trainer.num_threads={self.n_threads}",
            "trainer.evaluation_points=100",
            "trainer.epochs=100000",
        ]


def jax_is_there(device: torch.device, n_threads: int) -> bool:
    """Whether JAX is installed and sees the device; to be called before JAX computes anything."""
    if find_spec("jax") is None:
        return False
    from benchmarks import jax_step

    return jax_step.configure(device, n_threads)


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """One row for each encoder, task and contender: median and range of milliseconds per step.

    Args:
        advance: called with the name of each case before it is measured.
    """
    environment = environment_columns(options.device)
    rows = []
    for encoder in options.encoders:
        for task in TASKS:
            advance(f"{encoder} {task}")
            overrides = [f"encoder={encoder}", f"task={task}", *options.overrides]
            rows += [
                {"encoder": encoder, "task": task, **row, **environment}
                for row in measure_case(overrides, options)
            ]
    return with_ratios(pd.DataFrame(rows), _KEY)


def measure_case(
    overrides: Sequence[str], options: Options, names: Sequence[str] = (OURS, STRAIGHTFORWARD, JAX)
) -> list[dict[str, Any]]:
    """The rows of the named contenders, and of the floor, for one config."""
    cfg = compose_config(overrides)
    case = build_case(cfg)
    contenders: list[Contender] = [Floor(case)]
    if OURS in names:
        contenders.append(Ours(cfg))
    if STRAIGHTFORWARD in names:
        contenders.append(Straightforward(case))
    if JAX in names and options.with_jax:
        contenders.append(_fastest_jax(case, options))
    samples = take_turns(contenders, options.repetitions, options.seconds, options.n_threads)
    return [_row(contender, samples[contender.name]) for contender in contenders]


def with_ratios(frame: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The frame with ``ours_over_this``: our median over that of each contender."""
    ours = frame.query(f"contender == {OURS!r}")[[*key, "ms"]]
    both = frame.merge(ours, how="left", on=key, suffixes=("", "_ours"))
    frame["ours_over_this"] = both["ms_ours"] / both["ms"]
    return frame


def n_cases(options: Options) -> int:
    """The number of calls of ``advance`` by `measure`."""
    return len(options.encoders) * len(TASKS)


def summary(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each case, then one for each task with the ratio of cubic to the MLP."""
    ours: dict[tuple[str, str], float] = {}
    for encoder, task in dict.fromkeys(zip(frame["encoder"], frame["task"], strict=True)):
        case = frame.query(f"encoder == {encoder!r} and task == {task!r}")
        ms = dict(zip(case["contender"], case["ms"], strict=True))
        ours[encoder, task] = ms[OURS]
        ratios = ", ".join(
            f"{ms[OURS] / ms[other]:.2f}× {other}" for other in (JAX, FLOOR) if other in ms
        )
        slower = ms[STRAIGHTFORWARD] / ms[OURS]
        yield f"{encoder} {task}: {ms[OURS]:.3g} ms a step, {ratios}; straightforward {slower:.1f}×"
    for task in TASKS:
        if {("cubic", task), ("mlp", task)} <= ours.keys():
            ratio = ours["cubic", task] / ours["mlp", task]
            yield f"cubic over mlp, {task}: {ratio:.2f}× (target: at most 2; the paper: 23)"


def _fastest_jax(case: Case, options: Options) -> Contender:
    """The variant of the JAX step that is fastest on this machine."""
    from benchmarks.jax_step import JaxStep, variants

    candidates = [JaxStep(case, *variant) for variant in variants(case)]
    if len(candidates) == 1:
        return candidates[0]
    times = [
        min(candidate.sample(options.seconds).ms for _ in range(2)) for candidate in candidates
    ]
    return candidates[times.index(min(times))]


def _row(contender: Contender, samples: Sequence[Sample]) -> dict[str, Any]:
    ms = [sample.ms for sample in samples]
    overhead = median(s.ms / s.train_ms - 1 for s in samples)  # NaN where train_ms is not measured
    return {
        "contender": contender.name,
        "variant": getattr(contender, "variant", ""),
        "ms": median(ms),
        "ms_min": min(ms),
        "ms_max": max(ms),
        "repetitions": len(ms),
        "lightning_overhead": overhead,
    }
