"""Grouping layers into stacked segments and back, on parameters, parts of them and optimizer states."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvalues.errors import UserError
from jaxvalues.models.layers.layout import group, layer_range, parse_key, segment_key, segments_for, ungroup


def canonical(n=4, where=np):
    layers = {
        str(i): {"mlp": {"kernel": where.arange(6.0).reshape(2, 3) + i, "bias": where.full(3, float(i))}}
        for i in range(n)
    }
    return {"encoder": {"embeddings": where.ones(5), "layers": layers}, "head": where.ones(2)}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    chex.assert_trees_all_equal(a, b)


def test_segments():
    assert segments_for(3, scan=False, boundary=1) == ((0, 0), (1, 1), (2, 2))
    assert segments_for(12, scan=True) == segments_for(12, True, 12) == ((0, 11),)
    assert segments_for(12, scan=True, boundary=8) == ((0, 7), (8, 11))
    assert segments_for(12, scan=True, boundary=11) == ((0, 10), (11, 11))
    assert [segment_key(s) for s in ((3, 3), (0, 7))] == ["3", "0-7"]
    assert [parse_key(key) for key in ("3", "0-7", "norm", 3)] == [(3, 3), (0, 7), None, None]
    with pytest.raises(UserError, match="the lowest trainable layer is 13, but must lie between 0 and 12"):
        segments_for(12, True, 13)


@pytest.mark.parametrize("where", [np, jnp])
@pytest.mark.parametrize("segments", [((0, 3),), ((0, 1), (2, 3)), ((0, 2), (3, 3)), ((0, 0), (1, 1), (2, 2), (3, 3))])
def test_group_and_ungroup_are_inverse(where, segments):
    tree = canonical(12 if len(segments) == 1 else 4, where)  # twelve: "10" must not come before "2"
    segments = ((0, 11),) if len(segments) == 1 else segments
    grouped = group(tree, segments)
    assert list(grouped["encoder"]["layers"]) == [segment_key(s) for s in segments]
    assert all(isinstance(leaf, np.ndarray if where is np else jax.Array) for leaf in jax.tree.leaves(grouped))
    first, last = segments[0]
    kernel = grouped["encoder"]["layers"][segment_key((first, last))]["mlp"]["kernel"]
    assert kernel.shape == ((last - first + 1, 2, 3) if last > first else (2, 3))
    equal(ungroup(grouped), tree)
    equal(ungroup(tree), tree)


def test_optimizer_states_and_parts_of_a_tree():
    tree = canonical(where=jnp)
    state = optax.chain(optax.clip(1.0), optax.adam(optax.constant_schedule(1e-3))).init(tree)
    grouped = group(state, ((0, 3),))
    equal(grouped, optax.chain(optax.clip(1.0), optax.adam(optax.constant_schedule(1e-3))).init(group(tree, ((0, 3),))))
    equal(ungroup(grouped), state)
    part = {"layers": {i: tree["encoder"]["layers"][i] for i in ("2", "3")}, "lora": None}
    assert list(group(part, ((0, 1), (2, 3)))["layers"]) == ["2-3"]
    equal(ungroup(group(part, ((0, 1), (2, 3)))), part)
    equal(group({"layers": {"norm": np.ones(2)}}, ((0, 1),)), {"layers": {"norm": np.ones(2)}})


def test_stacks_of_their_own_depth_wherever_they_stand():
    shallow, deep = canonical(2)["encoder"], canonical(3)["encoder"]
    adapters = {side: {"layers": tree["layers"]} for side, tree in (("encoder", shallow), ("decoder", deep))}
    tree = {"encoder": shallow, "decoder": deep, "lora": adapters, "prefix": {"encoder": np.ones((2, 2, 5, 1, 3))}}
    segments = {"encoder": ((0, 1),), "decoder": ((0, 0), (1, 2))}
    grouped = group(tree, segments)
    for part in (grouped, grouped["lora"]):
        assert {side: list(part[side]["layers"]) for side in segments} == {"encoder": ["0-1"], "decoder": ["0", "1-2"]}
    assert grouped["lora"]["decoder"]["layers"]["1-2"]["mlp"]["kernel"].shape == (2, 2, 3)
    assert grouped["prefix"]["encoder"] is tree["prefix"]["encoder"]
    equal(ungroup(grouped), tree)
    with pytest.raises(UserError, match="the layers of 'decoder' are to be stacked, but only those of encoder can be"):
        group(tree, {"encoder": ((0, 1),)})


def test_shapes_alone():
    shapes = jax.eval_shape(lambda: canonical(where=jnp))
    grouped = jax.eval_shape(lambda tree: group(tree, ((0, 3),)), shapes)
    assert grouped["encoder"]["layers"]["0-3"]["mlp"]["bias"].shape == (4, 3)
    assert jax.eval_shape(ungroup, grouped) == shapes


def test_what_does_not_fit_is_said():
    tree = canonical()
    del tree["encoder"]["layers"]["1"]
    with pytest.raises(UserError, match="layers 0 to 3 are to be stacked, but layer 1 is not in the tree"):
        group(tree, ((0, 3),))
    with pytest.raises(UserError, match="layer 3 belongs to none of the segments"):
        group(canonical(), ((0, 2),))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("encoder/layers/3/mlp/up/kernel", (3, 3)),
        ("encoder/layers/10-23/mlp/up/kernel", (10, 23)),
        ("mu/encoder/layers/0-1/mlp/up/kernel", (0, 1)),
        ("layers/7/x", (7, 7)),
        ("encoder/embeddings/word/embedding", None),
        ("head/kernel", None),
        ("my_layers/3/x", None),
    ],
)
def test_the_layers_a_path_belongs_to(path, expected):
    assert layer_range(path) == expected
