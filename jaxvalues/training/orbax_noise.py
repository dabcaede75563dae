"""Keeps what Orbax and TensorStore print off the screen where a checkpoint cannot be written.

The error reaches `jaxvalues.training.checkpoints`, which says it in a sentence. Besides, background threads log the
same error four times with tracebacks, and callbacks that come too late print that their event loop is closed.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import Any

from jaxvalues.errors import cut, first_line

_CAUSES = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def keep_quiet() -> None:
    """Leave out those messages from now on; a second call changes nothing."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    if sys.unraisablehook is not _print_news:
        _before.append(sys.unraisablehook)
        sys.unraisablehook = _print_news


def cause(error: Exception) -> str:
    """What the system refused, where the text of an error says it; else its first line, cut where it is long."""
    for code in _CAUSES:
        if os.strerror(code) in str(error):
            return os.strerror(code)
    return cut(first_line(error), 120)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is other than a traceback of Orbax's threads, or of a task that nobody waits for any more."""
    is_ours = "orbax" in record.pathname or "never retrieved" in record.getMessage()
    return not (is_ours and record.levelno >= logging.ERROR and record.exc_info)


_before: list[Any] = []


def _print_news(found: Any) -> None:
    """The hook of exceptions that nothing can catch (see `sys.unraisablehook`), as those of callbacks from C++."""
    if not (found.exc_type is RuntimeError and str(found.exc_value) == "Event loop is closed"):
        _before[-1](found)
