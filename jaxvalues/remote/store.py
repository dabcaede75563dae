"""The answer store: a file of JSON lines, to which one process appends. What is in it is never asked again.

Three kinds of lines: an answer, with its request and response; a failure, a request whose attempts were used up; and
what was found out about an endpoint. A line is one write, so a process that is killed leaves one torn line at most,
the last; it is cut off when the file is opened again. What an endpoint says is written without the key.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from jaxvalues.config.reading import os_problem
from jaxvalues.config.writing import writing
from jaxvalues.errors import UserError, short
from jaxvalues.remote.key import without_key
from jaxvalues.remote.messages import Answer, Malformed, Request, read_answer, request_key

STORE = "answers.jsonl"
"""The name of the store in a run folder, unless `model.answers` names another file."""
ANSWER, FAILURE, ENDPOINT = "answer", "failure", "endpoint"
_BEGINNING = b'{"kind": "'


@dataclass(frozen=True)
class Stored:
    """An answer in the store, and what it took."""

    answer: Answer
    attempts: int
    latency: float
    """Seconds of the attempt that was answered."""


class Contents:
    """What a store holds: answers by key, attempts at what has no answer, and endpoints."""

    def __init__(self) -> None:
        self.answers: dict[str, Stored] = {}
        self.failed: dict[str, int] = {}
        """{key: attempts}, also of requests that were answered later."""
        self.too_long: set[str] = set()
        """The keys of requests that an endpoint refused as too long."""
        self.endpoints: dict[tuple[str, str], dict[str, Any]] = {}
        """{(endpoint, model): what was found out about it}."""
        self.probes: Counter[tuple[str, str]] = Counter()
        """{(endpoint, model): the requests that this took}."""
        self.damaged = 0
        """Lines that cannot be read, or are not what was written."""

    def tried(self, request: Request) -> list[Request]:
        """A request, and the shorter ones that are asked in its place where the endpoint refused it as too long. The
        last one is that to ask."""
        tried = [request]
        while tried[-1].key in self.too_long and tried[-1].shorter is not None:
            tried.append(tried[-1].shorter())
        return tried

    def take(self, line: bytes) -> None:
        """Add a line. Earlier versions wrote some endpoints with a slash at their end."""
        try:
            record = json.loads(line)
            match record["kind"]:
                case "answer":
                    key = request_key(record["endpoint"], record["request"], record["sample"])
                    if key != record["key"]:
                        raise ValueError
                    answer = read_answer(record["response"])
                    if record["endpoint"].endswith("/"):
                        key = request_key(record["endpoint"].rstrip("/"), record["request"], record["sample"])
                    self.answers[key] = Stored(answer, int(record["attempts"]), float(record["latency"]))
                case "failure":
                    self.failed[record["key"]] = self.failed.get(record["key"], 0) + int(record["attempts"])
                    if record.get("too_long"):
                        self.too_long.add(record["key"])
                case "endpoint":
                    name = (record["endpoint"].rstrip("/"), record["model"])
                    self.endpoints[name] = dict(record["found"])
                    self.probes[name] += int(record.get("attempts", 1))
                case _:
                    raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Malformed):
            self.damaged += 1


class AnswerStore:
    """The store at `path`, locked for this process; as a context manager, unlocked at the end.

    `secret` is replaced by stars in what the endpoint says, and never in what was sent (see `without_key`). Raises
    UserError where another process has the store, and where it cannot be read or written.
    """

    def __init__(self, path: Path, secret: str | None = None) -> None:
        self.path, self._secret = path, secret
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                said = f"{path} is in use by another run: wait for it, or give another model.answers"
                raise UserError(said) from None
            except NotImplementedError:  # a file system without locks
                pass
        try:
            with writing(path):
                _cut_torn_line(path)
            self.contents = read_store(path)
            with writing(path):
                self._file: BinaryIO = path.open("ab", buffering=0)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()
        self._lock.release()

    def add_answer(self, request: Request, response: Mapping[str, Any], *, attempts: int, latency: float) -> Answer:
        """Append an answer. Returns what it says. Raises Malformed for a response that is none."""
        response = without_key(response, self._secret, _sent(request))
        answer = read_answer(response)
        self._append(
            {
                "kind": ANSWER,
                "key": request.key,
                "endpoint": request.endpoint,
                "sample": request.sample,
                "request": request.payload,
                "response": response,
                "model": answer.echo,
                "finish_reason": answer.finish_reason,
                "usage": response.get("usage"),
                "attempts": attempts,
                "latency": round(latency, 3),
            }
        )
        self.contents.answers[request.key] = Stored(answer, attempts, latency)
        return answer

    def add_failure(self, request: Request, reason: str, attempts: int, *, too_long: bool = False) -> None:
        """Append that a request has no answer after these attempts. It is asked again next time, unless it was refused
        as `too_long` and a shorter one can be asked."""
        self._append(
            {
                "kind": FAILURE,
                "key": request.key,
                "endpoint": request.endpoint,
                "reason": without_key(reason, self._secret, _sent(request)),
                "attempts": attempts,
                "too_long": too_long,
            }
        )
        self.contents.failed[request.key] = self.contents.failed.get(request.key, 0) + attempts
        if too_long:
            self.contents.too_long.add(request.key)

    def add_endpoint(self, endpoint: str, model: str, found: Mapping[str, Any], attempts: int = 1) -> None:
        """Append what was found out about an endpoint, and the requests that this took."""
        self._append({"kind": ENDPOINT, "endpoint": endpoint, "model": model, "found": found, "attempts": attempts})
        self.contents.endpoints[endpoint, model] = dict(found)
        self.contents.probes[endpoint, model] += attempts

    def _append(self, record: dict[str, Any]) -> None:
        record["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with writing(self.path, "; what was answered before is kept"):
            written = self._file.write(line)
            if written != len(line):  # a full disk: the next opening cuts the torn line off
                raise OSError(28, "No space left on device")


def _sent(request: Request) -> str:
    return f"{request.endpoint} {json.dumps(request.payload, ensure_ascii=False)}"


def read_store(path: Path) -> Contents:
    """What the store at `path` holds; nothing where there is no such file. Raises UserError where it cannot be read."""
    contents = Contents()
    for line in _lines(path):
        contents.take(line)
    return contents


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({os_problem(error)})") from None


def _cut_torn_line(path: Path) -> None:
    """Cut off what stands after the last line end of a file: a write that did not finish."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        if not _BEGINNING.startswith(begins := file.read(len(_BEGINNING))):
            raise UserError(f"{path}: begins with {short(begins)}, so it is no store: give another model.answers")
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            file.truncate(end)
