"""Where prompts start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from tuned import KEY, D, V, build, encode, method

from jaxvalues.data.taxonomy import CATEGORIES

WORDS = build("gpt2").params["encoder"]["embeddings"]["word"]["embedding"]


def start(length: int = 6, **config) -> np.ndarray:
    """A prompt of GPT-2 before the first step, [length, D]."""
    system = build("gpt2")
    tuning = method(system.target, method="prompt", length=length, **config)
    return np.asarray(tuning.init(KEY, system.params)[1]["prompt"]["encoder"])


def rows(vectors: np.ndarray) -> list[int]:
    """The words that the vectors are, bit for bit."""
    found = (vectors[:, None] == WORDS[None]).all(-1)
    assert (found.sum(1) == 1).all()
    return found.argmax(1).tolist()


def test_random_vectors_have_the_range_of_the_config() -> None:
    drawn = start(100, init="normal", init_range=0.25)
    assert drawn.shape == (100, D)
    assert abs(drawn.std() - 0.25) < 0.01
    assert abs(drawn.mean()) < 0.01
    drawn = start(100, init="uniform", init_range=0.5)
    assert -0.5 <= drawn.min() < -0.49
    assert 0.49 < drawn.max() < 0.5


def test_words_of_the_vocabulary_are_not_drawn_twice_while_there_are_enough() -> None:
    assert sorted(rows(start(V))) == list(range(V))
    assert len(rows(start(V + 10))) == V + 10
    assert sorted(rows(start(6, init="top_vocabulary", init_top=6))) == list(range(6))
    assert set(rows(start(12, init="top_vocabulary", init_top=6))) <= set(range(6))
    assert sorted(rows(start(V, init="top_vocabulary", init_top=5000))) == list(range(V))


def test_the_tokens_of_a_text_are_repeated_or_cut() -> None:
    text, ids = "Is it so?", encode("Is it so?")
    assert rows(start(len(ids), init="text", init_text=text)) == ids
    assert rows(start(4, init="text", init_text=text)) == ids[:4]
    assert rows(start(20, init="text", init_text=text)) == (ids * 20)[:20]


def test_the_names_of_the_categories_are_means_of_their_sub_words_and_then_come_words() -> None:
    drawn = start(23, init="labels")
    means = [WORDS[encode(name)].mean(0) for name in CATEGORIES]
    np.testing.assert_allclose(drawn[:20], means, rtol=1e-6, atol=1e-6)
    assert len(set(rows(drawn[20:]))) == 3
    np.testing.assert_array_equal(start(7, init="labels"), drawn[:7])


def test_a_token_outside_the_vocabulary_is_no_other_word() -> None:
    system = build("gpt2")
    target = system.target._replace(encode=lambda text: [3, V])
    tuning = method(target, method="prompt", length=2, init="text", init_text="x")
    drawn = tuning.init(KEY, system.params)[1]["prompt"]["encoder"]
    assert np.isnan(drawn).all(1).tolist() == [False, True]


def test_each_side_has_its_own_draw_and_its_own_network() -> None:
    system = build("t5")
    both = {"sides": ("decoder", "encoder"), "length": 3}
    tuning = method(system.target, method="prompt", **both)
    bound = tuning.bind(*tuning.init(KEY, system.params))
    assert bound.prompt.encoder.shape == bound.prompt.decoder.shape == (3, D)
    assert jnp.any(bound.prompt.encoder != bound.prompt.decoder)

    tuning = method(system.target, method="p_tuning", init="text", init_text="yes", **both)
    frozen, trainable = tuning.init(KEY, system.params)
    one, other = trainable["p_tuning"]["encoder"], trainable["p_tuning"]["decoder"]
    np.testing.assert_array_equal(one["embedding"], other["embedding"])
    assert jnp.any(one["mlp"]["out"]["kernel"] != other["mlp"]["out"]["kernel"])
    bound = jax.jit(tuning.bind)(frozen, trainable)
    assert jnp.any(bound.prompt.encoder != bound.prompt.decoder)
