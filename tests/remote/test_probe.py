"""What is found out about an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stand_in import FINE, MODEL, Behaviour, StandIn
from test_session import config

from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.formulations import make_remote
from jaxvalues.remote.probe import Found
from jaxvalues.remote.session import find_out, look_up
from jaxvalues.remote.store import Contents


def refuses(*names: str, most_top: int = 20, says: bool = True) -> Any:
    """A server that takes no parameters of these names, and says which, or just that something is wrong."""

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        wrong = [name for name in names if name in body]
        if body.get("top_logprobs", 0) > most_top:
            wrong.append("top_logprobs")
        if not wrong:
            return FINE
        message = f"Unsupported parameter: '{wrong[0]}'" if says else "invalid request"
        return Behaviour(400, body=json.dumps({"error": {"message": message}}))

    return behave


def found_at(server: StandIn) -> tuple[Found, Budget]:
    settings = config(server.url, {"attempts": 2}).model
    budget = Budget(settings)
    return find_out(settings, budget), budget


@pytest.mark.parametrize(
    ("behave", "expected", "asked"),
    [
        (refuses(), Found(echo=MODEL), 1),
        (refuses("max_tokens"), Found(tokens_key="max_completion_tokens", echo=MODEL), 2),
        (refuses("seed"), Found(seed=False, echo=MODEL), 2),
        (refuses("temperature", "max_tokens"), Found("max_completion_tokens", temperature=False, echo=MODEL), 3),
        (refuses(most_top=5), Found(top_logprobs=5, echo=MODEL), 2),
        (refuses("logprobs"), Found(top_logprobs=0, echo=MODEL), 3),
        (lambda number, body: Behaviour(logprobs=False), Found(top_logprobs=0, echo=MODEL), 1),
        (lambda number, body: Behaviour(echo=f"{MODEL}-2026-01-31"), Found(echo=f"{MODEL}-2026-01-31"), 1),
        (lambda number, body: Behaviour(echo=f"served/{MODEL}"), Found(echo=f"served/{MODEL}"), 1),
        (lambda number, body: Behaviour(echo=None), Found(echo=None), 1),
    ],
)
def test_what_is_found(server: StandIn, behave: Any, expected: Found, asked: int) -> None:
    server.behave = behave
    found, budget = found_at(server)
    assert found == expected
    assert server.total == budget.requests == asked
    assert Found.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("change", [{"tokenkey": "max_tokens"}, {"top_logprobs": "20"}, {"seed": None}])
def test_facts_that_cannot_be_read_are_found_out_again(server: StandIn, change: dict[str, Any]) -> None:
    settings, contents = config(server.url).model, Contents()
    name = (server.url, MODEL)
    contents.probes[name] = 2
    contents.endpoints[name] = Found(echo=MODEL, seed=False).to_json() | change
    budget = Budget(settings)
    assert look_up(settings, contents, budget) == (Found(echo=MODEL), 1)
    assert budget.requests == 3
    contents.endpoints[name] = Found(echo=MODEL, seed=False).to_json()
    assert look_up(settings, contents, budget) == (Found(echo=MODEL, seed=False), 0)
    assert server.total == 1


def test_a_refusal_that_names_nothing(server: StandIn) -> None:
    """Then the likeliest are left out one after another; more may be left out than is needed."""
    server.behave = refuses("seed", says=False)
    found, _ = found_at(server)
    assert not found.seed
    assert found.echo == MODEL


def test_parameters_are_sent_as_they_are_taken() -> None:
    messages = [{"role": "user", "content": "?"}]
    assert Found().payload("m", messages, 3, logprobs=True, temperature=0.5, seed=7) == {
        "model": "m", "messages": messages, "max_tokens": 3, "logprobs": True, "top_logprobs": 20, "temperature": 0.5,
        "seed": 7,
    }  # fmt: skip
    least = Found("max_completion_tokens", 0, seed=False, temperature=False)
    assert least.payload("m", messages, 3, logprobs=True, temperature=0.5, seed=7) == {
        "model": "m", "messages": messages, "max_completion_tokens": 3,
    }  # fmt: skip


def test_an_endpoint_without_log_probabilities_is_refused_unless_it_votes() -> None:
    settings = config("http://localhost:1/v1")
    texts = load_texts(settings.formulation)
    with pytest.raises(ConfigError, match=r"returns no log-probabilities: set model\.remote\.scoring=votes"):
        make_remote(settings, texts, Found(top_logprobs=0), None)
    make_remote(config("http://localhost:1/v1", {"scoring": "votes"}), texts, Found(top_logprobs=0), None)
    heated = config("http://localhost:1/v1", {"scoring": "votes", "temperature": 0.5})
    with pytest.raises(ConfigError, match=r"takes no temperature: set model\.remote\.temperature=1"):
        make_remote(heated, texts, Found(temperature=False), None)
