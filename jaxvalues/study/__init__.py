"""Studies: many runs that answer one question, and the statistics of their results."""
