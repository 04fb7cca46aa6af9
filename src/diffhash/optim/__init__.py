"""A problem's conditions as terms of a loss over points, and the optimizers that minimise it."""

from diffhash.optim.first_order import FirstOrder
from diffhash.optim.gauss_newton import GaussNewton
from diffhash.optim.objective import Objective
from diffhash.optim.quasi_newton import LBFGS, SSBroyden
from diffhash.optim.settings import OptimizerSettings
from diffhash.optim.task import Task
from diffhash.optim.term import Term

__all__ = [
    "LBFGS",
    "FirstOrder",
    "GaussNewton",
    "Objective",
    "OptimizerSettings",
    "SSBroyden",
    "Task",
    "Term",
]
