"""The methods that train weights: what trains, what stays, and that both together are the model."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from jaxvalues.assembly import build_network, count
from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError
from jaxvalues.tuning.weights import Full, LastLayers, layer_range, make_tuning

KEY = jax.random.key(0)
D, F, C, LAYERS = 64, 128, 20, 5
LAYER = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D  # attention, feed-forward, two norms
HEAD = D * C + C


def network(layers: int | None, scan: bool):
    """A network of 5 layers of which the top `layers` train (None: everything)."""
    tuning = {"method": "full"} if layers is None else {"method": "last_layers", "layers": layers}
    hf_config = {**tiny.ROBERTA, "num_hidden_layers": LAYERS, "vocab_size": 600, "pad_token_id": 1}
    return build_network(tiny.config({"model": {"scan": scan}, "tuning": tuning}), hf_config)


def paths(tree: dict) -> set[str]:
    return set(flatten_dict(tree, sep="/"))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_top_layers_and_the_head_train_and_nothing_else(layers: int, scan: bool) -> None:
    frozen, trainable = network(layers, scan).abstract_parts()
    assert count(trainable) == layers * LAYER + HEAD
    assert count(frozen) + count(trainable) == count(network(None, scan).abstract_parts()[1])
    assert not paths(frozen) & paths(trainable)
    ranges = [layer_range(path) for path in paths(trainable) if not path.startswith("head/")]
    assert {i for first, last in ranges for i in range(first, last + 1)} == set(range(LAYERS - layers, LAYERS))
    assert any("embeddings/" in path for path in paths(frozen))


def abstract_parts(method: str, scan: bool) -> tuple[dict, dict]:
    """(frozen, trainable) of the network of 5 layers, with a projection for contrastive learning."""
    changes = {"tuning": {"method": method}, "model": {"scan": scan}}
    changes["loss"] = {"contrastive": {"embedding": "projected", "projection_size": 32}}
    hf_config = {**tiny.ROBERTA, "num_hidden_layers": LAYERS, "vocab_size": 600, "pad_token_id": 1}
    return build_network(tiny.config(changes), hf_config).abstract_parts()


PROJECTION = D * D + D + D * 32 + 32


@pytest.mark.parametrize("scan", [False, True])
def test_the_head_alone(scan: bool) -> None:
    frozen, trainable = abstract_parts("head", scan)
    assert count(trainable) == HEAD + PROJECTION
    assert trainable.keys() == {"head", "projection"}
    assert frozen.keys() == {"encoder"}


@pytest.mark.parametrize("scan", [False, True])
def test_bitfit_trains_every_bias_and_what_is_new(scan: bool) -> None:
    frozen, trainable = abstract_parts("bitfit", scan)
    biases = LAYERS * (4 * D + F + D + 2 * D) + D  # attention, feed-forward, two norms; and the embeddings' norm
    assert count(trainable) == biases + HEAD + PROJECTION
    assert all(path.endswith("/bias") or not path.startswith("encoder/") for path in paths(trainable))
    assert not any(path.endswith("/bias") for path in paths(frozen))


def test_full_tuning_freezes_nothing() -> None:
    params = {"encoder": {"embeddings": np.zeros(3)}, "head": np.ones(2)}
    frozen, trainable = Full().init(KEY, params)
    assert frozen == {}
    assert trainable is params
    assert Full().bind(frozen, trainable).params is params


@pytest.mark.parametrize("scan", [False, True])
def test_binding_gives_the_parted_parameters_back(scan: bool) -> None:
    cut = network(2, scan)
    abstract = jax.eval_shape(cut.init, KEY)
    params = jax.tree.unflatten(
        jax.tree.structure(abstract), [np.array(i) for i in range(len(jax.tree.leaves(abstract)))]
    )
    frozen, trainable = cut.tuning.init(KEY, params)
    bound = cut.tuning.bind(frozen, trainable).params
    assert jax.tree.structure(bound) == jax.tree.structure(params)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, bound, params)))


def test_more_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"tuning.layers is 6, but the model has only 5 layers"):
        network(6, scan=False)


def test_boundaries() -> None:
    assert Full().boundary(12) == 0
    assert LastLayers(8).boundary(12) == 4
    assert make_tuning(TuningConfig(method="last_layers", layers=8)) == LastLayers(8)
    assert make_tuning(TuningConfig()) == Full()
    assert make_tuning(TuningConfig(method="head")).boundary(12) == 12
    assert make_tuning(TuningConfig(method="bitfit")).boundary(12) == 0


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"method": "full", "dropout_below": False}, "no layer is below those that train: leave out dropout_below"),
        ({"method": "bitfit", "reuse_features": True}, "reuse_features needs a method that freezes the lower layers"),
        ({"method": "head", "reuse_features": True}, "reuse_features needs .* and dropout_below: false"),
        ({"method": "head", "layers": 2}, "`layers` must be given with method: last_layers, and only with it"),
    ],
)
def test_keys_that_do_not_fit_the_method_are_errors(tuning: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TuningConfig(**tuning)


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
def test_the_layers_a_path_belongs_to(path: str, expected: tuple[int, int] | None) -> None:
    assert layer_range(path) == expected
