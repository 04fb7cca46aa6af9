"""The configs that the files compose to, and those that Hydra refuses."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import build, config_hash
from diffhash.experiment.run import run
from diffhash.paper import second_order
from diffhash.paper.reproduce import ROWS
from diffhash.results import RunRecord
from diffhash.training.solve import solve

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., DictConfig]
ENCODERS = ("mlp", "ff", "siren", "linear", "s1", "s2", "cubic")
HASHED = ("linear", "s1", "s2", "cubic")
RATES = {"table1": 1e-4, "table2": 1e-3}  # Section III
EXPERIMENTS = sorted(
    str(file.relative_to(ROOT / "configs/experiment").with_suffix(""))
    for file in (ROOT / "configs/experiment").rglob("*.yaml")
)


def test_one_experiment_file_a_row() -> None:
    printed = {
        f"{table}/{row}"
        for table in RATES
        for row in pd.read_csv(ROOT / f"results/paper/{table}.csv")["row"]
    }
    ours = {f"{table}/cubic_{preset}" for table in RATES for preset in ("best", "compact")}
    assert set(EXPERIMENTS) == printed | ours | set(second_order.ROWS)
    assert sorted((*ROWS, *second_order.ROWS)) == EXPERIMENTS


@pytest.mark.parametrize("name", second_order.ROWS)
def test_rows_that_the_paper_does_not_have(config: MakeConfig, name: str) -> None:
    """The rows have the tasks of the tables and the preset `cubic_compact`, with Gauss–Newton."""
    encoder, task = name.split("/")[1].split("_")
    table = {"data": "table1", "pinn": "table2"}[task]
    cfg = config(f"experiment={name}")
    own, adam = (
        OmegaConf.to_container(c, resolve=True)
        for c in (cfg, config(f"experiment={table}/cubic_compact", f"encoder={encoder}"))
    )
    assert isinstance(own, dict) and isinstance(adam, dict)
    assert own["name"] == name
    for group in ("encoder", "task", "problem"):
        assert own[group] == adam[group]
    assert build(cfg).training.epochs == 100


@pytest.mark.parametrize("name", ROWS)
def test_every_experiment_builds(config: MakeConfig, name: str) -> None:
    cfg = config(f"experiment={name}")
    setup = build(cfg)
    table, row = name.split("/")
    assert cfg.name == name
    assert cfg.encoder.name == row.split("_")[0]
    assert cfg.task.name == {"table1": "data", "table2": "pinn"}[table]
    assert [len(term) for term in setup.training.objective.terms] == (
        [1000] if table == "table1" else [1000, 2000]
    )
    assert setup.training.batch_size is None
    assert cfg.trainer.precision.value == "float32"
    if row not in ("cubic_best", "cubic_compact"):
        paper = pd.read_csv(ROOT / f"results/paper/{table}.csv", index_col="row")
        assert setup.training.epochs == int(paper.loc[row, "epochs"].replace("k", "000"))
        assert setup.training.learning_rate == RATES[table]
        assert setup.training.schedule == "constant"
        assert cfg.encoder.preset == ("paper" if cfg.encoder.name in HASHED else None)
    else:
        assert cfg.encoder.preset == row.removeprefix("cubic_")


@pytest.mark.parametrize("task", ["data", "pinn"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_with_every_task(config: MakeConfig, encoder: str, task: str) -> None:
    cfg = config(f"encoder={encoder}", f"task={task}")
    setup = build(cfg)
    assert cfg.encoder.name == encoder
    assert [term.name for term in setup.training.objective.terms] == (
        ["data"] if task == "data" else ["data", "residual"]
    )
    if encoder in HASHED:
        encoding: Any = setup.field.encoding
        assert encoding.layout.interpolation.name == encoder


def test_alone_a_hash_encoder_means_best(config: MakeConfig) -> None:
    cfg = config("encoder=cubic", "task=pinn")
    assert cfg.encoder.preset == "best"
    assert cfg.trainer.schedule.value == "cosine"
    assert cfg == config("encoder=cubic", "task=pinn", "encoder/preset=best")
    assert cfg == config()
    # The order of the two on the command line does not matter.
    assert cfg == config("task=pinn", "encoder=cubic")


@pytest.mark.parametrize("task", ["data", "pinn"])
def test_preset_paper_has_the_papers_rate(config: MakeConfig, task: str) -> None:
    cfg = config("encoder=cubic", f"task={task}", "encoder/preset=paper")
    assert cfg.encoder.preset == "paper"
    assert cfg.trainer.learning_rate == {"data": 1e-4, "pinn": 1e-3}[task]
    assert cfg.trainer.schedule.value == "constant"


def test_all_hash_rows_of_the_paper_preset_share_their_settings(config: MakeConfig) -> None:
    encodings = []
    for encoder in HASHED:
        encoding = dict(config(f"encoder={encoder}", "encoder/preset=paper").encoder.encoding)
        assert encoding.pop("interpolation") == encoder
        assert encoding.pop("level_offset") == (encoder in ("s1", "s2"))
        encodings.append(encoding)
    assert all(encoding == encodings[0] for encoding in encodings)


def test_what_is_asked_for_is_what_is_used(config: MakeConfig) -> None:
    asked = ["trainer.learning_rate=0.5", "encoder.encoding.n_levels=3", "trainer.schedule=cosine"]
    cfg = config("experiment=table2/cubic", *asked)
    assert cfg.trainer.learning_rate == 0.5
    assert cfg.encoder.encoding.n_levels == 3
    assert build(cfg).training.schedule == "cosine"


def test_the_recipe_of_an_equation_trains_as_solve_does(config: MakeConfig) -> None:
    training = build(config("problem=heat1d", "encoder=quintic")).training
    defaults = signature(solve).parameters
    for name in ("epochs", "learning_rate", "betas", "schedule"):
        assert getattr(training, name) == defaults[name].default
    assert build(config()).training.betas == (0.9, 0.999)  # the paper's problem has another recipe


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", ["data", "pinn"])
def test_every_setting_of_a_target_is_one_of_its_arguments(
    config: MakeConfig, encoder: str, task: str
) -> None:
    cfg = config(f"encoder={encoder}", f"task={task}")
    for node in (cfg.encoder.encoding, cfg.encoder.network, cfg.task, cfg.problem):
        settings = set(node) - {"_target_", "name"}
        assert settings <= set(signature(hydra.utils.get_object(node._target_)).parameters)


def test_every_other_setting_is_read(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config("logger=wandb", f"run_dir={tmp_path}/run")
    read = set()
    get = DictConfig.__getattr__

    def noting(node: DictConfig, key: str) -> Any:
        read.add((OmegaConf.get_type(node).__name__, key))
        return get(node, key)

    monkeypatch.setattr(DictConfig, "__getattr__", noting)
    run(cfg)
    run(tiny_config(f"runs_dir={tmp_path}/runs"))
    monkeypatch.undo()
    for node in (cfg, cfg.trainer):
        kind = OmegaConf.get_type(node).__name__
        assert {key for name, key in read if name == kind} >= set(map(str, node)), kind
    assert {"name", "preset"} <= {key for name, key in read if name == "EncoderConfig"}


def test_hash_is_of_what_changes_the_result(config: MakeConfig) -> None:
    own = config_hash(config())
    for same in ("run_dir=x", "runs_dir=x", "name=x", "ckpt_path=x", "logger=wandb"):
        assert config_hash(config(same)) == own
    for other in ("seed=1", "trainer.epochs=1", "encoder=s2", "problem.k=1", "task.n_labels=1"):
        assert config_hash(config(other)) != own


def test_a_network_without_a_skip_is_the_same_run_as_before_there_were_any(
    config: MakeConfig,
) -> None:
    own = config("encoder=cubic")
    before = OmegaConf.to_container(own)
    assert isinstance(before, dict)
    assert before["encoder"]["network"].pop("skip") is False
    assert config_hash(OmegaConf.create(before)) == config_hash(own)
    assert config_hash(config("encoder=cubic", "encoder.network.skip=true")) != config_hash(own)


def test_a_records_own_config_runs_again(
    train: Callable[..., tuple[Path, RunRecord]], tmp_path: Path
) -> None:
    directory, first = train("encoder=cubic", "encoder.encoding.n_levels=2", "task=pinn")
    cfg = OmegaConf.load(directory / "config.yaml")
    assert isinstance(cfg, DictConfig)
    cfg.run_dir = str(tmp_path / "again")
    [(_, second)] = run(cfg)
    assert second.config_hash == first.config_hash
    assert second.loss == first.loss
