"""Generative checkpoints that are loaded by name or folder: what ends their texts, their dtype, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from speaking import PROMPTS, network, save, tokenizer

from jaxvalues import UserError, load_language_model
from jaxvalues.models import init_model, save_model
from jaxvalues.run.probe import VARIABLE

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("gpt2"))


def test_a_checkpoint_speaks_as_its_files_say(folder: Path, tmp_path: Path) -> None:
    lm = load_language_model(folder, scan=False)
    assert lm.ends == (2, lm.tokenizer.convert_tokens_to_ids("<|im_end|>"))  # the file's, and the chat template's
    free = lm.generate(PROMPTS, 8)
    copy = shutil.copytree(folder, tmp_path / "copy")
    ends = [free[0].ids[2], free[1].ids[4]]
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    ended = load_language_model(copy, scan=False, batch_size=4)
    assert ended.ends[:2] == tuple(ends)
    for before, after in zip(free, ended.generate(PROMPTS, 8), strict=True):
        last = min((before.ids.index(end) for end in ended.ends if end in before.ids), default=len(before.ids) - 1)
        assert after.ids == before.ids[: last + 1]
        assert after.finish_reason == ("stop" if after.ids[-1] in ended.ends else "length")
    chat = lm.generate([[{"role": "user", "content": "Is it?"}]], 4)
    assert len(chat[0].ids) == 4


def test_matrices_are_rounded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dtype auto is the faster one here, whichever that is; norms and biases stay float32."""
    _, params = network()
    for name in ("float32", "bfloat16"):
        monkeypatch.setenv(VARIABLE, name)
        from jaxvalues.run.probe import cpu_dtype

        cpu_dtype.cache_clear()
        lm = load_language_model(folder, scan=False)
        assert lm.module.encoder.dtype == jnp.dtype(name)
        held = lm.bound.params["encoder"]
        kernel = held["layers"]["0"]["mlp"]["up"]["kernel"]
        assert kernel.dtype == held["embeddings"]["word"]["embedding"].dtype == jnp.dtype(name)
        assert held["norm"]["scale"].dtype == held["embeddings"]["position"]["embedding"].dtype == jnp.float32
        expected = jnp.asarray(params["encoder"]["layers"]["0"]["mlp"]["up"]["kernel"], name)
        np.testing.assert_array_equal(np.asarray(kernel, np.float32), np.asarray(expected, np.float32))
    monkeypatch.undo()
    cpu_dtype.cache_clear()
    assert lm.score(PROMPTS, [" Yes", " No"]).dtype == np.float32
    assert all(len(one.ids) == 3 for one in lm.generate(PROMPTS, 3))


def test_what_cannot_speak_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dtype 'int3' is not supported, expected auto, float32 or bfloat16"):
        load_language_model(folder, dtype="int3")
    with pytest.raises(UserError, match="does not exist"):
        load_language_model(tmp_path / "nowhere")
    bert = {**tiny.ROBERTA, "vocab_size": 338}
    save_model(tmp_path / "bert", bert, init_model(bert, scan=False)[1])
    tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="a roberta model is no causal language model"):
        load_language_model(tmp_path / "bert")
    with pytest.raises(UserError, match="tokenizer is 5, expected a folder or a name on the hub"):
        load_language_model(folder, tokenizer=5)
    sizeless = shutil.copytree(folder, tmp_path / "sizeless")
    config = json.loads((sizeless / "config.json").read_text())
    (sizeless / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "vocab_size"}))
    with pytest.raises(UserError, match=r"sizeless: config\.json lacks vocab_size"):
        load_language_model(sizeless)
    bare = shutil.copytree(folder, tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_language_model(bare)
    small = shutil.copytree(folder, tmp_path / "small")
    (small / "generation_config.json").write_text('{"eos_token_id": 5000}')
    with pytest.raises(UserError, match=r"eos_token_id in generation_config.json is 5000, expected ids"):
        load_language_model(small)
