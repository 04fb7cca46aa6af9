"""The paper: its printed numbers, the rows of its tables, claims, figures and report.

A user of everything else here; but for the command lines nothing imports it. Modules are imported
one by one: tables, claims, figures and the report are made from records and need nothing that
trains.
"""
