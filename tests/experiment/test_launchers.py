"""Sweeps whose runs are separate processes, on this machine or on a cluster."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffhash.experiment import run
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.schema import register
from diffhash.experiment.sweep import JobExitError, job_task
from diffhash.results import RunRecord, find_records
from tests.faults import forked

Call = Callable[..., Any]
# The plugin that each launcher needs.
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def needs(launcher: str) -> None:
    extra = launcher.partition("_")[0]
    pytest.importorskip(
        PLUGINS[launcher], reason=f"needs the extra {extra}, which is not installed"
    )


@pytest.fixture
def start_sweep(start: Call, tiny: tuple[str, ...], tmp_path: Path) -> Call:
    """``start_sweep(launcher, *overrides)``: start a sweep of tiny runs, in this environment
    without its limit on threads; records go to ``tmp_path/runs``."""

    def call(launcher: str, *overrides: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        return start(
            *("train.py", "-m", f"launcher={launcher}", "encoder=mlp"),
            *(o for o in tiny if not o.startswith("trainer.num_threads")),
            *(f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/sweep", *overrides),
            cwd=tmp_path,
            env=inherited | {"RAY_AUTH_MODE": "disabled"} | environment,
        )

    return call


def records(folder: Path) -> list[RunRecord]:
    return [record for _, record in find_records(folder)]


def same_results(one: RunRecord, other: RunRecord) -> bool:
    names = ("metrics", "epochs", "n_parameters", "config_hash")
    return all(getattr(one, name) == getattr(other, name) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_every_run_as_without_a_launcher_and_a_bad_one_spoils_no_other(
    start_sweep: Call, train: Call, tmp_path: Path, launcher: str
) -> None:
    needs(launcher)
    process = start_sweep(launcher, "seed=0,-1,1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert any(line.startswith("error: seed=-1: give 0 to") for line in err.splitlines())
    assert "Traceback" not in err

    assert sorted(record.seed for record in records(tmp_path / "runs")) == [0, 1]
    assert not list((tmp_path / "runs").rglob("*.partial"))
    for directory, record in find_records(tmp_path / "runs"):
        assert record.status == "completed"
        assert record.environment["torch_threads"] == 1
        assert launcher != "joblib" or str(directory) in out
        assert same_results(record, train(f"seed={record.seed}")[1])


@pytest.mark.slow
@pytest.mark.parametrize(  # submitit's jobs are meant to outlive a process that is terminated
    ("launcher", "how"),
    [("joblib", "ctrl-c"), ("joblib", "terminate"), ("submitit_local", "ctrl-c")],
)
def test_an_interrupted_sweep_leaves_records(
    start_sweep: Call, tmp_path: Path, launcher: str, how: str
) -> None:
    """Ctrl-C in a terminal reaches every process; SIGTERM reaches the one that was started."""
    needs(launcher)
    long = ("trainer.epochs=1000000", "trainer.chunk=100", "seed=0,1,2")
    two = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    process = start_sweep(launcher, *long, *two)
    expected = 2 if launcher == "joblib" else 3  # joblib's third must not begin
    while len(list((tmp_path / "runs").rglob("checkpoint.ckpt"))) < expected:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
    else:
        process.terminate()
    end = time.monotonic() + 60
    while len(found := records(tmp_path / "runs")) < expected:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert {record.status for record in found} == {"interrupted"}
    time.sleep(0.5)
    assert len(list((tmp_path / "runs/mlp_pinn").iterdir())) == expected
    if how == "terminate":
        os.killpg(process.pid, signal.SIGKILL)  # joblib's workers, which wait for more


@pytest.mark.slow
def test_slurm(start_sweep: Call, tmp_path: Path) -> None:
    """A job array is given to commands that replace those of a cluster."""
    needs("submitit_slurm")
    commands = {
        "sbatch": 'for i in 0 1; do\n  SLURM_ARRAY_TASK_ID=$i bash "${@: -1}" >/dev/null 2>&1 &\n'
        'done\ncp "${@: -1}" "$SUBMITTED"; echo Submitted batch job 7\n',
        "srun": "while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done\n"
        "export SLURM_JOB_ID=7$SLURM_ARRAY_TASK_ID SLURM_ARRAY_JOB_ID=7 SLURM_JOB_NUM_NODES=1\n"
        'export SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0\nexec "$@"\n',
        "sacct": "echo 'JobID|State|NodeList'; for i in 0 1; do echo \"7_$i|RUNNING|here\"; done\n",
    }
    for name, text in commands.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{text}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    process = start_sweep(
        *("submitit_slurm", "hydra.launcher.partition=short", "seed=0,1"),
        PATH=f"{tmp_path}/bin:{os.environ['PATH']}",
        SUBMITTED=f"{tmp_path}/submitted",
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(record.seed for record in records(tmp_path / "runs")) == [0, 1]
    submitted = (tmp_path / "submitted").read_text()
    for flag in ("array=0-1%2", "cpus-per-task=1", "mem=4GB", "partition=short", "time=60"):
        assert f"#SBATCH --{flag}\n" in submitted
    assert "gpus" not in submitted


@pytest.mark.parametrize("launcher", PLUGINS)
def test_every_launcher_composes(config: Call, launcher: str) -> None:
    needs(launcher)
    assert config(f"launcher={launcher}") == config("trainer.num_threads=1")


# ------------------------------------------------------------------ what a job tells its launcher


@pytest.fixture
def in_job(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], None]], None]]:
    """``in_job(task)``: call ``task`` as the main task of a job that joblib runs."""
    register()
    with initialize_config_dir(str(root / "configs"), version_base="1.3"):
        cfg = compose("train", ["launcher=joblib", "hydra.mode=MULTIRUN"], return_hydra_config=True)
    hydra = HydraConfig.instance()
    monkeypatch.setattr(hydra, "cfg", cfg)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def call(task: Callable[[], None]) -> None:
        monkeypatch.setattr(run, "main_task", lambda cfg, overrides: task())
        job_task(DictConfig({}))

    yield call
    signal.signal(signal.SIGINT, previous)


def travelled(error: BaseException) -> BaseException:
    return pickle.loads(pickle.dumps(error))


def refuse() -> None:
    try:
        raise ConfigError("trainer.epochs=0: give at least 1")
    except ConfigError:
        raise SystemExit(1) from None


def test_a_bad_config_ends_the_command_line_with_its_line(in_job: Call) -> None:
    with pytest.raises(JobExitError) as caught:
        in_job(refuse)
    arrived = travelled(caught.value)
    assert isinstance(arrived, SystemExit)
    assert arrived.code == "error: trainer.epochs=0: give at least 1"
    in_job(lambda: None)  # and the next job runs


def test_a_bug_arrives_with_its_traceback(in_job: Call) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        in_job(lambda: print(1 / 0))
    [note] = travelled(caught.value).__notes__
    assert "print(1 / 0)" in note


@pytest.mark.parametrize("when", ["before its training", "in its training", "between jobs"])
def test_an_interrupt_ends_the_jobs_that_wait_as_well(
    in_job: Call, tmp_path: Path, when: str
) -> None:
    def training() -> None:
        if when == "in its training":
            raise SystemExit(130)  # what main_task does after writing the record
        if when == "before its training":
            signal.raise_signal(signal.SIGINT)

    def jobs() -> None:
        begun = []
        if when == "between jobs":
            in_job(training)
            signal.raise_signal(signal.SIGINT)
        else:
            with pytest.raises(JobExitError):
                in_job(training)
        with pytest.raises(JobExitError) as caught:
            in_job(lambda: begun.append(True))
        arrived = travelled(caught.value)
        assert isinstance(arrived, SystemExit)
        assert arrived.code == 130
        assert not begun

    def ignoring_interrupts() -> None:  # as a job's process does before its first job
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        jobs()

    # In a separate process, since it begins no more jobs afterwards.
    ended = forked.call(ignoring_interrupts, tmp_path / "jobs", seconds=60)
    assert ended.code == 0, ended.err
