"""The grid operator and its tables; nothing here knows about networks or training."""

from diffhash.ops.jet import Jet, autograd_jet

__all__ = ["Jet", "autograd_jet"]
