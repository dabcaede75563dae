"""The two errors a user sees, each with one clear sentence and an exit code, and the lists in their messages."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: a file, a checkpoint or a device.

    The message is one sentence of less than 300 characters: what is wrong, where (file, line or key), and what was
    expected. The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class ConfigError(UserError):
    """A config file, an override or a command's arguments are wrong."""

    exit_code = 2


def name_list(names: Iterable[object], most: int = 3, separator: str = ", ") -> str:
    """Names for a message: at most `most` of them, then how many more there are ("a, b, c and 4 more")."""
    names = [str(name) for name in names]
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
