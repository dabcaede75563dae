"""Decoding: what a language model says, token by token."""

from jaxvalues.generation.greedy import greedy

__all__ = ["greedy"]
