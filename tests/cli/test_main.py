from __future__ import annotations

import subprocess
import sys

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


def test_without_the_extra_it_says_in_one_line_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_CLICK, "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "diffhash: this command needs click: pip install 'diffhash[experiments]'\n"
    )


def test_listing_does_not_wait_for_the_training_code() -> None:
    code = (
        "import sys, diffhash.cli.app; "
        "print({'hydra', 'lightning', 'diffhash.training'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
