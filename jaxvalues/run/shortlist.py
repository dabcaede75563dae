"""Shortlists: a finished run proposes categories for each argument, and a language model decides among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxvalues.config import ShortlistConfig
from jaxvalues.config.reading import user_path
from jaxvalues.data.arguments import Split
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.decision import read_decision
from jaxvalues.evaluation.predictions import read_logits


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The proposed categories of all arguments that a run predicted: {argument id: [C] bool}."""

    run: Path
    proposed: dict[str, np.ndarray]

    @classmethod
    def read(cls, config: ShortlistConfig) -> Shortlist:
        """The proposals of the run that a config names. Raises ConfigError unless it holds predictions."""
        run = user_path(config.run)
        tables = sorted(run.glob("logits-*.tsv"))
        if not tables:
            raise ConfigError(f"formulation.shortlist.run: {run} holds no predictions, expected a finished run")
        decision, proposed = read_decision(run), {}
        for table in tables:
            known = read_logits(table)
            chosen = decision(known.values) == 1
            if config.count is not None:
                places = np.argsort(np.argsort(-known.values, axis=1, kind="stable"), axis=1)
                chosen = places < config.count
            proposed |= dict(zip(known.ids, chosen, strict=True))
        return cls(run, proposed)

    def check(self, splits: Iterable[Split]) -> None:
        """Raises ConfigError for arguments that the run did not predict."""
        for split in splits:
            if missing := [id for id in split.ids if id not in self.proposed]:
                raise ConfigError(
                    f"formulation.shortlist.run: {self.run} has no predictions for {len(missing)} of {len(split)} "
                    f"arguments of {split.name} ({missing[0]}): it must hold out and report the same splits"
                )

    def of(self, split: Split) -> np.ndarray:
        """Whether each category is proposed for each argument: [n, C] bool. Raises ConfigError as `check` does."""
        self.check([split])
        return np.stack([self.proposed[id] for id in split.ids])
