"""Networks on top of an encoding: `MLP`, `SIREN`, `Linear`, and the whole `Field`."""

from diffhash.networks.field import Field, FieldPlan, stack_fields
from diffhash.networks.network import MLP, SIREN, Linear, Network
from diffhash.networks.squares import FieldSquares

__all__ = [
    "MLP",
    "SIREN",
    "Field",
    "FieldPlan",
    "FieldSquares",
    "Linear",
    "Network",
    "stack_fields",
]
