"""Which runs of a study train at once: those that differ in seed or traced numbers alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from jaxvalues.run.folder import RunFolder
from jaxvalues.run.together import most_together, together_key
from jaxvalues.study.plan import PlannedRun


def groups(planned: Sequence[PlannedRun], together: str | int | bool) -> list[list[PlannedRun]]:
    """The runs that train at once, in groups of equal size as far as that goes; one by one where they cannot.

    `together` is the study's key. Runs that have been interrupted resume with those that stand at the same step.
    """
    alike: dict[Hashable, list[PlannedRun]] = {}
    for place, one in enumerate(planned):
        key = None if together is False else together_key(one.config)
        where = place if key is None else (key, RunFolder(one.config.folder).newest_step())
        alike.setdefault(where, []).append(one)
    found = []
    for runs in alike.values():
        most = 1
        if len(runs) > 1:
            most = most_together(runs[0].config) if together == "auto" else int(together)
        number = math.ceil(len(runs) / most)
        sizes = [len(runs) // number + (place < len(runs) % number) for place in range(number)]
        rest = iter(runs)
        found += [[next(rest) for _ in range(size)] for size in sizes]
    return found
