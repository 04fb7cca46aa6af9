"""Several seeds in one run: each has the same record as alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from diffhash.experiment.build import config_hash
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import run
from diffhash.results import read_history, read_predictions
from diffhash.results.record import read_record

MakeConfig = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "encoder",
    [
        "mlp",
        "cubic",
        *(pytest.param(e, marks=pytest.mark.slow) for e in ("ff", "siren", "linear", "s2")),
    ],
)
def test_records_are_those_of_the_seeds_alone(
    tiny_config: MakeConfig, tmp_path: Path, encoder: str
) -> None:
    settings = (f"encoder={encoder}", "task=pinn", "task.n_residual=9")
    together = run(tiny_config(*settings, "seeds=[4,1]", f"run_dir={tmp_path}/both"))
    assert [record.seed for _, record in together] == [4, 1]
    for directory, record in together:
        seed = record.seed
        assert directory == tmp_path / "both" / f"seed{seed}"
        assert read_record(directory) == record
        [(alone, own)] = run(tiny_config(*settings, f"seed={seed}", f"run_dir={tmp_path}/{seed}"))
        assert record.config_hash == own.config_hash
        assert record.status == own.status == "completed"
        assert record.n_parameters == own.n_parameters
        assert record.environment["replicas"] == 2 and own.environment["replicas"] == 1
        for name in ("mse_u", "mse_ux", "mse_uxx", "loss"):
            assert getattr(record, name) == pytest.approx(getattr(own, name), rel=1e-4)
        columns = ["epoch", "loss", "mse_u", "mse_ux", "mse_uxx"]
        one, other = (read_history(d)[columns].to_numpy() for d in (directory, alone))
        assert one == pytest.approx(other, rel=1e-4)
        one, other = (read_predictions(d).to_numpy() for d in (directory, alone))
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
        assert (directory / "predictions.png").stat().st_size > 0


def test_a_seeds_checkpoint_resumes_alone(tiny_config: MakeConfig, tmp_path: Path) -> None:
    settings = ("encoder=cubic", "encoder.encoding.n_levels=2", "trainer.schedule=constant")
    [(directory, _), _] = run(tiny_config(*settings, "seeds=[4,1]", f"run_dir={tmp_path}/both"))
    more = ("seed=4", "trainer.epochs=10")
    resumed = tiny_config(
        *settings, *more, f"ckpt_path={directory}/checkpoint.ckpt", f"run_dir={tmp_path}/resumed"
    )
    [(_, record)] = run(resumed)
    [(_, whole)] = run(tiny_config(*settings, *more, f"run_dir={tmp_path}/whole"))
    assert record.mse_u == pytest.approx(whole.mse_u, rel=1e-4)
    assert record.epochs == 10


def test_one_that_diverged_is_recorded_so(tiny_config: MakeConfig, tmp_path: Path) -> None:
    results = run(
        tiny_config("seeds=[0,1,2]", "trainer.learning_rate=1e30", f"run_dir={tmp_path}/run")
    )
    assert [record.status for _, record in results] == ["diverged"] * 3
    assert [record.diverged_epoch for _, record in results] == [2, 2, 2]


@pytest.mark.parametrize("seeds", ["[]", "[1,1]", "[-1]"])
def test_bad_seeds(tiny_config: MakeConfig, seeds: str) -> None:
    with pytest.raises(ConfigError, match=r"^seeds?=.*give"):
        run(tiny_config(f"seeds={seeds}"))


def test_a_table_rows_hash_is_that_of_the_seed_alone(tiny_config: MakeConfig) -> None:
    from diffhash.experiment.build import seed_configs

    [one, _] = seed_configs(tiny_config("seeds=[0,1]"))
    assert config_hash(one) == config_hash(tiny_config("seed=0"))


def test_checkpoints_hold_one_seed_each(tiny_config: MakeConfig, tmp_path: Path) -> None:
    results = run(tiny_config("seeds=[0,1]", f"run_dir={tmp_path}/run"))
    loaded = [torch.load(d / "checkpoint.ckpt", weights_only=True) for d, _ in results]
    one, other = (c["state_dict"]["field.network.params"] for c in loaded)
    assert one.ndim == 1 and one.shape == other.shape and not torch.equal(one, other)


@pytest.mark.usefixtures("real_figure")
def test_each_seed_has_a_picture_of_its_own(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """The pictures also have the coefficients of each seed."""
    settings = ("encoder=cubic", "problem=inverse_poisson", "task=pinn", "task.n_residual=9")
    made = run(tiny_config(*settings, "seeds=[4,1]", f"run_dir={tmp_path}/both"))
    one, other = ((directory / "predictions.png").read_bytes() for directory, _ in made)
    assert one.startswith(b"\x89PNG") and one != other
