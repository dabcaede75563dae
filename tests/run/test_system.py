"""Parts of a run that do not fit together are refused before anything is computed."""

from __future__ import annotations

import pytest
import tiny
from tiny import ROBERTA, config

from jaxvalues.errors import ConfigError
from jaxvalues.run.network import build_network, count
from jaxvalues.run.system import System

HF = {**ROBERTA, "vocab_size": 300}


def pooled(*layers: int) -> dict:
    return {"formulation": {"pooling": {"layers": layers}}}


def test_a_network_is_built_without_weights() -> None:
    network = build_network(config(), HF)
    frozen, trainable = network.abstract_parts()
    assert (network.num_layers, frozen) == (2, {})
    assert trainable["head"]["kernel"].shape == (64, 20)
    assert count(trainable) == sum(
        [
            (300 + 66 + 1) * 64 + 2 * 64,  # embeddings and their norm
            2 * (4 * (64 * 64 + 64) + 2 * 64 * 128 + 128 + 64 + 4 * 64),  # layers
            64 * 20 + 20,  # head
        ]
    )


def test_pooling_below_what_trains_is_refused() -> None:
    last = {"tuning": {"method": "last_layers", "layers": 1}}
    with pytest.raises(ConfigError, match="only the heads would learn"):
        build_network(config(last, pooled(0, 1)), HF)
    build_network(config(last, pooled(1, 2)), HF)
    build_network(config(pooled(0)), HF)  # with full tuning the embeddings train


def test_pooling_a_layer_that_is_not_there_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"formulation\.pooling\.layers: hidden state 3"):
        build_network(config(pooled(3)), HF)


def test_inputs_longer_than_the_model_reads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_length is 65, but the model reads at most 64 tokens"):
        build_network(config({"data": {"max_length": 65}}), HF)


@pytest.mark.parametrize("init", ["labels", "vocabulary"])
def test_programs_that_know_words_belong_to_one_tokenizer(init: str) -> None:
    tuned = {"tuning": {"method": "prompt", "length": 4, "init": init}}
    keys = [
        System(config(tuned), {**HF, "vocab_size": 3000}, tokenizer, tiny.one_device()).key
        for tokenizer in (tiny.asking_tokenizer(), tiny.asking_tokenizer(), tiny.tokenizer())
    ]
    assert keys[0] == keys[1]
    assert (keys[0] == keys[2]) == (init == "vocabulary")
