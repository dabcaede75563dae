"""Prompts that begin alike: what is shared, and that reading it once changes no answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from jaxvalues.formulations.examples import Examples
from jaxvalues.run import beginnings, prediction
from jaxvalues.run.base import Base, fit_to_tokenizer
from jaxvalues.run.beginnings import behind, lengths_behind, others, shared_beginning
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System

NETWORKS = {
    "gpt2": {**tiny.GPT2, "n_positions": 400},
    "llama": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 400,
        "initializer_range": 0.2,
    },
    "gemma3": {**tiny.GEMMA3, "max_position_embeddings": 400, "sliding_window": 24},
}  # fmt: skip
WORDS: dict[str, Any] = {"verbalizer": {"yes": ["yes indeed it is"], "no": ["no it is not"]}}
NUMBER = 20


def rows(*texts: str) -> list[np.ndarray]:
    return [np.array([ord(letter) for letter in text]) for text in texts]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["abcx", "abcy", "abcz"], ("abc", [0, 1, 2])),
        (["abcdefgx", "q", "abcdefgy", "abz", "abw"], ("abcdefg", [0, 2])),  # saves 7; "ab" of four rows saves 6
        (["abcdx", "q", "abcdy", "abz", "abw"], ("ab", [0, 2, 3, 4])),
        (["abc", "abc"], ("ab", [0, 1])),  # every row keeps a token
        (["abc", "ab"], ("a", [0, 1])),
        (["abc", "xbc"], None),
        (["abc"], None),
        ([], None),
    ],
)
def test_the_beginning_that_saves_most(
    texts: list[str], expected: tuple[str, list[int]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginnings, "SHORTEST", 1)
    monkeypatch.setattr(beginnings, "MULTIPLE", 1)
    found = shared_beginning(rows(*texts))
    assert (found and ("".join(map(chr, found.ids)), found.rows.tolist())) == expected


def test_short_beginnings_are_not_worth_it_and_long_ones_are_rounded() -> None:
    assert shared_beginning(rows("a" * 63 + "b", "a" * 63 + "c")) is None
    assert len(shared_beginning(rows("a" * 99 + "b", "a" * 99 + "c")).ids) == 96
    assert lengths_behind((64, 96, 128, 200), 96) == (32, 112)
    assert lengths_behind((96, 100, 104), 96) == (16,)


def system(network: str, **formulation: Any) -> System:
    config = tiny.question_config(
        "answer", "gpt2",
        {
            "model": {"config": NETWORKS[network]}, "data": {"max_length": 330, "buckets": [130, 200, 260]},
            "formulation": {"examples": {"count": 2}, **formulation}, "tuning": {"method": "none"},
            "training": {"eval_batch_size": 4},
        },
    )  # fmt: skip
    words = tiny.asking_tokenizer()
    examples = Examples.make(config.formulation.examples, tiny.split())
    hf_config = fit_to_tokenizer(config.model.config, words, True)
    return System(config, hf_config, words, tiny.one_device(), examples=examples)


@pytest.mark.main_cases("gpt2-words", "gemma3-one token")
@pytest.mark.parametrize("formulation", [{}, WORDS], ids=["one token", "words"])
@pytest.mark.parametrize("network", NETWORKS)
def test_answers_are_those_of_whole_prompts(
    network: str, formulation: dict[str, Any], quick_compiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some arguments have other examples, since they share a conclusion with one."""
    one = system(network, **formulation)
    arguments = [*one.examples.pool.arguments[:2], *tiny.split().arguments[:NUMBER]]
    tokens = one.formulation.encode(arguments)
    weights = initial_weights(one, Base({}, None, "random"), 0)
    beginning = shared_beginning(tokens.ids)
    assert len(beginning.ids) >= 64
    assert 2 < len(beginning.rows) < len(tokens)
    assert len(others(tokens, beginning)[0]) == len(tokens) - len(beginning.rows)
    assert behind(tokens, beginning).lengths.max() < tokens.lengths.max() - 63

    shared = prediction.scored_logits(one, weights, tokens)
    assert [len(step) > 0 for step in one.steps_behind] == [True]
    monkeypatch.setattr(prediction, "shared_beginning", lambda ids: None)
    whole = prediction.scored_logits(one, weights, tokens)
    spread = whole[0].std()
    assert spread > 0.01
    for ours, theirs in zip(shared, whole, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()), rtol=0)


def test_what_trains_reads_whole_prompts() -> None:
    assert system("gpt2").reads_beginnings
    assert not tiny.system(tiny.question_config("answer", "gpt2", {"tuning": {"method": "prompt"}})).reads_beginnings
    assert not tiny.system(tiny.question_config("answer", "t5", {"tuning": {"method": "none"}})).reads_beginnings
    soft = {"formulation": {"verbalizer": {"soft": True}}, "tuning": {"method": "none"}}
    assert tiny.system(tiny.question_config("answer", "gpt2", soft)).network.trains
