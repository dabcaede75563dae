"""T5's files: those of transformers, old and new, written back as they were; and how its parameters lie."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from t5_reference import CONFIGS, tensors, torch_model

from jaxvalues.errors import UserError
from jaxvalues.models import build_t5, group, load_t5, save_t5, ungroup
from jaxvalues.models.checkpoints.weights import open_tensors, save_tensors
from jaxvalues.models.loading import abstract_params

V10, V11 = CONFIGS["t5"], CONFIGS["t5-v1.1"]


def write(folder, weights, config):
    save_tensors(folder, weights)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.main_cases("False-t5", "True-t5-v1.1")
@pytest.mark.parametrize("config", [V10, V11], ids=sorted(CONFIGS))
@pytest.mark.parametrize("scan", [False, True])
def test_export_and_import_are_inverse(tmp_path, config, scan):
    weights = tensors(config)
    module, params = load_t5(write(tmp_path / "a", weights, config), scan=scan)
    save_t5(tmp_path / "b", config, params)
    equal({name: np.asarray(x) for name, x in open_tensors(tmp_path / "b").items()}, weights)
    again, same = load_t5(tmp_path / "b", scan=not scan)
    equal(ungroup(same), ungroup(params))
    assert again.config == module.config


@pytest.mark.main_cases("t5-v1.1")
@pytest.mark.parametrize("config", [V10, V11], ids=sorted(CONFIGS))
def test_files_of_transformers_and_ours_are_the_same(tmp_path, config):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = torch_model(config, tensors(config)).float()
    model.save_pretrained(tmp_path / "theirs")
    told = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert told["tie_word_embeddings"]  # transformers 5 says so of the untied one, too
    module, params = load_t5(tmp_path / "theirs")
    assert module.config.tie_word_embeddings == module.config.scale_decoder_outputs == (config is V10)
    equal(params, load_t5(write(tmp_path / "weights", tensors(config), config))[1])

    save_t5(tmp_path / "ours", {**told, "marker": 1}, params)
    again, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert (again.config.marker, again.config.scale_decoder_outputs) == (1, config is V10)
    assert (again.lm_head.weight is again.shared.weight) == (config is V10)
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name


def test_copies_of_the_words_are_known_for_what_they_are(tmp_path):
    weights = tensors(V10)
    words = weights["shared.weight"]
    _, params = load_t5(write(tmp_path / "plain", weights, V10))
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.ones((10, 4), np.float32)}
    copies = {f"{side}.embed_tokens.weight": words for side in ("encoder", "decoder")}
    module, old = load_t5(write(tmp_path / "old", weights | copies | unused | {"lm_head.weight": words}, V10))
    equal(old, params)
    assert module.config.tie_word_embeddings
    assert module.config.scale_decoder_outputs

    without = {name: array for name, array in weights.items() if name != "shared.weight"}
    equal(load_t5(write(tmp_path / "renamed", without | copies, V10))[1], params)
    other = weights | {"decoder.embed_tokens.weight": words + 1}
    with pytest.raises(UserError, match=r"decoder.embed_tokens.weight of .* differs from shared.weight: only shared"):
        load_t5(write(tmp_path / "other", other, V10))


@pytest.mark.parametrize("said", [None, True, False])
def test_the_file_says_whether_the_output_is_tied(tmp_path, said):
    """With `None`, config.json says nothing, as those of T5 1.0. Logits are scaled by what config.json says, as
    transformers does."""
    config = {**V11, "tie_word_embeddings": said}
    module, params = load_t5(write(tmp_path / "own", tensors(V11), config))
    assert not module.config.tie_word_embeddings
    assert module.config.scale_decoder_outputs == (said is not False)
    assert "head" in params
    tied = {name: array for name, array in tensors(V11).items() if name != "lm_head.weight"}
    module, params = load_t5(write(tmp_path / "tied", tied, config))
    assert module.config.tie_word_embeddings
    assert module.config.scale_decoder_outputs == (said is not False)
    assert "head" not in params
    scaled = {**config, "scale_decoder_outputs": False}
    assert not load_t5(write(tmp_path / "told", tied, scaled))[0].config.scale_decoder_outputs


def test_what_does_not_fit_is_said(tmp_path):
    weights = tensors(V11)
    del weights["encoder.block.1.layer.1.DenseReluDense.wi_1.weight"]
    weights["decoder.block.2.layer.2.DenseReluDense.wo.weight"] = np.ones((96, 64), np.float32)
    weights["decoder.block.3.layer.0.layer_norm.weight"] = np.ones(64, np.float32)
    with pytest.raises(UserError) as caught:
        load_t5(write(tmp_path / "a", weights, V11), scan=True)
    for part in (
        "missing: encoder.block.1.layer.1.DenseReluDense.wi_1.weight;",
        "not expected: decoder.block.3.layer.0.layer_norm.weight;",
        "decoder.block.2.layer.2.DenseReluDense.wo.weight (read as [64, 96], expected [96, 64])",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"missing: .*wi_0.weight.*not expected: .*DenseReluDense.wi.weight"):
        load_t5(write(tmp_path / "b", tensors(V10), {**V10, "feed_forward_proj": "gated-gelu"}))


def test_the_layers_of_each_side_are_grouped_by_its_own_segments():
    stacked, unrolled = (build_t5(V11, scan=scan) for scan in (True, False))
    canonical = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(unrolled))
    sides = {"encoder": stacked.segments, "decoder": stacked.decoder_segments}
    grouped = group({"params": canonical}, sides)["params"]
    assert jax.tree.map(np.shape, grouped) == jax.tree.map(np.shape, abstract_params(stacked))
    equal(ungroup(grouped), canonical)
    with pytest.raises(UserError, match=r"layer 2 belongs to none of the segments \(\(0, 1\),\)"):
        group(canonical, stacked.segments)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [((512, 2048, 6, 8), 60_506_624), ((1024, 4096, 24, 16), 737_668_096)],
    ids=["t5-small", "t5-large"],
)
def test_published_models_have_as_many_parameters(sizes, parameters):
    names = ("d_model", "d_ff", "num_layers", "num_heads")
    config = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, **dict(zip(names, sizes, strict=True))}
    shapes = abstract_params(build_t5(config, scan=True))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_flan_t5_base_has_as_many_parameters():
    config = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, "d_model": 768, "d_ff": 2048, "num_layers": 12}
    config |= {"num_heads": 12, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    shapes = abstract_params(build_t5(config, scan=True))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 247_577_856
