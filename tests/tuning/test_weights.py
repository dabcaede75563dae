"""The methods that train weights: what trains, what stays, and that both together are the model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tuned import CONFIGS, KEY, KINDS, NEW, NEW_SIZE, D, F, L, V, build, count, fill, method

from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError
from jaxvalues.models import build_causal_lm, build_masked_lm
from jaxvalues.models.layers.layout import layer_range

LAYERS = 5
LAYER = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D  # attention, feed-forward, two norms


def paths(tree: dict) -> set[str]:
    return set(flatten_dict(tree, sep="/"))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_top_layers_and_what_is_new_train_and_nothing_else(layers: int, scan: bool) -> None:
    system = build("roberta", scan, LAYERS, boundary=LAYERS - layers)
    tuning = method(system.target, method="last_layers", layers=layers)
    frozen, trainable = tuning.init(KEY, system.params)
    assert count(trainable) == layers * LAYER + NEW_SIZE
    assert count(frozen) + count(trainable) == count(system.params)
    assert not paths(frozen) & paths(trainable)
    ranges = [layer_range(path) for path in paths(trainable) if path.split("/")[0] not in NEW]
    assert {i for first, last in ranges for i in range(first, last + 1)} == set(range(LAYERS - layers, LAYERS))
    assert any("embeddings/" in path for path in paths(frozen))
    assert tuning.boundary(LAYERS) == LAYERS - layers


@pytest.mark.parametrize("scan", [False, True])
def test_the_head_alone(scan: bool) -> None:
    system = build("roberta", scan)
    tuning = method(system.target, method="head")
    assert tuning.init(KEY, system.params) == ({"encoder": system.params["encoder"]}, NEW)
    assert tuning.boundary(12) == 12


@pytest.mark.parametrize("scan", [False, True])
def test_bitfit_trains_every_bias_and_what_is_new(scan: bool) -> None:
    system = build("roberta", scan)
    tuning = method(system.target, method="bitfit")
    frozen, trainable = tuning.init(KEY, system.params)
    biases = L * (4 * D + F + D + 2 * D) + D  # attention, feed-forward, two norms; and the embeddings' norm
    assert count(trainable) == biases + NEW_SIZE
    assert all(path.endswith("/bias") or path.split("/")[0] in NEW for path in paths(trainable))
    assert not any(path.endswith("/bias") for path in paths(frozen))
    assert tuning.boundary(12) == 0


@pytest.mark.parametrize(("kind", "scan"), [("roberta", False), ("deberta-v2", True), ("llama", True), ("gpt2", False)])
def test_norms_trains_every_norm_and_what_is_new(kind: str, scan: bool) -> None:
    system = build(kind, scan)
    tuning = method(system.target, method="norms")
    frozen, trainable = tuning.init(KEY, system.params)
    norms = {"roberta": 2 * L + 1, "deberta-v2": 2 * L + 3, "llama": 2 * L + 1, "gpt2": 2 * L + 1}[kind]
    new = system.target.new_keys
    assert count(trainable) == norms * D * (1 if kind == "llama" else 2) + (NEW_SIZE if new else 0)
    assert all("norm/" in path or path.split("/")[0] in new for path in paths(trainable))
    assert not any("norm/" in path or path.endswith("/scale") for path in paths(frozen))
    assert tuning.bind(frozen, trainable).params.keys() == system.params.keys()
    assert tuning.boundary(12) == 0


def test_a_head_that_a_checkpoint_holds_is_above_the_layers() -> None:
    system = build("roberta")
    target = system.target._replace(new_keys=frozenset())
    params = {"encoder": system.params["encoder"], "head": NEW["head"]}
    frozen, trainable = method(target, method="last_layers", layers=1).init(KEY, params)
    assert paths(trainable) >= {"head/kernel", "head/bias"}
    assert count(trainable) == LAYER + count(NEW["head"])
    frozen, trainable = method(target, method="bitfit").init(KEY, params)
    assert "head/kernel" in paths(frozen)
    assert "head/bias" in paths(trainable)


MASKED_HEAD = D * D + D + 2 * D + V  # dense, norm and bias; the output matrix is the word embeddings
FINAL_NORM = 2 * D
ABOVE = {
    "roberta": MASKED_HEAD, "deberta": MASKED_HEAD, "deberta-v2": MASKED_HEAD, "mpnet": MASKED_HEAD,
    "gpt2": FINAL_NORM,
    "llama": D + V * D,  # a norm without bias, and an output matrix of its own
}  # fmt: skip


@pytest.mark.main_cases("roberta-True", "gpt2-False", "llama-True")
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", ABOVE)
def test_what_language_models_have_above_their_layers_trains(kind: str, scan: bool) -> None:
    """And gets gradients; the word embeddings stay frozen, though they are the output matrix too."""
    target = build(kind).target._replace(new_keys=frozenset())
    tuning = method(target, method="last_layers", layers=1)
    options = {"scan": scan, "boundary": L - 1, "stop_gradient_below": L - 1}
    module = (build_causal_lm if kind in ("gpt2", "llama") else build_masked_lm)(CONFIGS[kind], **options)
    frozen, trainable = tuning.init(KEY, jax.tree.map(jnp.asarray, fill(module)))
    above = {path for path in paths(trainable) if layer_range(path) is None}
    assert sum(flatten_dict(trainable, sep="/")[path].size for path in above) == ABOVE[kind]
    assert all("embedding" in path or layer_range(path) is not None for path in paths(frozen))
    ids = np.random.RandomState(0).randint(2, V, (2, 8))

    @jax.jit
    @jax.grad
    def gradients(trainable: dict) -> jax.Array:
        logits = module.apply({"params": tuning.bind(frozen, trainable).params}, ids, np.ones_like(ids))
        return jax.nn.log_softmax(logits)[..., 3].sum()

    for path, leaf in flatten_dict(gradients(trainable), sep="/").items():
        assert np.abs(leaf).max() > 0 or path.endswith("key/bias"), path


def test_a_classifier_on_gpt2_trains_its_final_norm() -> None:
    system = build("gpt2")
    tuning = method(system.target._replace(new_keys=frozenset(NEW)), method="last_layers", layers=1)
    _, trainable = tuning.init(KEY, {**NEW, **system.params})
    assert paths(trainable) >= {"encoder/norm/scale", "encoder/norm/bias", "head/kernel"}
    assert not any("embeddings/" in path for path in paths(trainable))
    _, trainable = method(system.target._replace(new_keys=frozenset(NEW)), method="head").init(
        KEY, {**NEW, **system.params}
    )
    assert trainable == NEW  # on a frozen network


@pytest.mark.parametrize("kind", KINDS)
def test_full_tuning_freezes_nothing(kind: str) -> None:
    system = build(kind)
    tuning = method(system.target)
    frozen, trainable = tuning.init(KEY, system.params)
    assert frozen == {}
    assert trainable is system.params
    assert tuning.bind(frozen, trainable).params is system.params
    assert tuning.boundary(12) == 0


@pytest.mark.parametrize("config", [{"method": "last_layers", "layers": 1}, {"method": "head"}, {"method": "bitfit"}])
@pytest.mark.parametrize("kind", ["deberta", "gpt2"])
def test_binding_gives_the_parted_parameters_back(kind: str, config: dict) -> None:
    system = build(kind)
    params = {**NEW, **system.params}
    tuning = method(system.target._replace(new_keys=frozenset(NEW)), **config)
    bound = tuning.bind(*tuning.init(KEY, params))
    assert jax.tree.structure(bound.params) == jax.tree.structure(params)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, bound.params, params)))
    assert (bound.prompt, bound.prefix) == (None, None)


def test_more_layers_than_there_are_is_an_error() -> None:
    system = build("roberta")
    with pytest.raises(ConfigError, match=r"tuning.layers is 6, but the model has only 2 layers"):
        method(system.target, method="last_layers", layers=6).init(KEY, system.params)


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (
            {"method": "full", "dropout_below": False},
            "`dropout_below` belongs to method: last_layers or head, not to full",
        ),
        ({"method": "bitfit", "reuse_features": True}, "`reuse_features: true` needs method: last_layers or head"),
        ({"method": "head", "reuse_features": True}, "`reuse_features: true` needs .* with dropout_below: false"),
        ({"method": "head", "layers": 2}, "`layers` is required with method: last_layers and belongs"),
    ],
)
def test_keys_that_do_not_fit_the_method_are_errors(tuning: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TuningConfig(**tuning)
