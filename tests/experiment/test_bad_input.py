"""Settings that cannot be run are refused in one line before anything is trained or written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from diffhash.experiment import checks
from diffhash.experiment.build import build
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import run
from diffhash.ops import memory

Call = Callable[..., Any]
CUBIC = ("encoder=cubic", "encoder.encoding.n_levels=2", "encoder.encoding.log2_hashmap_size=6")
FIRST_ORDER = "optimizer=first_order optimizer.make_optimizer._target_"


def _setting(refused: tuple[str, str]) -> str:
    """The overrides without the last value."""
    return refused[0].rpartition("=")[0]


# A config, and what the message has to name: the setting with its value, and what is allowed.
REFUSED = [
    ("trainer.epochs=0", "trainer.epochs=0: give at least 1"),
    ("trainer.epochs=-5", "trainer.epochs=-5: give at least 1"),
    ("trainer.chunk=0", "trainer.chunk=0: give at least 1"),
    ("trainer.batch_size=0", "trainer.batch_size=0: give at least 1"),
    ("trainer.batch_size=-1", "trainer.batch_size=-1: give at least 1"),
    ("trainer.learning_rate=0", "trainer.learning_rate=0.0: give a positive number"),
    ("trainer.learning_rate=-0.1", "trainer.learning_rate=-0.1: give a positive number"),
    ("trainer.learning_rate=nan", "trainer.learning_rate=nan: give a positive number"),
    ("trainer.learning_rate=inf", "trainer.learning_rate=inf: give a positive number"),
    ("trainer.betas=[0.9,1]", "trainer.betas=[0.9, 1.0]: give two numbers of at least 0 and below"),
    ("trainer.betas=[0.9]", "trainer.betas=[0.9]: give two numbers of at least 0 and below 1"),
    ("trainer.betas=[nan,0.9]", "trainer.betas=[nan, 0.9]: give two numbers of at least 0"),
    ("trainer.evaluation_points=0", "trainer.evaluation_points=0: give at least 1"),
    ("trainer.evaluation_points=-1", "trainer.evaluation_points=-1: give at least 1"),
    ("trainer.evaluation_points=10000000000000", "trainer.evaluation_points=10000000000000: needs"),
    ("trainer.num_threads=0", "trainer.num_threads=0: give 1 to 1024, or null"),
    ("trainer.num_threads=100000", "trainer.num_threads=100000: give 1 to 1024, or null"),
    ("seed=-1", "seed=-1: give 0 to"),
    ("seed=99999999999999999999", "seed=99999999999999999999: give 0 to"),
    ("task.n_labels=-1", "task: n_labels=-1: give at least 0"),
    ("task=data task.n_labels=0", "task: n_labels=0: give at least 1"),
    ("task.n_labels=10000000000000", "task: n_labels=10000000000000"),
    ("task.n_residual=0", "task: n_residual=0: give at least 1"),
    ("task.n_residual=-3", "task: n_residual=-3: give at least 1"),
    ("task.kind=fit", "task: kind='fit': give pinn or data"),
    ("task.rule=sobel", "task: rule='sobel': give one of 'sobol'"),
    ("task.n_boundary=-1", "task: n_boundary=-1: give at least 1"),
    ("+task.points.wall=3", "task: points.wall: no condition has that name; there are data, resid"),
    ("+task.points.data=-3", "task: points.data=-3: give at least 0"),
    ("+task.weights.data=nan", "task: weights.data=nan: give a finite number of at least 0"),
    ("task.boundary_weight=-1", "task: boundary_weight=-1.0: give a finite number of at least 0"),
    ("task.data_weight=-1", "task: data_weight=-1.0: give a finite number of at least 0"),
    ("task.residual_weight=nan", "task: residual_weight=nan: give a finite number of at least 0"),
    ("encoder.network.width=0", "encoder.network: width=0: give at least 1"),
    ("encoder.network.depth=-1", "encoder.network: depth=-1: give at least 1"),
    ("encoder.network.init=best", "encoder.network: init='best' is unknown; choose one of torch"),
    ("encoder=siren encoder.network.omega_0=0", "encoder.network: omega_0=0.0: give a positive"),
    ("encoder=ff encoder.encoding.n_frequencies=0", "encoder.encoding: n_frequencies=0: give"),
    ("encoder=ff encoder.encoding.sigma=-1", "encoder.encoding: sigma=-1.0: give a positive"),
    ("encoder=cubic encoder.encoding.n_levels=0", "encoder.encoding: n_levels=0: allowed are"),
    ("encoder=cubic encoder.encoding.n_levels=-1", "encoder.encoding: n_levels=-1: allowed are"),
    (
        "encoder=cubic encoder.encoding.n_features_per_level=0",
        "encoder.encoding: n_features_per_level=0: allowed are",
    ),
    (
        "encoder=cubic encoder.encoding.log2_hashmap_size=99",
        "encoder.encoding: log2_hashmap_size=99: allowed are",
    ),
    (
        "encoder=cubic encoder.encoding.base_resolution=0",
        "encoder.encoding: base_resolution=0: allowed are",
    ),
    (
        "encoder=cubic encoder.encoding.per_level_scale=nan",
        "encoder.encoding: per_level_scale=nan: give a number of at least 1",
    ),
    (
        "encoder=cubic encoder.encoding.init_scale=-1",
        "encoder.encoding: init_scale=-1.0: give a number of at least 0",
    ),
    (
        "encoder=cubic encoder.encoding.interpolation=cubical",
        "encoder.encoding: interpolation='cubical' is unknown; choose one of linear, s1",
    ),
    ("problem.label_region=[0.5,1.5]", "problem: label_region=[0.5, 1.5]: give [low, high] with 0"),
    ("problem.label_region=[0.5,0.2]", "problem: label_region=[0.5, 0.2]: give [low, high] with 0"),
    ("problem.label_region=[0.5]", "problem: label_region=[0.5]: give [low, high] with 0"),
    ("problem.k=0", "problem: k=0.0: give a finite number other than 0"),
    ("problem.k=nan", "problem: k=nan: give a finite number other than 0"),
    ("sampler=rad sampler.k=abc", "sampler: k=abc: give a finite number of at least 0"),
    ("sampler=rad sampler.conditions=wall", "sampler=ResidualAdaptive: conditions=['wall']: no"),
    ("weighting=gradient_norm weighting.beta=a", "weighting: beta=a: give a number of at least 0"),
    ("optimizer=gauss_newton optimizer.damping=-1", "optimizer: damping=-1: give a positive"),
    (f"{FIRST_ORDER}=torch.nn.Linear", "optimizer: Linear cannot be made: Linear.__init"),
    (f"{FIRST_ORDER}=torch.optim.LBFGS", "optimizer: LBFGS cannot be made: LBFGS does"),
    (
        f"{FIRST_ORDER}=torch.optim.RAdam +optimizer.make_optimizer.foo=2",
        "optimizer: RAdam cannot be made: RAdam.__init__() got an unexpected keyword",
    ),
    (f"{FIRST_ORDER}=builtins.len", "optimizer=FirstOrder: its method make returns int; give a"),
    ("+epochs=3", "epochs: Key 'epochs' not in 'Config'"),
    ("+trainer.patience=3", "trainer.patience: Key 'patience' not in 'TrainerConfig'"),
    ("+task.n_points=3", "task: Task.__init__() got an unexpected keyword argument 'n_points'"),
    ("+encoder.network.dropout=0.5", "encoder.network: MLP.__init__() got an unexpected"),
    ("problem._target_=nowhere.Heat", "problem: Error loading 'nowhere.Heat'"),
    ("problem._target_=diffhash.problems.Heat", "'Heat' is importable from module"),
    ("encoder.encoding=null", "encoder.encoding: give a _target_"),
    ("ckpt_path=nowhere.ckpt", "ckpt_path=nowhere.ckpt: there is no such file"),
]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Of values that one check refuses, the first.
        pytest.param(
            *one,
            id=one[0],
            marks=[pytest.mark.slow] * (_setting(one) in map(_setting, REFUSED[:i])),
        )
        for i, one in enumerate(REFUSED)
    ],
)
def test_a_value_out_of_range(
    tiny_config: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = tiny_config(f"runs_dir={tmp_path}/runs", *overrides.split())
    with pytest.raises(ConfigError) as caught:
        run(cfg)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_value(config: Call) -> None:
    cfg = config()
    cfg.trainer.learning_rate = "???"
    cfg.encoder.encoding.n_levels = "???"
    message = r"encoder\.encoding\.n_levels, trainer\.learning_rate: no value given"
    with pytest.raises(ConfigError, match=message):
        build(cfg)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(tiny_config: Call) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: torch finds no CUDA device"):
        build(tiny_config("trainer.accelerator=gpu"))


def test_a_table_too_large_for_memory(config: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is refused without allocation, which could end the process."""
    cfg = config(
        *("encoder=cubic", "encoder.encoding.n_levels=20", "encoder.encoding.base_resolution=16"),
        *("encoder.encoding.log2_hashmap_size=24", "encoder.encoding.n_features_per_level=64"),
    )
    monkeypatch.setattr(checks, "physical_memory", lambda: 2**30)
    with torch.device("cpu"):  # torch notes its factories when they are first used like this
        allocated, rand = [torch.zeros(0).device.type], torch.rand
    allocated.clear()

    def noting(*size: Any, **settings: Any) -> torch.Tensor:
        table = rand(*size, **settings)
        if table.numel() > 2**20:
            allocated.append(table.device.type)
        return table

    monkeypatch.setattr(torch, "rand", noting)
    with pytest.raises(ConfigError, match=r"encoder: training needs .* GiB .* has 1\.0 GiB: lower"):
        build(cfg)
    assert allocated == ["meta"]


def test_the_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.physical_memory()
    (tmp_path / "unlimited").write_text("max\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (tmp_path / "unlimited",))
    assert memory.physical_memory() >= machine
    (tmp_path / "limited").write_text(f"{2**20}\n")
    files = (tmp_path / "unlimited", tmp_path / "absent", tmp_path / "limited")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", files)
    assert memory.physical_memory() == 2**20


# ------------------------------------------------------------------------------ the folder


def test_a_folder_below_a_file(tiny_config: Call, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for setting in (f"run_dir={file}/run", f"runs_dir={file}"):
        with pytest.raises(ConfigError) as caught:
            run(tiny_config(setting))
        assert str(caught.value) == f"{setting}: cannot be written (Not a directory)"
    assert file.read_text() == "mine"


def test_a_folder_that_is_a_file(tiny_config: Call, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=rf"run_dir={file}: is a file; give a folder"):
        run(tiny_config(f"run_dir={file}"))
    assert file.read_text() == "mine"


def test_a_folder_of_other_things_is_left_alone(tiny_config: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "notes.md"):
        (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.md, which no run has written"):
        run(tiny_config(f"run_dir={tmp_path}/run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("folder", ["/", ".", "..", "''"])
def test_a_folder_that_is_no_runs_own(
    tiny_config: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="give a folder of the run's own"):
        run(tiny_config(f"run_dir={folder}"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_readers_would_not_see(tiny_config: Call, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in {
        "run.partial": "a name that ends in .partial is that of an unfinished run",
        "loop": "is a link that leads back to itself",
    }.items():
        with pytest.raises(ConfigError) as caught:
            run(tiny_config(f"run_dir={tmp_path}/{name}"))
        assert str(caught.value).startswith(f"run_dir={tmp_path}/{name}: {reason}")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_names_of_parts_are_no_paths(train: Call, tmp_path: Path) -> None:
    directory, _ = train("run_dir=null", f"runs_dir={tmp_path}", "problem.name='../..'")
    assert directory.parent.parent == tmp_path


# --------------------------------------------------------------------------- the checkpoint


def test_a_file_that_is_no_checkpoint(tiny_config: Call, tmp_path: Path) -> None:
    text, tensor = tmp_path / "text.ckpt", tmp_path / "tensor.ckpt"
    text.write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tensor)
    for file in (text, tensor):
        with pytest.raises(ConfigError, match=rf"ckpt_path={file}: not a checkpoint of a diffhash"):
            build(tiny_config(f"ckpt_path={file}"))
    with pytest.raises(ConfigError, match=rf"ckpt_path={tmp_path}: there is no such file"):
        build(tiny_config(f"ckpt_path={tmp_path}"))


@pytest.fixture
def checkpoint(train: Call) -> Path:
    directory, _ = train(*CUBIC)
    return directory / "checkpoint.ckpt"


def test_a_checkpoint_of_something_else(tiny_config: Call, checkpoint: Path) -> None:
    more = ("trainer.epochs=20", f"ckpt_path={checkpoint}")
    build(tiny_config(*CUBIC, *more))
    for other, difference in (
        (("encoder=mlp",), "_target_=diffhash.encodings.GridEncoding, here it is"),
        ((*CUBIC, "encoder.encoding.n_levels=3"), "n_levels=2, here it is 3"),
        # These two do not change the shapes.
        ((*CUBIC, "encoder.encoding.interpolation=quadratic"), "=cubic, here it is quadratic"),
        ((*CUBIC, "trainer.precision=float64"), "trainer.precision=float32, here it is float64"),
    ):
        with pytest.raises(ConfigError) as caught:
            build(tiny_config(*other, *more))
        assert str(caught.value).startswith(f"ckpt_path={checkpoint}: was trained with ")
        assert difference in str(caught.value)


def test_a_checkpoint_that_has_its_epochs(tiny_config: Call, checkpoint: Path) -> None:
    for epochs in (5, 6):
        with pytest.raises(ConfigError) as caught:
            build(tiny_config(*CUBIC, f"ckpt_path={checkpoint}", f"trainer.epochs={epochs}"))
        assert str(caught.value) == (
            f"ckpt_path={checkpoint}: it has 6 epochs already, trainer.epochs={epochs} asks for "
            "no more; give a larger number"
        )


def test_a_checkpoint_of_a_diverged_run(tiny_config: Call, train: Call) -> None:
    directory, record = train("trainer.learning_rate=1e39")
    assert record.status == "diverged"
    with pytest.raises(ConfigError, match="its run diverged, its parameters are not finite"):
        build(tiny_config(f"ckpt_path={directory}/checkpoint.ckpt", "trainer.epochs=20"))


def test_a_torn_checkpoint(tiny_config: Call, checkpoint: Path, tmp_path: Path) -> None:
    torn = shutil.copy(checkpoint, tmp_path / "torn.ckpt")
    with open(torn, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ConfigError, match="not a checkpoint of a diffhash run"):
        build(tiny_config(*CUBIC, f"ckpt_path={torn}", "trainer.epochs=20"))


# ------------------------------------------------------------------------ other people's code

HEAT = """
from diffhash.geometry import Interval
from diffhash.problems import EXACT, Condition, Problem

class Own(Problem):
    domain = Interval(x=(0.0, 1.0))

    def conditions(self):
        return [Condition("heat", self.domain, self.residual, 1.0)]

    def residual(self, x, d):
        return d.u_xx
"""


@pytest.fixture
def own_config(tiny_config: Call, own_problem: Call) -> Call:
    """``own_config(code, *overrides)``: a tiny config of the problem that the code defines."""

    def make(code: str, *overrides: str) -> DictConfig:
        return tiny_config(own_problem(code), "problem=own", *overrides)

    return make


def test_data_of_a_problem_without_a_solution(own_config: Call) -> None:
    with pytest.raises(ConfigError, match=r"task: data: target=exact needs .* problem=Own, which"):
        build(own_config(HEAT, "task=data"))


def test_labels_of_a_problem_without_a_solution(own_config: Call) -> None:
    cfg = own_config(HEAT.replace("[Cond", "[self.labels(), Cond"), "task=pinn")
    with pytest.raises(ConfigError, match=r"task: data: target=exact needs .* problem=Own, which"):
        build(cfg)
    cfg.task.n_labels = 0
    build(cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("(0.0, 1.0)", "(1.0, 0.0)"), r"problem: x=\(1\.0, 0\.0\): give .* finite low < high"),
        (("(0.0, 1.0)", "(0.0, 1e999)"), "problem: x=.*give .* finite low < high"),
        (("Interval(x=(0.0, 1.0))", "((0.0, 1.0),)"), r"problem: Own\.domain=.*: give a domain of"),
        (("def conditions", "def condition"), "problem: Can't instantiate abstract class Own"),
        (("1.0)]", "EXACT)]"), "task: heat: target=exact needs the exact solution of problem=Own"),
        (("d.u_xx", "d.u_yy"), "task: heat: 'u_yy' is no derivative: give one of u"),
        (("d.u_xx", "x * d.u_xx"), r"task: heat: its residual is of shape \[N, N\] for N points"),
        (("d.u_xx", "d.u_xx.mean()"), r"task: heat: its residual is .* of shape \[\] at 5 points"),
        (("d.u_xx", "d.u_n"), "task: heat: there is no normal here"),
        (("d.u_xx", "x[:, 0]"), "task: heat: its residual reads neither an unknown nor"),
        (("return [Cond", "[Cond"), r"Own\.conditions: NoneType; give a list of at least one"),
        (
            ("1.0)]", "float('nan'))]"),
            r"task: heat: its target is not finite at (\d+) of \1 points",
        ),
        (
            ("Own(Problem):", "Own(Problem):\n    unknowns = 'pressure'"),
            "problem: Own.unknowns='pr",
        ),
    ],
    ids=[
        *("reversed", "infinite", "tuples", "abstract", "exact", "axis", "mixed", "mean", "normal"),
        *("nothing read", "none", "nan", "unknowns"),
    ],
)
def test_a_problem_that_cannot_be_used(
    own_config: Call, change: tuple[str, str], message: str
) -> None:
    code = HEAT.replace(*change)
    assert code != HEAT
    with pytest.raises(ConfigError, match=message) as caught:
        build(own_config(code, "task=pinn"))
    assert "\n" not in str(caught.value)


def test_more_unknowns_than_a_network_was_told_to_have(own_config: Call, tiny_config: Call) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.network\.n_outputs=2: the problem has 1"):
        build(tiny_config("+encoder.network.n_outputs=2"))
    code = HEAT.replace("domain =", "unknowns = ('u', 'v')\n    domain =")
    code = code.replace("d.u_xx", "d.u_xx + d.v")
    assert build(own_config(code, "task=pinn")).field.network.widths[-1] == 2


def test_a_config_without_a_target_or_a_name(tiny_config: Call, own_config: Call) -> None:
    with pytest.raises(ConfigError, match="problem: give a _target_, the class or function"):
        build(own_config(HEAT, "~problem._target_"))
    cfg = tiny_config()
    cfg.task.name = "???"
    with pytest.raises(ConfigError, match=r"task\.name: no value given"):
        build(cfg)


def test_own_code_may_refuse_its_settings(own_config: Call) -> None:
    code = HEAT + "    def __init__(self, k):\n        raise ValueError(f'k={k}: give 1')\n"
    with pytest.raises(ConfigError, match=r"problem: k=3: give 1"):
        build(own_config(code, "+problem.k=3"))
