"""A linear head in transformers' classifiers: nothing that stands between leaves a trace, for any input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from bert_reference import CONFIGS as BERTS
from bert_reference import batch
from deberta_reference import CONFIGS as DEBERTAS
from mpnet_reference import MPNET
from safetensors.numpy import load_file, save_file

from jaxvalues.errors import UserError
from jaxvalues.models import Classifier, build_model, load_classifier, save_classifier
from jaxvalues.models.loading import abstract_params

CONFIGS = {
    "bert": BERTS["bert"],
    "roberta": BERTS["roberta"],
    "xlm-roberta": {**BERTS["roberta"], "model_type": "xlm-roberta"},
    "mpnet": MPNET,
    "deberta": DEBERTAS["deberta"],
    "deberta-v2": DEBERTAS["deberta-v3"],
}
LABELS = {"id2label": {str(i): str(i) for i in range(20)}, "label2id": {str(i): i for i in range(20)}}
TANH = ("bert", "roberta", "xlm-roberta", "mpnet")


def classifier(name: str, heads: str = "single", rate: float = 0.1, **options: Any) -> Classifier:
    return Classifier(build_model(CONFIGS[name], **options), heads=heads, dropout_rate=rate)


def saved(folder: Path, module: Classifier, name: str, norm: float = 1.0) -> dict[str, Any]:
    """Random parameters, written to `folder`; the last norm's scale and bias are about `norm`."""
    random = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (0.15 * random.standard_normal(leaf.shape) + (path[-1].key == "scale")).astype(np.float32),
        abstract_params(module),
    )
    last = max(params["encoder"]["layers"])
    params["encoder"]["layers"][last]["mlp_norm"] = {
        leaf: (norm * random.standard_normal(64)).astype(np.float32) for leaf in ("scale", "bias")
    }
    save_classifier(folder, {**CONFIGS[name], **LABELS}, module, params)
    return params


def torch_classifier(folder: Path) -> Any:
    pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "hf"
    path.mkdir()
    return path


@pytest.mark.main_cases("roberta-single", "mpnet-single", "deberta-v2-multiple")
@pytest.mark.parametrize("heads", ["single", "multiple"])
@pytest.mark.parametrize("name", CONFIGS)
def test_torch_computes_the_linear_head(name: str, heads: str, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    head = saved(folder, classifier(name, heads), name, norm=30.0)["head"]
    model = torch_classifier(folder)
    inputs = {key: torch.tensor(batch(CONFIGS["bert"])[key]) for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        first = model.base_model(**inputs).last_hidden_state[:, 0]
        logits = model(**inputs).logits
    assert first.abs().max() > 50
    kernel = torch.tensor(head["kernel"].T if heads == "multiple" else head["kernel"])
    assert torch.equal(logits, torch.nn.functional.linear(first, kernel.T.contiguous(), torch.tensor(head["bias"])))


@pytest.mark.main_cases("bert-10000.0")
@pytest.mark.parametrize("norm", [1.0, 1e4])
@pytest.mark.parametrize("name", TANH)
def test_the_bound_holds_for_the_largest_hidden_states_there_are(name: str, norm: float, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    params = saved(folder, classifier(name), name, norm)
    epsilon = load_file(folder / "model.safetensors")[dense_name(name)][0, 0]
    assert np.frexp(epsilon)[0] == 0.5  # a power of two
    # A layer norm's output is largest where one of its inputs is different from all others.
    scale, bias = (params["encoder"]["layers"]["1"]["mlp_norm"][leaf] for leaf in ("scale", "bias"))
    lonely = torch.cat([torch.eye(64), -torch.eye(64)])
    y = epsilon.item() * torch.nn.functional.layer_norm(lonely, (64,), torch.tensor(scale), torch.tensor(bias))
    assert torch.equal(torch.tanh(y), y)
    assert 2**-14 < y.abs().max() <= 2**-12  # and no smaller than it must be


def test_a_norm_that_gives_nothing_is_written_all_the_same(folder: Path) -> None:
    module = classifier("bert")
    params = saved(folder, module, "bert", norm=0.0)
    assert load_file(folder / "model.safetensors")["bert.pooler.dense.weight"][0, 0] == 2**-12
    np.testing.assert_array_equal(load_classifier(folder, module)["head"]["kernel"], params["head"]["kernel"])


def dense_name(name: str) -> str:
    return "bert.pooler.dense.weight" if name == "bert" else "classifier.dense.weight"


@pytest.mark.main_cases("roberta")
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "mpnet"])  # its head has no rate of its own
def test_further_training_drops_out_as_ours_does(name: str, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    saved(folder, classifier(name, rate=0.3), name)
    model = torch_classifier(folder).train()
    ones = torch.ones(4000, 1, 64)
    if name in ("roberta", "xlm-roberta"):
        model.classifier.out_proj = torch.nn.Identity()
        seen = model.classifier(ones)
    else:
        pooler = model.bert.pooler if name == "bert" else model.pooler
        seen = model.dropout(pooler(ones))
    seen = seen.detach().numpy()
    epsilon = load_file(folder / "model.safetensors")[dense_name(name)][0, 0] if name in TANH else 1.0
    kept = seen[seen != 0] / epsilon
    assert kept.size / seen.size == pytest.approx(0.7, abs=0.01)
    np.testing.assert_allclose(kept, 1 / 0.7, rtol=1e-5)


@pytest.mark.main_cases("bert-single", "deberta-v2-multiple")
@pytest.mark.parametrize("heads", ["single", "multiple"])
@pytest.mark.parametrize("name", CONFIGS)
def test_reading_gives_back_every_bit(name: str, heads: str, folder: Path) -> None:
    module = classifier(name, heads)
    params = saved(folder, module, name, norm=7.0)
    assert module.encoder.segments == ((0, 0), (1, 1))
    read = load_classifier(folder, module)
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    stacked = load_classifier(folder, classifier(name, heads, scan=True))["encoder"]["layers"]["0-1"]
    np.testing.assert_array_equal(
        stacked["mlp_norm"]["scale"][1], params["encoder"]["layers"]["1"]["mlp_norm"]["scale"]
    )


def test_a_folder_that_is_not_as_it_was_written_is_refused(folder: Path) -> None:
    module = classifier("bert")
    saved(folder, module, "bert")
    file = folder / "model.safetensors"
    whole = load_file(file)
    renamed = {name.replace("classifier.weight", "classifier.extra"): tensor for name, tensor in whole.items()}
    save_file(renamed, file)
    with pytest.raises(UserError, match=r"tensors missing: classifier.weight; not expected: classifier.extra"):
        load_classifier(folder, module)
    dense = whole["bert.pooler.dense.weight"]
    for wrong in (
        {"bert.pooler.dense.weight": 2 * dense},
        {"bert.pooler.dense.weight": dense + np.eye(64, k=1, dtype=np.float32)},
        {"bert.pooler.dense.bias": np.full(64, 1e-9, np.float32)},
        {"bert.encoder.layer.1.output.LayerNorm.weight": np.full(64, 9, np.float32)},  # tanh would bend
    ):
        save_file(whole | wrong, file)
        with pytest.raises(UserError, match=r"bert.pooler.dense is not as jaxvalues wrote it, so this model was train"):
            load_classifier(folder, module)
    save_file(whole, file)
    load_classifier(folder, module)


def test_another_activation_is_refused(folder: Path) -> None:
    module = classifier("deberta")
    saved(folder, module, "deberta")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pooler_hidden_act": "gelu"}))
    with pytest.raises(UserError, match="trained further"):
        load_classifier(folder, module)
