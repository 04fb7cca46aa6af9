"""Fake records of the paper's rows, and small real runs."""

from tests.experiment.conftest import (  # noqa: F401
    blank_figure,
    command_line,
    config,
    root,
    start,
    tiny,
)
from tests.fake_runs import (  # noqa: F401
    _paper_runs,
    make_record,
    paper,
    paper_runs,
    run_script,
    write_run,
)
