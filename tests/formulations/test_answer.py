"""`answer`: what GPT-2 and T5 would say to 20 questions about an argument, all at once and one by one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from jax.nn import log_softmax

from jaxvalues.errors import ConfigError
from jaxvalues.models import T5, Prefix, Prompt
from jaxvalues.run.prediction import CONTENT_FREE, likelihood_logits
from jaxvalues.run.system import System, Weights
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.usefixtures("quick_compiles")

SEVERAL = {"formulation": {"verbalizer": {"yes": ["Yes", "not bad at all"], "no": ["No", "never"]}}}
LENGTH = {"length": 3, "init_range": 1.0}
METHODS = {"none": {}, "prompt": {**LENGTH, "init": "normal"}, "prefix": LENGTH}


class Case(NamedTuple):
    """A system with its weights and four arguments that ask."""

    system: System
    frozen: Any
    trainable: Any
    batch: dict[str, np.ndarray]

    def bind(self, trainable: Any) -> Bound:
        return self.system.network.tuning.bind(self.frozen, trainable)

    def forward(self, bound: Bound, batch: dict[str, np.ndarray] | None = None) -> jax.Array:
        return self.system.formulation.forward(self.system.network.module, bound, batch or self.batch).logits


def case(network: str, *changes: dict[str, Any], rows: int = 4) -> Case:
    system = tiny.system(tiny.question_config("answer", network, *changes))
    tokens = system.formulation.encode(tiny.split().arguments[:4])
    return Case(system, *tiny.parts(system), tiny.batch(system, tokens, rows))


def real(ids: np.ndarray, mask: np.ndarray) -> list[int]:
    return ids[mask != 0].tolist()


def separately(one: Case, bound: Bound, batch: dict[str, np.ndarray]) -> jax.Array:
    """Logits [rows] of a causal network by log p of each word after each question, every text read by itself and over
    the whole vocabulary."""
    verbalizer, texts, said = one.system.formulation.verbalizer, [], []
    for row in range(len(batch["input_ids"])):
        argument = real(batch["input_ids"][row], batch["attention_mask"][row])
        for ids, mask in zip(batch["question_ids"][row], batch["question_mask"][row], strict=True):
            for word in verbalizer.ids:
                said.append(word[word >= 0].tolist())
                texts.append([*argument, *real(ids, mask), *said[-1]])
    ids, mask = np.zeros((2, len(texts), max(map(len, texts))), np.int32)
    places, tokens, there = np.zeros((3, len(texts), verbalizer.tokens), np.int32)
    for row, (text, word) in enumerate(zip(texts, said, strict=True)):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
        tokens[row, : len(word)], there[row, : len(word)] = word, 1
        places[row, : len(word)] = np.arange(len(word)) + len(text) - len(word) - 1
    logits = one.system.network.module.apply(
        {"params": bound.params}, ids, mask, prompt=bound.prompt, prefix=bound.prefix, positions=places
    )
    each = jnp.take_along_axis(log_softmax(logits), tokens[..., None], axis=-1)[..., 0] * there
    return logit(each.sum(axis=1).reshape(-1, len(verbalizer.ids)), verbalizer.is_yes)


def logit(log_probs: Any, is_yes: np.ndarray) -> Any:
    return jnp.logaddexp.reduce(log_probs[:, is_yes], axis=1) - jnp.logaddexp.reduce(log_probs[:, ~is_yes], axis=1)


@pytest.mark.slow
@pytest.mark.main_cases("prefix")
@pytest.mark.parametrize("method", METHODS)
def test_twenty_questions_that_branch_are_twenty_texts(method: str) -> None:
    """Logits and gradients, of padding left and right."""
    one = case("gpt2", {"tuning": {"method": method, **METHODS[method]}}, rows=2)
    assert one.batch["question_ids"].shape[:2] == (2, 20)
    trained = one.trainable if method != "none" else one.frozen
    direction = np.random.default_rng(0).standard_normal((2, 20)).astype(np.float32)

    def measure(logits: Any) -> Any:
        def loss(trained: Any) -> Any:
            out = logits(one.bind(trained) if method != "none" else Bound(trained))
            return jnp.sum(out * direction), out

        (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
        return out, gradient

    apart = measure(lambda bound: separately(one, bound, one.batch).reshape(2, 20))
    assert np.asarray(apart[0]).std() > 0.05
    for batch in (one.batch, tiny.padded_left(one.batch)):
        together = measure(functools.partial(one.forward, batch=batch))
        np.testing.assert_allclose(together[0], apart[0], atol=1e-5)
        for path, leaf in flatten_dict(together[1], sep="/").items():
            expected = np.asarray(flatten_dict(apart[1], sep="/")[path])
            np.testing.assert_allclose(leaf, expected, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=path)
            assert np.abs(expected).max() > 0 or "key" in path, path


def test_words_of_several_tokens_are_scored_exactly() -> None:
    """Branches of branches on GPT-2, against the softmax over the whole vocabulary of every text by itself."""
    one = case("gpt2", SEVERAL, {"tuning": {"method": "prompt", **METHODS["prompt"]}}, rows=2)
    verbalizer, bound = one.system.formulation.verbalizer, one.bind(one.trainable)
    assert verbalizer.tokens > 2
    few = {name: one.batch[name][:, :3] for name in ("categories", "question_ids", "question_mask")}
    few = {**{name: one.batch[name] for name in ("input_ids", "attention_mask")}, **few}
    expected = jax.jit(lambda bound: separately(one, bound, few))(bound)
    forward = jax.jit(one.forward)
    for batch in (few, tiny.padded_left(few)):
        np.testing.assert_allclose(forward(bound, batch), expected.reshape(2, 3), atol=2e-5)


@pytest.mark.parametrize("network", ["gpt2", "t5"])
def test_a_word_that_begins_with_another_changes_no_logit(network: str) -> None:
    short, long = (
        tiny.system(tiny.question_config("answer", network, {"formulation": {"verbalizer": {"yes": yes}}}))
        for yes in (["Yes"], ["Yes", "Yes indeed"])
    )
    assert long.formulation.constants == short.formulation.constants  # the words that the compiled steps score
    assert long.formulation.verbalizer.tokens == 1


@pytest.mark.slow
@pytest.mark.main_cases("of several")
@pytest.mark.parametrize("changes", [{}, SEVERAL], ids=["words of one token", "of several"])
def test_t5_reads_a_question_once_and_says_every_word(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = {"method": "prompt", "sides": ["encoder", "decoder"], **METHODS["prompt"]}
    one = case("t5", changes, {"tuning": tuning})
    verbalizer, bound = one.system.formulation.verbalizer, one.bind(one.trainable)
    module, encoded = one.system.network.module, []

    def encode(self: T5, *args: Any, original: Any = T5.encode, **options: Any) -> Any:
        encoded.append(args[0].shape)
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(T5, "encode", encode)
        logits = jax.jit(one.forward)(bound)
    assert encoded == [(4, 80)]
    assert logits.shape == (4, 1)

    def word(bound: Bound, ids: list[int]) -> jax.Array:  # decoded by itself
        said = np.array([[module.config.decoder_start_token_id, *ids[:-1]]] * 4)
        out = module.apply(
            {"params": bound.params}, one.batch["input_ids"], one.batch["attention_mask"], said, prompt=bound.prompt
        )
        return log_softmax(out)[:, np.arange(len(ids)), np.array(ids)].sum(axis=1)

    @jax.jit
    def words(bound: Bound) -> jax.Array:
        return jnp.stack([word(bound, ids[ids >= 0].tolist()) for ids in verbalizer.ids], axis=1)

    np.testing.assert_allclose(logits[:, 0], logit(words(bound), verbalizer.is_yes), rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_every_place_where_a_prompt_or_a_prefix_enters_t5_counts() -> None:
    one = case("t5", {"tuning": {"method": "none"}})
    random = np.random.default_rng(0)
    prompt, keys = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 64), (2, 2, 3, 4, 16)))
    milder = jax.tree.map(lambda weight: 0.3 * weight, one.frozen)  # T5's scores are not scaled: attention saturates
    bound = Bound(milder, Prompt(prompt, prompt), Prefix(keys, keys, keys))
    added = jax.jit(jax.grad(lambda added: one.forward(bound._replace(prompt=added[0], prefix=added[1])).sum()))
    gradients = jax.tree.leaves(added((bound.prompt, bound.prefix)))
    assert len(gradients) == 5
    assert min(np.abs(gradient).max() for gradient in gradients) > 1e-4


@pytest.mark.exhaustive
@pytest.mark.main_cases("gpt2", "t5 untied")
@pytest.mark.parametrize("network", ["gpt2", "t5", "t5 untied"])
def test_a_soft_verbalizer_starts_as_the_words(network: str) -> None:
    model = {**tiny.T5, "tie_word_embeddings": False} if network == "t5 untied" else tiny.NETWORKS[network]
    changes = {"model": {"config": model, "dropout": 0.0}}, {"tuning": {"method": "none"}}
    soft = case(network.split(maxsplit=1)[0], *changes, {"formulation": {"verbalizer": {"soft": True}}})
    hard = case(network.split(maxsplit=1)[0], *changes)
    assert soft.trainable["verbalizer"]["embedding"].shape == (2, 64)
    assert hard.trainable == {}
    # `tiny.parts` multiplies matrices, and so the vectors taken from them, alike.
    logits = jax.jit(soft.forward)(soft.bind(soft.trainable))
    assert np.asarray(logits).std() > 1e-3
    np.testing.assert_allclose(logits, jax.jit(hard.forward)(hard.bind({})), rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_calibration_takes_off_what_is_said_about_nothing() -> None:
    none = {"tuning": {"method": "none"}}
    plain, calibrated = case("gpt2", none), case("gpt2", none, {"formulation": {"verbalizer": {"calibrate": True}}})
    system = plain.system
    tokens = system.formulation.encode(tiny.split().arguments[:3])
    logits = likelihood_logits(system, Weights(plain.frozen, {}), tokens)
    nothing = likelihood_logits(system, Weights(plain.frozen, {}), system.formulation.encode(CONTENT_FREE))
    assert nothing.shape == (2, 20)
    assert np.abs(nothing).max() > 1e-2
    np.testing.assert_allclose(
        likelihood_logits(calibrated.system, Weights(calibrated.frozen, {}), tokens),
        logits - nothing.mean(axis=0),
        atol=1e-5,
    )


@pytest.mark.slow
def test_a_question_that_comes_before_the_argument_is_asked_row_by_row(tmp_path: Any) -> None:
    (tmp_path / "mine.txt").write_text("Is {category} in: {premise}, {conclusion} {stance}? Answer:")
    one = case("gpt2", {"formulation": {"template": str(tmp_path / "mine.txt")}}, {"tuning": {"method": "none"}})
    assert "question_ids" not in one.batch
    bound, empty = Bound(one.frozen), np.zeros((4, 1, 0), np.int32)
    expected = jax.jit(
        lambda bound: separately(one, bound, {**one.batch, "question_ids": empty, "question_mask": empty})
    )(bound)
    forward = jax.jit(one.forward)
    for batch in (one.batch, tiny.padded_left(one.batch)):
        np.testing.assert_allclose(forward(bound, batch)[:, 0], expected, atol=1e-5)


def test_what_is_compiled_is_told_by_the_words() -> None:
    constants = case("t5").system.formulation.constants
    tokenizer = tiny.asking_tokenizer()
    assert constants == tuple(tokenizer(" No Yes", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(("kind", "network", "said"), [
    ("answer", "roberta", "t5), and roberta is none: use masked_choice"),
    ("open_answer", "deberta-v2", "open_answer needs a generative model"),
    ("masked_choice", "gpt2", "masked_choice needs a masked language model, and gpt2 is none: use answer"),
    ("masked_choice", "t5", "masked_choice needs a masked language model, and t5 is none"),
    ("classify", "t5", "classify does not support encoder-decoders such as t5: use answer"),
])  # fmt: skip
def test_kinds_that_a_network_cannot_answer_are_refused(kind: str, network: str, said: str) -> None:
    config = tiny.question_config(kind, network)
    with pytest.raises(ConfigError) as error:
        tiny.system(config)
    assert said in str(error.value)
