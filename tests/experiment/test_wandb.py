"""`logger=wandb`, with the real package and without a network.

`wandb sync` replays a file that a run leaves on disk: it is in LevelDB's log format, and every
entry is a protobuf message of W&B's own schema.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
import yaml
from omegaconf import DictConfig
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.loggers import run_loggers
from diffhash.experiment.run import run
from diffhash.results import RunRecord
from tests import composition
from tests.composition import ROOT

TINY = [
    "task=data",
    "task.n_labels=16",
    "trainer.epochs=4",
    "trainer.chunk=2",
    "trainer.evaluation_points=16",
    "trainer.accelerator=cpu",
]
CUBIC = ["encoder=cubic", "encoder.encoding.n_levels=2", "encoder.encoding.log2_hashmap_size=6"]
BLOCK = 32768  # of the log format


def config(*overrides: str) -> DictConfig:
    return composition.config("logger=wandb", "encoder=mlp", *TINY, *overrides)


def logged_run(*overrides: str) -> tuple[Path, RunRecord, str]:
    stderr = StringIO()
    with redirect_stderr(stderr):
        [(directory, record)] = run(config(*overrides))
    return directory, record, stderr.getvalue()


def hinted(stderr: str) -> list[Path]:
    """The folders that the printed commands send."""
    commands = [line.partition("W&B: send it with: ")[2] for line in stderr.splitlines()]
    words = [shlex.split(command) for command in commands if command]
    assert all(command[:2] == ["wandb", "sync"] for command in words)
    return [Path(word) for command in words for word in command[2:]]


def offline_run(directory: Path) -> Path:
    """The one W&B run of a record."""
    [folder] = (directory / "wandb").glob("offline-run-*")
    return folder


class WandbRun:
    """The entries that `wandb sync` would send from the folder of a run.

    A process of W&B writes them, and a run does not wait for it: the last entries, with the exit
    code, may take a moment.
    """

    def __init__(self, folder: Path) -> None:
        end = time.monotonic() + 60
        while self._read(folder) is None:
            assert time.monotonic() < end, f"{folder}: no entry says how the run ended"
            time.sleep(0.05)

    def _read(self, folder: Path) -> int | None:
        """Read all entries; return the exit code if it is among them."""
        [file] = folder.glob("run-*.wandb")
        self.exit_code: int | None = None
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.files: list[Path] = []
        self.step_metrics: dict[str, str] = {}
        for content in log_entries(file.read_bytes()):
            entry = Record.FromString(content)
            match entry.WhichOneof("record_type"):
                case "run":
                    self.run = entry.run
                    items = entry.run.config.update
                    self.config = {i.key: json.loads(i.value_json) for i in items}
                case "history":
                    self.history.append(values(entry.history.item))
                case "summary":
                    self.summary |= values(entry.summary.update)
                case "files":
                    self.files += [folder / "files" / f.path for f in entry.files.files]
                case "metric":
                    names = entry.metric.glob_name or entry.metric.name
                    self.step_metrics[names] = entry.metric.step_metric
                case "exit":
                    self.exit_code = entry.exit.exit_code
        return self.exit_code

    @property
    def epochs(self) -> list[int]:
        """The epochs of the evaluations in the history."""
        return [row["epoch"] for row in self.history if "history/loss" in row]


def log_entries(content: bytes) -> Iterator[bytes]:
    """The entries of a log: blocks of fragments (checksum, length, type), after 7 bytes of W&B."""
    position, entry = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:  # too short for a fragment: padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        entry += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last
            yield entry
            entry = b""


def values(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord, str]:
    directory = tmp_path_factory.mktemp("runs") / "a run"
    return logged_run(*CUBIC, "logger.wandb.tags=[mine,data]", f"run_dir={directory}")


@pytest.fixture
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let W&B read its environment again, on a machine without a login."""
    wandb.teardown()  # the service that its environment names is gone then, and the name with it
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    yield
    wandb.teardown()


def test_hint_names_the_folder_that_wandb_sync_sends(
    example: tuple[Path, RunRecord, str],
) -> None:
    directory, _, stderr = example
    assert hinted(stderr) == [offline_run(directory)]
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", *map(str, hinted(stderr))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Would sync 1 run(s)" in done.stderr + done.stdout


def test_console_is_left_alone(example: tuple[Path, RunRecord, str]) -> None:
    _, _, stderr = example
    assert [line for line in stderr.splitlines() if "wandb" in line.lower()] == [
        line for line in stderr.splitlines() if line.startswith("W&B: send it with: wandb sync ")
    ]


def test_identity(example: tuple[Path, RunRecord, str]) -> None:
    sent = WandbRun(offline_run(example[0])).run
    assert sent.project == "diffhash"
    assert sent.display_name == "cubic data seed 0"
    assert sent.run_group == "cubic_data"
    assert list(sent.tags) == ["cubic", "data", "best", "mine"]


def test_config_is_the_whole_resolved_one(example: tuple[Path, RunRecord, str]) -> None:
    sent = WandbRun(offline_run(example[0])).config
    sent.pop("_wandb")
    assert sent == yaml.safe_load((example[0] / "config.yaml").read_text())


def test_history_over_epochs(example: tuple[Path, RunRecord, str]) -> None:
    sent = WandbRun(offline_run(example[0]))
    assert sent.step_metrics["history/*"] == "epoch"
    rows = [row for row in sent.history if "history/loss" in row]
    frame = pd.DataFrame(rows).rename(columns=lambda name: name.removeprefix("history/"))
    history = pd.read_csv(example[0] / "history.csv")
    assert list(history["epoch"]) == [2, 4]
    pd.testing.assert_frame_equal(frame.reindex(columns=history.columns), history)


def test_summary_is_the_record(example: tuple[Path, RunRecord, str]) -> None:
    directory, record, _ = example
    sent = WandbRun(offline_run(directory))
    assert sent.exit_code == 0
    assert sent.summary["status"] == "completed"
    assert sent.summary["epochs"] == 4
    for name in ("mse_u", "mse_ux", "mse_uxx", "loss", "train_seconds", "n_parameters"):
        assert sent.summary[name] == pytest.approx(getattr(record, name))
    assert "diverged_epoch" not in sent.summary


def test_figure_is_an_image(example: tuple[Path, RunRecord, str]) -> None:
    directory = example[0]
    sent = WandbRun(offline_run(directory))
    [image] = [row["predictions"] for row in sent.history if "predictions" in row]
    assert image["_type"].startswith("images")
    [file] = [file for file in sent.files if file.suffix == ".png"]
    assert [str(file.relative_to(offline_run(directory) / "files"))] == image["filenames"]
    assert file.read_bytes() == (directory / "predictions.png").read_bytes()


def test_diverged_run(tmp_path: Path) -> None:
    directory, record, _ = logged_run(
        "trainer.learning_rate=1e30", "name=table1/mlp_10k", f"run_dir={tmp_path}/run"
    )
    sent = WandbRun(offline_run(directory))
    assert sent.run.run_group == "table1/mlp_10k"
    assert sent.summary["status"] == "diverged"
    assert sent.summary["diverged_epoch"] == record.diverged_epoch is not None
    assert "mse_u" not in sent.summary


def final_table(directory: Path) -> pd.DataFrame:
    [file] = [f for f in WandbRun(offline_run(directory)).files if f.name.endswith(".table.json")]
    content = json.loads(file.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"]).set_index("metric")


def test_final_metrics_are_a_table(example: tuple[Path, RunRecord, str]) -> None:
    table = final_table(example[0])
    assert list(table.index) == list(example[1].metrics)
    assert list(table["ours"]) == pytest.approx([getattr(example[1], name) for name in table.index])
    assert table["reference"].isna().all()  # it is no row of the paper's


def test_final_metrics_beside_the_papers(tmp_path: Path) -> None:
    directory, record, _ = logged_run("name=table2/cubic", f"run_dir={tmp_path}/run")
    table = final_table(directory)
    assert table.loc["mse_u", "reference"] == 8.9e-5
    assert record.mse_u
    decades = math.log10(record.mse_u / 8.9e-5)
    assert table.loc["mse_u", "decades"] == pytest.approx(decades)
    assert math.isnan(table.loc["mse_ux", "reference"])  # not printed
    sent = WandbRun(offline_run(directory))
    assert sent.summary["log10_mse_u"] == pytest.approx(math.log10(record.mse_u))


def test_resumed_run_goes_on_with_its_wandb_run(tmp_path: Path) -> None:
    first, _, _ = logged_run(f"run_dir={tmp_path}/first")
    checkpoint = f"ckpt_path={first}/checkpoint.ckpt"
    second, _, stderr = logged_run(f"run_dir={tmp_path}/second", checkpoint, "trainer.epochs=8")
    before, after = (WandbRun(offline_run(directory)) for directory in (first, second))
    assert before.run.run_id == after.run.run_id
    assert before.epochs == [2, 4]
    assert after.epochs == [6, 8]
    assert hinted(stderr) == [offline_run(first), offline_run(second)]
    third, _, _ = logged_run(
        f"run_dir={tmp_path}/third", f"ckpt_path={second}/checkpoint.ckpt", "trainer.epochs=10"
    )
    assert WandbRun(offline_run(third)).run.run_id == before.run.run_id


def test_resumed_without_a_wandb_run_has_the_whole_history(tmp_path: Path) -> None:
    first, _, _ = logged_run(f"run_dir={tmp_path}/first", "logger=none")
    second, _, stderr = logged_run(
        f"run_dir={tmp_path}/second", f"ckpt_path={first}/checkpoint.ckpt", "trainer.epochs=8"
    )
    assert WandbRun(offline_run(second)).epochs == [2, 4, 6, 8]
    assert hinted(stderr) == [offline_run(second)]


def test_seeds_are_wandb_runs_of_their_own(tmp_path: Path) -> None:
    runs = run(config("seeds=[0,1]", f"run_dir={tmp_path}/run"))
    sent = [WandbRun(offline_run(directory)) for directory, _ in runs]
    assert [s.run.display_name for s in sent] == ["mlp data seed 0", "mlp data seed 1"]
    assert all(s.run.run_group == "mlp_data" and s.epochs == [2, 4] for s in sent)
    second, _, _ = logged_run(
        f"run_dir={tmp_path}/second",
        f"ckpt_path={runs[1][0]}/checkpoint.ckpt",
        *("seed=1", "trainer.epochs=6"),
    )
    resumed = WandbRun(offline_run(second))
    assert resumed.run.run_id == sent[1].run.run_id != sent[0].run.run_id
    assert resumed.epochs == [6]


@pytest.mark.usefixtures("own_environment")
def test_seeds_under_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-agent")
    with pytest.raises(ConfigError, match=r"seeds=\[0, 1\]: WANDB_RUN_ID names one W&B run"):
        run(config("seeds=[0,1]", f"run_dir={tmp_path}/run"))
    assert not list(tmp_path.iterdir())
    directory, _, _ = logged_run("seeds=[3]", f"run_dir={tmp_path}/run")
    assert WandbRun(offline_run(directory)).run.run_id == "of-the-agent"


def test_exception_ends_the_run_as_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(RuntimeError, match="in training"),
        run_loggers(config(), "a title", tmp_path, tmp_path / "final") as loggers,
    ):
        loggers["wandb"].log_metrics({"history/loss": 1.0}, step=2)
        raise RuntimeError("in training")
    assert hinted(capsys.readouterr().err) == [offline_run(tmp_path)]
    sent = WandbRun(offline_run(tmp_path))
    assert sent.exit_code == 1
    assert sent.epochs == [2]


@pytest.mark.slow
def test_multirun_without_account(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "home" / ".netrc")}
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "train.py"), "-m", "logger=wandb", "encoder=mlp,siren"),
            *(*TINY, f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/sweep"),
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sent = [WandbRun(folder) for folder in hinted(done.stderr)]
    assert [s.run.run_group for s in sent] == ["mlp_data", "siren_data"]
    assert len({s.run.run_id for s in sent}) == 2
    assert all(s.epochs == [2, 4] and s.summary["status"] == "completed" for s in sent)


@pytest.mark.slow
def test_without_the_package(tmp_path: Path) -> None:
    program = "import runpy, sys; sys.modules['wandb'] = None; sys.argv = sys.argv[1:]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, str(ROOT / "train.py"), "-m", "logger=none,wandb"),
            *("encoder=mlp", *TINY, f"runs_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}/sweep"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "completed after 4 epochs" in done.stdout  # logger=none
    assert done.stderr.splitlines()[-1].startswith(
        "error: logger=wandb: the wandb package is not installed"
    )
    assert len(list(tmp_path.rglob("config.yaml"))) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("logger.wandb.project=a/b", "logger=wandb: Invalid project name 'a/b'"),
        ("logger.wandb.project=''", "logger.wandb.project='': give a name"),
        (
            "logger.wandb.reference=no.such",
            "logger.wandb.reference=no.such: not a function of Python's",
        ),
        ("logger.wandb.tags=['']", "logger.wandb.tags: '': a tag has 1 to 64 characters"),
    ],
)
def test_bad_setting(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(config(override, f"run_dir={tmp_path}/run"))
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "messages"),
    [
        ({"WANDB_MODE": "bogus"}, ["mode=bogus", "'online', 'offline'"]),
        ({"WANDB_MODE": "online"}, ["WANDB_MODE=online: not logged in", "`wandb login`"]),
        ({"WANDB_API_KEY": "short"}, ["WANDB_API_KEY invalid"]),
        # Logged in, so online; but nothing listens there.
        (
            {
                "WANDB_API_KEY": "0" * 40,
                "WANDB_BASE_URL": "http://127.0.0.1:9",
                "WANDB_INIT_TIMEOUT": "1",
            },
            ["127.0.0.1:9", "WANDB_MODE=offline"],
        ),
    ],
    ids=["mode", "login", "key", "server"],
)
@pytest.mark.usefixtures("own_environment")
def test_bad_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    messages: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        run(config(f"run_dir={tmp_path}/runs/run"))
    assert "\n" not in str(caught.value)
    for message in messages:
        assert message in str(caught.value)
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.usefixtures("own_environment")
def test_disabled_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    directory, record, stderr = logged_run(f"run_dir={tmp_path}/run")
    assert record.status == "completed"
    assert not (directory / "wandb").exists()
    assert hinted(stderr) == []
