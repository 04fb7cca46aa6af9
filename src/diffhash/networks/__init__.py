"""Networks on top of an encoding: `MLP`, `SIREN`, `Linear`, and the whole `Field`."""

from diffhash.networks.field import Field, FieldPlan, stack_fields, unstack_field
from diffhash.networks.least_squares import LinearLeastSquares
from diffhash.networks.network import MLP, SIREN, Linear, Network

__all__ = [
    "MLP",
    "SIREN",
    "Field",
    "FieldPlan",
    "Linear",
    "LinearLeastSquares",
    "Network",
    "stack_fields",
    "unstack_field",
]
