"""Records of other people: their configs are data, and their text is harmless on a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from diffhash.experiment.build import config_hash
from diffhash.experiment.trust import check_untrusted

ROOT = Path(__file__).parents[2]

CALLS: list[tuple[str, Any]] = [
    ("problem", {"_target_": "os.system", "command": "touch {}", "name": "p"}),
    ("problem", {"_target_": "builtins.eval", "_args_": ["open('{}', 'w')"], "name": "p"}),
    ("task", {"_target_": "subprocess.run", "args": ["touch", "{}"], "name": "t"}),
    ("encoder.encoding", {"_target_": "pathlib.Path.touch", "self": "{}"}),
    ("encoder.network.width", {"_target_": "os.system", "command": "touch {}"}),
    ("encoder.network.extra", [{"deep": [{"_target_": "os.mkdir", "path": "{}"}]}]),
    ("problem.k", {"_target_": "hydra.utils.get_method", "path": "os.system"}),
    ("encoder.encoding._partial_", True),
    ("problem._args_", ["{}"]),
    ("problem._target_", "diffhash.problems.Poisson1D.evaluation_points"),
    ("problem._target_", ["os.system"]),
    ("problem._target_", None),
    ("problem.k", "${oc.env:HOME}"),
    ("logger.wandb", {"_target_": "os.system", "command": "touch {}"}),
    ("launcher", {"_target_": "os.system", "command": "touch {}"}),
]


def forge(directory: Path, key: str, value: Any) -> None:
    """Put a value into a record's config, and its hash into the record, as a forger would."""
    text = (directory / "config.yaml").read_text()
    cfg = OmegaConf.create(text)
    OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    OmegaConf.save(cfg, directory / "config.yaml")
    content = json.loads((directory / "result.json").read_text())
    content["config_hash"] = config_hash(cfg)  # type: ignore[arg-type]
    (directory / "result.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("key", "value"), CALLS)
def test_a_record_cannot_have_code_run(
    diffhash, runs: Path, tmp_path: Path, key: str, value: Any
) -> None:
    touched = tmp_path / "touched"
    forge(runs / "cubic", key, json.loads(json.dumps(value).replace("{}", str(touched))))
    for command in (["evaluate"], ["export", "--output", tmp_path / "x.csv"]):
        result = diffhash(command[0], runs / "cubic", *command[1:])
        assert result.exit_code == 1
        [line] = result.stderr.splitlines()
        assert line.startswith(f"Error: {runs}/cubic/config.yaml: {key.split('.')[0]}")
        assert "--trust-code" in line
    assert not touched.exists()
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("group", ["optimizer", "sampler", "weighting"])
def test_what_the_package_itself_names_needs_no_trust(group: str) -> None:
    for path in (ROOT / "configs" / group).glob("*.yaml"):
        check_untrusted(path, yaml.safe_load(path.read_text()) or {})


def test_code_of_the_users_own_is_imported_when_told_to(
    diffhash, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_problem_of_a_test.py").write_text(
        "from diffhash.problems import Poisson1D\nclass Own(Poisson1D): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    forge(runs / "cubic", "problem._target_", "own_problem_of_a_test.Own")
    refused = diffhash("evaluate", runs / "cubic")
    assert "problem._target_=own_problem_of_a_test.Own" in refused.stderr
    assert "own_problem_of_a_test" not in sys.modules
    trusted = diffhash("evaluate", runs / "cubic", "--trust-code")
    assert "--trust-code" not in trusted.stderr  # its checkpoint is of another problem, though
    assert sys.modules.pop("own_problem_of_a_test")


def test_escape_sequences_are_shown_not_sent(diffhash, runs: Path) -> None:
    evil = "\x1b]0;x\x07\u202e\x9b2J\r\nname"
    path = runs / "cubic" / "result.json"
    content = json.loads(path.read_text()) | {"encoder": evil, "problem": evil, "preset": evil}
    content["environment"]["processor"] = evil
    content["environment"][evil] = "\ud800"
    path.write_text(json.dumps(content))
    (runs / "mlp").rename(runs / "\x1b[31mmlp")
    (runs / "\x1b[31mmlp/seed3/result.json").write_text('{"\\u001b[2J": 1}')
    for command in (
        ["list", runs],
        ["list", runs, "--csv"],
        ["list", runs, "--json"],
        ["compare", runs / "cubic", runs / "diverged"],
        ["compare", runs / "cubic", runs / "\x1b[31mmlp/seed3"],
        ["evaluate", runs / "cubic"],
        ["evaluate", runs / "\x1b[2J"],
        ["list", runs / "\x1b[2J"],
        ["list", runs, "--sort", "\x1b[2J"],
        ["export", runs / "cubic", "--output", "\x1b[2J"],
    ):
        result = diffhash(*command)
        text = result.stdout + result.stderr
        assert text
        assert all(line.isprintable() for line in text.splitlines()), command
        assert "\x1b" not in text and "\r" not in text
    assert "\\x1b]0;x\\x07\\u202e" in diffhash("list", runs).stdout
