"""Decoding: generates answers token by token."""

from jaxvalues.generation.greedy import greedy

__all__ = ["greedy"]
