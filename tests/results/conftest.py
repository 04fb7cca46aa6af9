"""Fake records."""

from tests.fake_runs import make_record, write_run  # noqa: F401
