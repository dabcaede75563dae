"""The few shapes of prompts and answers."""

from __future__ import annotations

import pytest

from jaxvalues.generation.shapes import batches, power_of_two, prompt_and_slots, token_bucket


def test_buckets_hold_what_they_are_for():
    sizes = [token_bucket(n) for n in range(1, 400)]
    assert sorted(set(sizes)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert all(n <= size <= max(16, 1.5 * n) for n, size in enumerate(sizes, start=1))
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 16, 17)] == [1, 2, 4, 4, 8, 16, 32]


@pytest.mark.parametrize("new", [1, 5, 20, 37])
def test_a_prompt_and_its_answer_always_fit_the_context(new):
    for tokens in range(1, 40 - new + 1):
        length, slots = prompt_and_slots(tokens, new, 40)
        assert tokens <= length
        assert new <= slots
        assert length + slots <= 40


def test_batches_are_of_one_group_each_and_in_order():
    found = list(batches("abacaba", {"a": 3, "b": 2, "c": 1}.get))
    assert found == [("a", [0, 2, 4]), ("a", [6]), ("b", [1, 5]), ("c", [3])]
