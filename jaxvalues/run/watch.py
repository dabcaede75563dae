"""What a long computation is given: a progress line, a way to stop it, the folder of its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxvalues.training.progress import ProgressLine


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Watch(NamedTuple):
    """The options of a long computation.

    `line` counts the rows that are done. Once `stop()` is true, it ends without a result. The answers of an untuned
    language model are kept in `folder`, and not computed again (`run.journal`); `journals` collects their names.
    """

    line: ProgressLine | None = None
    stop: Callable[[], bool] = never
    folder: Path | None = None
    journals: set[str] | None = None

    def begin(self, stage: str, total: int) -> None:
        """Count `total` rows anew, in another stage of the computation."""
        if self.line is not None:
            self.line.begin(stage, total)


ALONE = Watch()
"""Nothing stands beside it."""
