"""Jets: values with chosen derivatives, their composition with functions, and a reference for them
by autograd."""

from diffhash.jets.activations import MAX_ORDER, Activation, find_activation, named_activation, sine
from diffhash.jets.composition import Term, composition
from diffhash.jets.jet import Jet, autograd_jet, combined, varies
from diffhash.jets.rows import (
    Names,
    Row,
    Rows,
    Sum,
    axis_rows,
    default_names,
    expanded,
    jet_rows,
    row_order,
)

__all__ = [
    "MAX_ORDER",
    "Activation",
    "Jet",
    "Names",
    "Row",
    "Rows",
    "Sum",
    "Term",
    "autograd_jet",
    "axis_rows",
    "combined",
    "composition",
    "default_names",
    "expanded",
    "find_activation",
    "jet_rows",
    "named_activation",
    "row_order",
    "sine",
    "varies",
]
