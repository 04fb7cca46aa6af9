"""What is made small: a problem's conditions as terms of a loss over points."""

from diffhash.optim.objective import Objective
from diffhash.optim.task import Task
from diffhash.optim.term import Term

__all__ = ["Objective", "Task", "Term"]
