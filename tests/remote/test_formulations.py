"""What is asked about arguments, and what is read from the answers, for each formulation."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from stand_in import MODEL, Behaviour, completion
from test_session import FOUND

from jaxvalues.config import Config, ExamplesConfig, parse_config
from jaxvalues.data.arguments import Argument
from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.evaluation.decision import EXCLUDED
from jaxvalues.formulations import load_texts
from jaxvalues.formulations.examples import Examples
from jaxvalues.remote.budget import CHARACTERS
from jaxvalues.remote.formulations import make_remote
from jaxvalues.remote.messages import Request, Result, read_answer
from jaxvalues.remote.rounds import pending
from jaxvalues.remote.store import Contents, Stored
from jaxvalues.remote.tally import Asked

SPLIT = load_split("test", source="sample")
ARGUMENTS = SPLIT.arguments[:3]


def config(kind: str, remote: dict[str, Any] | None = None, **form: Any) -> Config:
    tree = {
        "model": {"endpoint": "http://localhost:1/v1", "id": MODEL, "remote": remote or {}},
        "formulation": {"kind": kind, **form},
        "tuning": {"method": "none"},
    }
    return parse_config(tree).explicit()


def made(settings: Config, examples: Examples | None = None) -> Any:
    return make_remote(settings, load_texts(settings.formulation), FOUND, examples)


def say(request: Request, text: str, **how: Any) -> Result:
    return read_answer(completion(dict(request.payload), Behaviour(text=text, **how)))


def contents(request: Request) -> list[str]:
    return [message["content"] for message in request.payload["messages"]]


def ended(rounds: Any, results: list[Result]) -> Asked:
    with pytest.raises(StopIteration) as end:
        rounds.send(results)
    return end.value.value


def test_yes_or_no_asks_as_the_template_says() -> None:
    asking = made(config("answer", descriptions="definition", system="Be brief.", chat=True))
    requests = next(asking.rounds(ARGUMENTS))
    assert len(requests) == 3 * 20
    one = requests[20 + 3].payload
    assert [message["role"] for message in one["messages"]] == ["system", "user"]
    argument = ARGUMENTS[1]
    assert contents(requests[23])[0] == "Be brief."
    question = contents(requests[23])[1]
    assert question.startswith(f"Given the premise: {argument.premise} and the conclusion: {argument.conclusion} ")
    assert "Hedonism: " in question
    assert question.endswith("Answer Yes or No.")
    assert {name: one[name] for name in one if name != "messages"} == {
        "model": MODEL, "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 1.0,
    }  # fmt: skip


def test_examples_stand_before_the_question() -> None:
    settings = config("answer", examples={"count": 2})
    examples = Examples.make(ExamplesConfig(count=2), load_split("training", source="sample"))
    (messages, *_) = (one.payload["messages"] for one in next(made(settings, examples).rounds(ARGUMENTS)))
    assert [one["role"] for one in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert {messages[1]["content"], messages[3]["content"]} == {"Yes", "No"}
    shown = examples.of(ARGUMENTS[:1])[0]
    for place, one in enumerate(shown):
        assert one.argument.premise in messages[2 * place]["content"]
        assert CATEGORIES[one.category] in messages[2 * place]["content"]
    lists = made(config("label_list", examples={"count": 2}), examples)
    messages = next(lists.rounds(ARGUMENTS))[0].payload["messages"]
    named = [name for name, label in zip(CATEGORIES, shown[1].labels, strict=True) if label]
    assert messages[3]["content"] == ", ".join(named)


def test_a_shortlist_asks_about_nothing_else() -> None:
    asking, wanted = made(config("answer")), np.zeros((3, 20), bool)
    wanted[[0, 2, 2], [4, 0, 19]] = True
    rounds = asking.rounds(ARGUMENTS, wanted)
    requests = next(rounds)
    assert [CATEGORIES[c] in contents(one)[0] for one, c in zip(requests, (4, 0, 19), strict=True)] == [True] * 3
    asked = ended(rounds, [say(requests[0], "Yes"), "timeout", say(requests[2], "No")])
    assert (asked.logits[~wanted] == EXCLUDED).all()
    np.testing.assert_array_equal(np.argwhere(asked.missing), [[2, 0]])
    assert asked.tally.questions == 3
    assert asked.tally.missing == {"timeout": 1}


def test_lists_are_read_by_name() -> None:
    asking = made(config("label_list", generation={"samples": 2, "temperature": 0.7, "top_p": 0.9}))
    rounds = asking.rounds(ARGUMENTS)
    requests = next(rounds)
    assert len(requests) == 3 * 2
    assert {one.payload["seed"] for one in requests} == {0, 1}
    assert (requests[0].payload["temperature"], requests[0].payload["top_p"]) == (0.7, 0.9)
    assert requests[0].payload["max_tokens"] == 64
    assert "logprobs" not in requests[0].payload
    assert all(name in contents(requests[0])[0] for name in CATEGORIES)
    texts = ["Hedonism, Face", "Hedonism", "I do not know", "Tradition", "", ""]
    results = [say(one, text) for one, text in zip(requests, texts, strict=True)]
    results[4:] = ["500", say(requests[5], "", finish_reason="content_filter")]
    asked = ended(rounds, results)
    hedonism, face, tradition = (CATEGORIES.index(name) for name in ("Hedonism", "Face", "Tradition"))
    assert asked.logits[0, [hedonism, face, tradition]].tolist() == [1, 0, -1]
    assert asked.logits[1, [hedonism, face, tradition]].tolist() == [-1, -1, 0]  # unparsed: no
    assert asked.missing.all(axis=1).tolist() == [False, False, True]
    assert asked.tally.statuses == {"answered": 3, "unparsed": 1}
    assert asked.tally.missing == {"500": 1}
    assert [one["text"] for one in asked.generated] == texts[:4]
    assert asked.generated[3] == {
        "argument": 1, "sample": 1, "text": "Tradition", "finish_reason": "stop", "status": "answered"
    }  # fmt: skip


def test_a_chain_quotes_its_own_first_turn() -> None:
    asking = made(config("chain_of_thought"))
    rounds = asking.rounds(ARGUMENTS)
    firsts = next(rounds)
    assert len(firsts) == 3
    assert contents(firsts[1])[0].startswith("What kind of human values are indicated in the premise: ")
    assert (firsts[0].payload["max_tokens"], firsts[0].payload["temperature"]) == (256, 0.0)
    replies = [
        say(firsts[0], "<think>Well</think>Safety."), say(firsts[1], "Fun and", finish_reason="length"), "timeout"
    ]  # fmt: skip
    seconds = rounds.send(replies)
    assert len(seconds) == 2 * 20  # the argument without a first turn has no second one
    messages = seconds[20 + 3].payload["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]
    assert (messages[0]["content"], messages[1]["content"]) == (contents(firsts[1])[0], "Fun and")
    assert messages[2]["content"].startswith("Do you think Fun and is aligned with Hedonism, which can also be called ")
    assert contents(seconds[0])[1] == "Safety."
    assert seconds[0].payload["logprobs"]

    results: list[Result] = [say(one, "Yes") for one in seconds]
    results[5] = "429"
    asked = ended(rounds, results)
    assert asked.missing.sum(axis=1).tolist() == [1, 0, 20]
    assert asked.tally.statuses == {"answered": 1, "truncated": 1}
    assert sum(asked.tally.missing.values()) == 21
    assert asked.tally.questions == 60
    assert len(asked.generated) == 2


def test_the_logits_of_several_chains_are_averaged() -> None:
    settings = config(
        "chain_of_thought", {"scoring": "votes", "samples": 1}, generation={"samples": 2, "temperature": 1.0}
    )
    rounds = made(settings).rounds(ARGUMENTS[:1])
    firsts = next(rounds)
    seconds = rounds.send([say(firsts[0], "One."), say(firsts[1], "Two.")])
    assert len(seconds) == 2 * 20
    texts = ["Yes"] * 20 + ["No"] + ["Yes"] * 19
    results = [say(one, text) for one, text in zip(seconds, texts, strict=True)]
    results[1] = "timeout"  # then the other chain speaks alone
    asked = ended(rounds, results)
    assert asked.logits[0, :3] == pytest.approx([0, math.log(3), math.log(3)])
    assert not asked.missing.any()


def test_how_far_a_store_has_come() -> None:
    asking, store = made(config("chain_of_thought")), Contents()
    firsts = next(asking.rounds(ARGUMENTS))

    def keep(request: Request, text: str) -> None:
        store.answers[request.key] = Stored(say(request, text), 1, 0.0)

    keep(firsts[0], "Fun")
    found = pending(partial(asking.rounds, ARGUMENTS), store, 2)
    assert [one.key for one in found.missing[:2]] == [firsts[1].key, firsts[2].key]
    assert [contents(one)[1] for one in found.missing[2:]] == ["Fun"] * 20  # behind the first turn that is answered
    # Behind a first turn without an answer, as if it were as long as it may be.
    assert [len(contents(one)[1]) for one in found.later] == [CHARACTERS * 256] * 40
    for one in firsts[1:]:
        keep(one, "Safety")
    found = pending(partial(asking.rounds, ARGUMENTS), store, 2)
    assert (len(found.stored), len(found.missing), found.later) == (3, 60, [])
    for one in found.missing:
        keep(one, "Yes")
    found = pending(partial(asking.rounds, ARGUMENTS), store, 2)
    assert (len(found.stored), found.missing, found.later) == (63, [], [])
    del store.answers[firsts[2].key]
    found = pending(partial(asking.rounds, ARGUMENTS), store, 2)
    assert (len(found.stored), len(found.missing), len(found.later)) == (2 + 40, 1, 20)


def test_further_parameters_are_part_of_every_request() -> None:
    asking = made(config("chain_of_thought", {"parameters": {"reasoning_effort": "low"}}))
    rounds = asking.rounds(ARGUMENTS[:1])
    (first,) = next(rounds)
    (second, *_) = rounds.send([say(first, "Fun")])
    assert first.payload["reasoning_effort"] == second.payload["reasoning_effort"] == "low"
    plain = next(made(config("chain_of_thought")).rounds(ARGUMENTS[:1]))
    assert plain[0].key != first.key


def test_without_arguments_nothing_is_asked() -> None:
    nobody: tuple[Argument, ...] = ()
    for kind in ("answer", "label_list", "chain_of_thought"):
        rounds = made(config(kind)).rounds(nobody)
        assert next(rounds) == []


def test_a_vote_without_its_end_is_missing_and_never_a_no() -> None:
    asking = made(config("answer", {"scoring": "votes", "samples": 2}))
    rounds = asking.rounds(ARGUMENTS[:1])
    requests = next(rounds)
    thought = [say(one, "<think>\nOkay, there is no", finish_reason="length", logprobs=False) for one in requests]
    results = [say(requests[0], "Yes"), *thought[1:]]
    asked = ended(rounds, results)
    assert asked.missing.tolist() == [[False] + [True] * 19]
    assert asked.logits[0, 0] == pytest.approx(math.log(3))
    assert asked.tally.missing == {"truncated": 19}
