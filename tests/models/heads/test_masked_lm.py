"""Masked-LM heads of BERT, RoBERTa, MPNet and DeBERTa against torch: logits, from stored numbers and through files."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from deberta_reference import MASKED_LM as CASES
from deberta_reference import V3, batch, masked_lm_logits, masked_lm_tensors
from make_golden import GOLDEN

from jaxvalues.errors import UserError
from jaxvalues.models import build_masked_lm, init_masked_lm, load_masked_lm, load_model, save_masked_lm
from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.models.checkpoints.weights import open_tensors, save_tensors
from jaxvalues.models.heads.masked_lm import masked_lm_settings, masked_lm_table
from jaxvalues.models.loading import abstract_params

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def logits(module, params, inputs: dict, **more) -> np.ndarray:
    return jax.jit(lambda p: module.apply({"params": p}, *(inputs[name] for name in INPUTS), **more))(params)


@pytest.mark.main_cases("roberta", "mpnet", "deberta-v3-new")
@pytest.mark.parametrize("kind", sorted(CASES))
def test_stored_torch_numbers(kind):
    config, inputs = CASES[kind], batch(CASES[kind])
    weights = masked_lm_tensors(config)
    module = build_masked_lm(config, scan=False)
    params = to_params(weights, masked_lm_table(config, weights), abstract_params(module))
    with np.load(GOLDEN / "mlm.npz") as stored:
        theirs = stored[kind]
    positions = jnp.zeros((len(theirs), 1), jnp.int32)  # row 3 holds no other real token
    assert_close(logits(module, params, inputs, positions=positions), theirs)


@pytest.mark.slow
@pytest.mark.main_cases("bert", "mpnet", "deberta-v3-new")
@pytest.mark.parametrize("kind", sorted(CASES))
def test_files_of_transformers_and_ours_are_the_same(kind, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, inputs = CASES[kind], batch(CASES[kind])
    weights = masked_lm_tensors(config)
    theirs, model = masked_lm_logits(config, weights, inputs)
    real = inputs["attention_mask"][..., None]

    model.float().save_pretrained(tmp_path / "theirs")
    module, params = load_masked_lm(tmp_path / "theirs", scan=True)
    assert_close(logits(module, params, inputs) * real, theirs * real)
    last = inputs["attention_mask"].sum(axis=1, keepdims=True) - 1
    there = logits(module, params, inputs, positions=jnp.asarray(last))
    assert_close(there, np.take_along_axis(theirs, last[..., None], axis=1))
    load_model(tmp_path / "theirs")  # the encoder alone

    save_masked_lm(tmp_path / "ours", {**config, "marker": 1}, params)
    again, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert again.config.marker == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    _, same = load_masked_lm(tmp_path / "ours", scan=True)
    chex.assert_trees_all_equal(same, params)


def test_a_published_name_is_found_whatever_the_config_says(tmp_path):
    """Microsoft's files say lm_predictions.lm_head, and mask_predictions for their discriminator, and no `legacy`."""
    config = V3
    module, params = init_masked_lm(config, 1)
    save_masked_lm(tmp_path, config | {"legacy": False}, params)
    tensors = {name: np.asarray(tensor) for name, tensor in open_tensors(tmp_path).items()}
    tensors["mask_predictions.dense.weight"] = np.zeros((64, 64), np.float32)
    assert "lm_predictions.lm_head.LayerNorm.bias" in tensors
    save_tensors(tmp_path, tensors)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("legacy", "other"))
    loaded, again = load_masked_lm(tmp_path)
    assert loaded == module
    chex.assert_trees_all_equal(again, params)
    assert masked_lm_settings(config, tensors) == {"legacy": False}  # what transformers must be told
    assert masked_lm_settings(config | {"legacy": False}, tensors) == {}
    assert masked_lm_settings(config, [name.replace("lm_predictions.lm_head", "cls") for name in tensors]) == {}
    assert masked_lm_settings(CASES["roberta"], []) == {}


@pytest.mark.slow
def test_gradients_reach_the_words_twice_and_stop_where_told():
    config, inputs = CASES["roberta"], batch(CASES["roberta"])

    def gradient(**options):
        module, params = init_masked_lm(config, 0, **options)

        def loss(params):
            out = module.apply({"params": params}, *(inputs[name] for name in INPUTS))
            return -jax.nn.log_softmax(out)[:, 0, 7].sum()

        return jax.jit(jax.grad(loss))(params)

    full, stopped = gradient(), gradient(stop_gradient_below=1)
    unseen = np.setdiff1d(np.arange(config["vocab_size"]), inputs["input_ids"])
    assert full["encoder"]["embeddings"]["word"]["embedding"][unseen].all(axis=-1).all()  # through the output matrix
    assert not any(leaf.any() for leaf in jax.tree.leaves(stopped["encoder"]["embeddings"]))
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(full["head"]))
    jax.tree.map(lambda a, b: assert_close(a, b, floor=1e-6 * largest), stopped["head"], full["head"])


@pytest.mark.exhaustive
@pytest.mark.main_cases("deberta-v2-separate")
@pytest.mark.parametrize("kind", ["roberta", "deberta-v2-separate"])
def test_logits_of_few_words_are_columns_of_all(kind):
    config, inputs = CASES[kind], batch(CASES[kind])
    module = build_masked_lm(config, scan=False)
    weights = masked_lm_tensors(config)
    params = to_params(weights, masked_lm_table(config, weights), abstract_params(module))
    words = np.array([7, 3, 69, 3])
    whole = logits(module, params, inputs)
    assert_close(logits(module, params, inputs, words=words), whole[..., words], 1e-6)
    vectors = params["encoder"]["embeddings"]["word"]["embedding"][words]
    soft = logits(module, params, inputs, words=vectors)
    assert_close(soft + params["head"]["bias"][words], whole[..., words], 1e-6)
    assert np.abs(params["head"]["bias"][words]).max() > 0.1
    assert np.isnan(logits(module, params, inputs, words=np.array([70]))).all()  # the vocabulary ends at 69

    def loss(words):
        return logits(module, params, inputs, words=words)[:, 0].sum()

    assert np.abs(jax.grad(loss)(vectors)).min() > 0
    with pytest.raises(
        UserError, match=rf"words are ids \[A\] or vectors \[A, {vectors.shape[1]}\], not int64 \(2, 2\)"
    ):
        logits(module, params, inputs, words=words.reshape(2, 2))
    with pytest.raises(UserError, match=r"not float32 \(4, 3\)"):
        logits(module, params, inputs, words=vectors[:, :3])


def test_what_cannot_be_read_is_said(tmp_path):
    config = CASES["deberta-v3"]
    with pytest.raises(UserError, match="tie_word_embeddings = False is not supported for masked language models"):
        init_masked_lm(config | {"tie_word_embeddings": False})
    _, params = init_masked_lm(config)
    save_masked_lm(tmp_path, config, params)
    headless = {name: np.asarray(x) for name, x in open_tensors(tmp_path).items() if name.startswith("deberta.")}
    save_tensors(tmp_path, headless)
    with pytest.raises(UserError, match=r"missing: .*cls.predictions.transform.dense.weight"):
        load_masked_lm(tmp_path)
