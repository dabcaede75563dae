"""Keys of requests, and what is read from responses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from stand_in import Behaviour, completion

from jaxvalues.remote.messages import Answer, Malformed, Request, parse_body, read_answer

BODY = {"model": "m", "messages": [{"role": "user", "content": "Is it so?"}], "max_tokens": 1, "logprobs": True}


def test_a_key_names_everything_that_is_sent() -> None:
    one = Request("http://a/v1", BODY)
    assert one.key == Request("http://a/v1", dict(reversed(BODY.items()))).key  # whatever the order
    others = [
        Request("http://b/v1", BODY),
        Request("http://a/v1", BODY, sample=1),
        *(Request("http://a/v1", {**BODY, name: "other"}) for name in BODY),
        Request("http://a/v1", {**BODY, "seed": 0}),
    ]
    keys = {one.key, *(other.key for other in others)}
    assert len(keys) == 1 + len(others)
    assert all(len(key) == 64 for key in keys)  # OpenAI takes a custom_id of 64 characters


def test_a_completion_is_read() -> None:
    answer = read_answer(completion(BODY, Behaviour(text="Yes")))
    assert (answer.text, answer.finish_reason, answer.echo) == ("Yes", "stop", "stand-in-1")
    assert (answer.prompt_tokens, answer.completion_tokens) == (50, 1)
    assert set(answer.first) == {"Yes", "No", "Maybe", " yes", "I"}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A completion with one value changed, under a dotted path."""
    found = json.loads(json.dumps(completion(BODY, Behaviour(text="Yes"))))
    *parts, last = path.split(".")
    place: Any = found
    for part in parts:
        place = place[int(part) if part.isdecimal() else part]
    place[int(last) if last.isdecimal() else last] = value
    return found


@pytest.mark.parametrize(
    "response",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": "text"}]},
        changed("choices.0.message.content", 3),
        changed("choices.0.finish_reason", 3),
        changed("choices.0.logprobs.content.0.logprob", "high"),
        changed("choices.0.logprobs.content.0.top_logprobs.0.logprob", float("nan")),
        changed("choices.0.logprobs.content.0.top_logprobs.0.logprob", 2.0),
        changed("choices.0.logprobs.content.0", {}),
    ],
)
def test_what_is_no_completion_is_malformed(response: Any) -> None:
    with pytest.raises(Malformed):
        read_answer(response)


@pytest.mark.parametrize("body", ["", "<html>", '{"choices": [', "[" * 100_000])
def test_what_is_no_json_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        parse_body(body)


def test_blank_tokens_and_absent_values_are_passed_over() -> None:
    rows = [
        {"token": "\n", "logprob": -0.1, "top_logprobs": []},
        {"token": "Yes", "logprob": -0.2, "top_logprobs": [{"token": "No", "logprob": -9999.0}]},
    ]
    assert read_answer(changed("choices.0.logprobs.content", rows)).first == {"Yes": -0.2}
    assert read_answer(changed("choices.0.logprobs.content", rows[:1])).first is None
    assert read_answer(changed("choices.0.logprobs", None)).first is None


def first_position(token: str, logprob: float, *top: tuple[Any, float]) -> Answer:
    """An answer whose first token is `token`, with the most likely ones."""
    rows = [{"token": one, "logprob": value} for one, value in top]
    return read_answer(
        changed("choices.0.logprobs.content", [{"token": token, "logprob": logprob, "top_logprobs": rows}])
    )


def test_tokens_of_the_same_text_are_added() -> None:
    answer = first_position("Yes", -0.2, ("Yes", -0.2), ("No", -3.0), ("Yes", -6.0))
    assert answer.first == {"Yes": pytest.approx(math.log(math.exp(-0.2) + math.exp(-6.0))), "No": -3.0}
    assert answer.bound == -6.0


def test_the_drawn_token_says_nothing_about_absent_ones() -> None:
    answer = first_position("Well", -9.0, ("Yes", -0.2), ("Maybe", -3.0))
    assert answer.first == {"Yes": -0.2, "Maybe": -3.0, "Well": -9.0}
    assert answer.bound == -3.0
    assert first_position("Yes", math.log(0.75)).bound == pytest.approx(math.log(0.25))
    assert first_position("Yes", 0.0).bound == pytest.approx(math.log(1e-6))


@pytest.mark.parametrize("token", [None, 5, ["x"]])
def test_a_token_without_a_text_is_left_out(token: Any) -> None:
    answer = first_position("Yes", -0.2, ("Yes", -0.2), (token, -9.0))
    assert (answer.first, answer.bound) == ({"Yes": -0.2}, -0.2)
    with pytest.raises(Malformed):
        first_position(token, -0.2)


def test_blank_tokens_alone() -> None:
    assert first_position("\n", -0.1, ("Yes", -3.0)).is_blank
    assert not first_position("Yes", -0.1).is_blank
    assert not read_answer(changed("choices.0.logprobs", None)).is_blank


def test_a_refusal_has_no_text() -> None:
    answer = read_answer(changed("choices.0.message.content", None))
    assert answer.text == ""


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}, 3])
def test_usage_may_be_absent(usage: Any) -> None:
    assert read_answer(changed("usage", usage)).prompt_tokens is None
