"""What stands before the tokens of encoders: prompts in the place of words, prefixes of keys and values.

Against torch live, and against the tokens and keys that they stand for.
"""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import CONFIGS as BERTS
from bert_reference import assert_close, torch_model
from deberta_reference import CONFIGS as DEBERTAS
from deberta_reference import V1, V3, tensors, torch_config
from mpnet_reference import CONFIGS as MPNETS
from mpnet_reference import MPNET
from mpnet_reference import batch as typeless_batch

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, abstract_model, build_masked_lm, build_model, init_model
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.models.heads.masked_lm import MaskedLMHead

CONFIGS = {**BERTS, **DEBERTAS, **MPNETS}
KINDS = ("bert", "roberta", "deberta", "deberta-v2-xlarge", "deberta-v2-separate", "mpnet")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FRONT = np.array([9, 23, 9])  # P = 3 words


def batch(config: dict) -> dict:
    """Padded ids, masks and token types, and a direction, for a network with or without token types."""
    return typeless_batch({"type_vocab_size": 1, **config})


def width(config: dict) -> int:
    return config.get("embedding_size", config["hidden_size"])


def extra(config: dict, layers: int = 2, seed: int = 5) -> dict:
    """A prompt of two vectors and a prefix of three keys and values."""
    random = np.random.RandomState(seed)
    shapes = {"prompt": (2, width(config)), "prefix": (layers, 2, 3, 4, 16)}
    return {name: 0.5 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def case(kind: str, layers: int = 2, **options):
    """A network with random weights, `(module, params, inputs, real)`."""
    config = CONFIGS[kind] | {"num_hidden_layers": layers}
    module, shapes = abstract_model(config, **options)
    params = to_params(tensors(config), ARCHITECTURES[config["model_type"]].table, shapes)
    inputs = batch(config)
    return module, params, inputs, inputs["attention_mask"][..., None]


def run(module, params, inputs: dict, **more):
    """What a module gives, compiled."""
    return jax.jit(lambda p: module.apply({"params": p}, *(inputs[name] for name in INPUTS), **more))(params)


@functools.cache
def torch_network(kind: str):
    import transformers

    config = CONFIGS[kind]
    if kind in BERTS:
        return torch_model(config, tensors(config)).double()
    import torch

    pooler = {"add_pooling_layer": False} if kind == "mpnet" else {}
    network = transformers.AutoModel.from_config(torch_config(config), **pooler).eval()
    network.load_state_dict({name: torch.tensor(array) for name, array in tensors(config).items()}, strict=True)
    return network.double()


@pytest.mark.slow
@pytest.mark.main_cases("roberta-options3", "deberta-options4", "mpnet-options11", "deberta-v2-xlarge-options7")
@pytest.mark.parametrize(
    ("kind", "options"), itertools.product(KINDS, ({"scan": False}, {"scan": True, "remat": True}))
)
def test_a_prompt_is_torchs_inputs_embeds(kind, options):
    torch = pytest.importorskip("torch")
    module, params, inputs, _ = case(kind, **options)
    network, given = torch_network(kind), extra(CONFIGS[kind])["prompt"]
    direction = inputs["direction"]

    prompt = torch.tensor(given).double().requires_grad_()
    ids, mask, types = (torch.tensor(inputs[name]).long() for name in INPUTS)
    words = torch.cat([prompt.expand(len(ids), -1, -1), network.get_input_embeddings()(ids)], dim=1)
    mask, types = (torch.nn.functional.pad(x, (2, 0), value=value) for x, value in ((mask, 1), (types, 0)))
    hidden = network(inputs_embeds=words, attention_mask=mask, token_type_ids=types).last_hidden_state[:, 2:]
    hidden = hidden * ids.new_tensor(inputs["attention_mask"])[..., None]
    (hidden * torch.tensor(direction)).sum().backward()

    @jax.jit
    def measured(prompt):
        (last,) = module.apply({"params": params}, *(inputs[name] for name in INPUTS), prompt=prompt)
        return (last * direction).sum(), last * inputs["attention_mask"][..., None]

    gradient, ours = jax.grad(measured, has_aux=True)(given)
    assert_close(ours, hidden.detach().float().numpy())
    assert_close(gradient, prompt.grad.float().numpy(), 2e-5)


@pytest.mark.main_cases("roberta-True")
@pytest.mark.parametrize(("kind", "scan"), itertools.product(BERTS, (False, True)))
def test_a_prefix_is_torchs_past_key_values(kind, scan):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    module, params, inputs, real = case(kind, scan=scan)
    network, given = torch_network(kind), extra(CONFIGS[kind])["prefix"]

    prefix = torch.tensor(given).double().requires_grad_()
    ids, mask, types = (torch.tensor(inputs[name]).long() for name in INPUTS)
    past = transformers.DynamicCache()
    for i, (key, value) in enumerate(prefix):
        past.update(*(x.transpose(0, 1).expand(len(ids), -1, -1, -1) for x in (key, value)), i)
    mask = torch.nn.functional.pad(mask, (3, 0), value=1)
    hidden = network(ids, mask, types, past_key_values=past).last_hidden_state * torch.tensor(real)
    (hidden * torch.tensor(inputs["direction"])).sum().backward()

    @jax.jit
    def measured(prefix):
        (last,) = module.apply({"params": params}, *(inputs[name] for name in INPUTS), prefix=prefix)
        return (last * inputs["direction"]).sum(), last * real

    gradient, ours = jax.grad(measured, has_aux=True)(given)
    assert_close(ours, hidden.detach().float().numpy())
    assert_close(gradient, prefix.grad.float().numpy(), 2e-5)


@pytest.mark.slow
@pytest.mark.main_cases("bert", "deberta-v2-separate")
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_of_word_vectors_is_those_words(kind):
    module, params, inputs, real = case(kind, scan=True)
    front = {"input_ids": FRONT, "attention_mask": np.ones(3, int), "token_type_ids": np.zeros(3, int)}
    longer = {name: np.concatenate([np.tile(front[name], (6, 1)), inputs[name]], axis=1) for name in INPUTS}
    vectors = params["embeddings"]["word"]["embedding"][FRONT]

    def states(inputs, **more):
        return module.apply({"params": params}, *(inputs[name] for name in INPUTS), layers=(0, 1, 2), **more)

    @jax.jit
    def everything(vectors):
        each = jnp.broadcast_to(vectors, (6, *vectors.shape))
        return states(longer), states(inputs, prompt=vectors), states(inputs, prompt=each), states(inputs)

    words, shared, own, plain = everything(vectors)
    for mine, other, expected in zip(shared, own, words, strict=True):
        assert_close(mine * real, expected[:, 3:] * real, 1e-6)
        np.testing.assert_array_equal(mine, other)
    assert np.abs((words[2][:, 3:] - plain[2]) * real).max() > 0.1


@pytest.mark.slow
@pytest.mark.main_cases("roberta", "deberta-v2-xlarge")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_before_the_tokens_is_nothing(kind):
    module, params, inputs, _ = case(kind, scan=True)
    plain = run(module, params, inputs)[0]
    for nothing in ({"prompt": np.zeros((0, width(CONFIGS[kind])))}, {"prefix": np.zeros((2, 2, 0, 4, 16))}):
        np.testing.assert_array_equal(run(module, params, inputs, **nothing)[0], plain)


@pytest.mark.slow
@pytest.mark.main_cases("config1-key", "config2-key")
@pytest.mark.parametrize(("config", "project"), [(V1, "in_proj"), (V3, "key"), (MPNET, "key")])
def test_a_prefix_beside_distances_is_known_by_its_content_alone(config, project):
    """Where distances say nothing, a prompt of one layer is a prefix of its keys and values; order never counts."""
    module, params = init_model({**config, "num_hidden_layers": 1, "initializer_range": 0.2}, 1, scan=False)
    inputs = batch(config)
    tables = {key: params["embeddings"][key] for key in ("relative", "position") if key in params["embeddings"]}
    params["embeddings"] |= jax.tree.map(jnp.zeros_like, tables)
    vectors = params["embeddings"]["word"]["embedding"][FRONT]
    (x,) = module.apply({"params": params}, FRONT[None], np.ones((1, 3)), layers=(0,))
    attention = params["layers"]["0"]["attention"]
    if project == "in_proj":
        _, key, value = np.split((x[0] @ attention["in_proj"]["kernel"]).reshape(3, 4, 48), 3, axis=-1)
    else:
        key, value = ((x[0] @ attention[name]["kernel"]).reshape(3, 4, 16) for name in ("key", "value"))
    prefix = np.stack([key, value])[None]
    assert_close(run(module, params, inputs, prefix=prefix)[0], run(module, params, inputs, prompt=vectors)[0])

    params["embeddings"] |= tables
    (there,) = run(module, params, inputs, prefix=prefix)
    assert_close(run(module, params, inputs, prefix=prefix[:, :, ::-1])[0], there, 1e-6)
    assert np.abs(there - run(module, params, inputs, prompt=vectors)[0]).max() > 0.01


@pytest.mark.slow
@pytest.mark.main_cases("roberta-*", "deberta-v2-xlarge-False-*", "mpnet-*")
@pytest.mark.parametrize(
    ("kind", "scan", "top"),
    [
        ("roberta", True, 2),
        ("deberta", False, 2),
        ("deberta-v2-xlarge", True, 2),
        ("deberta-v2-xlarge", False, 1),
        ("mpnet", True, 2),
    ],
)
def test_the_first_token_alone_is_the_same_and_behind_the_prompt(kind, scan, top):
    module, params, inputs, _ = case(kind, scan=scan)

    def first(given, first_only):
        (hidden,) = module.apply(
            {"params": params}, *(inputs[name] for name in INPUTS), layers=(top,), first_only=first_only, **given
        )
        return (hidden[:, 0] * inputs["direction"][:, 0]).sum(), hidden

    given = extra(CONFIGS[kind])
    full, alone = (jax.jit(jax.grad(first, has_aux=True), static_argnums=1)(given, only) for only in (False, True))
    assert alone[1].shape == (6, 1, 64)
    assert_close(alone[1], full[1][:, :1])
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(full[0]))
    jax.tree.map(lambda a, b: assert_close(a, b, floor=1e-6 * largest), alone[0], full[0])
    assert np.abs(alone[0]["prompt"]).min() > 0


@pytest.mark.exhaustive
@pytest.mark.main_cases("deberta-v3")
@pytest.mark.parametrize("kind", ["roberta", "deberta-v3"])
def test_gradients_reach_prompt_and_prefix_and_stop_below(kind):
    def gradient(names, **options):
        module, params, inputs, _ = case(kind, layers=3, **options)

        def loss(given):
            (last,) = module.apply({"params": params}, *(inputs[name] for name in INPUTS), **given)
            return (last * inputs["direction"]).sum()

        given = extra(CONFIGS[kind], layers=3)
        return jax.jit(jax.grad(loss))({name: given[name] for name in names})

    full = gradient(("prompt", "prefix"), scan=True, remat=True)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(full))
    full = gradient(("prefix",), scan=False)["prefix"]
    for options in ({"scan": False}, {"scan": True, "boundary": 2}):
        stopped = gradient(("prefix",), stop_gradient_below=2, **options)["prefix"]
        assert not stopped[:2].any()
        assert_close(stopped[2], full[2])


@pytest.mark.main_cases("deberta-v2-xlarge", "mpnet")
@pytest.mark.parametrize("kind", ["bert", "deberta-v2-xlarge", "mpnet"])
def test_stored_features_know_the_prefix_that_they_were_made_with(kind):
    module, params, inputs, real = case(kind, scan=False, stop_gradient_below=1)
    given = extra(CONFIGS[kind])["prefix"]
    below, last = run(module, params, inputs, prefix=given, layers=(1, 2))
    (again,) = run(module, params, inputs, prefix=given, hidden=below)
    assert_close(again * real, last * real, 1e-6)


@pytest.mark.slow
@pytest.mark.main_cases("roberta")
@pytest.mark.parametrize("kind", ["roberta", "deberta-v2-xlarge"])
def test_bfloat16_computes_near_float32_and_stays_finite(kind):
    given = extra(CONFIGS[kind])
    results = []
    for dtype in ("bfloat16", "float32"):
        module, params, inputs, real = case(kind, scan=True, remat=True, dtype=dtype)
        inputs["attention_mask"] = inputs["attention_mask"] * (np.arange(6) != 3)[:, None]  # a row without a token

        def loss(given, module=module, params=params, inputs=inputs):
            (last,) = module.apply({"params": params}, *(inputs[name] for name in INPUTS), **given)
            return (last * inputs["direction"]).sum(), last

        grads, last = jax.jit(jax.grad(loss, has_aux=True))(given)
        assert last.dtype == dtype
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, last)))
        results.append(np.asarray(last, np.float32) * real * inputs["attention_mask"][..., None])
    assert_close(*results, relative=0.05)


@pytest.mark.slow
@pytest.mark.main_cases("deberta-v2-separate")
@pytest.mark.parametrize("kind", ["bert", "deberta-v2-separate"])
def test_classifiers_and_masked_language_models_hand_them_on(kind):
    encoder, params, inputs, real = case(kind, scan=True)
    given = extra(CONFIGS[kind])
    (hidden,) = run(encoder, params, inputs, **given)
    head = {"kernel": jnp.ones((64, 20)), "bias": jnp.zeros(20)}
    for pooling, pooled in (("cls", hidden[:, 0]), ("mean", (hidden * real).sum(1) / real.sum(1))):
        outputs = run(Classifier(encoder, pooling=pooling), {"encoder": params, "head": head}, inputs, **given)
        assert_close(outputs.embedding, pooled)

    module = build_masked_lm(CONFIGS[kind], scan=True)
    masked = jax.eval_shape(lambda key: module.init(key, *(inputs[name] for name in INPUTS)), jax.random.key(0))
    head = jax.tree.map(lambda leaf: 0.3 + jnp.arange(leaf.size).reshape(leaf.shape) % 7, masked["params"]["head"])
    positions = inputs["attention_mask"].sum(1, keepdims=True) - 1
    logits = run(module, {"encoder": params, "head": head}, inputs, positions=positions, **given)
    at = jnp.take_along_axis(hidden, positions[..., None], axis=1)
    expected = MaskedLMHead(encoder.config).apply({"params": head}, at, params["embeddings"]["word"]["embedding"])
    assert_close(logits, expected)


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-short-span", "deberta-v3", "mpnet"])
def test_what_does_not_fit_is_said(kind):
    config = CONFIGS[kind]
    module, params = abstract_model(config)
    kind, limit = config["model_type"], module.config.max_tokens

    def traced(tokens, module=module, **given):
        ids = np.ones((2, tokens), int)
        return jax.eval_shape(lambda p: module.apply({"params": p}, ids, ids, **given), params)[0]

    prefix = np.zeros((2, 2, 3, 4, 16))
    if limit < 100:
        takes = 0 if kind in ("deberta", "mpnet") else 3  # places that a prefix takes
        assert traced(limit - 2 - takes, prompt=np.zeros((2, 64)), prefix=prefix).shape == (2, limit - 2 - takes, 64)
        message = (
            f"{limit - 1 - takes} tokens after a prompt of 2 and a prefix of {takes}, but this {kind} model reads "
        )
        with pytest.raises(UserError, match=f"{message}at most {limit} in all"):
            traced(limit - 1 - takes, prompt=np.zeros((2, 64)), prefix=prefix)
    else:
        assert traced(60, prompt=np.zeros((2, 64)), prefix=prefix).shape == (2, 60, 64)
    for bad in ((2, 32), (3, 2, 64), (64,)):
        with pytest.raises(UserError, match=rf"this {kind} model is \[P, 64\] or \[2, P, 64\], not \({bad[0]}, ?"):
            traced(4, prompt=np.zeros(bad))
    for bad in ((1, 2, 3, 4, 16), (2, 2, 3, 64)):
        with pytest.raises(UserError, match=rf"this {kind} model is \[2, 2, P, 4, 16\], not \({bad[0]}, 2, 3"):
            traced(4, prefix=np.zeros(bad))
    frozen = build_model(config, stop_gradient_below=1)
    with pytest.raises(UserError, match=f"a prompt enters a {kind} model below its layers, but nothing there is diff"):
        traced(4, frozen, prompt=np.zeros((2, 64)))
    with pytest.raises(UserError, match="below its layers, but nothing there is differentiated"):
        traced(4, prompt=np.zeros((2, 64)), hidden=np.zeros((2, 4, 64)))


@pytest.mark.exhaustive
def test_scanned_and_unrolled_drop_alike():
    config = CONFIGS["deberta-v3"]
    inputs, given = batch(config), extra(config)
    params = init_model(config, 7, scan=False)[1], init_model(config, 7, scan=True)[1]
    modules = build_model(config, scan=False), build_model(config, scan=True, remat=True)

    def dropped(module, params):
        rngs = {"dropout": jax.random.key(3)}
        return jax.jit(
            lambda p: module.apply(
                {"params": p}, *(inputs[name] for name in INPUTS), deterministic=False, rngs=rngs, **given
            )[0]
        )(params)

    unrolled, scanned = (dropped(*each) for each in zip(modules, params, strict=True))
    chex.assert_shape(unrolled, (6, 17, 64))
    assert_close(scanned, unrolled)
