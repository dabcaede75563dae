"""Adapters of classifiers that PEFT made: the adapter is read, and the head where it is of our form."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from test_peft_format import ALPHA, MATRICES, RANK, P, bases, effective, inputs, random_tree  # noqa: F401  (a fixture)
from tuned import PEFT_TARGETS

from jaxvalues.models import Classifier, build_model, head_from_modules
from jaxvalues.tuning.peft_folder import CONFIG
from jaxvalues.tuning.peft_format import from_peft

CAUSAL = ("gpt2", "llama", "gemma3_text")
CLASSIFIERS = [(kind, method) for kind, method in MATRICES if kind != "t5"]
CLASSIFIERS += [("gpt2", "prompt"), ("gpt2", "prefix"), ("llama", "prefix")]


@pytest.mark.slow
@pytest.mark.main_cases("roberta-lora", "deberta-v2-ia3", "gpt2-prompt", "llama-lora", "llama-prefix")
@pytest.mark.parametrize(("kind", "method"), CLASSIFIERS)
def test_classifiers_that_peft_made_are_read(bases, tmp_path, kind, method):  # noqa: F811
    """PEFT lists `classifier` and `score` as modules to save, and saves those that the network has."""
    import peft
    import torch
    import transformers

    base = bases(kind)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=20)
    targets = PEFT_TARGETS.get(method, {}) if kind == "mpnet" else {}
    config = {
        "lora": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, **targets),
        "ia3": lambda: peft.IA3Config(task_type="SEQ_CLS", **targets),
        "prompt": lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P),
        "prefix": lambda: peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P),
    }[method]()
    model = peft.get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 1.0 if "ia3" in name else 0.0, 0.3)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["modules_to_save"]
    adapter = from_peft(tmp_path, base.target._replace(task_type="SEQ_CLS"))
    assert jax.tree.map(np.shape, adapter.trainable) == jax.tree.map(np.shape, random_tree(base, method))
    trained = {name: weight.detach().numpy() for name, weight in model.named_parameters() if weight.requires_grad}
    for name, tensor in adapter.modules.items():
        (same,) = [leaf for key, leaf in trained.items() if key.replace(".modules_to_save.default", "").endswith(name)]
        np.testing.assert_array_equal(tensor, same)
    heads = {key: {"classifier.dense.weight", "classifier.dense.bias"} for key in ("roberta", "mpnet")}
    head = {"score.weight"} if kind in CAUSAL else heads.get(kind, {"classifier.weight", "classifier.bias"})
    assert adapter.modules.keys() >= head
    if (kind, method) in MATRICES:  # the encoder with the adapter in it
        given = {name: torch.tensor(x).long() for name, x in inputs(kind).items()}
        with torch.no_grad():
            theirs = model.eval().get_base_model().base_model(**given).last_hidden_state.numpy()
        module = build_model(base.target.hf_config, scan=False)
        (ours,) = module.apply({"params": effective(base, adapter.trainable)["encoder"]}, *inputs(kind).values())
        real = inputs(kind)["attention_mask"].astype(bool)
        np.testing.assert_allclose(ours[real], theirs[real], atol=1e-4 * np.abs(theirs[real]).max(), rtol=0)
    if kind in CAUSAL:
        classifier = Classifier(build_model(base.target.hf_config), 20, pooling="last")
        head = head_from_modules(kind, classifier, adapter.modules)
        np.testing.assert_array_equal(head["kernel"], adapter.modules["score.weight"].T)
        assert not head["bias"].any()
        assert head_from_modules(kind, classifier.clone(num_labels=3), adapter.modules) is None
        assert head_from_modules(kind, classifier.clone(pooling="mean"), adapter.modules) is None
