"""Verbalizers: words as tokens, and what their probabilities say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from kinds import unigram, wordpiece
from scipy.special import log_softmax, logsumexp
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from transformers import PreTrainedTokenizerFast

from jaxvalues.config import VerbalizerConfig
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.rows import SafeTokenizer
from jaxvalues.formulations.verbalizer import (
    Verbalizer,
    any_log_prob,
    drop_extensions,
    token_log_probs,
    word_ids,
)


def make(tokenizer: Any = None, prefixes: bool = False, **config: Any) -> Verbalizer:
    tokenize = SafeTokenizer(tokenizer or tiny.asking_tokenizer())
    return Verbalizer.make(VerbalizerConfig(**config), tokenize, prefixes=prefixes)


def test_words_are_tokens_as_they_stand_in_a_text() -> None:
    tokenizer = tiny.asking_tokenizer()
    verbalizer = make(yes=("Yes", "not bad at all"), no=("No",))
    assert verbalizer.is_yes.tolist() == [False, True, True]
    rows = [row[row >= 0].tolist() for row in verbalizer.ids]
    assert rows == [
        tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in ("No", "Yes", "not bad at all")
    ]
    assert verbalizer.tokens == max(map(len, rows)) > 1
    (after,) = tokenizer(["The answer is Yes"], add_special_tokens=False)["input_ids"]
    assert after[-1:] == rows[1]


def test_a_blank_that_is_a_token_of_its_own_is_no_part_of_a_word(tmp_path: Path) -> None:
    pieces = unigram(tmp_path)
    assert word_ids(SafeTokenizer(pieces), "in") == pieces("in", add_special_tokens=False)["input_ids"]
    assert word_ids(SafeTokenizer(wordpiece(tmp_path)), "the") == [wordpiece(tmp_path).vocab["the"]]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"yes": ("Yes", "No")}, "`No` and `No` have the same tokens"),
        ({"yes": ("Yes",), "no": ("No", "No")}, "`No` and `No` have the same tokens"),
        ({"yes": ("Yes", "not bad at all"), "soft": True}, "words of one token, and `not bad at all` has more"),
    ],
)
def test_words_that_cannot_answer_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^formulation\.verbalizer: .*({said})"):
        make(**config)


def test_a_word_that_the_tokenizer_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the tokenizer cannot encode the word `字`"):
        make(wordpiece(tmp_path), yes=("字",))


def test_the_probability_of_an_answer_counts_once() -> None:
    """Whoever answers "Yes indeed" answers "Yes": p(Yes) contains it."""
    longer = make(prefixes=True, yes=("Yes indeed", "Yes", "not bad"), no=("never ever", "No", "never"))
    alone = make(prefixes=True, yes=("Yes", "not bad"), no=("No", "never"))
    np.testing.assert_array_equal(longer.ids, alone.ids)
    assert longer.is_yes.tolist() == alone.is_yes.tolist() == [False, False, True, True]
    assert len(make(yes=("Yes indeed", "Yes")).ids) == 3  # masks hold one of the words, not the beginning of it


@pytest.mark.parametrize(
    ("config", "longer", "shorter"),
    [
        ({"yes": ("Yes",), "no": ("No", "Yes but")}, "Yes but", "Yes"),
        ({"yes": ("No doubt", "No doubt at all"), "no": ("No",)}, "No doubt", "No"),
    ],
)
def test_an_answer_that_begins_with_the_opposite_one_is_refused(config: dict, longer: str, shorter: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^formulation\.verbalizer: `{longer}` begins with `{shorter}`, a word of the"
    ):
        make(prefixes=True, **config)
    assert make(**config).is_yes.any()


def test_the_logit_adds_up_the_probabilities_of_each_class() -> None:
    verbalizer = make(yes=("Yes", "not"), no=("No", "in", "the"))
    probabilities = np.array([[0.1, 0.2, 0.05, 0.3, 0.15]])
    expected = np.log(0.45 / 0.35)
    for normaliser in (0.0, 7.0):  # logits know no normaliser
        logit = verbalizer.logit(jnp.log(probabilities) + normaliser)
        np.testing.assert_allclose(logit, [expected], rtol=1e-5)


def test_a_soft_verbalizer_starts_at_the_means_of_its_words() -> None:
    verbalizer = make(yes=("Yes", "not"), no=("No",), soft=True)
    words = np.random.default_rng(0).standard_normal((2000, 4))
    (no,), yes = verbalizer.ids[:1, 0], verbalizer.ids[1:, 0]
    start = verbalizer.initial_vectors(jnp.asarray(words))
    np.testing.assert_allclose(start, [words[no], words[yes].mean(axis=0)], atol=1e-6)
    assert verbalizer.words({"verbalizer": {"embedding": start}}) is start
    np.testing.assert_allclose(verbalizer.logit(jnp.array([[1.0, 3.5]])), [2.5])


def test_the_probability_of_several_tokens_is_the_product_of_theirs() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 3, 11)).astype(np.float32)
    ids, mask = np.array([[4, 0, 10], [7, 0, 0]]), np.array([[1, 1, 1], [1, 0, 0]])
    each = log_softmax(logits, axis=-1)
    expected = [each[0, 0, 4] + each[0, 1, 0] + each[0, 2, 10], each[1, 0, 7]]
    np.testing.assert_allclose(token_log_probs(jnp.asarray(logits), ids, mask), expected, rtol=1e-5)


@pytest.mark.parametrize("p", [[0.2, 0.5], [1e-30], [0.5, 0.5], [0.7, 0.7], [1.0]])
def test_any_of_several_things_has_a_finite_logit_with_a_finite_gradient(p: list[float]) -> None:
    log_probs = jnp.concatenate([jnp.log(jnp.array(p)), jnp.array([-jnp.inf])])  # the last is not there
    logit, gradient = jax.value_and_grad(any_log_prob)(log_probs)
    total = min(sum(p), np.exp(-1e-6))
    np.testing.assert_allclose(logit, logsumexp(np.log(p)) - np.log1p(-total) if total < 0.9 else logit, rtol=1e-5)
    assert np.isfinite(logit)
    assert (logit > 10) == (sum(p) > 0.99)
    assert np.isfinite(gradient).all()


def test_whatever_begins_with_another_is_left_out() -> None:
    assert drop_extensions([[1, 2], [3], [1], [1, 2, 4], [3, 1], [2, 1], [3]]) == [[3], [1], [2, 1]]
    assert drop_extensions([[1], [1]]) == [[1]]


def test_in_a_chat_other_spellings_count_where_they_are_single_tokens() -> None:
    from chat_templates import chat_tokenizer

    tokenize = SafeTokenizer(chat_tokenizer(None, ("Yes yes No no", "\nYes\nNo\nyes") * 9))
    plain = Verbalizer.make(VerbalizerConfig(), tokenize, prefixes=True)
    chat = Verbalizer.make(VerbalizerConfig(), tokenize, prefixes=True, in_chat=True)
    assert (len(plain.ids), chat.tokens) == (2, 1)
    said = {is_yes: sorted(map(tokenize.inner.decode, chat.ids[chat.is_yes == is_yes])) for is_yes in (True, False)}
    assert said == {True: [" Yes", " yes", "Yes", "yes"], False: [" No", " no", "No", "no"]}
    asked = Verbalizer.make(VerbalizerConfig(variants=False), tokenize, prefixes=True, in_chat=True)
    assert asked.ids.tolist() == plain.ids.tolist()


def llama_2_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """Pieces as in Llama 2's vocabulary: a text begins as if behind a space, and a line does not."""
    pieces = ["<unk>", "<0x0A>", "\u2581", *(f"{start}{word}" for word in words for start in ("\u2581", ""))]
    inner = Tokenizer(Unigram([(piece, -1.0 - piece.count("\u2581")) for piece in pieces], 0, byte_fallback=True))
    inner.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def test_a_chat_of_llama_2_counts_the_word_at_the_start_of_a_line() -> None:
    tokenize = SafeTokenizer(llama_2_tokenizer("Yes", "No"))
    assert tokenize.inner.tokenize("\nYes")[-1] == "Yes"
    assert tokenize.inner.tokenize("Yes") == tokenize.inner.tokenize(" Yes") == ["\u2581Yes"]
    chat = Verbalizer.make(VerbalizerConfig(), tokenize, prefixes=True, in_chat=True)
    said = tokenize.inner.convert_ids_to_tokens(chat.ids[:, 0].tolist())
    assert sorted(said) == ["No", "Yes", "\u2581No", "\u2581Yes"]
