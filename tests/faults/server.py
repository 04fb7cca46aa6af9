"""A process with everything imported, which takes points on standard input, one JSON line each."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import runpy
import sys
import tempfile
import traceback
from contextlib import redirect_stderr
from pathlib import Path

from tests.faults.scenarios import ROOT, scenarios


def main() -> None:
    # Imported before any fork; a run then takes a fraction of a second.
    import matplotlib.pyplot  # noqa: F401

    from tests.faults.point import Laboratory
    from tests.faults.settings import refuse, refuse_alone
    from tests.faults.shim import Shim

    # Child processes do not write to the pipe to the parent.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    work = Path(sys.argv[1])
    laboratory = Laboratory(work, Shim())
    known = {scenario.name: scenario for scenario in scenarios()}
    _warm_up(known["run"].command, work)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if "settings" in job:
                call = refuse_alone if job["alone"] else refuse
                reply = {"faults": call(job["settings"], job["word"], work)}
            elif job["mode"] is None:
                reply = {"operations": laboratory.prepare(known[job["scenario"]])}
            else:
                scenario = known[job["scenario"]]
                reply = laboratory.try_point(scenario, job["mode"], job["at"], job["error"])
        except Exception:
            reply = {"failed": traceback.format_exc()}
        print(json.dumps(reply), file=replies)


def _warm_up(command: tuple[str, ...], work: Path) -> None:
    """Run once here, so that no forked process imports, reads fonts or loads kernels again."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.chdir(folder)
        sys.argv, arguments = [str(ROOT / command[0]), *command[1:]], sys.argv
        with contextlib.suppress(SystemExit), redirect_stderr(io.StringIO()):
            runpy.run_path(sys.argv[0], run_name="__main__")
        sys.argv = arguments
        os.chdir(here)
    gc.collect()
    gc.freeze()  # forked processes then share this memory


if __name__ == "__main__":
    main()
