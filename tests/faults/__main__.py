"""Inject faults into everything that writes or reads, and count what is lost: `make test-faults`.

One kind alone: ``python -m tests.faults --only kill``; one point of it: ``--scenario replace
--at 31`` (``FAULTS_KEEP=1`` leaves its folder and says where).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.util import find_spec

from tests.faults import disturbed, shim
from tests.faults.tally import Tally, table

_RECORDS, _SETTINGS = 1000, 500


def main() -> int:
    """Try everything, or what is asked for; 1 if anything is lost, half, a crash or a traceback."""
    kinds = [*disturbed.kinds(), "records"]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help=", ".join(kinds))
    parser.add_argument("--scenario", help="of the kinds that disturb a run, this one alone")
    parser.add_argument("--at", type=int, help="the operation of the scenario, from 1")
    parser.add_argument("--every", type=int, default=1, help="try only every so many points (1)")
    parser.add_argument("--seed", type=int, default=0, help="of damages and settings (0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    begun = time.monotonic()
    tallies: list[Tally] = []
    try:
        _disturbed(tallies, options)
        if "records" in options.only:
            _records(tallies, options)
    except KeyboardInterrupt:
        print("interrupted; what was found so far:", file=sys.stderr)
    for tally in tallies:
        print(*tally.found, sep="\n", end="\n" if tally.found else "")
    if tallies:
        print(table(tallies))
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if tallies and all(tally.good for tally in tallies) else 1


def _records(tallies: list[Tally], options: argparse.Namespace) -> None:
    if find_spec("tests.results.mutations") is None:
        tallies.append(Tally("damaged records", skipped="there is no generator of damages"))
        return
    from tests.faults import records

    tallies.append(records.try_all(_RECORDS // options.every, options.seed))


def _disturbed(tallies: list[Tally], options: argparse.Namespace) -> None:
    kinds = {name: kind for name, kind in disturbed.kinds().items() if name in options.only}
    if not kinds:
        return
    if shim.compiler() is None or sys.platform != "linux":
        reason = "needs Linux and a C compiler"
        tallies.extend(Tally(kind.title, skipped=reason) for kind in kinds.values())
        return
    with disturbed.servers(options.jobs) as found:
        for kind in kinds.values():
            tallies.append(
                disturbed.try_all(found, kind, options.every, options.scenario, options.at)
            )


if __name__ == "__main__":
    sys.exit(main())
