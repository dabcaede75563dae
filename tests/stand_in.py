"""A stand-in for an endpoint of the OpenAI format, on this machine: answers, limits, fails, stalls, cuts, lies."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

MODEL = "stand-in-1"


class Behaviour(NamedTuple):
    """What is answered in the place of the right thing; the defaults are the right thing."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012  (never changed)
    body: str | None = None
    """In the place of the answer."""
    seconds: float = 0.0
    """Before anything is answered."""
    cut: bool = False
    """Half of the body, with the length of the whole; then the connection ends."""
    echo: str | None = MODEL
    logprobs: bool = True
    text: str | None = None
    finish_reason: str = "stop"
    usage: bool = True


FINE = Behaviour()
LIMITED = Behaviour(429, {"Retry-After": "0"}, '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')
BROKEN = Behaviour(500, {"Retry-After": "0"}, "oops")  # without the header, a test would wait for its jitter
Behave = Callable[[int, dict[str, Any]], Behaviour]
"""From how often this body has been sent, now included, and the body."""


def log_odds_of(body: dict[str, Any]) -> float:
    """The logit of a question, drawn by a hash of its text."""
    text = json.dumps(body["messages"], sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**31 * 2 - 2


def name_of(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


class StandIn:
    """The server, a context manager; `counts` has how often each body was sent, `authorizations` the keys it saw."""

    def __init__(self, behave: Behave = lambda number, body: FINE) -> None:
        self.behave = behave
        self.counts: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                data = self.rfile.read(size)
                if len(data) < size:  # whoever asked was killed meanwhile
                    return
                body = json.loads(data)
                with outer._lock:
                    outer.counts[name_of(body)] += 1
                    number = outer.counts[name_of(body)]
                    outer.authorizations.add(self.headers.get("Authorization"))
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    with suppress(BrokenPipeError, ConnectionResetError):
                        self._answer(outer.behave(number, body), body)
                finally:
                    with outer._lock:
                        outer.at_once -= 1

            def _answer(self, how: Behaviour, body: dict[str, Any]) -> None:
                time.sleep(how.seconds)
                text = how.body if how.body is not None else json.dumps(completion(body, how))
                data = text.encode()
                self.send_response(how.status)
                for name, value in {"Content-Type": "application/json", **how.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if how.cut else data)
                self.close_connection = how.cut

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def total(self) -> int:
        """The number of requests."""
        return sum(self.counts.values())


def completion(body: dict[str, Any], how: Behaviour = FINE) -> dict[str, Any]:
    """A chat completion: Yes or No by `log_odds_of`, with log-probabilities where they are asked for."""
    odds = log_odds_of(body)
    yes = math.log(0.9) - math.log1p(math.exp(-odds))
    top = {"Yes": yes, "No": yes - odds, "Maybe": math.log(0.06), " yes": math.log(0.004), "I": math.log(0.001)}
    text = how.text if how.text is not None else "Yes" if odds > 0 else "No"
    choice: dict[str, Any] = {"index": 0, "finish_reason": how.finish_reason}
    choice["message"] = {"role": "assistant", "content": text}
    if how.logprobs and body.get("logprobs") and text:
        rows = [{"token": token, "logprob": value, "bytes": None} for token, value in top.items()]
        token = text if text in top else "I"
        choice["logprobs"] = {"content": [{"token": token, "logprob": top[token], "top_logprobs": rows}]}
    found = {"id": "x", "object": "chat.completion", "created": 0, "model": how.echo, "choices": [choice]}
    if how.echo is None:
        del found["model"]
    return found | ({"usage": {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}} if how.usage else {})
