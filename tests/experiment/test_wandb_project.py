"""What is set up in W&B itself: the saved view, and sweeps for its agents. Nothing is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.workspaces as ws
import yaml
from omegaconf import DictConfig

from diffhash.experiment import wandb_run
from diffhash.experiment.wandb_workspace import project_workspace

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs" / "wandb_sweeps").glob("*.yaml"))
METRICS = ("mse_u", "mse_ux", "mse_uxx", "l2_u", "loss")
LOGGED = {f"history/{name}" for name in ("seconds", *METRICS)} | {"epoch"}


@pytest.fixture
def spec() -> dict[str, Any]:
    """What saving the view would send."""
    return project_workspace("me", "diffhash")._to_model().model_dump(by_alias=True)["spec"]


def panels(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return chain.from_iterable(section["panels"] for section in sections)


def test_view_shows_histories_by_epoch_and_by_seconds(spec: dict[str, Any]) -> None:
    lines = [p["config"] for p in panels(spec) if p["viewType"] == "Run History Line Plot"]
    shown = {(line["xAxis"], *line["metrics"]) for line in lines}
    assert shown == {(x, f"history/{m}") for x in ("epoch", "history/seconds") for m in METRICS}
    assert {name for names in shown for name in names} <= LOGGED
    assert all(line["yLogScale"] for line in lines)


def test_view_groups_runs_by_task_and_encoder(
    spec: dict[str, Any], config: Callable[..., DictConfig]
) -> None:
    [runset] = spec["section"]["runSets"]
    names = [key["name"] for key in runset["grouping"]]
    assert names == ["task.value.name", "encoder.value.name", "encoder.value.preset"]
    cfg = config()
    assert (cfg.task.name, cfg.encoder.name, cfg.encoder.preset) == ("pinn", "cubic", "best")


def test_view_shows_the_final_table_and_the_figures(spec: dict[str, Any]) -> None:
    by_type = {panel["viewType"]: str(panel["config"]) for panel in panels(spec)}
    assert "'final'" in by_type["Weave"]
    assert "'predictions'" in by_type["Media Browser"]


def test_view_pins_what_the_summary_has(spec: dict[str, Any]) -> None:
    [runset] = spec["section"]["runSets"]
    pinned = {name for name in runset["runFeed"]["columnPinned"] if name.startswith("summary:")}
    assert pinned
    assert pinned <= {f"summary:{name}" for name in (*wandb_run._SUMMARY, *METRICS)}


def test_view_is_saved_where_asked(
    command_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []

    def save(view: Any) -> dict[str, Any]:
        saved.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(ws.internal, "upsert_view2", save)
    monkeypatch.setattr(ws.Workspace, "url", "https://w.example/view")
    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setenv("WANDB_MODE", "offline")  # the Makefile's
    outcome = command_line("scripts/wandb_workspace.py", "--entity", "team", "--project", "mine")
    assert (outcome.code, outcome.out) == (0, "https://w.example/view\n")
    assert [(view.entity, view.project) for view in saved] == [("team", "mine")]


def test_view_without_an_account(
    command_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandb.login", lambda **_: False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = command_line("scripts/wandb_workspace.py")
    assert outcome.code == 1
    assert outcome.err == "error: not logged in to W&B; run `wandb login` first\n"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_composed(path: Path, config: Callable[..., DictConfig]) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"] == {"name": "log10_mse_u", "goal": "minimize"}
    assert sweep["command"] == [f"${{{w}}}" for w in ("env", "interpreter", "program",
                                                      "args_no_hyphens")]  # fmt: skip
    assert (ROOT / sweep["program"]).is_file()
    values = {name: extremes(settings) for name, settings in sweep["parameters"].items()}
    for pick in range(max(map(len, values.values()))):
        chosen = {name: options[pick % len(options)] for name, options in values.items()}
        cfg = config(*(f"{name}={value}" for name, value in chosen.items()))
        assert cfg.logger.wandb is not None


def extremes(settings: dict[str, Any]) -> list[Any]:
    """Values that W&B may choose: those named, or both ends."""
    kind = settings.get("distribution")
    if kind is None:
        assert settings.keys() in ({"value"}, {"values"})
        return settings.get("values") or [settings["value"]]
    assert settings.keys() - {"q"} == {"distribution", "min", "max"}
    assert settings["min"] < settings["max"]
    if re.match(r"int_", kind):
        assert isinstance(settings["min"], int) and isinstance(settings["max"], int)
    return [settings["min"], settings["max"]]


def test_there_are_sweeps() -> None:
    assert SWEEPS
