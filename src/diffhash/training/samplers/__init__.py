"""How the points of conditions move while training; a new rule is one file and one config."""

from diffhash.training.samplers.rad import ResidualAdaptive
from diffhash.training.samplers.resample import Resample
from diffhash.training.samplers.sampler import Sampler

__all__ = ["Resample", "ResidualAdaptive", "Sampler"]
