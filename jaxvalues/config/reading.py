"""The readers of files that others may have written: plain files, JSON and YAML, each guarded.

Whatever is wrong with a file becomes one UserError that names it: absent, a folder, not UTF-8, not JSON or YAML, nested
too deeply, or of another type than expected. A file never reads endlessly and never fills the memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jaxvalues.errors import UserError, first_line, short

MOST_BYTES = 2**28
"""The size of the largest file that is read: 256 MiB. Tokenizers are the largest, at some 40 MiB."""
MOST_YAML = 2**19
"""The size of the largest YAML file that is read: 512 KiB, some seconds' work for PyYAML."""
MOST_NODES = 100_000
"""The number of values of the largest YAML document, with every alias written out."""
DEEPEST = 100
"""How many mappings and lists of a file may lie in each other."""

_OPEN = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # pipes that a shell has opened for this process

KINDS = {dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number"}


def user_path(path: str | Path) -> Path:
    """A path that a user gave, with `~` and `~user` replaced by the home folder. Raises UserError for one that cannot
    be a path."""
    if not str(path).strip():
        raise UserError("a path is blank, expected that of a file or a folder")
    if problem := text_problem(str(path)):
        raise UserError(f"the path {short(str(path))} {problem}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: the home folder that `~` stands for is not known") from None


def text_problem(text: str) -> str | None:
    """What makes a text unfit for a file or a path: a NUL, or half a character (a surrogate); None for other texts."""
    if "\0" in text:
        return "holds a NUL character"
    return "holds characters that are not valid Unicode" if re.search("[\ud800-\udfff]", text) else None


def read_file(path: str | Path, absent: str = "no such file", most: int = MOST_BYTES) -> bytes:
    """The bytes of a plain file. Raises UserError, which says `absent` where there is no such file."""
    if problem := text_problem(str(path)):  # Python's own words for it differ between versions
        raise UserError(f"the path {short(str(path))} {problem}")
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path}: cannot be read (is a folder, expected a file)")
        if not stat.S_ISREG(found.st_mode) and not str(path).startswith(_OPEN):
            raise UserError(f"{path}: cannot be read (is a device or a pipe, expected a plain file)")
        if found.st_size > most:
            raise UserError(f"{path}: has {found.st_size:,} bytes, expected at most {most:,}")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: {absent}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({os_problem(error)})") from None


def read_json(path: str | Path, what: str, absent: str = "no such file") -> dict[str, Any]:
    """The object that a JSON file holds; `what` names it in messages ("the scores of a run"). Raises UserError."""
    content = parse_json(decode(path, read_file(path, f"{absent}, expected {what}")), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {_kind(content)}, expected an object: {what}")
    return content


def parse_json(text: str, where: str) -> Any:
    """A JSON text. Raises UserError, which begins with `where`, for what is not JSON, NaN and Infinity included."""

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"the number {short(digits)} is too large")
        return value

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        content = json.loads(text, parse_float=number, parse_constant=constant)
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply, expected at most {DEEPEST} levels") from None
    except ValueError as error:
        raise UserError(f"{where}: is not valid JSON ({_first_line(error)})") from None
    if _depth(content) > DEEPEST:
        raise UserError(f"{where}: is nested too deeply, expected at most {DEEPEST} levels")
    if "\\ud" in text.lower() and text_problem(json.dumps(content, ensure_ascii=False)):
        raise UserError(f"{where}: holds characters that are not valid Unicode")
    return content


def entry(content: Any, key: str, kind: type | tuple[type, ...], path: str | Path, expected: str = "") -> Any:
    """The value under a dotted key of a JSON object, which must be of this kind. Raises UserError with file and key."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = expected or " or ".join(KINDS[one] for one in kinds)
    value = content
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{path}: has no `{key}`, expected {expected}")
        value = value[part]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{path}: `{key}` is {short(value)}, expected {expected}")
    return value


def read_yaml(path: str | Path, loader: type[yaml.SafeLoader], absent: str = "no such file") -> Any:
    """The document of a YAML file. Raises UserError."""
    return parse_yaml(decode(path, read_file(path, absent, MOST_YAML)), loader, f"{path}: not valid YAML")


def parse_yaml(text: str, loader: type[yaml.SafeLoader], problem: str) -> Any:
    """A YAML text. Raises UserError, which begins with `problem`, for what cannot be read.

    Aliases that multiply to more than MOST_NODES values, or that contain themselves, are refused before they are
    written out.
    """
    reader = None
    try:
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_NODES:
            raise UserError(f"{problem}: holds more than {MOST_NODES:,} values, with aliases written out")
        return reader.construct_document(node)
    except RecursionError:
        raise UserError(f"{problem}: is nested too deeply, expected at most {DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{problem}: {_yaml_problem(error)}") from None
    finally:
        if reader is not None:
            reader.dispose()


def os_problem(error: Exception) -> str:
    """What the operating system says is wrong, in a few words."""
    return getattr(error, "strerror", None) or _first_line(error)


def decode(path: str | Path, data: bytes) -> str:
    """The text of a file's bytes, without a byte order mark. Raises UserError, with the line, for other than UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8, expected a file in UTF-8"
        ) from None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "true or false" if isinstance(value, bool) else KINDS.get(type(value), f"a {type(value).__name__}")


def _first_line(error: Exception) -> str:
    first = first_line(error)
    return "a number has too many digits" if first.startswith("Exceeds the limit") else first


def _yaml_problem(error: Exception) -> str:
    """What PyYAML says, on one line; where it fails on a value that it does not check, the value's fault."""
    if isinstance(error, yaml.MarkedYAMLError):
        where = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        said = f"{error.context}, {error.problem}" if f"{error.problem}".startswith("but ") else error.problem
        return f"{said or error.context}{where}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character {short(chr(error.character)) if isinstance(error.character, int) else ''} is not allowed"
    return f"a value cannot be read ({_first_line(error)})"


def _size(node: yaml.Node, known: dict[int, int | None], depth: int = 1) -> int:
    """The number of values below a node, with aliases written out.

    Raises ValueError for a node within itself, and RecursionError for one below DEEPEST levels.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError(f"an alias in line {node.start_mark.line + 1} or below stands inside what it repeats")
        return size
    if depth > DEEPEST:
        raise RecursionError
    known[id(node)] = None
    size = 1 + sum(_size(child, known, depth + 1) for child in _children(node))
    known[id(node)] = size
    return size


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _depth(content: Any) -> int:
    """How many objects and lists lie in each other, counted without recursion."""
    level, depth = [content], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
    return depth
