"""Input encodings: `GridEncoding`, `FourierFeatures`, `Identity`."""

from diffhash.encodings.encoding import Encoding, EncodingPlan
from diffhash.encodings.fourier import FourierFeatures
from diffhash.encodings.grid import GridEncoding
from diffhash.encodings.identity import Identity

__all__ = ["Encoding", "EncodingPlan", "FourierFeatures", "GridEncoding", "Identity"]
