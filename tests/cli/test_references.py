from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("trimesh")


def test_how_exact_solutions_are_known(diffhash) -> None:
    result = diffhash("references", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["heat1d"] == {"error": 2**-52, "errors": {}, "methods": {"closed form": 0.0}}
    cavity = found["cavity reynolds=400.0"]
    assert len(cavity["methods"]) == 2
    assert cavity["error"] >= cavity["errors"]["u"] > 0


def test_every_problem_has_a_line(diffhash) -> None:
    from diffhash.problems import zoo

    lines = diffhash("references").stdout.splitlines()
    for name in zoo():
        assert any(line.split()[:1] == [name] for line in lines)


def test_a_problem_whose_package_is_missing_is_left_out(
    diffhash, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.warns(UserWarning, match="^poisson_mesh is left out: .*diffhash.geometry"):
        lines = diffhash("references").stdout.splitlines()
    names = [line.split()[:1] for line in lines]
    assert ["kdv"] in names and ["poisson_mesh"] not in names
