"""Output matrices that the flag `tie_word_embeddings` says nothing true about: the weights decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxvalues.errors import UserError
from jaxvalues.models import (
    build_causal_lm,
    checkpoint_config,
    init_causal_lm,
    init_masked_lm,
    init_t5,
    load_causal_lm,
    load_masked_lm,
    load_t5,
    save_causal_lm,
    save_masked_lm,
    save_t5,
)

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
LLAMA = {"model_type": "llama", **SIZES, "tie_word_embeddings": True}
GPT2 = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
BERT = {"model_type": "bert", **SIZES, "max_position_embeddings": 32}
T5 = {"model_type": "t5", "vocab_size": 40, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2}
IDS = np.array([[5, 6, 7, 8]])


def with_output(folder: Path, name: str, words: str, other: bool) -> Path:
    """Put an output matrix into a checkpoint: the word embeddings, or another one."""
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: tensors[words] + np.float32(other)}, folder / "model.safetensors")
    return folder


def changed(folder: Path, **settings: Any) -> Path:
    """Change keys of a config.json; None removes one."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **settings}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("other", [False, True])
def test_the_llama_family_has_the_matrix_that_its_file_holds(other: bool, tmp_path: Path) -> None:
    _, params = init_causal_lm(LLAMA)
    save_causal_lm(tmp_path, LLAMA, params)
    with_output(tmp_path, "lm_head.weight", "model.embed_tokens.weight", other)
    module, loaded = load_causal_lm(tmp_path)
    assert module.is_tied is not other
    assert checkpoint_config(tmp_path)["tie_word_embeddings"] is not other
    if other:
        words = np.asarray(params["encoder"]["embeddings"]["word"]["embedding"])
        np.testing.assert_array_equal(loaded["head"]["embedding"], words + 1)
    again = build_causal_lm(checkpoint_config(tmp_path))
    assert jax.eval_shape(lambda: again.init(jax.random.key(0), IDS, IDS))["params"].keys() == loaded.keys()


def test_transformers_reads_the_same(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    _, params = init_causal_lm(LLAMA)
    save_causal_lm(tmp_path, LLAMA, params)
    with_output(tmp_path, "lm_head.weight", "model.embed_tokens.weight", other=True)
    module, loaded = load_causal_lm(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(IDS)).logits.numpy()
    logits = module.apply({"params": loaded}, IDS, np.ones_like(IDS))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_others_are_refused(tmp_path: Path) -> None:
    cases = (
        ("gpt2", GPT2, init_causal_lm, save_causal_lm, load_causal_lm, "lm_head.weight", "transformer.wte.weight"),
        (
            *("bert", BERT, init_masked_lm, save_masked_lm, load_masked_lm),
            *("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ),
    )
    for name, config, init, save, load, output, words in cases:
        for other in (False, True):
            folder = tmp_path / f"{name}-{other}"
            folder.mkdir()
            save(folder, config, init(config)[1])
            with_output(folder, output, words, other)
            if not other:
                load(folder)
                continue
            with pytest.raises(UserError, match=f"{output} of .* differs from its word embeddings"):
                load(folder)


@pytest.mark.parametrize("said", [True, False])
def test_a_t5_scales_its_logits_by_what_the_file_says(said: bool, tmp_path: Path) -> None:
    """transformers does, whichever matrix it then takes."""
    _, params = init_t5(T5)
    save_t5(tmp_path, T5, params)
    changed(tmp_path, tie_word_embeddings=said, scale_decoder_outputs=None)
    if said:
        with_output(tmp_path, "lm_head.weight", "shared.weight", other=True)
    module, _ = load_t5(tmp_path)
    assert module.config.tie_word_embeddings is not said
    assert module.config.scale_decoder_outputs is said
    assert checkpoint_config(tmp_path)["scale_decoder_outputs"] is said
