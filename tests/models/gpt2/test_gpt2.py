"""GPT-2 against torch: hidden states, logits and every gradient, from stored numbers and live; prompts and prefixes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from gpt2_reference import CONFIG, batch, model, tensors, torch_model, torch_results
from make_golden import GOLDEN, STRIDE

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, as_prefix, build_model, empty_cache, group, init_causal_lm, init_model
from jaxvalues.models.checkpoints.conversion import to_tensors
from jaxvalues.models.gpt2.checkpoint import TABLE

INPUTS = batch()
TOKENS = INPUTS["input_ids"], INPUTS["attention_mask"]
REAL = INPUTS["attention_mask"][..., None]


def run(module, params, *args, **options):
    """What a module gives, compiled."""
    return jax.jit(lambda p: module.apply({"params": p}, *args, **options))(params)


def shape(module, params, *args, **options):
    """The shape of it: nothing is computed."""
    return jax.eval_shape(lambda p: module.apply({"params": p}, *args, **options), params)


def results(config: dict, inputs: dict, seed: int = 0, **options) -> dict:
    """The numbers of `torch_results`, from this package."""
    module, params = model(config, seed, **options)
    tokens, real = (inputs["input_ids"], inputs["attention_mask"]), inputs["attention_mask"][..., None]

    def loss(params):
        logits = module.apply({"params": params}, *tokens)
        every = tuple(range(config["n_layer"] + 1))
        hidden = module.encoder.apply({"params": params["encoder"]}, *tokens, layers=every)
        return jnp.mean(logits * inputs["direction"]), (logits * real, jnp.stack(hidden) * real)

    (_, (logits, hidden)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return {"logits": logits, "hidden": hidden, "grads": to_tensors(grads["encoder"], TABLE)}


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5, or to rounding (3e-7) of the largest gradient of all (see test_bert)."""
    assert_close(ours["hidden"], theirs["hidden"], name="hidden states")
    assert_close(ours["logits"], theirs["logits"], name="logits")
    largest = max(np.abs(grad).max() for grad in theirs["grads"].values())
    assert ours["grads"].keys() == theirs["grads"].keys()
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, floor=3e-7 * largest, name=name)


@pytest.mark.main_cases("True")
@pytest.mark.parametrize("scan", [False, True])
def test_stored_torch_numbers(scan):
    with np.load(GOLDEN / "gpt2.npz") as stored:
        theirs = {name: stored[name] for name in ("hidden", "logits")}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(CONFIG, INPUTS, scan=scan)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.slow
def test_live_torch():
    pytest.importorskip("torch")
    config = CONFIG | {"n_layer": 3, "n_inner": 96, "scale_attn_weights": False, "activation_function": "relu"}
    weights, inputs = tensors(config, seed=2), batch(config, seed=3)
    compare(results(config, inputs, 2, scan=True, boundary=1, remat=True), torch_results(config, weights, inputs))


def test_positions_choose_logits_and_layers_hidden_states():
    module, params = model()
    last = np.where(TOKENS[1][:, -1], 16, TOKENS[1].sum(1) - 1)
    positions = np.stack([last, np.argmax(TOKENS[1], 1)], axis=1)

    @jax.jit
    def everything(params):
        def states(**options):
            return module.encoder.apply({"params": params["encoder"]}, *TOKENS, **options)

        def logits(**options):
            return module.apply({"params": params}, *TOKENS, **options)

        return (
            (logits(), states(layers=(0, 1, 2))),
            (logits(positions=positions), states(layers=(-1, 1), positions=positions)),
            states(layers=(0,), positions=positions),
        )

    (logits, states), (chosen, (top, lower)), (embedded,) = everything(params)
    assert chosen.dtype == jnp.float32
    for some, whole in ((chosen, logits), (top, states[2]), (embedded, states[0])):
        assert_close(some, np.take_along_axis(np.asarray(whole), positions[..., None], 1), 1e-6)
    assert_close(lower, states[1], 1e-6)


def test_what_is_padded_is_not_seen_and_stays_finite():
    module, params = model()
    ids, mask = (np.concatenate([x, np.zeros((1, 17), np.int32)]) for x in TOKENS)  # a row without a real token
    real = mask[..., None]

    def loss(params, ids):
        logits = module.apply({"params": params}, ids, mask)
        return jnp.square(logits).sum(), logits

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, logits), grads = compiled(params, ids)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, logits, grads)))
    (_, other), _ = compiled(params, np.where(mask, ids, 33))
    np.testing.assert_array_equal(logits * real, other * real)
    later = ids.copy()
    later[0, 9:] = 5  # nor is what comes later
    (_, other), _ = compiled(params, later)
    np.testing.assert_array_equal(logits[0, :9], other[0, :9])
    assert np.abs(logits[0, 9:] - other[0, 9:]).max() > 0.1


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters():
    extra = {"prompt": np.ones((2, 64), np.float32), "prefix": np.ones((2, 2, 3, 4, 16), np.float32)}
    module, params = model(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def loss(params):
        logits = module.apply({"params": params}, *TOKENS, **extra)
        return jnp.square(logits).mean(), logits

    (_, half), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert half.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((half, grads)))
    assert_close(half * REAL, run(*model(), *TOKENS, **extra) * REAL, relative=0.03)


@pytest.mark.slow
def test_scanned_and_unrolled_start_and_drop_alike():
    module, params = init_model(CONFIG, 7, scan=False)
    scanned = build_model(CONFIG, scan=True)

    def dropped(module, params):
        return run(module, params, *TOKENS, deterministic=False, layers=(0, -1), rngs={"dropout": jax.random.key(3)})

    unrolled = dropped(module, params)
    for a, b in zip(dropped(scanned, group(params, scanned.segments)), unrolled, strict=True):
        assert_close(a, b)
    calm = run(module, params, *TOKENS, layers=(0, -1))
    assert all(np.abs(a - b).max() > 0.05 for a, b in zip(calm, unrolled, strict=True))
    one = params["layers"]["1"]
    assert float(one["attention"]["qkv"]["kernel"].std()) == pytest.approx(0.02, rel=0.1)
    for block, name in (("attention", "output"), ("mlp", "down")):  # smaller by the root of what is added up, 2 a layer
        assert float(one[block][name]["kernel"].std()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.slow
def test_nothing_below_the_boundary_is_differentiated_or_needed():
    def gradient(stop):
        module, params = model(stop_gradient_below=stop)
        return jax.jit(jax.grad(lambda p: jnp.sum(module.apply({"params": p}, *TOKENS) * INPUTS["direction"])))(params)

    full, stopped = (gradient(stop)["encoder"] for stop in (0, 1))
    assert all(not leaf.any() for leaf in jax.tree.leaves((stopped["embeddings"], stopped["layers"]["0"])))
    assert all(leaf.any() for leaf in jax.tree.leaves((full["embeddings"], full["layers"]["0"])))
    above = ({"layers": tree["layers"]["1"], "norm": tree["norm"]} for tree in (stopped, full))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5, floor=1e-4), *above)

    module, params = model(stop_gradient_below=1)
    encoder, inside = module.encoder, params["encoder"]
    first, last = run(encoder, inside, *TOKENS, layers=(1, 2))
    unseen = np.zeros_like(TOKENS[0]), TOKENS[1]
    assert_close(run(encoder, inside, *unseen, hidden=first)[0], last)
    whole = encoder.clone(stop_gradient_below=2)  # the last state is normalised already
    np.testing.assert_array_equal(run(whole, inside, *unseen, hidden=last)[0], last)
    with pytest.raises(UserError, match="a prompt enters a gpt2 model below its layers, but nothing there is diff"):
        shape(encoder, inside, *TOKENS, prompt=np.zeros((2, 64)))


@pytest.mark.slow
def test_a_prompt_of_word_vectors_and_a_prefix_of_their_keys_are_those_words():
    module, params = model(scan=True)
    front = np.array([5, 9, 5])
    ids = np.concatenate([np.broadcast_to(front, (6, 3)), TOKENS[0]], axis=1)
    mask = np.concatenate([np.ones((6, 3), int), TOKENS[1]], axis=1)
    longer = run(module, params, ids, mask)[:, 3:]

    vectors = params["encoder"]["embeddings"]["word"]["embedding"][front]
    assert_close(run(module, params, *TOKENS, prompt=vectors) * REAL, longer * REAL)
    each = jnp.broadcast_to(vectors, (6, 3, 64))
    positions = np.array([[16], [16], [4], [16], [15], [16]])
    there = run(
        module, params, *TOKENS, prompt=each[:, 1:], prefix=_keys(module, params, front[:1]), positions=positions
    )
    assert_close(there, np.take_along_axis(np.asarray(longer), positions[..., None], 1))
    assert_close(run(module, params, *TOKENS, prefix=_keys(module, params, front)) * REAL, longer * REAL)

    base = run(module, params, *TOKENS)
    assert np.abs((base - longer) * REAL).max() > 0.1
    for nothing in ({"prompt": np.zeros((0, 64))}, {"prefix": np.zeros((2, 2, 0, 4, 16))}):
        np.testing.assert_array_equal(run(module, params, *TOKENS, **nothing), base)


def _keys(module, params, ids):
    """The keys and values [L, 2, P, N, H] of a text."""
    cache = empty_cache(module.encoder, 1, len(ids))
    _, cache = run(module, params, ids[None], np.ones((1, len(ids))), cache, method="extend")
    return as_prefix(cache)


def test_gradients_reach_prompt_and_prefix_and_stop_below():
    prompt, prefix = np.full((2, 64), 0.3, np.float32), np.full((2, 2, 3, 4, 16), 0.2, np.float32)

    def gradient(**options):
        module, params = model(**options)

        def loss(extra):
            return jnp.sum(module.apply({"params": params}, *TOKENS, **extra) * INPUTS["direction"])

        extra = {"prefix": prefix} if options else {"prompt": prompt, "prefix": prefix}
        return jax.jit(jax.grad(loss))(extra)

    grads = gradient()
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(grads))
    stopped = gradient(stop_gradient_below=1)["prefix"]
    assert not stopped[0].any()
    assert np.abs(stopped[1]).min() > 0


@pytest.mark.main_cases("prefix")
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_peft_gives_the_same_logits(kind):
    """PEFT's positions count padding, unless it is given others, which it takes with a prefix alone."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    settings = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}[kind]
    base = torch_model(CONFIG, tensors())
    network = peft.get_peft_model(base, settings(task_type="CAUSAL_LM", num_virtual_tokens=5)).eval()
    table = network.prompt_encoder["default"].embedding.weight.detach()
    with torch.no_grad():
        theirs = network(*(torch.tensor(x) for x in TOKENS)).logits.numpy()[:, -17:]
    extra = table.numpy() if kind == "prompt" else table.view(5, 2, 2, 4, 16).permute(1, 2, 0, 3, 4).numpy()
    module, params = model()
    ours = run(module, params, *TOKENS, position_ids=np.tile(np.arange(17), (6, 1)), **{kind: extra})
    assert_close(ours * REAL, theirs * REAL)


def test_a_classifier_reads_the_last_real_token():
    module, params = model()
    encoder = module.encoder
    ids, mask = np.zeros((2, 3, 9), np.int32)
    for row, start in enumerate((0, 2, 4)):  # the same text padded right, on both sides and left
        ids[row, start : start + 5], mask[row, start : start + 5] = (7, 3, 60, 2, 9), 1
    head = {"kernel": jnp.ones((64, 20)), "bias": jnp.zeros(20)}
    embedding = run(Classifier(encoder, pooling="last"), {**params, "head": head}, ids, mask).embedding
    np.testing.assert_allclose(embedding, embedding[:1].repeat(3, 0), atol=1e-5)
    (hidden,) = run(encoder, params["encoder"], ids, mask)
    np.testing.assert_allclose(embedding[0], hidden[0, 4], atol=1e-5)
    with pytest.raises(UserError, match="the first token of a gpt2 model sees only itself: pool the last token"):
        shape(Classifier(encoder), {**params, "head": head}, ids, mask)
    with pytest.raises(UserError, match="gpt2 models have no token types"):
        shape(encoder, params["encoder"], ids, mask, mask)


def test_what_cannot_be_read_is_said():
    module, params = model()
    ones = np.ones((1, 38), int)
    with pytest.raises(UserError, match=r"has 41 tokens, but this gpt2 model reads at most 40 in all"):
        shape(module, params, np.ones((1, 41), int), np.ones((1, 41)))
    extra = {"prompt": np.zeros((2, 64)), "prefix": np.zeros((2, 2, 1, 4, 16))}
    with pytest.raises(UserError, match="38 tokens after a prompt of 2 and a prefix of 1, but this gpt2 model reads"):
        shape(module, params, ones, ones, **extra)
    with pytest.raises(UserError, match=r"a prompt for this gpt2 model is \[P, 64\] or \[1, P, 64\], not \(2, 32\)"):
        shape(module, params, ones, ones, prompt=np.zeros((2, 32)))
    with pytest.raises(UserError, match=r"a prefix for this gpt2 model is \[2, 2, P, 4, 16\], not \(1, 2, 1, 4, 16\)"):
        shape(module, params, ones, ones, prefix=np.zeros((1, 2, 1, 4, 16)))
    with pytest.raises(UserError, match=r"an attention_mask \[B, T, T\] does not say where tokens stand: give posit"):
        shape(module, params, ones, np.ones((1, 38, 38)))

    rows, mask = np.ones((2, 38), int), np.ones((2, 38))
    rows[1, 5] = 70  # the vocabulary ends at 69
    places = np.stack([np.arange(3, 41), np.arange(38)])  # and positions at 39
    logits = run(module, params, rows, mask, position_ids=places)
    assert np.isnan(logits[0, 37]).all()
    assert np.isnan(logits[1, 5:]).all()


def test_what_is_no_causal_language_model_is_an_error():
    with pytest.raises(UserError, match="tie_word_embeddings = False is not supported for gpt2 models, only True"):
        init_causal_lm(CONFIG | {"tie_word_embeddings": False})
    with pytest.raises(UserError, match="a bert model is no causal language model, expected one of gpt2"):
        init_causal_lm({"model_type": "bert"})
