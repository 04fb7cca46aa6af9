"""Compose a config into objects, run them, record the outcome.

Imports nothing: `--help` and a mistyped override need not wait for Lightning, seconds long.
"""
