"""The paper: its printed numbers, the rows of its tables, claims, figures and report.

This package uses all other packages of diffhash; only the command lines import it. Its modules are
imported one by one: tables, claims, figures and the report are made from records without training
code.
"""
