"""The sentence that says what a run did."""

from __future__ import annotations

import re

import pytest

from jaxvalues.config import parse_config
from jaxvalues.config.tuning import LEARNING_RATES
from jaxvalues.run.summary import summary

RANDOM = {"config": {"model_type": "gpt2"}, "train_tokenizer": {"vocab_size": 500}}
TRAINED = {"path": "roberta-base"}


def _config(method: str, kind: str = "classify", *, model: dict = TRAINED, soft: bool = False, **tuning: object):
    formulation = {"kind": kind, "verbalizer": {"soft": True}} if soft else {"kind": kind}
    return parse_config({"model": model, "formulation": formulation, "tuning": {"method": method, **tuning}})


def test_a_prompt_of_a_frozen_network_is_counted():
    config = _config("prompt", "answer", model=RANDOM, length=20)
    assert summary(config, "gpt2", 2560, 1_000_000, 230) == (
        "Trained 20 soft tokens before the input of GPT-2 of random weights (2,560 parameters) on 230 arguments; the "
        "other 1,000,000 stayed frozen."
    )


def test_what_trains_besides_is_named():
    assert "20 soft tokens and the answer vectors before" in summary(
        _config("prompt", "answer", model=RANDOM, soft=True), "gpt2", 1, 2, 3
    )
    assert "LoRA of rank 4 and a classifier in RoBERTa (" in summary(_config("lora", rank=4), "roberta", 1, 2, 3)


def test_the_whole_network_leaves_nothing_frozen():
    sentence = summary(_config("full"), "roberta", 620_180, 0, 230)
    assert (
        sentence
        == "Trained all of RoBERTa (620,180 parameters) on 230 arguments; none of its parameters stayed frozen."
    )


def test_zero_shot_says_that_nothing_trained():
    sentence = summary(_config("none", "answer", model={"path": "gpt2"}), "gpt2", 0, 124_000_000, 230)
    assert sentence == "Asked GPT-2 as it is (124,000,000 parameters): nothing was trained."


def test_one_of_a_thing_is_singular():
    sentence = summary(_config("prompt", "answer", model=RANDOM, length=1), "gpt2", 1, 5, 1)
    assert "1 soft token before" in sentence
    assert "(1 parameter)" in sentence
    assert "on 1 argument;" in sentence
    assert "the top layer and a classifier of" in summary(_config("last_layers", layers=1), "roberta", 2, 5, 9)


def test_what_a_language_model_has_above_its_layers_is_named():
    config = _config("last_layers", "answer", model=RANDOM, layers=2)
    assert "Trained the top 2 layers and the final norm of" in summary(config, "gpt2", 2, 5, 9)
    config = _config("last_layers", "masked_choice", layers=2)
    assert "Trained the top 2 layers and the head of" in summary(config, "roberta", 2, 5, 9)


@pytest.mark.parametrize("method", LEARNING_RATES)
@pytest.mark.parametrize("trained", [0, 7])
def test_every_method_has_one_sentence(method: str, trained: int):
    tuning = {"layers": 2} if method == "last_layers" else {}
    sentence = summary(_config(method, **tuning), "roberta", trained, 100, 230)
    assert re.fullmatch(r"[A-Z][^.\n]*\.", sentence)
    assert "  " not in sentence
    assert ("nothing was trained" in sentence) == (trained == 0)
