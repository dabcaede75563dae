"""The errors a user sees, each with one clear sentence and an exit code, and what makes texts fit to print."""

from __future__ import annotations

import codecs
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn


class UserError(Exception):
    """Something outside the program is wrong: a file, a checkpoint or a device.

    The message is one sentence of less than 300 characters: what is wrong, where (file, line or key), and what was
    expected. The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class ConfigError(UserError):
    """A config file, an override or a command's arguments are wrong."""

    exit_code = 2


class NotFiniteError(UserError):
    """A loss or a gradient is not a finite number: the same run would end so again."""


@contextmanager
def about(where: str) -> Iterator[None]:
    """Puts what a `UserError` is about before its sentence, such as prompts[0]."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{where}: {error}") from None


def name_list(names: Iterable[object], most: int = 3, separator: str = ", ") -> str:
    """Names for a message: at most `most` of them, then how many more there are ("a, b, c and 4 more")."""
    names = [str(name) for name in names]
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 column", "1,230 columns"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def agreed(number: int, noun: str, singular: str, plural: str) -> str:
    """A counted noun and what is said about it: "1 column is missing", "2 columns are missing"."""
    return f"{counted(number, noun)} {singular if number == 1 else plural}"


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cut(text: str, most: int) -> str:
    """A text without its end, where it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def short(value: object, most: int = 60) -> str:
    """A value as a message shows it: its `repr` on one line, without its middle where it is longer than `most`."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints; a list within itself
        return f"a value ({type(value).__name__}) that is too long to print"
    return _without_middle(text, most)


def one_sentence(message: str, most: int = 299) -> str:
    """A message as it is printed: on one line of at most `most` characters, with control characters written out.

    Only the longest words, such as paths, lose their middle, until the message fits.
    """
    lines = "; ".join(line.strip() for line in message.split("\n") if line.strip())
    text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in lines)
    words = text.split(" ")
    while len(text) > most and len(longest := max(words, key=len)) > _WORD:
        left = max(_WORD, len(longest) - (len(text) - most))
        words[words.index(longest)] = _without_middle(longest, left)
        text = " ".join(words)
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def print_everything(*streams: Any) -> None:
    """Let streams print a plain character, or an escape such as \\u4f60, for what their encoding lacks.

    Otherwise printing raises UnicodeEncodeError, on a terminal or in a pipe that is not UTF-8.
    """
    for stream in streams:
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


_HANDLER = "jaxvalues.plain"
_PLAIN = {"×": "x", "–": "-", "−": "-", "→": "->", "…": "...", "·": "-", "█": "#", "≥": ">=", "≤": "<="}
_PLAIN |= dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"') | dict.fromkeys("─━╺╸", "-")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """The handler of characters that cannot be encoded (see `codecs.register_error`)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in bad), error.end


codecs.register_error(_HANDLER, _plainly)

_WORD = 40  # the length to which a long word is cut at most


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - 3) // 2
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


partings: list[Callable[[str], bool]] = []
"""Called with the sentence of an error before a command ends. One returns False where it must end at once."""


def leave(sentence: str, code: int, error: Exception | None = None) -> None:
    """Call all `partings`; where one returns False, print the traceback of `error` and end this process."""
    if all(parting(sentence) for parting in partings):
        return
    if error is not None:
        traceback.print_exception(error)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def fail(message: str, code: int) -> NoReturn:
    """End a command with one sentence on standard error and this exit code."""
    print(one_sentence(f"jaxvalues: {message}"), file=sys.stderr)
    leave(message, code)
    sys.exit(code)
