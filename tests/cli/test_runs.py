"""The commands compare, evaluate and export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from diffhash.results import read_predictions, read_record

MSE = {"mse_u": "u", "mse_ux": "u_x", "mse_uxx": "u_xx"}


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


# --------------------------------------------------------------------------------------- compare


def test_compare_shows_what_differs_and_nothing_else(diffhash, runs: Path) -> None:
    result = diffhash("compare", runs / "cubic", runs / "mlp/seed3", "--json")
    found = json.loads(result.stdout)
    assert found["settings"]["encoder.name"] == ["cubic", "mlp"]
    assert found["settings"]["seed"] == [0, 3]
    assert found["settings"]["encoder.encoding.n_levels"] == [2, "–"]
    assert not {"trainer.chunk", "run_dir", "name"} & found["settings"].keys()
    assert found["environment"]["replicas"] == [1, 2]
    assert "torch" not in found["environment"]
    a, b = (read_record(runs / name) for name in ("cubic", "mlp/seed3"))
    mse = found["metrics"]["mse_u"]
    assert (mse["a"], mse["b"]) == (a.mse_u, b.mse_u)
    assert a.mse_u and b.mse_u
    assert 10 ** mse["decades"] == pytest.approx(mse["ratio"]) == pytest.approx(b.mse_u / a.mse_u)
    assert found["costs"]["n_parameters"]["b"] == b.n_parameters


def test_compare_for_people(diffhash, runs: Path) -> None:
    text = diffhash("compare", runs / "mlp/seed3", runs / "mlp/seed4").stdout
    assert re.search(r"^seed +3 +4 *$", text, re.MULTILINE)
    assert "Environment: the same" in text
    assert "mse_uxx" in text and "train_seconds" in text


def test_a_diverged_run_has_no_ratio(diffhash, runs: Path) -> None:
    result = diffhash("compare", runs / "mlp/seed3", runs / "diverged")
    assert "diverged @ epoch" in result.stdout
    assert re.search(r"^mse_u +\S+ +– +– +– *$", result.stdout, re.MULTILINE)
    found = json.loads(diffhash("compare", runs / "mlp/seed3", runs / "diverged", "--json").stdout)
    assert found["metrics"]["mse_u"]["ratio"] is None


# ------------------------------------------------------------------------- evaluate and export


@pytest.mark.parametrize("name", ["cubic", "mlp/seed3", "mlp/seed4"])
def test_on_the_recorded_grid_the_errors_are_the_recorded_ones(
    diffhash, runs: Path, name: str
) -> None:
    before = contents(runs / name)
    found = json.loads(diffhash("evaluate", runs / name, "--points", 33, "--json").stdout)
    for metric in MSE:
        assert found["metrics"][metric]["now"] == found["metrics"][metric]["recorded"] > 0
    assert found["points"] == {"recorded": 33, "now": 33}
    assert contents(runs / name) == before


def test_on_another_grid_they_are_those_of_the_exported_predictions(
    diffhash, runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "x.csv"
    result = diffhash("export", runs / "cubic", "--points", 70, "--output", file)
    assert result.exit_code == 0, result.stderr
    frame = pd.read_csv(file)
    assert list(frame) == [
        "x", "u", "u_x", "u_xx", "exact_u", "exact_u_x", "exact_u_xx", "error_u", "error_u_x",
        "error_u_xx",
    ]  # fmt: skip
    assert len(frame) == 70
    found = json.loads(diffhash("evaluate", runs / "cubic", "--points", 70, "--json").stdout)
    for metric, name in MSE.items():
        assert np.mean(frame[f"error_{name}"] ** 2) == pytest.approx(
            found["metrics"][metric]["now"], rel=1e-12
        )
        assert found["metrics"][metric]["now"] != found["metrics"][metric]["recorded"]
    shown = diffhash("evaluate", runs / "cubic", "--points", 70).stdout
    assert "recorded, 33 points" in shown and "now, 70 points" in shown


def test_an_export_on_the_recorded_grid_repeats_the_predictions(
    diffhash, runs: Path, tmp_path: Path
) -> None:
    diffhash("export", runs / "mlp/seed4", "--points", 33, "--output", tmp_path / "x.csv")
    recorded = read_predictions(runs / "mlp/seed4")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "x.csv")[list(recorded)], recorded, check_exact=True
    )


def test_parquet(diffhash, runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow (the extra parquet)")
    for name in ("x.csv", "x.parquet"):
        diffhash("export", runs / "cubic", "--points", 9, "--output", tmp_path / name)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "x.parquet"), pd.read_csv(tmp_path / "x.csv")
    )


def test_parquet_without_pyarrow(diffhash, runs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("diffhash.cli.app.find_spec", lambda name: None)
    result = diffhash("export", runs / "cubic", "--output", tmp_path / "x.parquet")
    assert result.exit_code == 1
    assert "needs pyarrow (pip install 'diffhash[parquet]')" in result.stderr


def test_files_that_cannot_be_written(diffhash, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, reason in (
        (tmp_path / "x.txt", "give a name in .csv or .parquet"),
        (runs / "cubic" / "predictions.csv", "lies in the record, which is not altered"),
        (tmp_path / "file" / "x.csv", "cannot be written"),
    ):
        result = diffhash("export", runs / "cubic", "--points", 5, "--output", output)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: --output {output}: ") and reason in result.stderr


# --------------------------------------------------------------------------- what can be wrong


def spoil_checkpoint(directory: Path, change) -> None:
    path = directory / "checkpoint.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def without_a_record(directory: Path) -> str:
    (directory / "result.json").unlink()
    return f"{directory}: no record of a run"


def with_a_corrupt_record(directory: Path) -> str:
    (directory / "result.json").write_bytes(b"\xff")
    return f"corrupt record {directory}/result.json: "


def without_a_config(directory: Path) -> str:
    (directory / "config.yaml").unlink()
    return f"{directory}/config.yaml: there is no such file"


def with_a_corrupt_config(directory: Path) -> str:
    (directory / "config.yaml").write_text("trainer: [")
    return f"{directory}/config.yaml: not a config"


def with_another_config(directory: Path) -> str:
    cfg = OmegaConf.load(directory / "config.yaml")
    cfg.problem.k = 0.02
    OmegaConf.save(cfg, directory / "config.yaml")
    return f"{directory}/config.yaml: not the config that its record was made with"


def without_a_checkpoint(directory: Path) -> str:
    (directory / "checkpoint.ckpt").unlink()
    return f"{directory}/checkpoint.ckpt: there is no such file"


def with_a_torn_checkpoint(directory: Path) -> str:
    with (directory / "checkpoint.ckpt").open("r+b") as file:
        file.truncate(1000)
    return f"{directory}/checkpoint.ckpt: not a checkpoint of a diffhash run"


def with_a_checkpoint_of_another_encoder(directory: Path) -> str:
    spoil_checkpoint(
        directory,
        lambda c: c["diffhash"]["origin"].update({"encoder.encoding.interpolation": "quadratic"}),
    )
    return f"{directory}/checkpoint.ckpt: was trained with encoder.encoding.interpolation=quadratic"


def with_a_checkpoint_that_is_not_finite(directory: Path) -> str:
    def spoil(checkpoint: dict) -> None:
        for tensor in checkpoint["state_dict"].values():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)

    spoil_checkpoint(directory, spoil)
    return f"{directory}/checkpoint.ckpt: its run diverged"


@pytest.mark.parametrize(
    "spoil",
    [
        without_a_record, with_a_corrupt_record, without_a_config, with_a_corrupt_config,
        with_another_config, without_a_checkpoint, with_a_torn_checkpoint,
        with_a_checkpoint_of_another_encoder, with_a_checkpoint_that_is_not_finite,
    ],
)  # fmt: skip
def test_a_spoiled_run_is_refused_in_one_line(diffhash, runs: Path, tmp_path: Path, spoil) -> None:
    message = spoil(runs / "cubic")
    output = tmp_path / "x.csv"
    for command in (["evaluate"], ["export", "--output", output]):
        result = diffhash(command[0], runs / "cubic", *command[1:])
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"Error: {message}")
        assert result.stdout == ""
    assert not output.exists()


def test_a_diverged_run_has_nothing_to_evaluate(diffhash, runs: Path) -> None:
    result = diffhash("evaluate", runs / "diverged")
    assert result.exit_code == 1
    epoch = read_record(runs / "diverged").diverged_epoch
    assert result.stderr == (
        f"Error: {runs}/diverged: diverged at epoch {epoch}, there is no field to evaluate\n"
    )


def test_no_points(diffhash, runs: Path) -> None:
    result = diffhash("evaluate", runs / "cubic", "--points", 0)
    assert result.exit_code == 2
    assert "'--points': 0 is not in the range x>=1" in result.stderr
