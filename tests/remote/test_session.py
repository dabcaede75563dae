"""Asking a stand-in server that limits, fails, stalls, cuts and lies."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from stand_in import BROKEN, FINE, LIMITED, MODEL, Behaviour, StandIn, completion, log_odds_of
from test_answer_words import WORDS

from jaxvalues.config import Config, parse_config
from jaxvalues.errors import UserError, one_sentence
from jaxvalues.remote import pace, session
from jaxvalues.remote.budget import Budget, UsedUp
from jaxvalues.remote.client import says_too_long
from jaxvalues.remote.messages import Answer, Request
from jaxvalues.remote.probe import Found
from jaxvalues.remote.scoring import log_odds
from jaxvalues.remote.session import Session, find_out
from jaxvalues.remote.store import AnswerStore, read_store

FOUND = Found(echo=MODEL)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)


def config(url: str, remote: dict[str, Any] | None = None, **model: Any) -> Config:
    return parse_config(
        {
            "model": {"endpoint": url, "id": MODEL, "remote": remote or {}, **model},
            "formulation": {"kind": "answer"},
            "tuning": {"method": "none"},
        }
    )


def requests(url: str, number: int, found: Found = FOUND, **options: Any) -> list[Request]:
    texts = [f"Question {i}?" for i in range(number)]
    payloads = [
        found.payload(MODEL, [{"role": "user", "content": text}], 1, logprobs=True, **options) for text in texts
    ]
    return [Request(url, payload) for payload in payloads]


def ask(
    server: StandIn, path: Path, number: int, remote: dict[str, Any] | None = None, **model: Any
) -> tuple[list[Any], Session]:
    """The results of `number` questions, and the session that asked them."""
    settings = config(server.url, remote, **model).model
    with AnswerStore(path / "answers.jsonl") as store:
        asking = Session(settings, store, FOUND, Budget(settings))
        return asking(requests(server.url, number)), asking


def test_all_is_asked_once_and_stored(server: StandIn, tmp_path: Path) -> None:
    results, asking = ask(server, tmp_path, 60)
    for request, answer in zip(requests(server.url, 60), results, strict=True):
        assert log_odds(answer.first, WORDS).logit == pytest.approx(log_odds_of(request.payload), abs=0.05)
    assert set(server.counts.values()) == {1}
    assert server.total == asking.sent["answered"] == asking.budget.requests == 60
    again, _ = ask(server, tmp_path, 60)
    assert again == results
    assert server.total == 60


def test_it_starts_low_and_stays_below_the_limit(server: StandIn, tmp_path: Path) -> None:
    at_once = []

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        at_once.append(server.at_once)
        return Behaviour(seconds=0.2)

    server.behave = behave
    ask(server, tmp_path, 50, {"concurrency": 9})
    assert max(at_once[:4]) <= pace.START < server.most_at_once <= 9


def test_a_429_is_repeated_when_the_endpoint_says_and_slows_down(server: StandIn, tmp_path: Path) -> None:
    times: dict[str, list[float]] = {}

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        times.setdefault(body["messages"][0]["content"], []).append(time.monotonic())
        limited = body["messages"][0]["content"] == "Question 0?" and number == 1
        return LIMITED._replace(headers={"Retry-After": "0.4"}) if limited else FINE

    server.behave = behave
    results, asking = ask(server, tmp_path, 12)
    assert all(isinstance(one, Answer) for one in results)
    first, second = times["Question 0?"]
    assert second - first >= 0.4
    later = sorted(at for each in times.values() for at in each)
    assert not [at for at in later if first + 0.1 < at < first + 0.39]  # nobody else came meanwhile
    assert asking.sent["retried"] == 1
    assert not asking._pace._doubles


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (LIMITED, "429"),
        (BROKEN, "500"),
        (Behaviour(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "{}"), "503"),
        (Behaviour(body="<p>not JSON"), "malformed"),
        (Behaviour(body="<!DOCTYPE html><title>Be back soon</title>"), "web page"),
        (Behaviour(body="[" * 10_000), "malformed"),
        (Behaviour(body='{"choices": [{"message": {}'), "malformed"),
        (Behaviour(body='{"choices": []}'), "malformed"),
        (Behaviour(cut=True), "connection"),
        (Behaviour(seconds=1.5), "timeout"),
        (Behaviour(echo="another-model"), "other model"),
        (Behaviour(echo=None), "other model"),
        (Behaviour(logprobs=False), "no log-probabilities"),
        (Behaviour(400, body='{"error": {"message": "bad"}}'), "400"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_repeated_and_else_counted_as_missing(
    server: StandIn, tmp_path: Path, behaviour: Behaviour, reason: str
) -> None:
    """Question 1 has the fault once, question 3 always."""

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        text = body["messages"][0]["content"]
        is_faulty = (text == "Question 1?" and number == 1) or text == "Question 3?"
        return behaviour if (is_faulty and reason != "400") or (is_faulty and text == "Question 3?") else FINE

    server.behave = behave
    patience = 1.0 if reason == "timeout" else 10.0  # seconds: a busy machine is slow too
    results, _ = ask(server, tmp_path, 8, {"attempts": 3, "timeout": patience})
    assert [one for one in results if isinstance(one, str)] == [results[3]] == [reason]
    tries = 1 if reason == "400" else 3  # no other attempt can do better there
    counts = {name.partition("Question ")[2][:1]: number for name, number in server.counts.items()}
    assert counts["3"] == tries
    assert counts["0"] == 1
    contents = read_store(tmp_path / "answers.jsonl")
    assert len(contents.answers) == 7
    assert list(contents.failed.values()) == [tries]

    server.behave = lambda number, body: FINE  # the next time, only it is asked
    before = server.total
    results, _ = ask(server, tmp_path, 8)
    assert all(isinstance(one, Answer) for one in results)
    assert server.total == before + 1


def test_a_slow_trickle_times_out(tmp_path: Path) -> None:
    """A server that sends a byte now and then stalls too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(40):
                    connection.sendall(b" ")
                    time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        settings = config(url, {"attempts": 1, "timeout": 0.3}).model
        start = time.monotonic()
        with pytest.raises(UserError, match=r"does not answer: no answer within 0\.3 s"):
            find_out(settings, Budget(settings))
        assert time.monotonic() - start < 2


def one_sentence_of(error: pytest.ExceptionInfo[UserError]) -> str:
    text = re.sub(r"/\S*/(answers\.jsonl)", r"\1", str(error.value))  # a temporary folder has a name of any length
    assert one_sentence(f"jaxvalues: {text}") == f"jaxvalues: {text}", "too long"
    return text


def test_a_wrong_key_ends_it_and_what_was_answered_stays(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        if server.total <= 10:
            return FINE
        return Behaviour(401, body='{"error": {"message": "Incorrect API key provided: sk-secret-0123456789"}}')

    server.behave = behave
    with pytest.raises(UserError) as error:
        ask(server, tmp_path, 100)
    text = one_sentence_of(error)
    assert f"{server.url} refuses the key in the environment variable OPENAI_API_KEY (401); 10 of 100 answers" in text
    assert "sk-secret" not in text
    assert server.authorizations == {"Bearer sk-secret-0123456789"}
    assert server.total < 10 + 40  # those that were under way
    assert len(read_store(tmp_path / "answers.jsonl").answers) == 10


def test_without_a_key_a_server_that_asks_for_one(server: StandIn) -> None:
    server.behave = lambda number, body: Behaviour(401, body="{}")
    settings = config(server.url).model
    with pytest.raises(UserError, match=r"asks for a key \(401\): set the environment variable OPENAI_API_KEY"):
        find_out(settings, Budget(settings))
    assert server.authorizations == {"Bearer none"}


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (
            Behaviour(404, body='{"error": {"message": "no such model"}}'),
            "no chat completions of a model stand-in-1",
        ),
        (Behaviour(404, body="<html><head></head></html>"), r"of a model stand-in-1 \(404\): a web page$"),
        (Behaviour(body="<!doctype html>\n<html>"), "answers with a web page, so it is no endpoint: most .* in /v1"),
        (Behaviour(402, body="{}"), r"wants to be paid first \(402\)"),
        (Behaviour(403, body='{"detail": "not in your country"}'), r"refuses the request \(403\): not in your country"),
        (
            Behaviour(429, body='{"error": {"code": "insufficient_quota", "message": "m"}}'),
            r"has no money left \(429\)",
        ),
        (LIMITED._replace(headers={"Retry-After": "86400"}), "asks to wait 86,400 s"),
        (Behaviour(echo="gpt-else"), "answers as gpt-else where stand-in-1 was asked for"),
        (Behaviour(echo=f"{MODEL}-mini"), "answers as stand-in-1-mini where stand-in-1 was asked for"),
        (BROKEN, "does not answer: status 500: oops"),
        (Behaviour(body="{}"), "does not answer: the response is no chat completion"),
        (
            Behaviour(body='{"error": {"message": "model is overloaded", "code": 503}}'),
            "does not answer: the response is no chat completion: model is overloaded",
        ),
    ],
)
def test_what_ends_a_run_before_it_begins(server: StandIn, behaviour: Behaviour, sentence: str) -> None:
    server.behave = lambda number, body: behaviour
    settings = config(server.url, {"attempts": 2}).model
    with pytest.raises(UserError, match=sentence) as error:
        find_out(settings, Budget(settings))
    one_sentence_of(error)


def test_a_url_without_a_path_has_a_hint(server: StandIn) -> None:
    server.behave = lambda number, body: Behaviour(404, body='{"detail": "Not Found"}')
    settings = config(server.url.removesuffix("/v1")).model
    with pytest.raises(UserError, match=r"\(404\): Not Found; most endpoints end in /v1"):
        find_out(settings, Budget(settings))
    assert server.total == 1


def test_a_web_page_is_asked_once(server: StandIn) -> None:
    server.behave = lambda number, body: Behaviour(body="<html>")
    settings = config(server.url).model
    with pytest.raises(UserError, match="web page"):
        find_out(settings, Budget(settings))
    assert server.total == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, True),
        (400, {"object": "error", "message": "This model's maximum context length is 2048 tokens.", "code": 400}, True),
        (400, {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}, True),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000"}, True),
        (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, True),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048575).", True),
        (400, {"message": "The input (3000 tokens) is longer than the model's context length (2048 tokens)."}, True),
        (400, {"error": {"message": "top_logprobs is too large"}}, False),
        (422, {"detail": [{"input": "we must reduce the length of copyright"}]}, False),
        (500, {"error": {"message": "context length"}}, False),
        (400, None, False),
        (None, None, False),
    ],
)
def test_what_says_that_a_request_is_too_long(status: int | None, body: Any, expected: bool) -> None:
    assert says_too_long(status, body) is expected


def test_no_network(tmp_path: Path) -> None:
    with StandIn() as gone:
        url = gone.url
    settings = config(url, {"attempts": 2}).model
    with pytest.raises(UserError, match=r"does not answer: no connection \("):
        find_out(settings, Budget(settings))


def test_the_network_goes_away(tmp_path: Path) -> None:
    with StandIn() as server:

        def behave(number: int, body: dict[str, Any]) -> Behaviour:
            return FINE if server.total <= 20 else Behaviour(cut=True)

        server.behave = behave
        with pytest.raises(UserError) as error:
            ask(server, tmp_path, 200, {"attempts": 2, "concurrency": 8})
        text = one_sentence_of(error)
        assert "no longer answers: no connection" in text
        assert "20 of 200 answers are kept" in text
        assert server.total < 20 + 8 * 2 * 3 + 10
    assert len(read_store(tmp_path / "answers.jsonl").answers) == 20


def test_a_few_bad_questions_at_the_end_are_no_outage(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: BROKEN if "Question 3" in str(body) else FINE
    results, _ = ask(server, tmp_path, 4, {"attempts": 2})
    assert results[3] == "500"
    results, _ = ask(server, tmp_path, 4, {"attempts": 2})  # nothing but the bad one is asked
    assert results[3] == "500"


def test_another_model_from_some_time_on_ends_it(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: FINE if server.total <= 30 else Behaviour(echo=f"{MODEL}-2027-01-01")
    with pytest.raises(UserError, match=f"no longer answers: {MODEL}-2027-01-01 answered in the place of {MODEL};"):
        ask(server, tmp_path, 200, {"attempts": 2, "concurrency": 4})
    assert len(read_store(tmp_path / "answers.jsonl").answers) == 30
    assert server.total < 100


def forbidden(body: dict[str, Any]) -> Behaviour:
    text = '{"error": {"message": "flagged by moderation"}}'
    return Behaviour(403, body=text) if "Question 1?" in str(body) else FINE


def test_a_403_about_one_question_is_its_failure(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: forbidden(body)
    for _ in range(2):  # the second time, nothing else is asked
        results, _ = ask(server, tmp_path, 30)
        assert [one for one in results if isinstance(one, str)] == [results[1]] == ["403"]
    counts = [number for name, number in server.counts.items() if "Question 1?" in name]
    assert counts == [2]


def test_a_403_to_everything_ends_it(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: FINE if server.total <= 10 else Behaviour(403, body='{"detail": "revoked"}')
    with pytest.raises(UserError, match=r"refuses the request \(403\): revoked; 10 of 100 answers are kept"):
        ask(server, tmp_path, 100)
    assert server.total < 100


def test_a_budget_that_ends_while_an_outage_is_looked_into(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: BROKEN
    with pytest.raises(UsedUp, match=r"model\.max_requests 4 is used up; 0 of 1 answers"):
        ask(server, tmp_path, 1, {"attempts": 4}, max_requests=4)
    assert server.total == 4


def test_answers_that_begin_with_a_blank_token(server: StandIn, tmp_path: Path) -> None:
    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        found = completion(body)
        top = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found["choices"][0]["logprobs"]["content"] = [{"token": "\n", "logprob": -0.3, "top_logprobs": top}]
        return Behaviour(body=json.dumps(found))

    server.behave = behave
    results, _ = ask(server, tmp_path, 3)
    assert results == ["model.remote.max_tokens is too small"] * 3
    assert set(server.counts.values()) == {1}
    with pytest.raises(
        UserError, match=r"of 20 questions: model\.remote\.max_tokens 1 is too small: the answer is blank"
    ):
        ask(server, tmp_path, 40, {"concurrency": 1})


def test_in_a_notebook_whose_loop_is_running(server: StandIn, tmp_path: Path) -> None:
    async def cell() -> list[Any]:
        return ask(server, tmp_path, 3)[0]

    assert all(isinstance(one, Answer) for one in asyncio.run(cell()))


def test_further_parameters_are_sent(server: StandIn) -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "stop": ["."]}
    settings = config(server.url, {"parameters": extra}).model
    find_out(settings, Budget(settings))
    ((body, _),) = server.counts.items()
    assert extra.items() <= json.loads(body).items()


def test_a_model_that_refuses_every_question(server: StandIn, tmp_path: Path) -> None:
    refused = Behaviour(400, body='{"error": {"message": "the prompt is too long"}}')
    server.behave = lambda number, body: refused
    with pytest.raises(UserError, match="answers none of 20 questions: status 400: the prompt is too long"):
        ask(server, tmp_path, 200, {"concurrency": 1})
    assert server.total == session.MOST_FAILED


def test_questions_that_are_refused_for_good_do_not_keep_the_others_from_an_end(
    server: StandIn, tmp_path: Path
) -> None:
    refused = Behaviour(400, body='{"error": {"message": "refused by the filter"}}')
    some = {f"Question {number}" for number in range(0, 200, 5)}
    server.behave = lambda number, body: refused if any(f"{one}" in str(body) for one in some) else FINE
    first, _ = ask(server, tmp_path, 200)
    missing = sum(isinstance(one, str) for one in first)
    assert session.MOST_FAILED < missing < 200
    again, _ = ask(server, tmp_path, 200)  # these alone are asked, and none of them is answered
    assert sum(isinstance(one, str) for one in again) == missing


def test_a_budget_of_requests(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: LIMITED if number == 1 and "Question 5" in str(body) else FINE
    with pytest.raises(UsedUp) as error:
        ask(server, tmp_path, 50, max_requests=30)
    assert server.total == 30
    text = one_sentence_of(error)
    assert "model.max_requests 30 is used up; 29 of 50 answers are kept in" in text
    assert text.endswith("the same command with a larger budget asks only the rest")
    with pytest.raises(UsedUp):  # the run has one budget, however often it is started
        ask(server, tmp_path, 50, max_requests=30)
    assert server.total == 30
    results, asking = ask(server, tmp_path, 50, max_requests=51)
    assert all(isinstance(one, Answer) for one in results)
    assert server.total == asking.budget.requests == 51


def test_a_budget_of_money(server: StandIn, tmp_path: Path) -> None:
    prices = {"input_price": 10_000.0, "output_price": 100_000.0}  # 50 and 1 tokens: 0.6 for an answer
    with pytest.raises(UsedUp, match=r"model.max_cost 6 is used up; (9|10) of 50 answers are kept"):
        ask(server, tmp_path, 50, prices, max_cost=6.0)
    _, asking = ask(server, tmp_path, 9, prices, max_cost=100.0)
    assert asking.budget.cost == pytest.approx(9 * 0.6)


def test_what_cannot_be_written_ends_it(server: StandIn, tmp_path: Path) -> None:
    settings = config(server.url).model
    with AnswerStore(tmp_path / "answers.jsonl") as store:
        asking = Session(settings, store, FOUND, Budget(settings))
        store._file.close()
        store._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(UserError, match=r"answers\.jsonl: cannot be written \(No space left on device\)"):
            asking(requests(server.url, 20))
