"""Samplers and weightings from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import build, config_hash
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import run
from diffhash.results import read_history

MakeConfig = Callable[..., DictConfig]
PINN = ("task=pinn", "task.n_residual=9")
HEAT = """
from diffhash.geometry import Box, Interval
from diffhash.problems import Condition, Problem

class Own(Problem):
    domain = Box(x=(0, 1)) * Interval(t=(0, 1))
    def conditions(self):
        return [
            Condition("heat", self.domain, lambda x, d: d.u_t - d.u_xx),
            Condition("start", self.domain.initial(), lambda x, d: d.u, 1.0),
        ]
    def solution(self, x):
        return x[:, 0]
"""


@pytest.mark.parametrize(
    "settings",
    [
        ("sampler=resample", "sampler.every=2", "sampler.rule=sobol"),
        ("sampler=rad", "sampler.every=1", "weighting=residual_attention"),
        ("weighting=gradient_norm", "weighting.every=1"),
    ],
    ids=lambda settings: settings[0],
)
def test_they_run_and_resume_bit_by_bit(
    tiny_config: MakeConfig, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    def go(name: str, *more: str) -> Path:
        [(directory, record)] = run(
            tiny_config(*PINN, *settings, *more, f"run_dir={tmp_path}/{name}")
        )
        assert record.status == "completed"
        return directory

    whole, part = go("whole"), go("part", "trainer.epochs=3")
    rest = go("rest", f"ckpt_path={part}/checkpoint.ckpt")
    states = [
        torch.load(d / "checkpoint.ckpt", weights_only=True)["state_dict"] for d in (whole, rest)
    ]
    for name, tensor in states[0].items():
        if isinstance(tensor, torch.Tensor):
            assert tensor.equal(states[1][name]), name
    histories = [read_history(directory) for directory in (whole, rest)]
    weighed = [c for c in histories[0].columns if c.startswith("weight_")]
    expected = {"residual_attention": "weight_residual", "gradient_norm": "weight_data"}
    assert weighed == [column for word, column in expected.items() if word in str(settings)]
    for column in ("loss", "mse_u", *weighed):
        assert (histories[0][column] == histories[1][column]).all()


def test_without_them_the_hash_is_that_of_before(tiny_config: MakeConfig) -> None:
    config = tiny_config(*PINN)
    assert config.sampler is None and config.weighting is None
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    older = {key: value for key, value in settings.items() if key not in ("sampler", "weighting")}
    assert config_hash(OmegaConf.create(older)) == config_hash(config)
    assert config_hash(tiny_config(*PINN, "sampler=rad")) != config_hash(config)


def test_a_users_own(
    tiny_config: MakeConfig, own_problem: Callable[[str], str], tmp_path: Path
) -> None:
    where = own_problem(HEAT)
    [module] = (tmp_path / "outside").glob("own_*.py")
    module.write_text(
        module.read_text()
        + """
from diffhash.training import Sampler, Weighting

class Middle(Sampler):
    def points(self, term, errors):
        return term.x * 0 + 0.5

class Half(Weighting):
    reads_errors = weighs_points = False
    def update(self, present, rows):
        self.terms[0].weight.mul_(0.5)
"""
    )
    name = module.stem
    settings = (where, "problem=own", "task=pinn", "task.n_residual=9", "task.n_boundary=5")
    more = (
        f"+sampler._target_={name}.Middle",
        "+sampler.every=2",
        f"+weighting._target_={name}.Half",
    )
    [(directory, _)] = run(tiny_config(*settings, *more, f"run_dir={tmp_path}/run"))
    first, *later = read_history(directory)["weight_heat"]
    assert later == pytest.approx([first / 4, first / 16])
    causal = (*settings, "weighting=causal", "weighting.chunks=3", f"run_dir={tmp_path}/causal")
    [(directory, _)] = run(tiny_config(*causal))
    assert 0 < read_history(directory)["weight_heat"].iloc[-1] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("sampler=rad", "sampler.k=-1"), r"sampler: k=-1: give a finite"),
        (("sampler=rad", "+sampler.oops=1"), r"sampler: .*oops"),
        (("weighting=causal",), r"weighting=Causal: axis='t': the problem has the axes x"),
        (("sampler=rad", "seeds=[0,1]"), r"sampler=ResidualAdaptive: follows the errors of one"),
        (("sampler=rad", "trainer.devices=2"), r"sampler=ResidualAdaptive: .*devices=2"),
        (
            ("sampler=resample", "task=pinn", "sampler.conditions=[wall]"),
            r"sampler=Resample: conditions=\['wall'\]: no condition is named 'wall'",
        ),
        (("sampler._target_=diffhash.MLP",), r"sampler"),
    ],
)
def test_what_cannot_be_run(
    tiny_config: MakeConfig, settings: tuple[str, ...], message: str
) -> None:
    key = "+" if settings[0].startswith("sampler._") else ""
    first = settings[0] if not key else key + settings[0]
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(tiny_config(*PINN, first, *settings[1:]))


def test_another_sampler_does_not_go_on(tiny_config: MakeConfig, tmp_path: Path) -> None:
    settings = (*PINN, "sampler=resample", "trainer.epochs=2", f"run_dir={tmp_path}/one")
    [(directory, _)] = run(tiny_config(*settings))
    for other in ("sampler=fixed", "sampler=rad", "sampler.every=3"):
        more = [f"ckpt_path={directory}/checkpoint.ckpt", "sampler=resample", other]
        with pytest.raises(ConfigError, match=r"was trained with sampler\."):
            build(tiny_config(*PINN, *(more[:1] if "=f" in other else more)))


def test_minibatches_of_seeds(tiny_config: MakeConfig, tmp_path: Path) -> None:
    settings = (*PINN, "trainer.batch_size=4", "trainer.precision=float64")
    together = run(tiny_config(*settings, "seeds=[0,1]", f"run_dir={tmp_path}/both"))
    [(_, alone)] = run(tiny_config(*settings, "seed=0", f"run_dir={tmp_path}/0"))
    assert together[0][1].loss == pytest.approx(alone.loss, rel=1e-9)
    assert [record.status for _, record in together] == ["completed"] * 2
