"""Branches of one text: packed in one row, or from a repeated cache, they give what separate texts give."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from gpt2_reference import model, pad

from jaxvalues.errors import UserError
from jaxvalues.models import Branches, empty_cache, pack, repeat_cache

WORDS = np.random.RandomState(0).randint(0, 70, 60).tolist()
ARGUMENTS = [WORDS[:10], WORDS[10:14], WORDS[14:21]]
SUFFIXES = [WORDS[21:26], WORDS[26:28], [], WORDS[28:31]]  # the third asks at the argument's last token
T, S, PAIRS = 10, 5, list(itertools.product(ARGUMENTS, SUFFIXES))
ALONE, ALONE_MASK = pad([a + b for a, b in PAIRS], "r", T + S)
LAST = np.array([len(a + b) - 1 for a, b in PAIRS])


@pytest.mark.slow
@pytest.mark.main_cases("apart")
@pytest.mark.parametrize("branches", [None, Branches(4, S)], ids=["masked", "apart"])
def test_packed_branches_are_separate_texts(branches):
    """Whether scores between branches are hidden by the mask alone, or not computed."""
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
        where = {"position_ids": packed.position_ids, "positions": packed.last, "branches": branches}
        return measured(packed.input_ids, packed.attention_mask, **where)

    theirs, expected = jax.jit(measured)(ALONE, ALONE_MASK, positions=LAST[:, None])
    assert np.abs(theirs[:, 0] - theirs[:, 1]).max() > 0.1
    for sides in ("r", "lr", "rl"):
        ours, grads = together(pad(ARGUMENTS, sides, T), pad(SUFFIXES, sides, S))
        assert_close(ours, theirs)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, floor=1e-5), grads, expected)


@pytest.mark.exhaustive
def test_every_token_of_branches_is_computed_where_no_positions_are_named():
    module, params = model()
    packed = pack(*pad(ARGUMENTS, "rl", T), *pad(SUFFIXES, "rl", S))
    real = np.asarray(packed.attention_mask).any(axis=1)  # somebody sees them

    def logits(branches):
        given = packed.input_ids, packed.attention_mask
        whole = module.apply({"params": params}, *given, position_ids=packed.position_ids, branches=branches)
        return np.asarray(whole)[real]

    assert_close(logits(Branches(4, S)), logits(None))


def test_positions_must_be_one_of_each_branch():
    module, params = model()
    packed = pack(*pad(ARGUMENTS, "r", T), *pad(SUFFIXES, "r", S))
    where = {"position_ids": packed.position_ids, "positions": packed.last[:, :2], "branches": Branches(4, S)}
    with pytest.raises(UserError, match="2 positions are asked for, but the rows end in 4 branches"):
        module.apply({"params": params}, packed.input_ids, packed.attention_mask, **where)


@pytest.mark.slow
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
    for a, b in zip(shared[:-1], own[:-1], strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    np.testing.assert_array_equal(own.input_ids[1, T:].reshape(4, S), ids[::-1])
    np.testing.assert_array_equal(own.last[1], [T + 2, T - 1, T + 2 * S + 1, T + 3 * S + 4])


ANSWERS = [WORDS[31:34], WORDS[34:35], WORDS[35:37]]
R = 3


@pytest.mark.slow
@pytest.mark.main_cases("True")
@pytest.mark.parametrize("scan", [False, True])
def test_packed_answers_are_separate_texts(scan):
    module, params = model(scan=scan)
    random = np.random.RandomState(2)
    direction = random.standard_normal((3, 4, 3, R + 1, 70)).astype(np.float32)
    prompt, prefix = (0.5 * random.standard_normal(s).astype(np.float32) for s in ((2, 64), (2, 2, 3, 4, 16)))
    said = np.array([[True] + [r < len(answer) for r in range(R)] for answer in ANSWERS])[..., None]

    def measured(ids, mask, positions, **options):
        """The logits before each token of each answer and after the last, [3, 4, 3, R + 1, V], and their gradients."""

        def loss(extra):
            logits = module.apply({"params": params}, ids, mask, positions=positions, **extra, **options)
            return logits.reshape(direction.shape) * said

        logits, back = jax.vjp(loss, {"prompt": prompt, "prefix": prefix})
        return logits, back(direction)[0]

    @jax.jit
    def together(arguments, questions, answers):
        packed = pack(*arguments, *questions, *answers)
        assert packed.input_ids.shape == (3, T + 4 * S + 12 * R)
        asked = jnp.broadcast_to(packed.last[:, :, None, None], (3, 4, 3, 1))
        # The tokens of an answer are real from its first place on, or up to its last: put the padding behind.
        places = jnp.take_along_axis(packed.answers, jnp.argsort(answers[1] == 0, stable=True)[None, None], axis=-1)
        positions = jnp.concatenate([asked, places], axis=-1).reshape(3, -1)
        return measured(packed.input_ids, packed.attention_mask, positions, position_ids=packed.position_ids)

    paths = [(a + b, c) for a, b, c in itertools.product(ARGUMENTS, SUFFIXES, ANSWERS)]
    last = np.array([[len(a) - 1 + r for r in range(R + 1)] for a, _ in paths])
    alone = pad([a + c for a, c in paths], "r", T + S + R)
    expected = jax.jit(measured)(*alone, last)
    assert np.abs(expected[0][:, :, 0] - expected[0][:, :, 1])[..., 1, :].max() > 0.1
    for sides in ("r", "lr", "rl"):
        ours = together(pad(ARGUMENTS, sides, T), pad(SUFFIXES, sides, S), pad(ANSWERS, sides, R))
        assert_close(ours[0], expected[0])
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), ours[1], expected[1])


@pytest.mark.slow
def test_answers_may_belong_to_questions_and_arguments():
    arguments, questions = pad(ARGUMENTS, "r", T), pad(SUFFIXES, "l", S)
    ids, mask = pad(ANSWERS, "r", R)
    shared = pack(*arguments, *questions, ids, mask)
    each = [jnp.broadcast_to(x, (4, 3, R)) for x in (ids, mask)]
    own = [jnp.broadcast_to(x, (3, 4, 3, R)) for x in (ids, mask)]
    for answers in (each, own):
        for a, b in zip(pack(*arguments, *questions, *answers), shared, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        jnp.take_along_axis(shared.input_ids, shared.answers.reshape(3, -1), 1), own[0].reshape(3, -1)
    )

    without = pack(*arguments, *questions)
    assert without.answers is None
    np.testing.assert_array_equal(shared.input_ids[:, : T + 4 * S], without.input_ids)
    np.testing.assert_array_equal(shared.last, without.last)
    unasked = pack(*arguments, *np.zeros((2, 1, 0), int), ids, mask)  # answers that branch from the argument itself
    np.testing.assert_array_equal(unasked.last[:, 0], [len(a) - 1 for a in ARGUMENTS])
    np.testing.assert_array_equal(unasked.position_ids[:, T], [len(a) for a in ARGUMENTS])
