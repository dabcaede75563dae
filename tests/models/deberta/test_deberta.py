"""DeBERTa v1, v2 and v3 against torch: hidden states and every gradient, from stored numbers and live."""

from __future__ import annotations

import json
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from deberta_reference import CONFIGS, V3, batch, tensors, torch_results
from make_golden import GOLDEN, STRIDE

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, abstract_model, init_model, load_model, save_model, ungroup
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import to_params, to_tensors

KINDS = sorted(CONFIGS)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def results(config: dict, weights: dict, inputs: dict, form: str = "shift", **options) -> dict:
    """The numbers of `torch_results`, from this package."""
    module, shapes = abstract_model(config, **options)
    module, table = module.clone(form=form), ARCHITECTURES[config["model_type"]].table
    tokens = [inputs[name] for name in INPUTS]
    every = tuple(range(config["num_hidden_layers"] + 1))

    def measured(params):
        hidden = module.apply({"params": params}, *tokens, layers=every)
        return (hidden[-1] * inputs["direction"]).sum(), hidden

    grads, hidden = jax.jit(jax.grad(measured, has_aux=True))(to_params(weights, table, shapes))
    assert all(np.isfinite(state).all() for state in hidden)
    return {
        "hidden": np.stack(hidden) * inputs["attention_mask"][..., None],
        "grads": to_tensors(grads, table),
    }


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5; a gradient that is zero but for rounding (a key's bias) against the largest of all."""
    for k, (mine, expected) in enumerate(zip(ours["hidden"], theirs["hidden"], strict=True)):
        assert_close(mine, expected, name=f"hidden state {k}")
    largest = max(np.abs(grad).max() for grad in theirs["grads"].values())
    assert ours["grads"].keys() == theirs["grads"].keys()
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, floor=1e-6 * largest, name=name)


@pytest.mark.main_cases("deberta", "deberta-v2-xlarge", "deberta-v3")
@pytest.mark.parametrize("kind", KINDS)
def test_stored_torch_numbers(kind):
    config = CONFIGS[kind]
    with np.load(GOLDEN / f"{kind}.npz") as stored:
        theirs = {"hidden": stored["hidden"]}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(config, tensors(config), batch(config), scan=False)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.slow
@pytest.mark.main_cases("deberta-v2-separate-*", "deberta-gather-*")
@pytest.mark.parametrize(
    ("kind", "form", "options"),
    [(kind, "shift", {"scan": True, "boundary": 2, "remat": True}) for kind in KINDS]
    + [(kind, "gather", {"scan": True}) for kind in ("deberta", "deberta-v3")],
)
def test_live_torch(kind, form, options):
    pytest.importorskip("torch")
    config = CONFIGS[kind] | {"num_hidden_layers": 3, "vocab_size": 90, "hidden_act": "gelu_new"}
    weights, inputs = tensors(config, seed=2), batch(config, seed=3)
    compare(results(config, weights, inputs, form, **options), torch_results(config, weights, inputs))


def test_nothing_is_gathered_over_pairs_of_tokens():
    """Only ids look things up (in [B, T, D]) and, beyond the exact buckets, distances ([2T, N, H])."""
    inputs = batch(V3)

    def gathered(form):
        module, params = abstract_model(V3)
        run = module.clone(form=form).apply
        text = str(jax.make_jaxpr(lambda p: run({"params": p}, *(inputs[name] for name in INPUTS)))(params))
        return [line for line in text.splitlines() if " gather[" in line and "[6,4,17,17]" in line]

    assert not gathered("shift")
    assert gathered("gather")


@pytest.mark.slow
@pytest.mark.main_cases("deberta-False-*", "deberta-v2-xlarge-True-*")
@pytest.mark.parametrize(
    ("kind", "scan", "top"),
    [("deberta", False, 2), ("deberta", True, 2), ("deberta-v2-xlarge", True, 2), ("deberta-v2-xlarge", False, 1)],
)
def test_the_first_position_alone_is_the_same(kind, scan, top):
    config, inputs = CONFIGS[kind], batch(CONFIGS[kind])
    module, params = init_model({**config, "initializer_range": 0.2}, 3, scan=scan)

    def first(params, first_only):
        (hidden,) = module.apply(
            {"params": params}, *(inputs[name] for name in INPUTS), layers=(top,), first_only=first_only
        )
        return (hidden[:, 0] * inputs["direction"][:, 0]).sum(), hidden

    full, alone = (jax.jit(jax.grad(first, has_aux=True), static_argnums=1)(params, only) for only in (False, True))
    assert alone[1].shape[1] == 1
    assert_close(alone[1], full[1][:, :1])
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(full[0]))
    jax.tree.map(lambda a, b: assert_close(a, b, floor=1e-6 * largest), alone[0], full[0])


@pytest.mark.slow
def test_scanned_and_unrolled_start_and_drop_alike():
    config = CONFIGS["deberta-v2-xlarge"]
    inputs = batch(config)
    tokens = [inputs[name] for name in INPUTS]
    dropped = []
    for options in ({"scan": False}, {"scan": True, "remat": True}):
        module, params = init_model(config, 7, **options)
        run = jax.jit(lambda p, key, run=module.apply: run({"params": p}, *tokens, deterministic=False, rngs=key)[0])
        dropped.append((ungroup(params), run(params, {"dropout": jax.random.key(3)})))
    (unrolled, one), (scanned, other) = dropped
    chex.assert_trees_all_close(scanned, unrolled, rtol=1e-6)  # the same draws, as two programs round them
    assert_close(one, other)


@pytest.mark.slow
def test_each_dropout_has_its_place():
    """Attention and hidden dropout each change the output where the other is off; both off leave it as it is."""
    inputs = batch(V3)
    tokens = [inputs[name] for name in INPUTS]

    def outputs(**rates):
        module, params = init_model({**V3, "initializer_range": 0.3}, 0, **rates)
        run = jax.jit(lambda key: module.apply({"params": params}, *tokens, deterministic=False, rngs={"dropout": key}))
        return [run(jax.random.key(seed))[0] for seed in range(2)]

    for rates in ({"hidden_dropout": 0.0}, {"attention_dropout": 0.0}):
        one, other = outputs(**rates)
        assert np.abs(one - other).max() > 0.1
    np.testing.assert_array_equal(*outputs(hidden_dropout=0.0, attention_dropout=0.0))


@pytest.mark.slow
@pytest.mark.main_cases("options1")
@pytest.mark.parametrize("options", [{"scan": False}, {"scan": True, "boundary": 2}])
def test_nothing_below_the_boundary_is_differentiated(options):
    config = CONFIGS["deberta-v2-xlarge"] | {"num_hidden_layers": 3}
    inputs = batch(config)

    def gradient(stop):
        module, params = init_model(config, 0, stop_gradient_below=stop, **options)

        def loss(params):
            return (module.apply({"params": params}, *(inputs[name] for name in INPUTS))[0] * inputs["direction"]).sum()

        return jax.jit(jax.grad(loss))(params)

    full, stopped = gradient(0), gradient(2)
    below = [key for key in full["layers"] if key != "2"]
    for key in ("word", "relative", "conv", "conv_norm"):
        assert any(leaf.any() for leaf in jax.tree.leaves(full["embeddings"][key])), key
    assert not any(
        leaf.any() for leaf in jax.tree.leaves((stopped["embeddings"], [stopped["layers"][k] for k in below]))
    )
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(full))
    jax.tree.map(lambda a, b: assert_close(a, b, floor=1e-6 * largest), stopped["layers"]["2"], full["layers"]["2"])


@pytest.mark.slow
@pytest.mark.main_cases("deberta-v2-xlarge")
@pytest.mark.parametrize("kind", ["deberta-short-span", "deberta-v2-xlarge"])
def test_padding_is_not_seen_and_stays_finite(kind):
    config = CONFIGS[kind]
    module, params = init_model({**config, "initializer_range": 0.2}, 0)
    ids = np.full((2, 12), 0)
    ids[0, :3] = 9
    mask = np.array([[1] * 3 + [0] * 9, [0] * 12])

    def loss(params, ids):
        return jnp.square(module.apply({"params": params}, ids, mask)[0]).sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params, ids)))
    run = jax.jit(lambda ids, mask: module.apply({"params": params}, ids, mask)[0])
    np.testing.assert_allclose(run(ids, mask)[0, :3], run(np.where(mask, ids, 7), mask)[0, :3], atol=1e-6)
    np.testing.assert_allclose(run(ids, mask)[0, :3], run(ids[:, :3], mask[:, :3])[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.main_cases("deberta-v2-xlarge")
@pytest.mark.parametrize("kind", ["deberta", "deberta-v3", "deberta-v2-xlarge"])
def test_save_and_load_are_each_others_inverse_and_transformers_agrees(kind, tmp_path):
    config = CONFIGS[kind]
    module, params = init_model(config, 5, scan=True)
    save_model(tmp_path / "ours", config, params, prefix="deberta.")
    loaded, again = load_model(tmp_path / "ours", scan=True)
    assert loaded == module
    chex.assert_trees_all_equal(again, params)

    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    inputs = batch(config)
    tokens = [inputs[name] for name in INPUTS]
    classifier, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert all(name.startswith(("pooler.", "classifier.")) for name in report["missing_keys"])
    with torch.no_grad():
        theirs = classifier.eval().deberta(*(torch.tensor(x).long() for x in tokens))[0].numpy()
    real = inputs["attention_mask"][..., None]
    ours = jax.jit(lambda p: module.apply({"params": p}, *tokens)[0])(params)
    assert_close(ours * real, theirs * real)

    classifier.save_pretrained(tmp_path / "theirs")  # with pooler and classifier, which are no part of an encoder
    _, again = load_model(tmp_path / "theirs", scan=True)
    chex.assert_trees_all_equal(again, params)


def test_what_cannot_be_read_is_said():
    def traced(config, tokens, **fields):
        module, params = abstract_model(config)
        ids = np.ones((1, tokens), int)
        return jax.eval_shape(lambda p: module.clone(**fields).apply({"params": p}, ids, ids), params)

    with pytest.raises(UserError, match="the form of relative attention is 'x', expected one of shift, gather"):
        traced(V3, 4, form="x")
    assert traced(V3, 60)[0].shape == (1, 60, 64)  # relative positions alone set no limit
    with pytest.raises(UserError, match="60 tokens, but this deberta model reads at most 40"):
        traced(CONFIGS["deberta-short-span"], 60)


@pytest.mark.slow
def test_bfloat16_computes_near_float32():
    inputs = batch(CONFIGS["deberta-v2-xlarge"])
    outputs = []
    for dtype in ("float32", "bfloat16"):
        module, params = init_model(CONFIGS["deberta-v2-xlarge"], 0, dtype=dtype, scan=True)
        model = Classifier(module, dropout_rate=0.0)
        head = {"kernel": np.eye(64, 20, dtype=np.float32), "bias": np.zeros(20, np.float32)}
        run = jax.jit(lambda p, run=model.apply: run({"params": p}, *(inputs[name] for name in INPUTS[:2])).logits)
        outputs.append(run({"encoder": params, "head": head}))
    assert_close(*reversed(outputs), relative=0.03)


SENTENCEPIECE = """
import sys
sys.modules["torch"] = None  # not installed
from jaxvalues.data.tokenizers import load_tokenizer, pad_id
tokenizer = load_tokenizer(sys.argv[1])
ids = tokenizer("We should ban zoos.")["input_ids"]
print(len(tokenizer), pad_id(tokenizer), ids[0] == tokenizer.cls_token_id, ids[-1] == tokenizer.sep_token_id)
print(tokenizer.decode(ids, skip_special_tokens=True))
"""


@pytest.mark.slow
def test_a_sentencepiece_tokenizer_needs_no_torch(tmp_path):
    """The files of microsoft/deberta-v3-base: spm.model, without a tokenizer.json."""
    import sentencepiece

    texts = ["We should ban zoos.", "We should not ban zoos because animals live longer there."] * 50
    with (tmp_path / "spm.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, vocab_size=60, minloglevel=2, hard_vocab_limit=False,
            pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
            unk_piece="[UNK]",
        )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(V3))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    run = subprocess.run(
        [sys.executable, "-c", SENTENCEPIECE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    size, rest = run.stdout.split(maxsplit=1)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model")).get_piece_size()
    assert int(size) == pieces + 1  # and [MASK], which is not among the pieces
    assert rest == "0 True True\nWe should ban zoos.\n"
