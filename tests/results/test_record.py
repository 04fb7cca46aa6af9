from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffhash._files import write_file_atomically, write_text_atomically
from diffhash.results.record import (
    RecordError,
    RunRecord,
    find_records,
    read_history,
    read_predictions,
    read_record,
    write_record,
)

MakeRecord = Callable[..., RunRecord]
WriteRun = Callable[..., Path]


def _edit(directory: Path, **changes: Any) -> None:
    path = directory / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read_back(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(overrides=["encoder=cubic", "seed=0"], preset=None, experiment=None)
    path = write_record(tmp_path / "new" / "run", record)
    assert path == tmp_path / "new" / "run" / "result.json"
    assert read_record(tmp_path / "new" / "run") == record
    content = json.loads(path.read_text())
    assert content["schema_version"] == 1
    assert content["mse_u"] == record.mse_u


def test_a_failed_replace_leaves_no_record_and_no_rubbish(
    tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_record(tmp_path, make_record())
    assert list(tmp_path.iterdir()) == []
    assert find_records(tmp_path) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_between_write_and_replace_leaves_no_new_record(
    tmp_path: Path, make_record: MakeRecord, existing: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    if existing:
        write_record(target, make_record(mse_u=1.0))
    write_record(source, make_record(mse_u=2.0))
    code = (
        "import os, signal, sys\n"
        "from diffhash.results.record import read_record, write_record\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_record(sys.argv[2], read_record(sys.argv[1]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(source), str(target)])
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in target.glob(".*")] == [".json"], "written, not yet moved"
    assert [record.mse_u for _, record in find_records(target)] == ([1.0] if existing else [])


def test_the_old_content_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    path = write_text_atomically(tmp_path / "table.md", "old")

    def fail_half_way(temporary: Path) -> None:
        assert temporary.suffix == ".md"
        temporary.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_file_atomically(path, fail_half_way)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text_atomically(path, "new")
    assert path.read_text() == "new"


def test_a_written_file_obeys_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = write_text_atomically(tmp_path / "table.md", "text")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_metrics_that_are_not_finite_become_null(tmp_path: Path, make_record: MakeRecord) -> None:
    path = write_record(tmp_path, make_record(mse_ux=math.nan, mse_uxx=math.inf))
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (content["mse_ux"], content["mse_uxx"]) == (None, None)
    assert content["mse_u"] is not None


def test_any_metrics_are_written_and_read(tmp_path: Path, make_record: MakeRecord) -> None:
    metrics = {"l2_v": 0.25, "mse_p_xy": None, "nu": -0.01, "loss": 1e-3}
    record = make_record(metrics=metrics)
    content = json.loads(write_record(tmp_path, record).read_text())
    assert content["metrics"] == list(metrics) and {n: content[n] for n in metrics} == metrics
    again = read_record(tmp_path)
    assert again == record and again.metrics == metrics
    assert (again.l2_v, again.nu) == (0.25, -0.01)
    with pytest.raises(AttributeError, match="no mse_u"):
        _ = again.mse_u


def test_a_file_without_a_list_of_metrics_has_the_four(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    """Files of earlier versions have no such list."""
    path = write_record(tmp_path, make_record())
    content = json.loads(path.read_text())
    del content["metrics"]
    path.write_text(json.dumps(content))
    assert read_record(tmp_path) == make_record()
    del content["mse_ux"]
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="missing mse_ux"):
        read_record(tmp_path)


def test_metrics_of_a_diverged_run_are_null(make_record: MakeRecord) -> None:
    record = make_record(status="diverged", diverged_epoch=7, mse_u=1.0)
    assert [record.mse_u, record.mse_ux, record.mse_uxx, record.loss] == [None] * 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "done"}, "status = 'done'"),
        ({"status": "diverged"}, "diverged_epoch = None"),
        ({"diverged_epoch": 5}, "diverged_epoch = 5"),
        ({"epochs": 2.5}, "epochs = 2.5"),
        ({"epochs": True}, "epochs = True"),
        ({"mse_u": "small"}, "mse_u = 'small'"),
        ({"mse_u": -1.0}, "mse_u = -1.0: expected at least 0"),
        ({"metrics": [1.0]}, r"metrics = \[1.0\]"),
        ({"metrics": {"seed": 1.0}}, "metrics: 'seed' is no name"),
        ({"metrics": {"of u": 1.0}}, "metrics: 'of u' is no name"),
        ({"train_seconds": math.nan}, "train_seconds = nan"),
        ({"train_seconds": None}, "train_seconds = None"),
        ({"overrides": ["a", 1]}, "overrides = "),
        ({"environment": []}, "environment = "),
    ],
)
def test_a_wrong_field_is_named(
    make_record: MakeRecord, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        make_record(**change)


def test_nan_in_the_environment_is_refused(tmp_path: Path, make_record: MakeRecord) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(tmp_path, make_record(environment={"load": math.nan}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"schema_version": 1, "status"', "delimiter"),
        ("[]", "Expected `object`"),
        ("{}", "schema_version = None"),
        ('{"schema_version": 2}', "this version reads 1"),
        ('{"schema_version": 1}', "missing config_hash"),
        ('{"schema_version": NaN}', "nan is not JSON"),
        ('{"schema_version": 1, "mse_u": 1e999}', "inf is not JSON"),
        ("\xff", "decode"),
    ],
)
def test_a_corrupt_record_is_one_error_naming_its_path(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "bad" / "result.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=reason) as error:
        find_records(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": "0"}, "seed = '0'"),
        ({"metrics": 3}, "metrics = 3"),
        ({"train_seconds": 10**400}, "train_seconds = 1000"),
        ({"n_parameters": 2**63}, "n_parameters = 9223372036854775808"),
        ({"metrics": ["mse_u", "mse_ux", "mse_uxx", "loss", "l2_u"]}, "missing l2_u"),
        ({"metrics": ["mse_u", "mse_ux", "mse_uxx", "loss", "seed"]}, "'seed' is no name"),
    ],
)
def test_a_record_of_another_shape_is_corrupt(
    tmp_path: Path, make_record: MakeRecord, change: dict[str, Any], reason: str
) -> None:
    write_record(tmp_path, make_record())
    _edit(tmp_path, **change)
    with pytest.raises(RecordError, match=reason):
        read_record(tmp_path)


def test_fields_added_by_a_later_version_are_left_out(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    write_record(tmp_path, make_record())
    _edit(tmp_path, colour="red", more={"of": ["it"]})
    assert read_record(tmp_path) == make_record()


def test_what_a_terminal_would_obey_is_shown_as_text(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    write_record(tmp_path, make_record())
    _edit(tmp_path, encoder="\x1b[31mred", environment={"a\x07": ["b\nc"]})
    record = read_record(tmp_path)
    assert record.encoder == r"\x1b[31mred"
    assert record.environment == {r"a\x07": [r"b\nc"]}


def test_find_records_skips_unfinished_directories(tmp_path: Path, make_record: MakeRecord) -> None:
    for name in ("b", "a/deep/er"):
        write_record(tmp_path / name, make_record())
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "history.csv").write_text("epoch\n")
    assert [path for path, _ in find_records(tmp_path)] == [
        tmp_path / "a" / "deep" / "er",
        tmp_path / "b",
    ]
    assert find_records(tmp_path / "absent") == []


def test_reading_an_absent_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path)


def test_history_and_predictions(tmp_path: Path, write_run: WriteRun) -> None:
    directory = write_run(tmp_path, "table2", "cubic", mse_u=0.04)
    history, predictions = read_history(directory), read_predictions(directory)
    assert list(history.columns) == ["epoch", "seconds", "loss", "mse_u", "mse_ux", "mse_uxx"]
    assert history["epoch"].iloc[-1] == 3000
    error = predictions["u"] - predictions["exact_u"]
    assert (error**2).mean() == pytest.approx(0.04)


def test_a_history_may_hold_nothing_but_its_header(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,seconds,loss,mse_u,mse_ux,mse_uxx\n")
    assert read_history(tmp_path).empty


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "No columns"),
        ("epoch,seconds\n1,2\n", "no column loss"),
        ("epoch,seconds,loss,mse_u,mse_ux,mse_uxx\n1,2,three,4,5,6\n", "in column loss"),
        ("epoch,seconds,loss,mse_u,mse_ux,mse_uxx\n1,2\n1,2,3,4,5,6,7,8\n", "Expected 6"),
    ],
)
def test_a_corrupt_history_names_its_path(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(RecordError, match=reason) as error:
        read_history(tmp_path)
    assert str(tmp_path / "history.csv") in str(error.value)


def test_predictions_need_coordinates(tmp_path: Path) -> None:
    frame = pd.DataFrame({"u": [1.0], "exact_u": [1.0]})
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(RecordError, match="x or x0"):
        read_predictions(tmp_path)
    frame.assign(x0=0.0, x1=0.0).to_csv(tmp_path / "predictions.csv", index=False)
    assert list(read_predictions(tmp_path)["x1"]) == [0.0]
