"""diffhash: hash encodings with exact derivatives, and the PINN experiments built on them."""

from diffhash.encodings import FourierFeatures, GridEncoding, Identity
from diffhash.networks import MLP, SIREN, Field
from diffhash.ops import Jet, autograd_jet

__version__ = "0.1.0"
__all__ = [
    "MLP",
    "SIREN",
    "Field",
    "FourierFeatures",
    "GridEncoding",
    "Identity",
    "Jet",
    "autograd_jet",
]
