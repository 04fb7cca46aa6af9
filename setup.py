"""Build steps that pyproject.toml cannot express: the package contains configs/ and, on request,
compiled kernels.

With DIFFHASH_PREBUILT=1 the wheel is for machines of this kind only, with the kernels of common
grids and networks for several instruction sets; torch must be installed where it is built
(`--no-build-isolation`). Otherwise the wheel is for all machines, and kernels are compiled when
they are first needed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PREBUILT = os.environ.get("DIFFHASH_PREBUILT") == "1"


class BuildPackage(build_py):
    """Build the package with configs and kernels; an editable installation uses the clone's."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib).resolve() / "diffhash"
        shutil.copytree(ROOT / "configs", package / "configs", dirs_exist_ok=True)
        if PREBUILT:
            script, folder = ROOT / "scripts" / "prebuild_kernels.py", package / "native/prebuilt"
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            subprocess.run([sys.executable, script, folder], env=environment, check=True)


class MachineDistribution(Distribution):
    """A distribution that contains libraries, if it has compiled kernels."""

    def has_ext_modules(self) -> bool:
        return PREBUILT


class Wheel(bdist_wheel):
    """A wheel for every Python version, as its libraries do not depend on Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    distclass=MachineDistribution,
    cmdclass={"build_py": BuildPackage, "bdist_wheel": Wheel},
)
