"""The key of an endpoint: what is none, and where it is masked."""

from __future__ import annotations

from pathlib import Path

import pytest
from remote_runs import config_file
from runs import command
from stand_in import FINE, Behaviour, StandIn, completion
from test_session import ask, config
from test_store import request

from jaxvalues.errors import UserError
from jaxvalues.remote.budget import Budget
from jaxvalues.remote.key import api_key, check_no_key, without_key
from jaxvalues.remote.session import find_out
from jaxvalues.remote.store import AnswerStore, read_store

NO_KEYS = ["sk-secret123\nsk-second456", "sk-schlüssel-987", "sk-abc\x01def", "sk-two words", "sk-\x7f1"]


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_cannot_be_sent_is_no_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="the environment variable OPENAI_API_KEY is no key") as error:
        api_key()
    assert "sk-" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", " sk-0123456789\n")
    assert api_key() == "sk-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert api_key() is None


@pytest.mark.parametrize("key", NO_KEYS[:2])
def test_a_run_does_not_show_what_is_no_key(
    server: StandIn, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config_file(tmp_path, server.url)
    assert command("train", file, "model.max_requests=30")[0] == 1
    monkeypatch.setenv("OPENAI_API_KEY", key)
    before = server.total
    code, out, err = command("train", file)
    assert code == 1
    assert err.count("\n") == 1
    assert "sk-" not in out + err
    assert server.total == before
    assert b"sk-" not in (tmp_path / "run/answers.jsonl").read_bytes()


def test_the_key_is_masked_in_texts_and_not_where_it_is_a_word_of_the_request() -> None:
    said = {"a": ["the key sk-12345678", 1, None], "sent": {"b": "sk-12345678"}}
    assert without_key(said, "sk-12345678", "What is it?") == {"a": ["the key ***", 1, None], "sent": {"b": "***"}}
    assert without_key(said, "sk-12345678", "What is sk-12345678?") == said
    assert without_key("a test", "test", "") == "a test"  # a stand-in for a key
    assert without_key("said", None, "") == "said"


@pytest.mark.parametrize("key", ["test", "key", "none", "response", "answer", "Question", "localhost", "logprobs"])
def test_a_stand_in_for_a_key_leaves_the_store_whole(tmp_path: Path, key: str) -> None:
    one = request("Question 1: the key of a test?")
    with AnswerStore(tmp_path / "answers.jsonl", key) as store:
        store.add_answer(one, completion(one.payload), attempts=1, latency=0.1)
        store.add_failure(request("Question 2?"), "the answer is no response", 1)
        store.add_endpoint(one.endpoint, "m", {"seed": False})
    contents = read_store(tmp_path / "answers.jsonl")
    assert contents.answers.keys() == {one.key}
    assert contents.failed == {request("Question 2?").key: 1}
    assert contents.endpoints == {(one.endpoint, "m"): {"seed": False}}
    assert contents.damaged == 0


def test_an_endpoint_that_repeats_the_key(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    server.behave = lambda number, body: Behaviour(text=f"Yes, {secret}.") if "Question 1" in str(body) else FINE
    results, _ = ask(server, tmp_path, 3)
    assert results[1].text == "Yes, ***."
    assert secret.encode() not in (tmp_path / "answers.jsonl").read_bytes()
    server.behave = lambda number, body: Behaviour(echo=f"model-{secret}")
    settings = config(server.url).model
    with pytest.raises(UserError, match=r"answers as model-\*\*\* where"):
        find_out(settings, Budget(settings))


def test_a_config_that_holds_the_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-shown")
    check_no_key("http://host/v1", {"user": "me"})
    for endpoint, parameters, place in (
        ("http://host/sk-not-to-be-shown/v1", {}, "model.endpoint"),
        ("http://host/v1", {"extra": {"user": "sk-not-to-be-shown"}}, "model.remote.parameters"),
    ):
        with pytest.raises(UserError, match=f"{place} holds the key in OPENAI_API_KEY") as error:
            check_no_key(endpoint, parameters)
        assert "sk-not" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", "v1")  # a stand-in for a key is a word
    check_no_key("http://host/v1", {})
