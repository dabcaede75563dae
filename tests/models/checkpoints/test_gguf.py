"""GGUF files, written with llama.cpp's own package, against transformers' reading of the same files."""

from __future__ import annotations

import sys
from pathlib import Path

import gpt2_reference
import jax
import llama_reference
import numpy as np
import pytest
from bert_reference import assert_close

from jaxvalues.errors import UserError
from jaxvalues.models import content_hash, fetch, load_causal_lm, load_model, read_config, tokenizer_folder
from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.models.checkpoints.weights import open_tensors
from jaxvalues.models.heads.causal_lm import build_causal_lm, causal_lm_table
from jaxvalues.models.llama.rotary import Rotary
from jaxvalues.models.loading import abstract_params

gguf = pytest.importorskip("gguf")

EPSILON = 2.0**-17  # which float32 holds
SIZES = {**llama_reference.SIZES, "rope_theta": 100.0, "rms_norm_eps": EPSILON}
GEMMA = {
    **SIZES,
    "model_type": "gemma2",
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 6,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
}  # fmt: skip  (transformers reads neither of the caps, nor heads of another scale than its default)
CONFIGS = {
    "llama": {**SIZES, "model_type": "llama"},
    "tied": {**SIZES, "model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 4},
    "qwen2": {**SIZES, "model_type": "qwen2"},
    "qwen3": {**SIZES, "model_type": "qwen3", "head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1},
    "gemma2": GEMMA,
    "gemma3": {
        **GEMMA, "model_type": "gemma3_text", "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "rope_theta": 1e4, "rope_local_base_freq": 1e4,
    },
    "gpt2": {**gpt2_reference.CONFIG, "layer_norm_epsilon": EPSILON, "n_positions": 1024},  # transformers' default
}  # fmt: skip
_NUMBERS = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size",),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
}


def weights(config: dict) -> dict[str, np.ndarray]:
    """Random weights of a language model under Hugging Face's names."""
    if config["model_type"] == "gpt2":
        return {f"transformer.{name}": array for name, array in gpt2_reference.tensors(config).items()}
    return llama_reference.tensors(config)


def write(path: Path, config: dict, tensors: dict[str, np.ndarray], quantised: str = "F32", **more) -> Path:
    """A GGUF file as llama.cpp's converter writes it, with `more` float keys and tensors."""
    architecture = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(path, architecture)
    for key, names in _NUMBERS.items():
        for name in names:
            if config.get(name) is not None:
                writer.add_uint32(f"{architecture}.{key}", config[name])
    kind = "" if architecture == "gpt2" else "rms_"
    writer.add_float32(f"{architecture}.attention.layer_norm_{kind}epsilon", EPSILON)
    floats = {
        "rope.freq_base": config.get("rope_theta"),
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
    }
    floats["final_logit_softcapping"] = config.get("final_logit_softcapping")
    for key, value in (floats | more.get("floats", {})).items():
        if value is not None:
            writer.add_float32(f"{architecture}.{key}", value)
    for key, value in more.get("whole", {}).items():
        writer.add_uint32(key, value)
    for key, value in more.get("texts", {}).items():
        writer.add_string(f"{architecture}.{key}", value)
    writer.add_token_list([f"word {i}" for i in range(config["vocab_size"])])
    writer.add_uint32("tokenizer.ggml.eos_token_id", 7)
    (number,) = [key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(number, 2)
    for name, array in {**tensors, **more.get("beside", {})}.items():
        stem, _, leaf = name.rpartition(".")
        there = names.get_name(stem) or stem
        array = _as_llama_cpp(array, there, leaf, config, architecture)  # noqa: PLW2901
        kind = gguf.GGMLQuantizationType[quantised if array.ndim > 1 else "F32"]
        writer.add_tensor(f"{there}.{leaf}", gguf.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _as_llama_cpp(array: np.ndarray, name: str, leaf: str, config: dict, architecture: str) -> np.ndarray:
    kind = name.rpartition(".")[2]
    if architecture == "llama" and kind in ("attn_q", "attn_k"):  # its converter's function of this name
        heads = config["num_attention_heads" if kind == "attn_q" else "num_key_value_heads"]
        return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    if architecture.startswith("gemma") and kind.endswith("norm"):
        return array + 1
    if architecture == "gpt2" and leaf == "weight" and kind in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return array.T
    return array


def read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The config and the tensors that we read."""
    return read_config(path), {name: np.asarray(tensor) for name, tensor in open_tensors(path).items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_file_holds_the_weights_and_the_config_that_were_written(kind, tmp_path):
    config, expected = CONFIGS[kind], weights(CONFIGS[kind])
    path = write(tmp_path / "model.gguf", config, expected)
    found, tensors = read(path)
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(tensors[name], array, rtol=0, atol=3e-7 if "gemma" in kind else 0, err_msg=name)
    ours, theirs = (build_causal_lm(content).encoder.config for content in (found, config))
    assert ours.with_dropout(0.0, 0.0) == theirs.with_dropout(0.0, 0.0)
    assert found["eos_token_id"] == 7
    assert found.get("tie_word_embeddings", True) == ("lm_head.weight" not in expected)

    module, params = load_causal_lm(path, scan=True)
    same = to_params(tensors, causal_lm_table(config["model_type"]), abstract_params(module))
    jax.tree.map(np.testing.assert_array_equal, params, same)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantised"), [(kind, "Q8_0") for kind in CONFIGS] + [("llama", "Q4_1"), ("qwen2", "BF16")]
)
def test_transformers_reads_the_same(kind, quantised, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = CONFIGS[kind]
    path = write(tmp_path / "model.gguf", config, weights(config), quantised)
    network = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    theirs = network.state_dict()
    _, ours = read(path)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name].numpy(), rtol=0, atol=1e-7, err_msg=name)

    inputs = llama_reference.batch()
    given = (torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask", "position_ids"))
    with torch.no_grad():
        expected = network(next(given), attention_mask=next(given), position_ids=next(given)).logits.numpy()
    module, params = load_causal_lm(path, scan=True)
    logits = jax.jit(lambda p: module.apply({"params": p}, inputs["input_ids"], inputs["attention_mask"]))(params)
    real = inputs["attention_mask"][..., None]
    assert_close(logits * real, expected * real)


def test_scaled_rotary_positions_are_those_of_the_file(tmp_path):
    """transformers reads neither; llama.cpp stores Llama 3's as the factor of each frequency."""
    config, tensors = dict(CONFIGS["llama"]), weights(CONFIGS["llama"])
    config["rope_theta"] = 1e6
    scaled = Rotary(1e6, "llama3", 32.0, 1.0, 4.0, 8192)
    factors = Rotary(1e6).frequencies(16) / scaled.frequencies(16)
    assert len(set(factors.tolist())) > 1
    path = write(tmp_path / "llama3.gguf", config, tensors, beside={"rope_freqs.weight": factors})
    (kind,) = build_causal_lm(read_config(path)).encoder.config.kinds
    assert kind.rotary == scaled
    assert "rope_freqs.weight" not in open_tensors(path)
    path = write(tmp_path / "other.gguf", config, tensors, beside={"rope_freqs.weight": factors[::-1].copy()})
    with pytest.raises(UserError, match=r"rope_freqs.weight scales rotary positions otherwise than Llama 3"):
        read_config(path)

    linear = {"texts": {"rope.scaling.type": "linear"}, "floats": {"rope.scaling.factor": 8.0}}
    path = write(tmp_path / "linear.gguf", CONFIGS["gemma3"], weights(CONFIGS["gemma3"]), **linear)
    local = build_causal_lm(read_config(path)).encoder.config.kinds[0]
    assert local.rotary == Rotary(1e4)
    assert read_config(path)["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    path = write(tmp_path / "yarn.gguf", config, tensors, texts={"rope.scaling.type": "yarn"})
    with pytest.raises(UserError, match=r"rope.scaling.type = 'yarn' is not supported, only none and linear"):
        read_config(path)


def test_the_end_of_a_turn_ends_a_text_too(tmp_path):
    config, tensors = CONFIGS["tied"], weights(CONFIGS["tied"])
    for given, ends in ((7, 7), (9, [7, 9])):
        path = write(tmp_path / "ends.gguf", config, tensors, whole={"tokenizer.ggml.eot_token_id": given})
        assert read_config(path)["eos_token_id"] == ends


def test_a_part_of_a_model_is_refused(tmp_path):
    config, tensors = CONFIGS["tied"], weights(CONFIGS["tied"])
    path = write(tmp_path / "m-00002-of-00003.gguf", config, tensors, whole={"split.count": 3, "split.no": 1})
    with pytest.raises(UserError, match=r"gguf is part 2 of 3 of a model: join them to one file with llama-gguf-split"):
        read_config(path)


def test_rotary_positions_in_a_part_of_a_head_are_refused(tmp_path):
    config = {**CONFIGS["tied"], "head_dim": 16}
    for rotated in (16, 8):
        path = tmp_path / f"{rotated}.gguf"
        write(path, config, weights(CONFIGS["tied"]), whole={"llama.rope.dimension_count": rotated})
    assert read_config(tmp_path / "16.gguf")["head_dim"] == 16
    with pytest.raises(UserError, match=r"8.gguf: rope.dimension_count is 8 and a head has 16: rotary positions in a"):
        read_config(path)


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    config, tensors = CONFIGS["tied"], weights(CONFIGS["tied"])
    path = write(tmp_path / "model.gguf", config, tensors)
    assert fetch(path) == path
    with pytest.raises(UserError, match=r"model.gguf has no Hugging Face tokenizer beside it: give one as tokenizer"):
        tokenizer_folder(path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert tokenizer_folder(path) == tmp_path == tokenizer_folder(tmp_path)
    assert len(content_hash(path)) == 64

    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut.gguf is not a whole GGUF file"):
        load_model(cut)
    cut.write_bytes(b"no such thing")
    with pytest.raises(UserError, match=r"cut.gguf is not a whole GGUF file"):
        content_hash(cut)
    with pytest.raises(UserError, match=r"the checkpoint folder .*none.gguf does not exist"):
        load_model(tmp_path / "none.gguf")
    missing = {name: array for name, array in tensors.items() if "layers.1.mlp.up" not in name}
    more = {"beside": {"blk.1.ffn_up_exps.weight": np.zeros((4, 4), np.float32)}}
    with pytest.raises(
        UserError, match=r"missing: layers.1.mlp.up_proj.weight; not expected: blk.1.ffn_up_exps.weight"
    ):
        load_causal_lm(write(tmp_path / "odd.gguf", config, missing, **more))
    (tmp_path / "phi.gguf").write_bytes(b"")
    writer = gguf.GGUFWriter(tmp_path / "phi.gguf", "phi3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        UserError, match=r"architecture 'phi3' are not supported, only llama, qwen2, qwen3, gemma2, gem"
    ):
        read_config(tmp_path / "phi.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"needs the package gguf, .* pip install 'jaxvalues\[gguf\]'"):
        load_model(path)
