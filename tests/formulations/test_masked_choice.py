"""`masked_choice`: Yes and No at the mask of a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from jax.nn import log_softmax

from jaxvalues.config import FormulationConfig
from jaxvalues.errors import ConfigError
from jaxvalues.formulations.masked_choice import MaskedChoice
from jaxvalues.run.system import System
from jaxvalues.templates.questions import load_question_template
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.usefixtures("quick_compiles")

CLS, SEP, MASK = 0, 2, 4
PREFIX = {"tuning": {"method": "prefix", "length": 3, "init_range": 1.0}}


def system(network: str, *changes: dict[str, Any]) -> tuple[System, Bound, dict[str, np.ndarray]]:
    """A system, its weights, and the first questions about the first argument."""
    one = tiny.system(tiny.question_config("masked_choice", network, *changes))
    tokens = one.formulation.encode(tiny.split().arguments[:1])
    return one, one.network.tuning.bind(*tiny.parts(one)), tiny.batch(one, tokens, 4)


def forward(one: System) -> Any:
    return jax.jit(lambda bound, batch: one.formulation.forward(one.network.module, bound, batch).logits)


@pytest.mark.slow
@pytest.mark.main_cases("roberta-True", "deberta-v2-False")
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("network", ["roberta", "deberta-v2"])
def test_logits_are_those_of_the_words_at_the_masks(network: str, several: bool) -> None:
    """Against the softmax over the whole vocabulary, one word and one row at a time."""
    words = {"yes": ["True"], "no": ["maybe"]} if several else {"yes": ["Yes", "not"], "no": ["No"]}
    one, bound, batch = system(network, {"formulation": {"verbalizer": words}}, PREFIX)
    verbalizer = one.formulation.verbalizer
    assert (verbalizer.tokens > 1) is several
    (masks,) = np.nonzero(batch["input_ids"][0] == MASK)
    assert len(masks) == verbalizer.tokens
    assert (np.diff(masks) == 1).all()

    @jax.jit
    def everything(bound: Bound) -> jax.Array:
        inputs = batch["input_ids"], batch["attention_mask"]
        return log_softmax(one.network.module.apply({"params": bound.params}, *inputs, prefix=bound.prefix))

    log_probs, scores = np.asarray(everything(bound)), np.zeros((4, len(verbalizer.ids)))
    for row, ids in enumerate(batch["input_ids"]):
        (places,) = np.nonzero(ids == MASK)
        for word, said in enumerate(verbalizer.ids):
            scores[row, word] = sum(log_probs[row, place, token] for place, token in zip(places, said, strict=True))
    yes, no = (np.logaddexp.reduce(scores[:, side], axis=1) for side in (verbalizer.is_yes, ~verbalizer.is_yes))
    logits = np.asarray(forward(one)(bound, batch))
    assert logits.shape == (4, 1)
    assert logits.std() > 1e-3
    np.testing.assert_allclose(logits[:, 0], yes - no, atol=1e-4)


@pytest.mark.slow
def test_a_soft_verbalizer_starts_as_the_words_but_for_the_bias_of_the_vocabulary() -> None:
    none = {"tuning": {"method": "none"}}
    hard, bound, batch = system("roberta", none)
    soft, start, _ = system("roberta", none, {"formulation": {"verbalizer": {"soft": True}}})
    (no,), (yes,) = hard.formulation.verbalizer.ids
    bias = np.random.default_rng(0).standard_normal(len(tiny.asking_tokenizer())).astype(np.float32)
    with_bias = []
    for one in (bound, start):
        head = {**one.params["head"], "bias": bias}
        assert head.keys() == one.params["head"].keys()
        with_bias.append(one._replace(params={**one.params, "head": head}))
    ours, theirs = forward(soft)(with_bias[1], batch), forward(hard)(with_bias[0], batch)
    np.testing.assert_allclose(ours, theirs - (bias[yes] - bias[no]), atol=1e-4)


def test_a_row_is_framed_and_asks_about_one_category() -> None:
    one, _, _ = system("roberta")
    labels = tiny.split().labels[:2]
    tokens = one.formulation.encode(tiny.split().arguments[:2], labels)
    assert (len(tokens), tokens.labels.tolist()) == (40, labels.reshape(-1, 1).tolist())
    for row in tokens.ids:
        assert (row[0], row[-2], row[-1]) == (CLS, MASK, SEP)
        assert np.isin(row, [CLS, SEP, MASK]).sum() == 3
    assert one.formulation.constants == (*one.formulation.verbalizer.ids.ravel(), MASK)


def test_what_cannot_fill_a_mask_is_refused(tmp_path: Path) -> None:
    template, tokenizer = load_question_template("masked_choice"), tiny.asking_tokenizer()

    def make(template: Any = template, tokenizer: Any = tokenizer, **words: list[str]) -> MaskedChoice:
        config = FormulationConfig(kind="masked_choice", verbalizer=words)
        return MaskedChoice.make(config, tokenizer, template, 80)

    with pytest.raises(
        ConfigError, match=r"must have the same number of tokens, but they have: `No` 1, `absolutely` [2-9]"
    ):
        make(yes=["absolutely"])
    with pytest.raises(ConfigError, match=r"template answer: masked_choice needs the slot \{mask\}"):
        make(load_question_template("answer"))
    tokenizer.save_pretrained(tmp_path)
    without = type(tokenizer).from_pretrained(tmp_path)
    without.mask_token = None
    with pytest.raises(ConfigError, match=r"needs a tokenizer with \[CLS\], \[SEP\] and \[MASK\] tokens"):
        make(tokenizer=without)
