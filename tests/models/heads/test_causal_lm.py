"""Checkpoints of causal language models, and decoding with a cache."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from bert_reference import assert_close
from gpt2_reference import CONFIG, batch, model, tensors, torch_model
from safetensors.numpy import load_file

from jaxvalues.errors import UserError
from jaxvalues.models import append, empty_cache, init_masked_lm, load_causal_lm, load_model, save_causal_lm, ungroup
from jaxvalues.models.loading import save_checkpoint


def test_files_of_transformers_and_ours_are_the_same(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = torch_model(CONFIG, tensors())
    theirs.save_pretrained(tmp_path / "theirs")
    _, params = load_causal_lm(tmp_path / "theirs", scan=True)
    jax.tree.map(np.testing.assert_array_equal, ungroup(params), model()[1])

    save_causal_lm(tmp_path / "ours", {**CONFIG, "marker": 1}, params)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert again.config.marker == 1
    for name, parameter in theirs.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    _, same = load_causal_lm(tmp_path / "ours", scan=True)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    _, encoder = load_model(tmp_path / "ours", scan=False)
    jax.tree.map(np.testing.assert_array_equal, encoder, model()[1]["encoder"])


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_old_files_hold_masks_and_a_copy_of_the_word_vectors(prefix, tmp_path):
    weights = {prefix + name: array for name, array in tensors().items()}
    old = {f"{prefix}h.{i}.attn.bias": np.tril(np.ones((1, 1, 40, 40))) for i in range(2)}
    old |= {
        f"{prefix}h.1.attn.masked_bias": np.full((), -1e4, np.float32),
        "lm_head.weight": weights[f"{prefix}wte.weight"],
    }
    save_checkpoint(tmp_path, CONFIG, weights | old)
    _, params = load_causal_lm(tmp_path, scan=False)
    jax.tree.map(np.testing.assert_array_equal, params, model()[1])
    save_causal_lm(tmp_path / "new", CONFIG, params)
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert written.keys() == {f"transformer.{name}" for name in tensors()}

    save_checkpoint(tmp_path, CONFIG, weights | {f"{prefix}h.2.attn.c_attn.bias": np.zeros(192, np.float32)})
    with pytest.raises(UserError, match=rf"tensors not expected: {prefix}h.2.attn.c_attn.bias$"):
        load_causal_lm(tmp_path)
    with pytest.raises(UserError, match="a gpt2 model is no masked language model, expected one of bert, roberta"):
        init_masked_lm(CONFIG)


@pytest.mark.main_cases("True")
@pytest.mark.parametrize("scan", [False, True])
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_text(scan):
    module, params = model(scan=scan)
    prompt, prefix = (0.5 * np.random.RandomState(0).standard_normal(s) for s in ((2, 64), (2, 2, 3, 4, 16)))
    inputs = batch()
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    whole = jax.jit(lambda p: module.apply({"params": p}, tokens, mask, prompt=prompt, prefix=prefix))(params)

    @jax.jit
    def extend(cache, tokens, mask, **options):
        return module.apply({"params": params}, tokens, mask, cache, method="extend", **options)

    cache = empty_cache(module.encoder, 6, 3 + 2 + 17, prefix=prefix)
    last = np.full((6, 1), 12)
    logits, cache = extend(cache, tokens[:, :13], mask[:, :13], prompt=prompt, positions=last)
    got, compiled = [logits], extend._cache_size()
    for t in range(13, 15):
        logits, cache = extend(cache, tokens[:, t : t + 1], mask[:, t : t + 1])
        got.append(logits)
    assert extend._cache_size() == compiled + 1
    recent = empty_cache(module.encoder, 6, 3)
    for t in range(15, 17):
        logits, recent = extend(recent, tokens[:, t : t + 1], mask[:, t : t + 1], before=cache)
        got.append(logits)
    assert extend._cache_size() == compiled + 2
    cache = append(cache, recent)
    real = mask[:, 12:, None]
    assert_close(np.concatenate(got, axis=1) * real, whole[:, 12:] * real)
    assert int(cache.length) == 22
    np.testing.assert_array_equal(cache.real, np.concatenate([np.ones((6, 5)), mask], axis=1))

    full, _ = extend(cache, tokens[:, :1], mask[:, :1])
    assert np.isnan(full).all()
    with pytest.raises(UserError, match="a cache of 41 slots was asked for, but this gpt2 model reads 40"):
        empty_cache(module.encoder, 1, 41)


@pytest.mark.slow
def test_logits_of_few_words_are_columns_of_all():
    module, params = model()
    inputs = batch()
    tokens, words = (inputs["input_ids"], inputs["attention_mask"]), np.array([7, 3, 69])
    vectors = params["encoder"]["embeddings"]["word"]["embedding"][words]
    positions = np.full((6, 1), 4)

    @jax.jit
    def everything(params):
        cache = empty_cache(module.encoder, 6, 17)

        def run(words=None):
            extended, _ = module.apply({"params": params}, *tokens, cache, method="extend", words=words)
            return module.apply({"params": params}, *tokens, positions=positions, words=words), extended

        return run(), run(words), run(vectors)

    whole, few, soft = everything(params)
    for some in (few, soft):
        jax.tree.map(lambda a, b: assert_close(a, b[..., words], 1e-6), some, whole)


@pytest.mark.slow
def test_greedy_texts_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    module, params = model()
    inputs = batch()
    ids, mask = inputs["input_ids"][1::2], inputs["attention_mask"][1::2]  # padded left
    theirs = torch_model(CONFIG, tensors()).generate(
        torch.tensor(ids).long(),
        attention_mask=torch.tensor(mask).long(),
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )

    @jax.jit
    def extend(cache, ids, mask):
        logits, cache = module.apply(
            {"params": params}, ids, mask, cache, method="extend", positions=np.full((3, 1), ids.shape[1] - 1)
        )
        return logits.argmax(axis=-1), cache

    word, cache = extend(empty_cache(module.encoder, 3, 25), ids, mask)
    words = [word]
    for _ in range(7):
        word, cache = extend(cache, word, np.ones((3, 1)))
        words.append(word)
    np.testing.assert_array_equal(np.concatenate(words, axis=1), theirs[:, 17:].numpy())
