"""Batch files in the OpenAI format: requests as JSON lines, each with its key as `custom_id`, and their results.

Providers answer them within a day at about half the price.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxvalues.config.reading import os_problem
from jaxvalues.errors import UserError, agreed
from jaxvalues.remote.client import TOO_LONG, Failed, says_too_long
from jaxvalues.remote.messages import Malformed, Request, read_answer, request_key
from jaxvalues.remote.probe import Found, check_answer
from jaxvalues.remote.store import AnswerStore

MOST_REQUESTS, MOST_BYTES = 50_000, 190 * 2**20
"""The largest batch file; OpenAI takes 50,000 requests and 200 MB."""


def batch_lines(requests: Sequence[Request]) -> Iterator[list[dict[str, Any]]]:
    """The lines of each batch file for these requests."""
    lines: list[dict[str, Any]] = []
    size = 0
    for request in requests:
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.payload}
        length = len(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if lines and (len(lines) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += length + 1
    if lines:
        yield lines


@dataclass
class Read:
    """What was in files of results."""

    added: int = 0
    known: int = 0
    """Results whose request has an answer already."""
    others: int = 0
    """Results of requests that are not of this run."""
    failed: Counter[str] = field(default_factory=Counter)
    """{why a result is no answer: how many}; these requests are asked again."""

    def sentences(self, store: Path) -> list[str]:
        """What to say about them."""
        said = [f"{agreed(self.added, 'answer', 'is', 'are')} added to {store}"]
        if self.known:
            said[0] += f"; {self.known:,} {'was' if self.known == 1 else 'were'} there already"
        if self.others:
            said.append(f"{agreed(self.others, 'result', 'is', 'are')} not of this run, and left out")
        if failed := sum(self.failed.values()):
            why = ", ".join(f"{reason} {number:,}" for reason, number in self.failed.most_common(3))
            again = "asks this question again" if failed == 1 else "asks these questions again"
            said.append(
                f"{agreed(failed, 'result', 'is no answer', 'are no answers')} ({why}); `jaxvalues train` {again}"
            )
        return said


def read_results(
    files: Sequence[Path],
    *,
    missing: Sequence[Request],
    stored: Sequence[Request],
    found: Found,
    store: AnswerStore,
) -> Read:
    """Add the answers in files of results to the store. `missing` are the requests that have none, `stored`
    those that have one or were refused as too long. Raises UserError for a file that cannot be read."""
    read, (wanted, known) = Read(), ({key: one for one in each for key in _names(one)} for each in (missing, stored))
    for file in files:
        for line in _lines(file):
            try:
                result = json.loads(line)
                key = result["custom_id"]
                if not isinstance(key, str):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                read.failed["damaged line"] += 1
                continue
            if key in known or (key in wanted and wanted[key].key in store.contents.answers):
                read.known += 1
            elif key not in wanted:
                read.others += 1
            elif (why := _add(result, wanted[key], found, store)) is None:
                read.added += 1
            else:
                read.failed[why] += 1
    return read


def _names(request: Request) -> tuple[str, str]:
    """The key of a request, and the one of earlier versions where a config has a slash behind the endpoint."""
    return request.key, request_key(f"{request.endpoint}/", request.payload, request.sample)


def _add(result: Any, request: Request, found: Found, store: AnswerStore) -> str | None:
    """Add one result to the store; in a word or two why it is no answer, or None."""
    response = result.get("response")
    response = response if isinstance(response, dict) else {}
    status = response.get("status_code")
    if says_too_long(status, response.get("body")):
        store.add_failure(request, TOO_LONG, 1, too_long=True)
        return TOO_LONG
    if result.get("error") or status != 200:
        return f"status {status}" if status not in (None, 200) else "error"
    try:
        check_answer(found, request, read_answer(response["body"]))
        store.add_answer(request, response["body"], attempts=1, latency=0.0)
    except (Malformed, KeyError):
        return "no chat completion"
    except Failed as error:
        return error.kind
    return None


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as lines:
            yield from (line for line in lines if line.strip())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({os_problem(error)})") from None
