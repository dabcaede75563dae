"""Every method on every architecture: what trains and how much, what stays, and that it starts where it says."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tuned import KEY, KINDS, NEW, NEW_SIZE, D, F, H, K, L, N, build, count, method, moved

from jaxvalues.errors import ConfigError
from jaxvalues.models import Prefix, Prompt, ungroup
from jaxvalues.tuning import Bound

P, R, SIZE = 5, 3, 8
RESIDUAL = {"method": "prompt", "reparameterization": "residual"}
ADDED = {
    "prompt": {"length": P},
    "residual": {**RESIDUAL, "length": P, "reparameterization_size": SIZE},
    "p_tuning": {"length": P, "reparameterization_size": SIZE},
    "lstm": {"method": "p_tuning", "length": P, "reparameterization": "lstm", "reparameterization_size": SIZE},
    "prefix": {"length": P},
    "prefix mlp": {"method": "prefix", "length": P, "reparameterization": "mlp", "reparameterization_size": SIZE},
    "lora": {"rank": R},
    "ia3": {},
}
MLP = P * D + (D * SIZE + SIZE) + (SIZE * SIZE + SIZE) + (SIZE * D + D)
LSTM = P * D + 8 * SIZE * (D + SIZE + 1) + 8 * SIZE * (3 * SIZE + 1) + 4 * SIZE**2 + 2 * SIZE + (2 * SIZE * D + D)
T5_LAYERS, T5_INNER = L + 3 + 3, N * 24  # encoder, decoder, cross-attention; heads of T5 are wider than the network


def expected(kind: str, name: str) -> int:
    """Numbers that a method adds, counted by hand."""
    columns = {"t5": 2 * T5_LAYERS * T5_INNER, "llama": 2 * L * K * H}.get(kind, 2 * L * D)
    stacks = 3 if kind == "t5" else 1
    lora = {"gpt2": L * (D + 3 * D), "deberta": L * (D + 3 * D), "t5": 2 * T5_LAYERS * (D + T5_INNER)}
    lora["llama"] = L * ((D + D) + (D + K * H))
    ia3 = {
        "gpt2": L * (3 * D + F),
        "deberta": L * (3 * D + D + F),
        "t5": 2 * T5_LAYERS * T5_INNER + (L + 3) * F,
        "llama": L * (2 * K * H + F),
    }
    return {
        "prompt": P * D,
        "residual": P * D + (D * SIZE + SIZE) + (SIZE * D + D) + 2 * D,
        "p_tuning": MLP,
        "lstm": LSTM,
        "prefix": P * columns,
        "prefix mlp": stacks * (P * D + D * SIZE + SIZE) + (SIZE + 1) * columns,
        "lora": R * lora.get(kind, 2 * L * 2 * D),
        "ia3": ia3.get(kind, L * (3 * D + F)),
    }[name]


@pytest.mark.main_cases("gpt2-True-*", "t5-False-*", "deberta-v2-True-lora", "llama-True-*")
@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_is_counted_by_its_formula_and_nothing_else_trains(kind: str, scan: bool, name: str) -> None:
    system = build(kind, scan)
    tuning = method(system.target, **{"method": name, **ADDED[name]})
    abstract = jax.eval_shape(lambda: system.params)
    frozen, trainable = jax.eval_shape(tuning.init, KEY, abstract)
    new = system.params.keys() & system.target.new_keys
    assert count(trainable) == expected(kind, name) + (NEW_SIZE if new else 0)
    assert trainable.keys() == {tuning.key, *new}
    assert frozen == {key: tree for key, tree in abstract.items() if key not in new}
    assert tuning.boundary(L) == 0

    bound = jax.eval_shape(tuning.bind, frozen, trainable)
    merged = jax.eval_shape(tuning.merge, frozen, trainable)
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, abstract)
    stack = (2, P, K if kind == "llama" else N, 24 if kind == "t5" else H)
    prompt, prefix = (P, D), (L, *stack)
    if kind == "t5":
        prompt, prefix = Prompt(encoder=(P, D)), Prefix((L, *stack), (3, *stack), (3, *stack))
    shapes = {"prompt": (prompt, None), "p_tuning": (prompt, None), "prefix": (None, prefix)}
    found = jax.tree.map(np.shape, (bound.prompt, bound.prefix))
    assert found == shapes.get(tuning.key, (None, None))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "name"), [("deberta", "lora"), *(("t5", name) for name in ("prompt", "lstm", "prefix", "lora"))]
)
def test_the_start_depends_on_the_rng_alone(kind: str, name: str) -> None:
    unrolled, scanned = build(kind), build(kind, scan=True)
    tuning = method(unrolled.target, **{"method": name, **ADDED[name]})
    init = jax.jit(tuning.init)
    frozen, one = init(KEY, unrolled.params)
    chex.assert_trees_all_equal(frozen, {key: unrolled.params[key] for key in frozen})
    chex.assert_trees_all_equal(one, ungroup(init(KEY, scanned.params)[1]))
    chex.assert_trees_all_equal(one, init(KEY, unrolled.params)[1])
    other = flatten_dict(init(jax.random.key(8), unrolled.params)[1][tuning.key], sep="/")
    first = flatten_dict(one[tuning.key], sep="/")
    assert all(np.any(other[path] != first[path]) for path in first if not path.endswith("/b"))  # b starts at 0


@pytest.mark.main_cases("roberta-True-lora", "t5-False-ia3", "gpt2-True-ia3", "deberta-v2-False-lora", "llama-True-ia3")
@pytest.mark.parametrize("name", ["lora", "ia3"])
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_change_nothing_at_first(kind: str, scan: bool, name: str) -> None:
    system = build(kind, scan)
    tuning = method(system.target, **{"method": name, **ADDED[name]})
    parts = tuning.init(KEY, system.params)
    assert tuning.bind(*parts)[1:] == (None, None)
    merged = tuning.merge(*parts)
    assert jax.tree.structure(merged) == jax.tree.structure(system.params)
    chex.assert_trees_all_equal(merged, system.params)


def test_a_residual_prompt_is_itself_plus_what_a_normed_bottleneck_makes_of_it() -> None:
    system = build("t5")
    tuning = method(system.target, **ADDED["residual"], init="uniform", sides=("encoder", "decoder"))
    plain = method(system.target, method="prompt", length=P, init="uniform", sides=("encoder", "decoder"))
    frozen, trainable = tuning.init(KEY, system.params)
    first = plain.init(KEY, system.params)[1]["prompt"]
    assert {side: tree["embedding"].shape for side, tree in trainable["prompt"].items()} == {
        side: vectors.shape for side, vectors in first.items()
    }
    trainable = moved(trainable)
    bound = tuning.bind(frozen, trainable)
    for side in ("encoder", "decoder"):
        tree = jax.tree.map(lambda x: np.asarray(x, np.float64), trainable["prompt"][side])
        p, down, up = tree["embedding"], tree["mlp"]["down"], tree["mlp"]["up"]
        made = np.maximum(p @ down["kernel"] + down["bias"], 0) @ up["kernel"] + up["bias"]
        made = (made - made.mean(-1, keepdims=True)) / np.sqrt(made.var(-1, keepdims=True) + 1e-5)
        expected = p + made * tree["norm"]["scale"] + tree["norm"]["bias"]
        np.testing.assert_allclose(getattr(bound.prompt, side), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompt", "lstm", "prefix", "prefix mlp"])
def test_what_enters_before_the_tokens_leaves_the_weights_as_they_are(name: str) -> None:
    system = build("t5")
    tuning = method(system.target, **{"method": name, **ADDED[name]})
    bound = tuning.bind(*tuning.init(KEY, system.params))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, bound.params, system.params)))


@pytest.mark.slow
@pytest.mark.main_cases("gpt2-lstm", "gpt2-residual", "gpt2-prefix", "gpt2-lora", "t5-prompt", "t5-ia3", "llama-prefix")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("gpt2", name) for name in ADDED),
        *((kind, name) for kind in ("t5", "llama") for name in ("prompt", "prefix", "lora", "ia3")),
    ],
)
def test_gradients_reach_all_that_was_added_and_it_alone(kind: str, name: str) -> None:
    system = build(kind, scan=True)
    sides = {"sides": ("encoder", "decoder")} if (kind, name) == ("t5", "prompt") else {}
    tuning = method(system.target, **{"method": name, **ADDED[name], **sides})
    frozen, trainable = tuning.init(KEY, system.params)
    ids = np.random.RandomState(0).randint(2, 90, (8, 9))

    def loss(trainable: dict, frozen: dict) -> jax.Array:
        params, prompt, prefix = tuning.bind(frozen, trainable)
        given = (ids, np.ones_like(ids), *([ids[:, :4]] if kind == "t5" else []))
        logits = system.module.apply({"params": params}, *given, prompt=prompt, prefix=prefix)
        return jnp.square(logits).mean()

    grads = jax.jit(jax.grad(loss))(trainable, frozen)
    assert jax.tree.structure(grads) == jax.tree.structure(trainable)
    for path, grad in flatten_dict(grads, sep="/").items():
        assert np.isfinite(grad).all(), path
        assert np.any(grad != 0) or path.endswith("/a"), path  # b = 0: at first a has no effect


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_method_only_what_is_new_trains(kind: str) -> None:
    system = build(kind)
    tuning = method(system.target, method="none")
    frozen, trainable = tuning.init(KEY, system.params)
    assert trainable == ({} if kind in ("gpt2", "llama", "t5") else NEW)
    assert tuning.bind(frozen, trainable) == Bound({**frozen, **trainable})
    assert tuning.boundary(L) == 0


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("roberta", {"method": "prompt", "sides": ("decoder",)}, "sides: a roberta model has no decoder, only encoder"),
        ("gpt2", {"method": "prefix", "sides": ("encoder", "cross")}, "sides: a gpt2 model has no cross, only encoder"),
        ("t5", {"method": "last_layers", "layers": 1}, "last_layers supports only networks with one stack of layers"),
        ("t5", {"method": "head"}, "head supports only networks with one stack of layers, but t5 has an encoder and"),
        ("gpt2", {"method": "head"}, "head trains new parameters, but this system has none"),
        ("gpt2", {"method": "prompt", "init": "text", "init_text": "42"}, 'the text "42" has no tokens'),
    ],
)
def test_a_method_that_does_not_fit_the_system_is_an_error(kind: str, config: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        method(build(kind).target, **config)


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("t5", {"method": "bitfit"}, "bitfit trains biases, and this t5 model has none"),
        ("llama", {"method": "bitfit"}, "bitfit trains biases, and this llama model has none"),
        (
            "gpt2",
            {"method": "lora", "targets": ("query", "down", "conv")},
            "no dense layer of the model is called query or conv, only down, output, qkv, up",
        ),
        ("deberta-v2", {"method": "ia3", "targets": ("conv",)}, "called conv, only down, key, output, query, up, val"),
    ],
)
def test_a_method_that_does_not_fit_the_parameters_is_an_error(kind: str, config: dict, said: str) -> None:
    system = build(kind)
    with pytest.raises(ConfigError, match=said):
        method(system.target, **config).init(KEY, system.params)


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_an_architecture_without_default_must_be_told_its_targets(name: str) -> None:
    system = build("gpt2")
    target = system.target._replace(model_type="opt")
    with pytest.raises(ConfigError, match=f"targets must name the dense layers that {name} changes, because opt"):
        method(target, method=name).init(KEY, system.params)
    _, trainable = method(target, method=name, targets=("up",)).init(KEY, system.params)
    assert trainable[name]["encoder"]["layers"]["0"].keys() == {"mlp"}
