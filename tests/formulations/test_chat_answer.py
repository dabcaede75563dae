"""`answer` and `chain_of_thought` in a chat: questions that branch give the logits of whole conversations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from chat_templates import QWEN3, chat_tokenizer

from jaxvalues.run.base import fit_to_tokenizer
from jaxvalues.run.system import System

pytestmark = pytest.mark.usefixtures("quick_compiles")

QWEN = {
    "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1200, "tie_word_embeddings": True,
    "initializer_range": 0.2,
}  # fmt: skip


def system(kind: str, **formulation: Any) -> System:
    config = tiny.config({
        "model": {"config": QWEN, "dtype": "float32"},
        "data": {"max_length": 1000, "buckets": [1000]},
        "formulation": {"kind": kind, "chat": True, "template": None, **formulation},
        "tuning": {"method": "none"},
    })  # fmt: skip
    tokenizer = chat_tokenizer(QWEN3)
    return System(config, fit_to_tokenizer(QWEN, tokenizer, True), tokenizer, tiny.one_device())


@pytest.mark.main_cases("answer")
@pytest.mark.parametrize("kind", ["answer", "chain_of_thought"])
def test_branches_score_as_whole_conversations(kind: str) -> None:
    generation = {"generation": {"max_new_tokens": 40}} if kind == "chain_of_thought" else {}
    one, arguments = system(kind, **generation), tiny.split().arguments[:2]
    frozen, trainable = tiny.parts(one, scale=1.0)
    if kind == "answer":
        tokens = one.formulation.encode(arguments)
    else:
        tokens = one.formulation.second_turns(arguments, ["It is about care.", ""])
    longest, bound = max(map(len, tokens.ids)), one.network.tuning.bind(frozen, trainable)
    rows = np.zeros((2, 2, longest), np.int32)
    for i, ids in enumerate(tokens.ids):
        rows[i, 0, : len(ids)], rows[i, 1, : len(ids)] = ids, 1
    batch = {"input_ids": rows[:, 0], "attention_mask": rows[:, 1], **tokens.questions.batch_entries(np.arange(2))}
    together = jax.jit(lambda batch: one.formulation.scores(one.network.module, bound, batch))(batch)

    question = tokens.questions.question_ids
    wholes = [[*ids.tolist(), *row[row >= 0].tolist()] for ids in tokens.ids for row in question]
    ids, mask = np.zeros((2, len(wholes), max(map(len, wholes))), np.int32)
    for i, whole in enumerate(wholes):
        ids[i, : len(whole)], mask[i, : len(whole)] = whole, 1
    last = np.array([[len(whole) - 1] for whole in wholes])
    logits = jax.jit(lambda ids, mask: one.network.module.apply({"params": bound.params}, ids, mask, positions=last))
    probabilities = np.asarray(jax.nn.softmax(logits(ids, mask)[:, 0].astype(jnp.float32)))
    words = one.formulation.verbalizer
    yes, no = (probabilities[:, words.ids[at, 0]].sum(axis=1) for at in (words.is_yes, ~words.is_yes))
    assert np.asarray(together)[..., 0].std() > 0.05
    np.testing.assert_allclose(together[..., 0].ravel(), np.log(yes) - np.log(no), atol=1e-5)
    np.testing.assert_allclose(together[..., 1].ravel(), yes + no, rtol=1e-4)


def test_the_answer_comes_at_once_after_an_empty_thought() -> None:
    one = system("answer", stem="The answer is")
    tokens = one.formulation.encode(tiny.split().arguments[:1])
    branch = tokens.questions.question_ids[3]
    assert one.tokenizer.decode(branch[branch >= 0]).endswith("assistant\n<think>\n\n</think>\n\nThe answer is")
