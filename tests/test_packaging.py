"""The files that say how the project is installed and cited agree with each other."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import diffhash

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def _pins() -> dict[str, Version]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = Version(version)
    return pins


def _environment() -> tuple[dict[str, str], list[str]]:
    """environment.yml as {conda package: version or ""} and the list of pip's lines."""
    document = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda, pip = {}, []
    for entry in document["dependencies"]:
        if isinstance(entry, dict):
            pip = entry["pip"]
        else:
            name, _, version = entry.partition("=")
            conda[name] = version
    return conda, pip


PINS = _pins()
DIRECT = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]


# ------------------------------------------------------------------------------ constraints.txt
@pytest.mark.parametrize("line", DIRECT)
def test_every_direct_dependency_has_a_pin_within_its_bounds(line: str) -> None:
    requirement = Requirement(line)
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt has no pin for {requirement.name}"
    assert pin in requirement.specifier


def test_every_installed_dependency_of_the_dependencies_has_a_pin() -> None:
    """Requirements are followed through the installed metadata. A new release of one without a pin
    could change a fresh installation."""
    missing = set()
    seen = set()
    todo = [(Requirement(line), "pyproject.toml") for line in DIRECT]
    while todo:
        requirement, parent = todo.pop()
        name = canonicalize_name(requirement.name)
        # What a CUDA build of torch brings is pinned by torch itself.
        if name.startswith(("nvidia-", "cuda-")) or (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        if name not in PINS:
            missing.add(f"{name} (needed by {parent})")
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # behind a marker or in an extra that `make setup` does not install
        for child in map(Requirement, needs):
            extras = requirement.extras or {""}
            environments = [{**default_environment(), "extra": extra} for extra in extras]
            if child.marker is None or any(map(child.marker.evaluate, environments)):
                todo.append((child, name))
    assert not missing


def test_pins_leave_the_choice_of_torch_build_to_the_machine() -> None:
    assert PINS["torch"].local is None


# ------------------------------------------------------------------------------ environment.yml
def test_environment_has_a_supported_python() -> None:
    conda, _ = _environment()
    assert Version(conda["python"]) in SpecifierSet(PROJECT["requires-python"])


def test_environment_has_the_pinned_torch_and_a_compiler_for_its_cuda() -> None:
    conda, pip = _environment()
    assert Version(conda["pytorch-gpu"]) == PINS["torch"]
    assert {"cuda-version", "cuda-nvcc"} <= conda.keys()
    [torch_bound] = [line for line in pip if line.startswith("torch")]
    assert torch_bound in PROJECT["dependencies"]


def test_environment_installs_this_package_through_the_constraints() -> None:
    _, pip = _environment()
    assert "-c constraints.txt" in pip
    [editable] = [line for line in pip if line.startswith("-e ")]
    match = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)
    assert match
    assert set(match[1].split(",")) <= EXTRAS.keys()
    assert "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch" in pip


def test_environment_pip_lines_that_constraints_know_are_within_bounds() -> None:
    _, pip = _environment()
    for line in pip:
        if not line.startswith(("-", "git+")):
            requirement = Requirement(line)
            assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


# --------------------------------------------------------------------------------------- wheel
def test_every_file_of_the_package_is_in_the_wheel() -> None:
    """Python modules are found by themselves; all others (C, templates) need a pattern."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["diffhash"]
    package = ROOT / "src" / "diffhash"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    files = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != "."
    }
    assert files <= packed


def test_every_config_and_the_script_of_kernels_are_in_the_source_distribution() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert manifest == ["graft configs", "include scripts/prebuild_kernels.py"]
    assert (ROOT / "scripts" / "prebuild_kernels.py").is_file()


# -------------------------------------------------------------------------------------- imports
_WITHOUT_EXTRAS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"the test blocks {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())

import torch
import diffhash

encoding = diffhash.GridEncoding(n_input_dims=1, n_levels=3, interpolation="cubic")
x = torch.rand(5, 1, requires_grad=True)
y = encoding(x)
assert y.shape == (5, encoding.n_output_dims), y.shape
[dy] = torch.autograd.grad(y.sum(), x)
assert dy.shape == x.shape

import diffhash.geometry as geometry

square = geometry.Box(x=(0, 1), y=(0, 1)) - geometry.Disc(radius=0.5)
assert square.boundary().sample(5).shape == (5, 2)
for name, domain in {{"Polygon": geometry.Polygon, "Mesh": geometry.Mesh}}.items():
    try:
        domain([(0, 0), (1, 0), (0, 1)])
    except ImportError as error:
        assert name in str(error) and "pip install 'diffhash[geometry]'" in str(error), error
    else:
        raise AssertionError(name)
print("worked")
"""


def test_the_library_works_without_the_extras() -> None:
    """`pip install .` alone is enough: the core needs torch and numpy only."""
    modules = {Requirement(line).name for name in EXTRAS for line in EXTRAS[name]} - {"triton"}
    modules = {name.replace("-", "_") for name in modules}
    blocked = {*modules, "hydra", "omegaconf", "pytorch_lightning", "joblib", "yaml"} - {"jinja2"}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS.format(blocked=blocked)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "worked"


# ------------------------------------------------------------------------------------- versions
def test_the_installed_version_is_the_one_of_the_sources() -> None:
    assert importlib.metadata.version("diffhash") == diffhash.__version__


def test_citation_file_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == diffhash.__version__
    assert citation["license"] == PROJECT["license"]
    [paper] = citation["references"]
    assert paper["title"] == "Differentiable Hash Encoding for Physics-Informed Neural Networks"
    assert [author["family-names"] for author in paper["authors"]] == ["Jin", "Wang", "Wong", "Li"]
