"""Differential equations; a new one is a subclass of `Problem` and one config file."""

from diffhash.problems.poisson1d import Poisson1D
from diffhash.problems.problem import Problem, check_box, even_points

__all__ = ["Poisson1D", "Problem", "check_box", "even_points"]
