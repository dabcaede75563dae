"""Greedy decoding: what a loop without a cache says, and transformers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from jaxvalues.generation import greedy
from jaxvalues.models import (
    Prefix,
    Prompt,
    init_causal_lm,
    init_t5,
    save_causal_lm,
    save_t5,
)
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROWS = [[5, 9, 40, 33, 8, 21], [7, 3], [60, 11, 12, 13]]
LENGTH, PAD, V = 6, 1, 70
SIZES = {"vocab_size": V, "pad_token_id": PAD, "decoder_start_token_id": PAD}
CONFIGS = {  # a T5 whose output matrix is its input's repeats itself
    "gpt2": {**tiny.GPT2, **SIZES},
    "t5": {**tiny.T5, **SIZES, "tie_word_embeddings": False},
}


def network(name: str) -> tuple[Any, Any]:
    """Its module and parameters, loud enough that every step has a clear winner."""
    init = init_causal_lm if name == "gpt2" else init_t5
    module, params = init(CONFIGS[name], 0, scan=False)
    scale = 8.0 if name == "gpt2" else 2.0
    return module, jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)


def rows(left: bool = False) -> dict[str, np.ndarray]:
    ids, mask = np.full((3, 8), PAD, np.int32), np.zeros((3, 8), np.int32)
    for row, tokens in enumerate(ROWS):
        at = slice(8 - len(tokens), 8) if left else slice(0, len(tokens))
        ids[row, at], mask[row, at] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def added(name: str, what: str) -> dict[str, Any]:
    """A prompt, a prefix or nothing."""
    random = np.random.default_rng(3)
    prompt, keys = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 64), (2, 2, 3, 4, 16)))
    if what == "prompt":
        return {"prompt": Prompt(prompt, prompt[::-1]) if name == "t5" else prompt}
    if what == "prefix":
        return {"prefix": Prefix(keys, keys, keys[::-1]) if name == "t5" else keys}
    return {}


def naive(name: str, module: Any, bound: Bound, end: int) -> np.ndarray:
    """Each row by itself, all of it read again for every token."""
    wide = len(ROWS[0]) + LENGTH

    @jax.jit
    def next_token(text: np.ndarray, length: int, said: np.ndarray, count: int) -> jax.Array:
        """What follows the first tokens of a text; of T5, what follows those said about it."""
        mask = (np.arange(wide) < length).astype(np.int32)[None]
        given = {"prompt": bound.prompt, "prefix": bound.prefix}
        if name == "t5":
            logits = module.apply({"params": bound.params}, text[None], mask, said[None], **given)
            return logits[0, count].argmax()
        return module.apply({"params": bound.params}, text[None], mask, **given)[0, length - 1].argmax()

    answers = np.full((3, LENGTH), PAD)
    for row, tokens in enumerate(ROWS):
        text, said = np.full(wide, PAD), np.full(LENGTH + 1, PAD)  # T5's first token is its pad token
        text[: len(tokens)] = tokens
        for i in range(LENGTH):
            length = len(tokens) + (i if name == "gpt2" else 0)
            answers[row, i] = said[i + 1] = next_token(text, np.int32(length), said, np.int32(i))
            if answers[row, i] == end:
                break
            if name == "gpt2":
                text[length] = answers[row, i]
    return answers


@pytest.mark.slow
@pytest.mark.main_cases("gpt2-prefix", "t5-prompt")
@pytest.mark.parametrize("what", ["nothing", "prompt", "prefix"])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_says_what_a_loop_without_a_cache_says(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded right, and left; after the end there is only padding. Two tokens at a time join the large cache."""
    monkeypatch.setattr(import_module("jaxvalues.generation.decode"), "RECENT", 2)
    module, params = network(name)
    bound = Bound(params, **added(name, what))

    @jax.jit
    def say(batch: dict[str, jax.Array], end: int) -> jax.Array:
        return greedy(module, bound, batch, length=LENGTH, ends=(end,), pad=PAD)

    never = V  # no token
    right = np.asarray(say(rows(), never))
    expected = naive(name, module, bound, never)
    np.testing.assert_array_equal(right, expected)
    assert len(np.unique(right, axis=0)) == 3
    if name == "gpt2":  # to T5, padding between what is added and the text is a distance
        np.testing.assert_array_equal(say(rows(left=True), never), expected)

    end = int(expected[0, 2])
    stopped = np.asarray(say(rows(), end))
    for row, whole in zip(stopped, expected, strict=True):
        (at,) = np.nonzero(whole == end)
        last = at[0] if len(at) else LENGTH
        np.testing.assert_array_equal(row[: last + 1], whole[: last + 1])
        assert (row[last + 1 :] == PAD).all()
    assert (stopped == end).any()


@pytest.mark.slow
def test_it_stops_when_every_row_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    module, params = network("gpt2")
    batch = {name: array[:1] for name, array in rows().items()}
    (first, *_), steps = np.asarray(greedy(module, Bound(params), batch, length=4, ends=(V,), pad=PAD))[0], []
    original = type(module).extend

    def extend(self: Any, ids: jax.Array, *args: Any, **options: Any) -> Any:
        jax.debug.callback(lambda: steps.append(1))
        return original(self, ids, *args, **options)

    monkeypatch.setattr(type(module), "extend", extend)
    answer = greedy(module, Bound(params), batch, length=4, ends=(int(first),), pad=PAD)
    jax.effects_barrier()
    assert np.asarray(answer)[0].tolist() == [first, PAD, PAD, PAD]
    assert len(steps) == 1  # the text; nothing is computed for the token that ends it


@pytest.mark.slow
@pytest.mark.main_cases("t5")
@pytest.mark.parametrize("name", CONFIGS)
def test_it_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    module, params = network(name)
    (save_causal_lm if name == "gpt2" else save_t5)(tmp_path, CONFIGS[name], params)
    auto = transformers.AutoModelForCausalLM if name == "gpt2" else transformers.AutoModelForSeq2SeqLM
    theirs = auto.from_pretrained(tmp_path)
    batch = rows(left=name == "gpt2")
    end = int(np.asarray(greedy(module, Bound(params), batch, length=LENGTH, ends=(V,), pad=PAD))[1, 2])
    ours = np.asarray(greedy(module, Bound(params), batch, length=LENGTH, ends=(end,), pad=PAD))
    said = theirs.generate(
        torch.tensor(batch["input_ids"]).long(), attention_mask=torch.tensor(batch["attention_mask"]).long(),
        max_new_tokens=LENGTH, do_sample=False, num_beams=1, pad_token_id=PAD, eos_token_id=end,
    ).numpy()  # fmt: skip
    said = said[:, 8:] if name == "gpt2" else said[:, 1:]
    np.testing.assert_array_equal(ours[:, : said.shape[1]], said)
    assert (ours[:, said.shape[1] :] == PAD).all()
