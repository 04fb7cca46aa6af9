"""A sample of the cases of `make test-faults`: a killed run loses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import shim
from tests.faults.disturbed import kinds
from tests.faults.scenarios import scenarios
from tests.faults.servers import Servers, servers

REPLACE = next(scenario for scenario in scenarios() if scenario.name == "replace")


@pytest.fixture(scope="module")
def found() -> Iterator[Servers]:
    if not shim.available():
        pytest.skip("needs Linux and a C compiler")
    with servers(1) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("kill", 4), ("full", 10)])
def test_a_run_that_replaces_another(found: Servers, kind: str, most: int) -> None:
    operations = found.operations(REPLACE)
    # After the last checkpoint: before it there is nothing to lose.
    last = max(n for n, one in enumerate(operations, 1) if "checkpoint" in one.path)
    numbers = [n for n in kinds()[kind].at(operations) if n >= min(last, len(operations) // 2)]
    for number in numbers[:: -(-len(numbers) // most)]:
        reply = found.ask(**kinds()[kind].job(REPLACE, number))
        assert reply["reached"]
        assert not any(reply["faults"].values()), (reply["operation"], reply["faults"])
