"""The driver of the layer loop, by architectures that fill in its hooks and nothing else."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.layers.attention import attention, preceded_by
from jaxvalues.models.layers.cache import as_prefix, empty_cache
from jaxvalues.models.layers.config import TransformerConfig, check_supported
from jaxvalues.models.layers.decoder import Decoder
from jaxvalues.models.layers.embedding import Embedding, after_prompt
from jaxvalues.models.layers.layout import segments_for
from jaxvalues.models.layers.masks import select_positions
from jaxvalues.models.layers.ops import dropout
from jaxvalues.models.layers.transformer import Inputs, PerLayer
from jaxvalues.models.loading import random_params

CONFIG = TransformerConfig("rotary", 50, 32, 3, 4, 64, hidden_dropout_prob=0.5, max_position_embeddings=20)
IDS = np.random.RandomState(0).randint(1, 50, (2, 7))
MASK = (np.arange(7) < np.array([[7], [4]])).astype(np.int32)


class Words(nn.Module):
    """Word vectors, and a scale that every layer reads."""

    @nn.compact
    def __call__(self, ids, prompt, rng):
        word = Embedding((50, 32), nn.initializers.normal(1.0), name="word")()
        scale = self.param("scale", nn.initializers.ones, (32,))
        return dropout(after_prompt(prompt, word[ids]), CONFIG.hidden_dropout_prob, rng), scale


class RotaryLayer(nn.Module):
    """A layer with rotary positions (Su et al., 2021), which it is given through what all layers share."""

    @nn.compact
    def __call__(self, x, places, scale, mask=None, rng=None, prefix=None, positions=None, cached=()):  # noqa: PLR0917
        heads = (*x.shape[:2], 4, 8)
        query, key, value = (nn.Dense(32, name=name)(x).reshape(heads) for name in ("query", "key", "value"))
        query, key = rotate(query, places), rotate(key, places)
        new = jnp.stack([key, value])
        key, value = preceded_by(prefix)((key, value))
        if positions is not None:
            query = select_positions(query.reshape(x.shape), positions).reshape(*positions.shape, 4, 8)
            mask = jnp.take_along_axis(mask, positions[:, None, :, None], axis=2)
        out = attention(query, key, value, mask=mask, cached=cached)
        out = nn.Dense(32, name="output")(out.reshape(*out.shape[:2], 32))
        return select_positions(x, positions) + scale * dropout(out, CONFIG.hidden_dropout_prob, rng), new


def rotate(x, places):
    angle = places[..., None, None] * 100.0 ** -(jnp.arange(4) / 4)
    a, b = x[..., :4], x[..., 4:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class Rotary(Decoder):
    """Everything that a new causal family has to say."""

    def make_embeddings(self):
        return Words()

    def make_layer(self):
        return RotaryLayer(parent=None)

    def layer_example(self):
        return jnp.zeros((1, 1, 32)), jnp.zeros((1, 1)), jnp.ones(32)

    def embed(self, inputs: Inputs, rng):
        x, scale = self.embeddings(inputs.input_ids, inputs.prompt, rng)
        return x if inputs.hidden is None else inputs.hidden, (inputs.position_ids, scale)

    def layer_and_cache(self, params, x, inputs: Inputs, each: PerLayer, positions=None):
        places, scale = inputs.shared
        return self.make_layer().apply(
            {"params": params}, x, places, scale, inputs.mask, each.rng, each.prefix, positions, each.cached
        )


def make(scan=False, boundary=0, **fields):
    module = Rotary(CONFIG, segments_for(3, scan, boundary), **fields)
    return module, random_params(module, 1)


def run(module, params, *args, **options):
    return jax.jit(lambda p: module.apply({"params": p}, *args, **options))(params)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_hooks_are_all_that_a_new_family_needs(scan):
    """Layers, positions, prompts, prefixes and token-by-token decoding agree with each other."""
    module, params = make(scan)
    real = MASK[..., None]
    first, last = run(module, params, IDS, MASK, layers=(1, -1))
    assert np.abs(last - first).max() > 0.1
    (chosen,) = run(module, params, IDS, MASK, positions=np.array([[6, 2], [3, 0]]))
    assert_close(chosen, np.take_along_axis(np.asarray(last), np.array([[6, 2], [3, 0]])[..., None], 1))

    words = params["embeddings"]["word"]["embedding"][IDS[:, :2]]
    after, embedded = run(module, params, IDS[:, 2:], MASK[:, 2:], prompt=words, layers=(-1, 0))
    assert_close(after * real[:, 2:], last[:, 2:] * real[:, 2:])
    assert embedded.shape == (2, 5, 32)

    cache, pieces = empty_cache(module, 2, 8), []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 7)):
        x, cache = run(module, params, IDS[:, piece], MASK[:, piece], cache, method="extend")
        pieces.append(x)
    assert_close(np.concatenate(pieces, 1) * real, last * real)
    prefix = as_prefix(cache)[:, :, :2]  # of the first two tokens of the first row
    (after,) = run(module, params, IDS[:1, 2:], MASK[:1, 2:], prefix=prefix)
    assert_close(after, last[:1, 2:])


@pytest.mark.slow
def test_the_highest_state_is_at_the_positions_also_where_no_layer_is_computed():
    module, params = make()
    (embedded,) = run(module, params, IDS, MASK, layers=(0,))
    (chosen,) = run(module, params, IDS, MASK, layers=(0,), positions=np.array([[6], [3]]))
    np.testing.assert_array_equal(chosen[:, 0], np.stack([embedded[0, 6], embedded[1, 3]]))


@pytest.mark.exhaustive
def test_what_layers_share_is_not_differentiated_where_the_embeddings_are_not():
    def gradient(**fields):
        module, params = make(**fields)
        return jax.grad(lambda p: module.apply({"params": p}, IDS, MASK)[0].sum())(params)

    free, frozen = gradient(), gradient(stop_gradient_below=1)
    assert np.abs(free["embeddings"]["scale"]).min() > 0
    for leaf in jax.tree.leaves([frozen["embeddings"], frozen["layers"]["0"]]):
        np.testing.assert_array_equal(leaf, 0)
    assert np.abs(frozen["layers"]["1"]["output"]["kernel"]).max() > 0


@pytest.mark.slow
def test_dropout_below_the_frozen_part_can_be_off():
    drops = {"deterministic": False, "rngs": {"dropout": jax.random.key(2)}, "layers": (0, 1, 3)}
    module, params = make(stop_gradient_below=1)
    dry = run(module, params, IDS, MASK, layers=(0, 1, 3))
    wet = run(module, params, IDS, MASK, **drops)
    half = run(module.clone(dropout_below=False), params, IDS, MASK, **drops)
    for k in (0, 1):
        assert np.abs(wet[k] - dry[k]).max() > 0.1
        np.testing.assert_array_equal(half[k], dry[k])
    assert np.abs(half[2] - dry[2]).max() > 0.1
    # Features of an earlier call take the same keys in the layers above.
    again = run(module, params, IDS, MASK, hidden=half[1], deterministic=False, rngs={"dropout": jax.random.key(2)})
    assert_close(again[0], half[2])


def test_errors_name_the_model_type():
    module, params = make()
    for options, message in (
        ({"first_only": True}, "the first token of a rotary model sees only itself"),
        ({"prompt": np.zeros((2, 31))}, r"a prompt for this rotary model is \[P, 32\] or \[2, P, 32\], not \(2, 31\)"),
        ({"prefix": np.zeros((3, 2, 14, 4, 8))}, "7 tokens after a prompt of 0 and a prefix of 14, but this rotary"),
        ({"layers": (4,)}, "hidden state 4 was asked for, but a network of 3 layers has -4 to 3"),
    ):
        with pytest.raises(UserError, match=message):
            module.apply({"params": params}, IDS, MASK, **options)


def test_configs_are_read_strictly():
    given = dataclasses.asdict(CONFIG)
    assert TransformerConfig.read(given, {"is_decoder": False}) == CONFIG
    assert TransformerConfig.read({**given, "hidden_act": None}, {}).hidden_act == "gelu"
    with pytest.raises(
        UserError, match=r"of the rotary model lacks vocab_size, hidden_size, num_hidden_layers and 2 m"
    ):
        TransformerConfig.read({"model_type": "rotary"}, {})
    with pytest.raises(UserError, match="is_decoder = True is not supported for rotary models, only False"):
        check_supported({"is_decoder": True}, {"is_decoder": False}, "rotary")
