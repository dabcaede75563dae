"""Figures from counts, intervals, tests and the split of variance: numpy and scipy alone; knows no run and no file."""
