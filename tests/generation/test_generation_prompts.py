"""Prompts as token ids, and where they border on answers."""

from __future__ import annotations

import numpy as np
import pytest
from chat_templates import chat_tokenizer
from speaking import V, tokenizer

from jaxvalues.errors import UserError
from jaxvalues.generation.prompts import PromptReader, split_answers
from jaxvalues.generation.scoring import answers_of_each, plan, read_answers

READER = PromptReader(tokenizer(), V)


def plain(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_a_text_gets_the_special_tokens_before_it_alone():
    """The tokenizer ends a text with </s>, after which a causal model would say nothing; T5's encoder reads it."""
    assert READER.ids("Is it based") == [0, *plain("Is it based")]
    assert PromptReader(tokenizer(), V, is_causal=False).ids("Is it based") == [0, *plain("Is it based"), 2]


def test_messages_get_the_chat_template_alone():
    ids = READER.ids([{"role": "user", "content": "Is it?"}])
    text = tokenizer().decode(ids)
    assert text.endswith("<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n")
    assert 0 not in ids


@pytest.mark.parametrize("ids", [[3, 4], (3, 4), np.array([3, 4])])
def test_ids_stay_as_they_are(ids):
    assert READER.ids(ids) == [3, 4]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "it is empty"),
        ([], "it holds no token"),
        ([3, V], f"token {V} is not one of the {V} of the model"),
        ([-1], "token -1 is not one"),
        ([3, "a"], "it mixes kinds"),
        ([True], "it mixes kinds"),
        (None, "it is None, expected a text"),
        (3, "it is 3, expected a text"),
        ("<s>Is it", "two beginning-of-sequence tokens"),
        ([0, 0, 5], "two beginning-of-sequence tokens"),
        ([{"role": "robot", "content": "Is it?"}], "must have a `role`"),
        ("Is it\ud800?", "half of a character, expected UTF-8"),
    ],
)
def test_bad_prompts_end_in_a_sentence(prompt, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        READER.ids(prompt)
    assert len(str(caught.value)) < 300


def test_messages_need_a_chat_template():
    with pytest.raises(UserError, match="no chat template"):
        PromptReader(chat_tokenizer(None), V).ids([{"role": "user", "content": "Is it?"}])


def test_a_border_that_holds_splits_there():
    scored = read_answers(READER, "Is it", [" based", " the value", plain(" Yes")], "together")
    assert scored.prompt == READER.ids("Is it")
    assert scored.answers == [plain(" based"), plain(" the value"), plain(" Yes")]


def test_answers_behind_a_border_that_merges_are_scored_from_the_border_before_it():
    """ " Yes" is one token, to which "Is it " does not lead."""
    together = read_answers(READER, "Is it ", ["Yes", "No"], "together")
    assert together.prompt == READER.ids("Is it")
    assert together.answers == [plain(" Yes"), plain(" No")]
    one_by_one = read_answers(READER, "Is it ", ["Yes", "No"], "tokens")
    assert one_by_one.prompt == READER.ids("Is it ")
    assert one_by_one.answers == [plain("Yes"), plain("No")]
    assert len(plain("Yes")) > 1 == len(plain(" Yes"))


def test_messages_and_an_answer_border_at_the_end_of_the_template():
    messages = [{"role": "user", "content": "Is it?"}]
    scored = read_answers(READER, messages, ["Yes"], "together")
    assert scored.prompt == READER.ids(messages)
    assert scored.answers == [plain("Yes")]


def test_nothing_in_common_is_refused():
    assert split_answers([1, 2, 3], [[1, 2, 5], [1, 2, 3, 4]]) == ([1, 2], [[5], [3, 4]])
    with pytest.raises(UserError, match="no token is left before the answer"):
        split_answers([1], [[2, 3]])


def test_answers_are_for_all_prompts_or_for_each():
    assert answers_of_each(["a", [3]], 2) == [["a", [3]]] * 2
    assert answers_of_each([["a", "b"], ["c", [3]]], 2) == [["a", "b"], ["c", [3]]]
    for wrong, sentence in (("a", "at least one answer"), ([], "at least one"), ([["a"]], "1 list"), (3, "is 3")):
        with pytest.raises(UserError, match=sentence):
            answers_of_each(wrong, 2)
    with pytest.raises(UserError, match="2 lists of 1 or 2 answers for 2 prompts"):
        answers_of_each([["a"], ["b", "c"]], 2)
    with pytest.raises(UserError, match=r"answers\[1\] is \[\], expected a list of answers, as answers\[0\] is"):
        answers_of_each([["a", "b"], []], 2)
    for wrong, sentence in (
        ("", "it is empty"),
        ([{"role": "user", "content": "Yes"}], "it is a list of messages"),
        (b"Yes", "it is b'Yes', expected a text"),
        ([10**6], "token 1000000 is not one of"),
    ):
        with pytest.raises(UserError, match=rf"answers\[1\]: {sentence}"):
            read_answers(READER, "Is it", ["Yes", wrong], "together")


def test_many_answers_are_planned_within_the_memory_for_logits():
    one = read_answers(READER, "Is it", [[5, 6, 7]] * 70, "tokens")
    found = list(plan([one] * 3, 16, 10**6, pad=1))
    assert {batch.ids.shape[1:] for batch in found} == {(1, 32, 4)}
    assert all(4 * 10**6 * len(batch.ids) * (1 + 32 * 3) <= 2**28 or len(batch.ids) == 1 for batch in found)
    assert sum(int(batch.mask.sum()) for batch in found) == 3 * 70 * 3
