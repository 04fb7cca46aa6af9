"""Networks on top of an encoding: `MLP`, `SIREN`, and the whole `Field`."""

from diffhash.networks.field import Field, FieldPlan, stack_fields
from diffhash.networks.network import MLP, SIREN, Network
from diffhash.networks.squares import FieldSquares

__all__ = ["MLP", "SIREN", "Field", "FieldPlan", "FieldSquares", "Network", "stack_fields"]
