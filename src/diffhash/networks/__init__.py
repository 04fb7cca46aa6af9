"""Networks on top of an encoding: `MLP`, `SIREN`, and the whole `Field`."""

from diffhash.networks.field import Field, FieldPlan, stack_fields
from diffhash.networks.network import MLP, SIREN, Network

__all__ = ["MLP", "SIREN", "Field", "FieldPlan", "Network", "stack_fields"]
