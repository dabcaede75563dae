"""Decoding: generates answers token by token, and scores given ones."""

from jaxvalues.generation.decode import Rules, State, cache_all, decode, start
from jaxvalues.generation.greedy import greedy
from jaxvalues.generation.language_model import Asked, Generated, LanguageModel
from jaxvalues.generation.sampling import Sampling

__all__ = [
    "Asked",
    "Generated",
    "LanguageModel",
    "Rules",
    "Sampling",
    "State",
    "cache_all",
    "decode",
    "greedy",
    "start",
]
