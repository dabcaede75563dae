"""Stop strings in texts whose tokens begin and end elsewhere, and the tokens that end a sequence."""

from __future__ import annotations

import pytest
from chat_templates import SMOLLM2, chat_tokenizer

from jaxvalues.errors import UserError
from jaxvalues.generation.stopping import check_stops, end_tokens, find_end, sequence_ends

WORDS = ["Yes", ", be", "caus", "e\n\nQ", "uestion", "<end>"]
END = 5


def find(ids, *stops):
    return find_end(ids, lambda ids: "".join(WORDS[id] for id in ids), stops, {END})


@pytest.mark.parametrize(
    ("stops", "ids", "text"),
    [
        (("\n\n",), [0, 1, 2, 3], "Yes, because"),  # within a token
        (("e\n",), [0, 1, 2, 3], "Yes, becaus"),  # begins where a token does, ends inside of it
        (("because",), [0, 1, 2, 3], "Yes, "),  # over three tokens
        (("Question", "e\n"), [0, 1, 2, 3], "Yes, becaus"),  # the first that is complete
        (("s, because\n", "\n"), [0, 1, 2, 3], "Ye"),  # of two that are complete with one token, the first in the text
        (("Yes",), [0], ""),
        (("Q", "Yes, b"), [0, 1], ""),
        (("question",), [0, 1, 2, 3, 4], "Yes, because\n\nQuestion"),
        ((), [0, 1, 2, 3, 4], "Yes, because\n\nQuestion"),
    ],
)
def test_the_text_ends_before_the_first_stop_string(stops, ids, text):
    stopped = len(text) < len("Yes, because\n\nQuestion")
    for tail in ([], [END]):
        found = find([0, 1, 2, 3, 4, *tail], *stops)
        assert found.text == text
        assert found.ids == (ids if stopped else [*ids, *tail])
        assert found.by_stop == (stopped or bool(tail))


def test_later_tokens_do_not_move_the_end():
    whole = find([0, 1, 2, 3, 4], "use\n")
    assert all(find([0, 1, 2, 3, 4][:count], "use\n") == whole for count in (4, 5))


def test_characters_of_several_tokens_are_text_once_they_are_whole():
    def text_of(ids):
        return bytes(ids).decode(errors="replace")

    ids = list("a€b".encode())
    assert find_end(ids, text_of, ["€"], ()) == (ids[:4], "a", True)


def test_what_is_no_stop_string_is_refused():
    assert check_stops("\n") == ("\n",)
    assert check_stops(["a", "b"]) == ("a", "b")
    assert check_stops(None) == ()
    for wrong in ("", [""], ["a", 3]):
        with pytest.raises(UserError, match="at least one character"):
            check_stops(wrong)


def test_the_first_config_that_names_end_tokens_decides():
    assert end_tokens([("g", {"eos_token_id": [3, 4]}), ("c", {"eos_token_id": 5})], 6, 10) == [3, 4]
    assert end_tokens([("g", {"eos_token_id": None}), ("c", {"eos_token_id": 5})], 6, 10) == [5]
    assert end_tokens([("c", {})], 6, 10) == [6]
    assert end_tokens([("c", {})], None, 10) == []
    for wrong in (10, "</s>", [1, -1], [True]):
        with pytest.raises(UserError, match=r"eos_token_id in g is .*expected ids"):
            end_tokens([("g", {"eos_token_id": wrong})], None, 10)


def test_a_stop_string_is_found_in_few_looks():
    looks = []

    def text_of(ids):
        looks.append(len(ids))
        return "x" * len(ids) if len(ids) < 3001 else "x" * 3000 + "!" + "x" * (len(ids) - 3001)

    assert find_end([1] * 4000, text_of, ["!"], ()).text == "x" * 3000
    assert len(looks) < 20


def test_the_turns_of_a_chat_end_a_text_too():
    tokenizer = chat_tokenizer(SMOLLM2)
    end, of_turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sequence_ends([("config.json", {"eos_token_id": 0})], tokenizer, len(tokenizer)) == (0, end, of_turn)
    assert sequence_ends([("config.json", {"eos_token_id": 0})], tokenizer, of_turn) == (0, end)
    assert sequence_ends([], chat_tokenizer("{{ raise_exception('no') }}"), 10) == (end,)
    assert sequence_ends([("config.json", {"eos_token_id": 0})], chat_tokenizer(None), len(tokenizer)) == (0,)
