"""What stands beside a long computation: who follows it, who may stop it, where its answers are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxvalues.training.progress import ProgressLine


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Watch(NamedTuple):
    """What a computation is given for that.

    `line` counts the rows that are done. Once `stop()` is true, it ends without a result. What a language model answers
    that nothing is trained in is kept in `folder`, and not asked again (`run.journal`).
    """

    line: ProgressLine | None = None
    stop: Callable[[], bool] = never
    folder: Path | None = None


ALONE = Watch()
"""Nothing stands beside it."""
