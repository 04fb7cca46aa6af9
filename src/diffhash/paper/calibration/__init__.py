"""Search for the hyper-parameters of a preset, with Optuna over composed configs.

hydra-optuna-sweeper would be the obvious engine. Its releases for Hydra 1.3 need Optuna 2, start
counting trials again when they are resumed, cannot stop a trial early, and wait for the slowest of
each batch. So Optuna is asked and told directly; the search spaces are in that sweeper's syntax.
"""
