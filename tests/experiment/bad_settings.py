"""Settings that cannot be run: written by hand, and derived from every key of a config.

A case of the tests is a list of overrides, and a word that the one-line error must contain.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

CUBIC = ("encoder=cubic",)
FF = ("encoder=ff",)
HUGE = 10**20


class Bad(NamedTuple):
    """Overrides that must be refused, and a word that the message must contain."""

    overrides: tuple[str, ...]
    word: str


def _bad(word: str, *overrides: str) -> Bad:
    return Bad(overrides, word)


_INTEGERS = {
    "trainer.epochs": (0, -1, HUGE),
    "trainer.chunk": (0, -5, HUGE, 10**7),
    "trainer.batch_size": (0, -1, HUGE),
    "trainer.evaluation_points": (0, -1, 10**12, HUGE, 2**40),
    "trainer.devices": (0, -1, 10**6, HUGE),
    "trainer.windows": (0, -1, 2, HUGE),
    "trainer.num_threads": (0, -1, 10**5, HUGE),
    "task.n_labels": (-1, 2**40, 10**12, HUGE),
    "task.n_residual": (0, -1, 2**40, 10**12, HUGE),
    "encoder.network.width": (0, -1, 10**7, HUGE),
    "encoder.network.depth": (0, -1, 10**6, HUGE),
    "seed": (-1, HUGE, 2**63),
}
_GRID = {
    "n_levels": (0, -1, 65, 10**6, HUGE),
    "n_features_per_level": (0, -1, 65, HUGE),
    "log2_hashmap_size": (0, 2, 31, HUGE),
    "base_resolution": (0, -1, 2**21, HUGE),
    "per_level_scale": (0, 0.5, -2, "nan", "inf", 1e9),
    "init_scale": (-1, "nan", "inf"),
}
_NUMBERS = {
    "trainer.learning_rate": (0, -1, "nan", "inf", "1e400"),
    "task.data_weight": (-1, "nan", "inf"),
    "task.residual_weight": (-0.5, "nan", "-inf"),
    "problem.k": (0, "nan", "inf"),
}
_CHOICES = ("precision", "derivatives", "execution", "accelerator", "schedule")
_GROUPS = ("encoder", "task", "problem", "trainer", "logger")

BY_HAND: list[Bad] = [
    *(_bad(key.split(".")[-1], f"{key}={v}") for key, vs in _INTEGERS.items() for v in vs),
    *(_bad(key.split(".")[-1], f"{key}={v}") for key, vs in _NUMBERS.items() for v in vs),
    *(
        _bad(key if key != "per_level_scale" else "per_level_scale", *CUBIC, override)
        for key, values in _GRID.items()
        for override in (f"encoder.encoding.{key}={value}" for value in values)
    ),
    *(_bad(choice, f"trainer.{choice}=best") for choice in _CHOICES),
    *(_bad(group, f"{group}=null") for group in (*_GROUPS, "experiment", "launcher")),
    *(_bad(group, f"{group}=nowhere") for group in (*_GROUPS, "experiment", "launcher")),
    *(_bad(group, f"{group}=5") for group in _GROUPS),
    *(_bad(f"trainer.{key}", f"+trainer.{key}=1") for key in ("patience", "epoch", "lr")),
    *(_bad(key, f"{key}=1") for key in ("epochs", "trainer.epoch", "seeed", "encoder.widht")),
    _bad("n_points", "+task.n_points=3"),
    _bad("dropout", "+encoder.network.dropout=0.5"),
    _bad("levels", *CUBIC, "+encoder.encoding.levels=3"),
    _bad("n_frequencies", *FF, "encoder.encoding.n_frequencies=0"),
    _bad("n_frequencies", *FF, f"encoder.encoding.n_frequencies={HUGE}"),
    _bad("n_frequencies", *FF, "encoder.encoding.n_frequencies=1000000000"),
    _bad("sigma", *FF, "encoder.encoding.sigma=0"),
    _bad("sigma", *FF, "encoder.encoding.sigma=inf"),
    _bad("omega_0", "encoder=siren", "encoder.network.omega_0=nan"),
    _bad("activation", "encoder.network.activation=relu6"),
    _bad("init", "encoder.network.init=best"),
    _bad("interpolation", *CUBIC, "encoder.encoding.interpolation=cubical"),
    _bad("layout", *CUBIC, "encoder.encoding.layout=tcnn"),
    _bad("periodic", *CUBIC, "encoder.encoding.periodic=[1]"),
    _bad("periodic", *CUBIC, "encoder.encoding.periodic=[x]"),
    _bad("backend", *CUBIC, "encoder.encoding.backend=best"),
    _bad("n_outputs", "+encoder.network.n_outputs=2"),
    _bad("n_outputs", f"+encoder.network.n_outputs={HUGE}"),
    _bad("width", "encoder.network.width=1000000", "encoder.network.depth=900"),
    _bad("seeds", "seeds=[]"),
    _bad("seeds", "seeds=[1,1]"),
    _bad("seed", "seeds=[[0]]"),
    _bad("seed", "seeds=[-1]"),
    _bad("seeds", "seeds=[a]"),
    _bad("seeds", "seeds=5"),
    _bad("seed", "seeds=[null]"),
    _bad("seed", "seeds=[{a:1}]"),
    _bad("sampler", "sampler=rad", "seeds=[0,1]"),
    _bad("sampler", "sampler=rad", "sampler.every=0"),
    _bad("weighting", "weighting=causal"),
    _bad("weighting", "+weighting._target_=builtins.dict"),
    _bad("n_labels", "task=data", "task.n_labels=0"),
    _bad("label_region", "problem.label_region=[0.5,0.2]"),
    _bad("label_region", "problem.label_region=[0.5]"),
    _bad("label_region", "problem.label_region=[]"),
    _bad("label_region", "problem.label_region=[[0],[1]]"),
    _bad("label_region", "problem.label_region=[null,1]"),
    _bad("label_region", "problem.label_region=0.5"),
    _bad("problem", "problem._target_=nowhere.Heat"),
    _bad("problem", "problem._target_=builtins.dict"),
    _bad("task", "task._target_=builtins.dict"),
    _bad("encoder.encoding", "encoder.encoding._target_=builtins.dict"),
    _bad("encoder.network", "encoder.network._target_=diffhash.encodings.Identity"),
    _bad("problem", "problem._target_=null"),
    _bad("encoder.encoding", "encoder.encoding=null"),
    _bad("encoder.encoding", "encoder.encoding=abc"),
    _bad("encoder.network", "encoder.network=[1]"),
    _bad("encoder.network", "~encoder.network"),
    _bad("task", "~task"),
    _bad("epochs", "~trainer.epochs"),
    _bad("seed", "~seed"),
    _bad("nowhere", "trainer.epochs=${nowhere}"),
    _bad("objective", "objective=best"),
    _bad("compile", "trainer.execution=compile", "trainer.batch_size=10"),
    _bad("cudagraph", "trainer.execution=cudagraph"),
    _bad("ckpt_path", "ckpt_path=nowhere.ckpt"),
    _bad("foo", "foo"),
    _bad("a=b=c", "a=b=c"),
    _bad("trainer.epochs=1,2", "trainer.epochs=1,2"),
    _bad("trainer.epochs", "+trainer.epochs=3"),
    _bad("nope", "~nope"),
]

_LEAVES = [
    *_INTEGERS,
    *_NUMBERS,
    *(f"trainer.{choice}" for choice in _CHOICES),
    "problem.label_region",
    "encoder.network.activation",
    "encoder.network.init",
]
_OPTIONAL = {"trainer.batch_size", "trainer.num_threads"}
_IS_TEXT = {"encoder.network.activation", "encoder.network.init"}
_WRONG = ("abc", "[1]", "[[0]]", "{a:1}", "null", "''", "[]", "1e400x", "${nowhere}", "?")


def _derived() -> Iterator[Bad]:
    for key in _LEAVES:
        name = key.split(".")[-1]
        for wrong in _WRONG:
            if not (wrong == "null" and key in _OPTIONAL):
                yield _bad("nowhere" if wrong.startswith("$") else name, f"{key}={wrong}")
        yield _bad(f"{name}x", f"{key}x=1")
        yield _bad(f"{name[:-1]}", f"{key[:-1]}=1")
        yield _bad(name, f"{key}.more=1")


def bad_settings(count: int, seed: int = 0) -> list[Bad]:
    """``count`` cases: those written by hand, those derived from the keys, and random pairs of the
    former.

    The word of a pair is empty, as the pair may be refused for either of its cases.
    """
    cases = [*BY_HAND, *_derived()]
    generator = random.Random(seed)
    while len(cases) < count:
        one, other = generator.sample(BY_HAND, 2)
        keys = [o.lstrip("+~").split("=")[0] for o in (*one.overrides, *other.overrides)]
        if len(set(keys)) == len(keys):
            cases.append(Bad((*one.overrides, *other.overrides), ""))
    return cases[:count]
