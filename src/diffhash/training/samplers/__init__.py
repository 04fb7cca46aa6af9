"""Samplers, which move points of conditions while training; a new one is a class and a config."""

from diffhash.training.samplers.rad import ResidualAdaptive
from diffhash.training.samplers.resample import Resample
from diffhash.training.samplers.sampler import Sampler

__all__ = ["Resample", "ResidualAdaptive", "Sampler"]
