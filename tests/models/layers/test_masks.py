"""Masks of causal networks, on cases small enough to write down."""

from __future__ import annotations

import numpy as np

from jaxvalues.models.layers.masks import causal, causal_mask, count_positions, last_token

MASK = np.array([[0, 1, 1], [1, 2, 0], [0, 0, 0]])


def test_real_tokens_see_real_tokens_up_to_themselves():
    sees = causal(MASK)
    np.testing.assert_array_equal(sees[0], [[0, 0, 0], [0, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(sees[1], [[1, 0, 0], [1, 1, 0], [1, 1, 0]])
    past = np.array([[True, False]])
    for mask in (MASK[:1], sees[:1]):
        np.testing.assert_array_equal(
            causal_mask(mask, 0, past)[0, 0], [[1, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]
        )
        np.testing.assert_array_equal(
            causal_mask(mask, 2, past)[0, 0],
            [
                [1, 0, 1, 0, 0, 0, 0],
                [1, 0, 1, 1, 0, 0, 0],
                [1, 0, 1, 1, 0, 0, 0],
                [1, 0, 1, 1, 0, 1, 0],
                [1, 0, 1, 1, 0, 1, 1],
            ],
        )


def test_positions_and_last_tokens_count_real_tokens_wherever_the_padding_is():
    np.testing.assert_array_equal(count_positions(MASK), [[0, 0, 1], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(last_token(MASK), [2, 1, 2])
    np.testing.assert_array_equal(last_token(MASK[:, None, :]), [[2], [1], [2]])
