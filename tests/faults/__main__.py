"""Inject faults into everything that writes or reads, and count the losses: `make test-faults`.

One kind alone: ``python -m tests.faults --only kill``; one point of it: ``--scenario replace
--at 31`` (``FAULTS_KEEP=1`` keeps its folder and prints the path).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack

from tests.experiment.bad_settings import bad_settings
from tests.faults import boundary, disturbed, records, shim
from tests.faults.servers import Servers, servers
from tests.faults.tally import Progress, Tally, table

_RECORDS, _SETTINGS, _COMMANDS = 1000, 500, 20
_OTHERS = ("settings", "records", "boundary")


def main() -> int:
    """Try everything, or the chosen faults; return 1 if anything is wrong, else 0."""
    kinds = [*disturbed.kinds(), *_OTHERS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help=", ".join(kinds))
    parser.add_argument("--scenario", help="of the kinds that disturb a run, this one alone")
    parser.add_argument("--at", type=int, help="the operation of the scenario, from 1")
    parser.add_argument("--every", type=int, default=1, help="try only every so many points (1)")
    parser.add_argument("--seed", type=int, default=0, help="of damages and settings (0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs ignore the latter
        signal.signal(number, signal.default_int_handler)
    begun = time.monotonic()
    tallies: list[Tally] = []
    interrupted = False
    try:
        _try_all(tallies, options)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; so far:", file=sys.stderr)
    if tallies:
        print(table(tallies))
    print(f"{time.monotonic() - begun:.0f} s")
    if interrupted:
        return 130
    return 0 if all(tally.good for tally in tallies) else 1


def _try_all(tallies: list[Tally], options: argparse.Namespace) -> None:
    """Try the chosen faults; the tally of each kind is in the list before its first point."""

    def tally(kind: str) -> Tally:
        tallies.append(Tally(kind))
        return tallies[-1]

    kinds = {name: kind for name, kind in disturbed.kinds().items() if name in options.only}
    if kinds or "settings" in options.only:
        with servers(options.jobs) as found:
            for kind in kinds.values():
                one = tally(kind.title)
                if shim.available():
                    points = options.every, options.scenario, options.at
                    disturbed.try_all(one, found, kind, *points)
                else:
                    one.skipped = "needs Linux and a C compiler"
            if "settings" in options.only:
                _settings(tally("bad settings"), found, options, False)
                _settings(tally("bad settings, command line"), found, options, True)
    with ExitStack() as stack:
        if "boundary" in options.only:  # meanwhile: it takes one core
            finish = stack.enter_context(boundary.started(tally("abuses of C, sanitized")))
        if "records" in options.only:
            records.try_all(tally("damaged records"), _RECORDS // options.every, options.seed)
        if "boundary" in options.only:
            finish()


def _settings(tally: Tally, found: Servers, options: argparse.Namespace, alone: bool) -> None:
    cases = bad_settings(_SETTINGS, options.seed)
    cases = cases[:: options.every * (_SETTINGS // _COMMANDS if alone else 1)]
    progress = Progress(tally.kind, len(cases))
    jobs = [{"settings": case.overrides, "word": case.word, "alone": alone} for case in cases]
    for case, reply in zip(cases, found.map(jobs), strict=True):
        tally.add(" ".join(case.overrides), reply["faults"])
        progress.step(sum(tally.counts.values()))


if __name__ == "__main__":
    sys.exit(main())
