from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_WITHOUT_CLICK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "click":
            raise ModuleNotFoundError(f"the test blocks {name!r}", name=name)

sys.meta_path.insert(0, Refuse())

from diffhash.cli import main
main()
"""

_INTERRUPTED = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{blocked}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
{start}
"""


def test_without_the_extra_it_says_in_one_line_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_CLICK, "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "diffhash: this command needs click: pip install 'diffhash[experiments]'\n"
    )


def test_the_command_is_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diffhash", "--help"], capture_output=True, text=True, check=True
    )
    assert "references" in done.stdout


def test_listing_does_not_wait_for_the_training_code() -> None:
    code = (
        "import sys, diffhash.cli.app; "
        "print({'hydra', 'lightning', 'diffhash.training'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help_and_composing_need_no_torch() -> None:
    root = Path(__file__).parents[2]
    for arguments in (["--help"], ["--cfg", "job"]):
        code = (
            "import runpy, sys\n"
            f"sys.argv = ['train.py', *{arguments!r}]\n"
            "try: runpy.run_path('train.py', run_name='__main__')\n"
            "finally: print(*{'torch', 'lightning'} & sys.modules.keys(), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=root
        )
        assert (done.returncode, done.stderr.strip()) == (0, "")
    code = "import diffhash.cli, diffhash.cli.app, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("blocked", ["click", "hydra"])
def test_ctrl_c_while_modules_are_imported_is_one_line(blocked: str) -> None:
    root = Path(__file__).parents[2]
    start = "runpy.run_path('train.py', run_name='__main__')"
    if blocked == "click":
        start = "from diffhash.cli import main; main()"
    code = _INTERRUPTED.format(blocked=blocked, start=start)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 130
    assert done.stderr in ("diffhash: interrupted\n", "train.py: interrupted\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_standard_output(runs: Path, encoding: str) -> None:
    code = "from diffhash.cli import main; main()"
    for arguments in (["list", runs], ["compare", runs / "cubic", runs / "diverged"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=False,
            env=os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"mse_u" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(runs: Path) -> None:
    code = "from diffhash.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "list", str(runs)], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "No space left on device" in line
