"""Weightings, which change weights while training; a new one is a class and a config."""

from diffhash.training.weightings.causal import Causal
from diffhash.training.weightings.gradient_norm import GradientNorm
from diffhash.training.weightings.inverse_dirichlet import InverseDirichlet
from diffhash.training.weightings.residual_attention import ResidualAttention
from diffhash.training.weightings.time_windows import TimeWindows
from diffhash.training.weightings.weighting import PointWeighting, Present, Weighting

__all__ = [
    "Causal",
    "GradientNorm",
    "InverseDirichlet",
    "PointWeighting",
    "Present",
    "ResidualAttention",
    "TimeWindows",
    "Weighting",
]
