"""What is made small: a problem's conditions as terms of a loss over points."""

from diffhash.optim.gauss_newton import GaussNewton
from diffhash.optim.objective import Objective
from diffhash.optim.task import Task
from diffhash.optim.term import Term

__all__ = ["GaussNewton", "Objective", "Task", "Term"]
