"""Figures, built from the records of runs alone (Figures 1 and 2: from single grids)."""
