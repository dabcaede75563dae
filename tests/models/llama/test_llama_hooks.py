"""What enters a network of the Llama family besides tokens, decoding with its cache, and questions that branch."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from gpt2_reference import pad
from llama_reference import CONFIGS, batch, model, tensors, torch_model

from jaxvalues.errors import UserError
from jaxvalues.models import Branches, Classifier, as_prefix, empty_cache, init_model, pack, repeat_cache

INPUTS = batch()
TOKENS = INPUTS["input_ids"], INPUTS["attention_mask"]
REAL = INPUTS["attention_mask"][..., None]
WINDOWED = "gemma3"  # K heads, windows in one of its two layers, two kinds of rotary positions
HEADS = (2, 24)  # of its keys and values


def run(module, params, *args, **options):
    """What a module gives, compiled."""
    return jax.jit(lambda p: module.apply({"params": p}, *args, **options))(params)


def shape(module, params, *args, **options):
    """The shape of it: nothing is computed."""
    return jax.eval_shape(lambda p: module.apply({"params": p}, *args, **options), params)


@pytest.mark.main_cases("gemma3-True", "smollm-False")
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", ["gemma3", "smollm"])
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_text(kind, scan):
    module, params = model(CONFIGS[kind], scan=scan)
    c = module.encoder.config
    shapes = (2, 64), (2, 2, 3, c.key_value_heads, c.head_size)
    prompt, prefix = (0.5 * np.random.RandomState(0).standard_normal(s) for s in shapes)
    tokens, mask = TOKENS
    whole = run(module, params, tokens, mask, prompt=prompt, prefix=prefix)

    @jax.jit
    def extend(cache, tokens, mask, **options):
        return module.apply({"params": params}, tokens, mask, cache, method="extend", **options)

    cache = empty_cache(module.encoder, 6, 3 + 2 + 17, prefix=prefix)
    assert cache.kv.shape == (2, 2, 6, c.key_value_heads, 22, c.head_size)
    logits, cache = extend(cache, tokens[:, :13], mask[:, :13], prompt=prompt, positions=np.full((6, 1), 12))
    got = [logits]
    for t in range(13, 15):
        logits, cache = extend(cache, tokens[:, t : t + 1], mask[:, t : t + 1])
        got.append(logits)
    recent = empty_cache(module.encoder, 6, 2)
    for t in range(15, 17):
        logits, recent = extend(recent, tokens[:, t : t + 1], mask[:, t : t + 1], before=cache)
        got.append(logits)
    assert_close(np.concatenate(got, axis=1) * mask[:, 12:, None], whole[:, 12:] * mask[:, 12:, None])
    with pytest.raises(UserError, match=r"a cache of 41 slots was asked for, but this \w+ model reads 40"):
        empty_cache(module.encoder, 1, 41)


@pytest.mark.slow
@pytest.mark.main_cases("gemma2", "qwen2")
@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_texts_are_those_of_transformers(kind):
    torch = pytest.importorskip("torch")
    module, params = model(CONFIGS[kind], scan=True)
    ids, mask = (x[1::2] for x in TOKENS)  # padded left
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    given = (torch.tensor(x).long() for x in (ids, mask))
    theirs = torch_model(CONFIGS[kind], tensors(CONFIGS[kind])).generate(
        next(given), attention_mask=next(given), **options
    )

    @jax.jit
    def extend(cache, ids, mask):
        last = np.full((3, 1), ids.shape[1] - 1)
        logits, cache = module.apply({"params": params}, ids, mask, cache, method="extend", positions=last)
        return logits.argmax(axis=-1), cache

    word, cache = extend(empty_cache(module.encoder, 3, 25), ids, mask)
    words = [word]
    for _ in range(7):
        word, cache = extend(cache, word, np.ones((3, 1)))
        words.append(word)
    np.testing.assert_array_equal(np.concatenate(words, axis=1), theirs[:, 17:].numpy())


@pytest.mark.slow
def test_a_prompt_of_word_vectors_and_a_prefix_of_their_keys_are_those_words():
    """A prompt enters like Hugging Face's inputs_embeds: Gemma's words are multiplied before, a prompt is not."""
    module, params = model(CONFIGS[WINDOWED], scan=True)
    front = np.array([5, 9, 5])
    ids = np.concatenate([np.broadcast_to(front, (6, 3)), TOKENS[0]], axis=1)
    mask = np.concatenate([np.ones((6, 3), int), TOKENS[1]], axis=1)
    longer = run(module, params, ids, mask)[:, 3:]

    vectors = 8.0 * params["encoder"]["embeddings"]["word"]["embedding"][front]  # the root of 64
    assert_close(run(module, params, *TOKENS, prompt=vectors) * REAL, longer * REAL)
    each = jnp.broadcast_to(vectors, (6, 3, 64))
    positions = np.array([[16], [16], [4], [16], [15], [16]])
    there = run(
        module, params, *TOKENS, prompt=each[:, 1:], prefix=_keys(module, params, front[:1]), positions=positions
    )
    assert_close(there, np.take_along_axis(np.asarray(longer), positions[..., None], 1))
    assert_close(run(module, params, *TOKENS, prefix=_keys(module, params, front)) * REAL, longer * REAL)
    assert np.abs((run(module, params, *TOKENS) - longer) * REAL).max() > 0.1


def _keys(module, params, ids):
    """The keys and values [L, 2, P, K, H] of a text."""
    cache = empty_cache(module.encoder, 1, len(ids))
    _, cache = run(module, params, ids[None], np.ones((1, len(ids))), cache, method="extend")
    return as_prefix(cache)


def test_gradients_reach_prompt_and_prefix_and_stop_below():
    prompt, prefix = np.full((2, 64), 0.3, np.float32), np.full((2, 2, 3, *HEADS), 0.2, np.float32)
    prefix += 0.1 * np.random.RandomState(0).standard_normal(prefix.shape).astype(np.float32)

    def gradient(**options):
        module, params = model(CONFIGS[WINDOWED], **options)

        def loss(extra):
            return jnp.sum(module.apply({"params": params}, *TOKENS, **extra) * INPUTS["direction"])

        extra = {"prefix": prefix} if options else {"prompt": prompt, "prefix": prefix}
        return jax.jit(jax.grad(loss))(extra)

    grads = gradient()
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(grads))
    stopped = gradient(stop_gradient_below=1)["prefix"]
    assert not stopped[0].any()
    assert np.abs(stopped[1]).min() > 0


@pytest.mark.slow
@pytest.mark.main_cases("qwen3-prompt", "gemma3-prefix")
@pytest.mark.parametrize("method", ["prompt", "prefix"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gemma3"])
def test_peft_gives_the_same_logits(kind, method):
    """PEFT's positions count padding, unless it is given others, which it takes with a prefix alone."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    settings = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}[method]
    config = {key: value for key, value in CONFIGS[kind].items() if not key.startswith("sliding")}
    network = torch_model(config, tensors(config))
    sizes = {} if method == "prompt" else {"num_attention_heads": 2, "token_dim": 48}  # its guess is another
    network = peft.get_peft_model(network, settings(task_type="CAUSAL_LM", num_virtual_tokens=5, **sizes)).eval()
    table = network.prompt_encoder["default"].embedding.weight.detach()
    with torch.no_grad():
        theirs = network(*(torch.tensor(x) for x in TOKENS)).logits.numpy()[:, -17:]
    extra = table.numpy() if method == "prompt" else table.view(5, 2, 2, *HEADS).permute(1, 2, 0, 3, 4).numpy()
    module, params = model(config)
    ours = run(module, params, *TOKENS, position_ids=np.tile(np.arange(17), (6, 1)), **{method: extra})
    right = REAL[::2]  # rows padded on the right: there a causal mask with slots for positions is the same
    assert_close(ours[::2] * right, theirs[::2] * right)


@functools.cache
def branched():
    """An argument's texts with 20 questions, longer than the windows."""
    words = np.random.RandomState(0).randint(0, 70, 200).tolist()
    arguments = [words[:13], words[13:17]]
    suffixes = [words[20 + 6 * i : 22 + 6 * i + i % 5] for i in range(20)]
    return arguments, suffixes


@pytest.mark.slow
@pytest.mark.main_cases("gemma3-*", "mistral-apart", "llama-masked")
@pytest.mark.parametrize("branches", [None, Branches(20, 6)], ids=["masked", "apart"])
@pytest.mark.parametrize("kind", ["gemma3", "mistral", "llama"])
def test_twenty_questions_branch_from_one_argument(kind, branches):
    """Windows and rotary positions count along the path of each question, wherever it lies in the row."""
    module, params = model(CONFIGS[kind], scan=True)
    arguments, suffixes = branched()
    random = np.random.RandomState(1)
    pairs = list(itertools.product(arguments, suffixes))
    alone, last = pad([a + b for a, b in pairs], "r", 19), np.array([len(a + b) - 1 for a, b in pairs])
    direction = random.standard_normal((2, 20, 70)).astype(np.float32)
    c = module.encoder.config
    shapes = (2, 64), (2, 2, 3, c.key_value_heads, c.head_size)
    prompt, prefix = (random.standard_normal(s).astype(np.float32) for s in shapes)

    def measured(ids, mask, **options):
        def loss(params, prompt):
            logits = module.apply({"params": params}, ids, mask, prompt=prompt, prefix=prefix, **options)
            return jnp.sum(logits.reshape(2, 20, 70) * direction), logits.reshape(2, 20, 70)

        (_, logits), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, prompt)
        return logits, grads

    @jax.jit
    def together(arguments, suffixes):
        packed = pack(*arguments, *suffixes)
        where = {"position_ids": packed.position_ids, "positions": packed.last, "branches": branches}
        return measured(packed.input_ids, packed.attention_mask, **where)

    theirs, expected = jax.jit(measured)(*alone, positions=last[:, None])
    assert np.abs(theirs[:, 0] - theirs[:, 1]).max() > 0.1
    for sides in ("r", "lr"):
        ours, grads = together(pad(arguments, sides, 13), pad(suffixes, sides, 6))
        assert_close(ours, theirs)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, floor=1e-5), grads, expected)


@pytest.mark.slow
def test_branches_from_a_repeated_cache_are_separate_texts():
    module, params = model(CONFIGS[WINDOWED], scan=True)
    arguments, suffixes = branched()
    pairs = list(itertools.product(arguments, suffixes))
    alone, last = pad([a + b for a, b in pairs], "r", 19), np.array([len(a + b) - 1 for a, b in pairs])

    @jax.jit
    def branch(ids, mask, suffix_ids, suffix_mask):
        cache = empty_cache(module.encoder, 2, 19)
        _, cache = module.apply({"params": params}, ids, mask, cache, method="extend", positions=np.zeros((2, 0), int))
        suffixes = (jnp.tile(x, (2, 1)) for x in (suffix_ids, suffix_mask))
        return module.apply({"params": params}, *suffixes, repeat_cache(cache, 20), method="extend")[0]

    logits = branch(*pad(arguments, "rl", 13), *pad(suffixes, "l", 6))[:, -1]
    assert_close(logits, run(module, params, *alone, positions=last[:, None])[:, 0])


def test_a_classifier_reads_the_last_real_token():
    module, params = model(CONFIGS["qwen3"])
    encoder = module.encoder
    ids, mask = np.zeros((2, 3, 9), np.int32)
    for row, start in enumerate((0, 2, 4)):  # the same text padded right, on both sides and left
        ids[row, start : start + 5], mask[row, start : start + 5] = (7, 3, 60, 2, 9), 1
    head = {"kernel": jnp.ones((64, 20)), "bias": jnp.zeros(20)}
    embedding = run(
        Classifier(encoder, pooling="last"), {"encoder": params["encoder"], "head": head}, ids, mask
    ).embedding
    np.testing.assert_allclose(embedding, embedding[:1].repeat(3, 0), atol=1e-5)
    (hidden,) = run(encoder, params["encoder"], ids, mask)
    np.testing.assert_allclose(embedding[0], hidden[0, 4], atol=1e-5)
    with pytest.raises(UserError, match="the first token of a qwen3 model sees only itself: pool the last token"):
        shape(Classifier(encoder), {**params, "head": head}, ids, mask)


def test_positions_choose_logits():
    module, params = model(CONFIGS[WINDOWED])
    last = np.where(TOKENS[1][:, -1], 16, TOKENS[1].sum(1) - 1)
    positions = np.stack([last, np.argmax(TOKENS[1], 1)], axis=1)
    whole, chosen = run(module, params, *TOKENS), run(module, params, *TOKENS, positions=positions)
    assert_close(chosen, np.take_along_axis(np.asarray(whole), positions[..., None], 1), 1e-5)


def test_bfloat16_computes_near_float32_and_padding_stays_unseen():
    extra = {"prompt": np.ones((2, 64), np.float32), "prefix": np.ones((2, 2, 3, *HEADS), np.float32)}
    module, params = model(CONFIGS[WINDOWED], dtype="bfloat16")
    ids, mask = TOKENS

    def loss(params, ids):
        logits = module.apply({"params": params}, ids, mask, **extra)
        return jnp.square(logits).mean(), logits

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, half), grads = step(params, ids)
    assert half.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((half, grads)))
    assert_close(half * REAL, run(*model(CONFIGS[WINDOWED]), *TOKENS, **extra) * REAL, relative=0.05)
    (_, other), _ = step(params, np.where(mask, ids, 33))
    np.testing.assert_array_equal(half * REAL, other * REAL)


@pytest.mark.slow
def test_dropout_is_drawn_alike_scanned_and_unrolled():
    """Hugging Face's networks of this family have dropout in attention alone; a rate here is that of the blocks too."""
    rates = {"hidden_dropout": 0.2, "attention_dropout": 0.2}
    module, params = init_model(CONFIGS[WINDOWED], 7, scan=False, **rates)
    dropped = run(module, params, *TOKENS, deterministic=False, rngs={"dropout": jax.random.key(3)})[0]
    assert np.abs((dropped - run(module, params, *TOKENS)[0]) * REAL).max() > 0.05
    scanned, stacked = init_model(CONFIGS[WINDOWED], 7, scan=True, **rates)
    again = run(scanned, stacked, *TOKENS, deterministic=False, rngs={"dropout": jax.random.key(3)})[0]
    assert_close(again * REAL, dropped * REAL)


def test_what_cannot_be_read_is_said():
    module, params = model(CONFIGS[WINDOWED])
    ones = np.ones((1, 38), int)
    with pytest.raises(UserError, match=r"has 41 tokens, but this gemma3_text model reads at most 40 in all"):
        shape(module, params, np.ones((1, 41), int), np.ones((1, 41)))
    with pytest.raises(UserError, match=r"a prefix for this gemma3_text model is \[2, 2, P, 2, 24\], not \(2, 2, 1, 4"):
        shape(module, params, ones, ones, prefix=np.zeros((2, 2, 1, 4, 24)))
    rows = np.ones((1, 38), int)
    rows[0, 5] = 70  # the vocabulary ends at 69
    logits = run(module, params, rows, ones)
    assert np.isnan(logits[0, 5:]).all()
