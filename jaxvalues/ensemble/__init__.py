"""Ensembles: members × seeds × folds trained in one command, or finished runs combined."""

from jaxvalues.ensemble.combination import combine_runs
from jaxvalues.ensemble.training import train

__all__ = ["combine_runs", "train"]
