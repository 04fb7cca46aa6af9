"""Tasks: the losses that a field is trained on."""

from diffhash.tasks.data import data_task
from diffhash.tasks.pinn import pinn_task
from diffhash.tasks.task import Task, Term

__all__ = ["Task", "Term", "data_task", "pinn_task"]
