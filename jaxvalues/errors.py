"""The two errors a user sees: one clear sentence, and the exit code that goes with it."""

from collections.abc import Sequence


class UserError(Exception):
    """Something outside the program is not as it must be (a file, a checkpoint, a device).

    The message is one sentence for the person at the keyboard: what is wrong, where (file, line or key), what
    was expected. The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class ConfigError(UserError):
    """A config file, an override or a command's arguments are wrong."""

    exit_code = 2


def in_short(items: Sequence[str], separator: str = ", ", limit: int = 3) -> str:
    """A list in a message: the first three items, and how many more there are."""
    more = len(items) - limit
    return separator.join(items) if more <= 0 else f"{separator.join(items[:limit])} and {more} more"
