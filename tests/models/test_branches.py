"""Branches of one text: packed in one row, or from a repeated cache, they give what separate texts give."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from bert_reference import assert_close
from gpt2_reference import model, pad

from jaxvalues.models import empty_cache, pack, repeat_cache

WORDS = np.random.RandomState(0).randint(0, 70, 60).tolist()
ARGUMENTS = [WORDS[:10], WORDS[10:14], WORDS[14:21]]
SUFFIXES = [WORDS[21:26], WORDS[26:28], [], WORDS[28:31]]  # the third asks at the argument's last token
T, S, PAIRS = 10, 5, list(itertools.product(ARGUMENTS, SUFFIXES))
ALONE, ALONE_MASK = pad([a + b for a, b in PAIRS], "r", T + S)
LAST = np.array([len(a + b) - 1 for a, b in PAIRS])


def test_packed_branches_are_separate_texts():
    module, params = model()
    random = np.random.RandomState(1)
    direction = random.standard_normal((3, 4, 70)).astype(np.float32)
    prompt, prefix = (random.standard_normal(s).astype(np.float32) for s in ((2, 64), (2, 2, 3, 4, 16)))

    def measured(ids, mask, **options):
        def loss(params, prompt):
            logits = module.apply({"params": params}, ids, mask, prompt=prompt, prefix=prefix, **options)
            logits = logits.reshape(3, 4, 70)
            return jnp.sum(logits * direction), logits

        (_, logits), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, prompt)
        return logits, grads

    @jax.jit
    def together(arguments, suffixes):
        packed = pack(*arguments, *suffixes)
        assert packed.input_ids.shape == (3, T + 4 * S)
        return measured(
            packed.input_ids, packed.attention_mask, position_ids=packed.position_ids, positions=packed.last
        )

    theirs, expected = jax.jit(measured)(ALONE, ALONE_MASK, positions=LAST[:, None])
    assert np.abs(theirs[:, 0] - theirs[:, 1]).max() > 0.1
    for sides in ("r", "lr", "rl"):
        ours, grads = together(pad(ARGUMENTS, sides, T), pad(SUFFIXES, sides, S))
        assert_close(ours, theirs)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, floor=1e-5), grads, expected)


def test_branches_from_a_repeated_cache_are_separate_texts():
    module, params = model(scan=True)

    @jax.jit
    def branch(ids, mask, suffix_ids, suffix_mask):
        cache = empty_cache(module.encoder, 3, T + S)
        _, cache = module.apply({"params": params}, ids, mask, cache, method="extend", positions=np.zeros((3, 0), int))
        suffixes = (jnp.tile(x, (3, 1)) for x in (suffix_ids, suffix_mask))
        return module.apply({"params": params}, *suffixes, repeat_cache(cache, 4), method="extend")[0]

    logits = branch(*pad(ARGUMENTS, "rl", T), *pad(SUFFIXES, "l", S))[:, -1]
    whole = jax.jit(lambda p: module.apply({"params": p}, ALONE, ALONE_MASK, positions=LAST[:, None])[:, 0])(params)
    asked = np.arange(12) % 4 != 2  # an empty suffix has no token to ask at here
    assert_close(np.asarray(logits)[asked], np.asarray(whole)[asked])


def test_each_argument_may_have_suffixes_of_its_own():
    ids, mask = pad(SUFFIXES, "r", S)
    arguments = pad(ARGUMENTS, "l", T)
    shared = pack(*arguments, ids, mask)
    own = pack(*arguments, np.stack([ids, ids[::-1], ids]), np.stack([mask, mask[::-1], mask]))
    for a, b in zip(shared, own, strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    np.testing.assert_array_equal(own.input_ids[1, T:].reshape(4, S), ids[::-1])
    np.testing.assert_array_equal(own.last[1], [T + 2, T - 1, T + 2 * S + 1, T + 3 * S + 4])
